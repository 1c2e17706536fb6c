// An NVMe/TCP target: subsystems, listeners, and the connections of hosts.
//
// Everything about a target happens on the thread of its one Loop: nvmf-target runs one reactor, so
// that namespaces, controllers and queues need no lock.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "controller/buffer_pool.h"
#include "controller/config.h"
#include "controller/controller.h"
#include "controller/discovery.h"
#include "controller/session.h"
#include "controller/subsystem.h"
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

  /// Adds a namespace to a subsystem; its controllers tell their hosts. The NSID.
  Result<std::uint32_t> add_namespace(std::string_view subnqn, const NamespaceConfig& config);

  [[nodiscard]] transport::Loop& loop() { return loop_; }
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

 private:
  Target(transport::Loop& loop, TargetConfig config);
  void accept(std::unique_ptr<transport::Incoming> incoming, std::uint16_t port_id);
  void controller_gone(Controller& controller) override;
  void reap();

  transport::Loop& loop_;
  TargetConfig config_;
  BufferPool buffers_;
  std::vector<std::unique_ptr<Subsystem>> subsystems_;
  std::unordered_map<std::string_view, Subsystem*> by_nqn_;
  std::unique_ptr<Subsystem> discovery_subsystem_;
  DiscoveryService discovery_{subsystems_};
  std::vector<std::unique_ptr<transport::Listener>> listeners_;
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
