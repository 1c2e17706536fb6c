// A running connection: the remote subsystem, the faces in front of it, the control socket beside
// it, and the command that it may serve. Brings them up in order and takes them down in order,
// within kEndTimeMax whatever the target, a client or the command does. When the target is lost,
// all of it stays: the subsystem looks for the target, requests wait.
//
// Everything happens on reactor 0, the main thread; the data path on all of them.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "connect_options.h"
#include "connection_events.h"
#include "connection_faces.h"
#include "control/crash_record.h"
#include "control/runtime_dir.h"
#include "control/server.h"
#include "discovery_follower.h"
#include "host/subsystem.h"
#include "io/reactor_pool.h"
#include "io/wire_trace.h"
#include "tool_background.h"
#include "tool_command.h"
#include "tool_service.h"

namespace nvmf::tools {

/// From the first request to end until the process may go.
inline constexpr Duration kEndTimeMax = std::chrono::seconds(2);

class Connection final : public host::SubsystemEvents {
 public:
  /// `claim` is the connection's name; options.params.name is the same. `crash_record` has taken
  /// over what there was. All outlive it. Destroyed when the pool has been joined.
  Connection(ConnectOptions options, const control::RuntimeDir& runtime, control::Claim& claim,
             control::OwnCrashRecord& crash_record, io::ReactorPool& pool, Reporter& reporter);
  ~Connection();

  /// Opens the control socket and starts to connect. What follows ends with the pool stopped.
  Result<void> start();
  /// Ends it in order, as asked by a signal. The second time at once: whatever waits gets an error.
  void end_by_signal(const std::string& why);
  /// When the pool has stopped.
  [[nodiscard]] int exit_status() const { return exit_status_; }

  // host::SubsystemEvents
  void on_live() override;
  void on_lost(const Error& reason) override;
  void on_live_again() override;
  void on_namespace_attached(std::uint32_t nsid) override;
  void on_namespace_detached(std::uint32_t nsid) override;
  void on_namespace_changed(std::uint32_t nsid) override;
  void on_event(const host::HostEvent& event) override;
  void on_ended(const Error& reason) override;

 private:
  enum class State : std::uint8_t { connecting, live, ending };

  // Up.
  Result<void> record_live();
  Result<void> make_faces_of_all();
  [[nodiscard]] std::string identity(std::uint32_t nsid) const;
  [[nodiscard]] frontends::Disk disk(std::uint32_t nsid);
  [[nodiscard]] std::vector<ConnectionText> texts();
  void face_gone(const std::string& how);
  [[nodiscard]] bool has_faces() const { return faces_ && state_ != State::ending; }
  void serving(const Result<void>& started);
  void tell_of_short_patience();
  void announce();
  void tell_of_other_places();
  [[nodiscard]] std::string in_words(std::string_view state) const;
  [[nodiscard]] std::string discovery_uri() const;
  void make_follower();
  Result<void> start_command();

  // Down, step by step: the command, the faces with the subsystem behind them, the control socket,
  // the reactors.
  void fail_with(const Error& reason);
  void ask_end(const std::string& why);
  void end(int status);
  void hurry();
  void command_ended(int status);
  void stop_serving();
  void stop_follower();
  void stop_subsystem();
  void stop_control();
  void force_end();

  // Verbs (connection_verbs.cpp).
  void add_verbs();
  [[nodiscard]] nlohmann::json health() const;
  [[nodiscard]] nlohmann::json status(const std::vector<host::NamespaceHealth>& healths) const;
  [[nodiscard]] nlohmann::json namespaces_status(
      const std::vector<host::NamespaceHealth>& healths) const;
  [[nodiscard]] nlohmann::json namespace_status(const host::Namespace& ns,
                                                const host::NamespaceHealth* health) const;
  host::Task<void> run_status(control::Responder respond);
  void set_policy(const nlohmann::json& args, control::Responder respond);
  void reset(control::Responder respond);
  void trace(const nlohmann::json& args, control::Responder respond);
  host::Task<void> run_accept(std::uint32_t nsid, control::Responder respond);
  host::Task<void> run_rescan(control::Responder respond);
  [[nodiscard]] Error lost_target() const;
  void passthrough(const nlohmann::json& args, control::Server::Payload payload,
                   control::Responder respond);
  host::Task<void> run_passthrough(host::PassthroughCommand command,
                                   control::Server::Payload payload, control::Responder respond);

  ConnectOptions options_;
  const control::RuntimeDir& runtime_;
  control::Claim& claim_;
  control::OwnCrashRecord& crash_record_;
  io::ReactorPool& pool_;
  Reporter& reporter_;
  transport::Loop& loop_;
  control::Server control_;
  io::WireTrace trace_;
  EventBoard events_;
  std::unique_ptr<host::RemoteSubsystem> subsystem_;
  std::unique_ptr<DiscoveryFollower> follower_;  // with --connect-all
  std::unique_ptr<Faces> faces_;
  Service service_;
  std::unique_ptr<Command> command_;
  State state_ = State::connecting;
  std::string controller_text_;                 // its Identify data then
  std::unique_ptr<nlohmann::json> controller_;  // what the last live association told of it
  Instant live_at_{};
  std::optional<Duration> writes_held_at_most_;  // as FaceContext has it
  std::uint64_t lives_ = 0;                      // associations that went live
  int exit_status_ = 0;
  bool lost_ = false;
  bool serving_stopped_ = false;     // stop_serving() was called
  bool faces_stopped_ = false;       // and has been done
  bool subsystem_stopping_ = false;  // stop() was called
  bool subsystem_ended_ = false;
  bool control_stopping_ = false;
  bool follower_stopping_ = false;
  transport::Timer command_timer_;
  transport::Timer grace_timer_;
  transport::Timer hurry_timer_;
  transport::Timer deadline_;
};

}  // namespace nvmf::tools
