// An NVMe/TCP target: subsystems, listeners, and the connections of hosts.
//
// Everything about a target happens on the thread of its one Loop: nvmf-target runs one reactor, so
// that namespaces, controllers and queues need no lock.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "controller/buffer_pool.h"
#include "controller/config.h"
#include "controller/controller.h"
#include "controller/discovery.h"
#include "controller/faults.h"
#include "controller/namespace.h"
#include "controller/session.h"
#include "controller/subsystem.h"
#include "nvme/address.h"
#include "nvme/result.h"
#include "transport/loop.h"

namespace nvmf::controller {

class Target final : public ControllerOwner {
 public:
  /// Checks the configuration and opens every namespace. The error names what is wrong with which.
  static Result<std::unique_ptr<Target>> create(transport::Loop& loop, TargetConfig config);
  /// Only after stop() has called back, or if nothing was ever accepted.
  ~Target();

  /// Accepts connections there; any number of places. Where it listens really (port 0).
  Result<transport::Endpoint> listen(const transport::Endpoint& at);

  /// Accepts nothing more, ends every connection and waits for the disks, at most kStopTimeout.
  /// `done` is called once, not inside. With an error, operations on a disk are still under way:
  /// then neither the target nor the loop may be destroyed, only the process left.
  void stop(std::move_only_function<void(Result<void>)> done);

  // Namespaces; the controllers tell their hosts. The error names what is wrong.
  /// `nsid` 0: one above the highest. The NSID.
  Result<std::uint32_t> add_namespace(std::string_view subnqn, const NamespaceConfig& config,
                                      std::uint32_t nsid = 0);
  Result<void> remove_namespace(std::string_view subnqn, std::uint32_t nsid);
  /// Another disk with other identifiers under the same NSID.
  Result<void> swap_namespace(std::string_view subnqn, std::uint32_t nsid,
                              const NamespaceConfig& config);
  Result<void> resize_namespace(std::string_view subnqn, std::uint32_t nsid,
                                std::uint64_t size_bytes);
  /// Hosts may not write it, or may again.
  Result<void> protect_namespace(std::string_view subnqn, std::uint32_t nsid, bool protect);

  /// The state of an ANA group on the port of that ID (places of listen(), from 1), or with 0 on
  /// all; the controllers tell their hosts.
  Result<void> set_ana_state(std::string_view subnqn, std::uint32_t group, nvme::AnaState state,
                             std::uint16_t port_id = 0);

  // Subsystems, hosts and referrals; discovery controllers of the hosts that see a difference tell
  // them. The error names what is wrong.
  Result<void> add_subsystem(const SubsystemConfig& config);
  /// Ends its controllers; its namespaces are freed when the last operation on them has ended.
  Result<void> remove_subsystem(std::string_view subnqn);
  Result<void> allow_host(std::string_view subnqn, const std::string& hostnqn);
  /// Ends that host's controllers.
  Result<void> disallow_host(std::string_view subnqn, const std::string& hostnqn);
  Result<void> add_referral(const nvme::HostPort& at);
  Result<void> remove_referral(const nvme::HostPort& at);
  [[nodiscard]] const DiscoveryService& discovery() const { return discovery_; }

  /// What a target that is restarted is to be like.
  struct Restart {
    Duration down{};                          // nobody listens for this long
    bool power_loss = false;                  // what was not flushed is lost, and every ghost
    std::optional<std::uint32_t> max_queues;  // other limits from now on
    std::optional<std::uint32_t> queue_entries;
  };
  /// Ends every connection, forgets every controller, stops listening, and listens again where it
  /// did. Without power loss, namespaces keep what they hold, and operations that a disk has begun
  /// are brought to their end. A restart while another one is under way takes its place.
  Result<void> restart(const Restart& how);
  /// Between a restart and the time at which it listens again.
  [[nodiscard]] bool down() const { return listen_again_.armed(); }

  [[nodiscard]] Faults& faults() { return faults_; }
  [[nodiscard]] transport::Loop& loop() { return loop_; }
  /// Limits as they are; subsystems and referrals as they were at the start.
  [[nodiscard]] const TargetConfig& config() const { return config_; }
  [[nodiscard]] BufferPool& buffers() { return buffers_; }
  [[nodiscard]] std::size_t connection_count() const { return sessions_.size(); }
  [[nodiscard]] std::size_t controller_count() const { return controllers_.size(); }
  /// The discovery subsystem too; nothing if there is none of that name.
  [[nodiscard]] Subsystem* find(std::string_view subnqn);
  void log(const std::string& line) override;

  // For sessions.
  /// Nothing if no CNTLID is left. `identity.cntlid` is filled in.
  Controller* make_controller(Subsystem& subsystem, Controller::Identity identity);
  /// The session's connection has ended and nothing of it is under way.
  void session_gone(Session& session);

  // For faults.
  /// In the order of their coming.
  [[nodiscard]] std::vector<Session*> sessions() const;
  [[nodiscard]] std::vector<Controller*> controllers() const;
  [[nodiscard]] bool has(Session& session) const { return sessions_.contains(&session); }
  [[nodiscard]] const std::vector<std::unique_ptr<Subsystem>>& subsystems() const {
    return subsystems_;
  }
  /// Looks at the next turn whether something can be destroyed, or stop() is done.
  void reap_soon();

 private:
  Target(transport::Loop& loop, TargetConfig config);
  void accept(std::unique_ptr<transport::Incoming> incoming, std::uint16_t port_id);
  void controller_gone(Controller& controller) override;
  void reap();
  Result<transport::Endpoint> open_listener(const transport::Endpoint& at, std::uint16_t port_id);
  void listen_again();
  Result<Subsystem*> changeable(std::string_view subnqn);
  /// Another generation, and an event for the discovery controllers of hosts for whom `visible`.
  void discovery_changed(const std::function<bool(const std::string&)>& visible);

  /// Where we listen, also while we do not. Port IDs are places in here plus one.
  struct Place {
    transport::Endpoint at;
    std::unique_ptr<transport::Listener> listener;
  };

  transport::Loop& loop_;
  TargetConfig config_;
  BufferPool buffers_;
  Faults faults_{*this};  // before the disks, which tell it of their end
  NamespaceMaker maker_{loop_, &config_, &faults_};
  std::vector<std::unique_ptr<Subsystem>> subsystems_;
  std::unordered_map<std::string_view, Subsystem*> by_nqn_;
  std::vector<std::unique_ptr<Subsystem>> retired_;  // and not gone() yet
  std::unique_ptr<Subsystem> discovery_subsystem_;
  DiscoveryService discovery_{subsystems_};
  std::vector<Place> places_;
  transport::Timer listen_again_;
  std::uint32_t listen_attempts_ = 0;
  std::uint64_t next_session_ = 1;
  std::unordered_map<Controller*, std::unique_ptr<Controller>> controllers_;
  std::unordered_map<Session*, std::unique_ptr<Session>> sessions_;

  // What has ended is destroyed at the loop's next turn: it may still be on the call stack.
  std::vector<std::unique_ptr<Session>> dead_sessions_;
  std::vector<std::unique_ptr<Controller>> dead_controllers_;
  transport::Timer reaper_;
  transport::Timer stop_deadline_;
  bool stopping_ = false;
  std::move_only_function<void(Result<void>)> stopped_;
};

}  // namespace nvmf::controller
