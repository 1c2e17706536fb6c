// Keeps what a discovery controller knows of connected: whenever its log may have changed, reads it
// over the connection that there is and runs ConnectAll. What could not be connected is tried again
// after a while. Never ends a connection: those whose subsystem has gone from the log notice
// themselves.
#pragma once

#include <functional>
#include <set>
#include <string>

#include "connect_all.h"
#include "host/subsystem.h"
#include "transport/timer.h"

namespace nvmf::tools {

/// After a run in which something failed, the pause until the next; doubled up to the last.
inline constexpr Duration kFollowPauseFirst = std::chrono::seconds(5);
inline constexpr Duration kFollowPauseLast = std::chrono::minutes(10);

class DiscoveryFollower {
 public:
  /// All on `loop`, the control loop of `controller`. Everything outlives this. Destroyed when
  /// idle.
  DiscoveryFollower(transport::Loop& loop, const control::RuntimeDir& runtime,
                    host::RemoteSubsystem& controller, ConnectAllOptions options);

  /// The log may have changed, or can be read again: looks soon, and once more if it is looking.
  void look();
  /// Nothing more is begun; `on_idle` is called, not inside, when nothing is under way any more.
  void stop(std::function<void()> on_idle);
  [[nodiscard]] bool idle() const { return !running_; }

 private:
  host::Task<void> run();
  host::Task<void> run_once();
  void try_again_later();
  void say(const std::string& sentence);

  transport::Loop& loop_;
  host::RemoteSubsystem& controller_;
  ConnectAll all_;
  transport::Timer again_timer_;
  Duration pause_ = kFollowPauseFirst;
  bool running_ = false;
  bool again_ = false;
  bool stopped_ = false;
  std::function<void()> on_idle_;
  std::set<std::string> said_;         // in this run
  std::set<std::string> said_before_;  // in the one before: no news
};

}  // namespace nvmf::tools
