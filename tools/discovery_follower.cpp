#include "discovery_follower.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "host/log.h"

namespace nvmf::tools {

DiscoveryFollower::DiscoveryFollower(transport::Loop& loop, const control::RuntimeDir& runtime,
                                     host::RemoteSubsystem& controller, ConnectAllOptions options)
    : loop_(loop),
      controller_(controller),
      all_(loop, runtime, std::move(options),
           {.print =
                [](const std::string& line) {
                  host::log(host::LogLevel::info, "connected to what is new: " + line);
                },
            .complain = [this](const std::string& sentence) { say(sentence); }}),
      again_timer_(loop.timers(), [this] { look(); }) {}

void DiscoveryFollower::look() {
  if (stopped_) return;
  again_ = true;
  again_timer_.cancel();
  if (running_) return;
  running_ = true;
  loop_.post([this] { host::spawn(run()); });
}

void DiscoveryFollower::stop(std::function<void()> on_idle) {
  stopped_ = true;
  again_timer_.cancel();
  all_.stop();
  on_idle_ = std::move(on_idle);
  if (!running_) loop_.post([this] { std::exchange(on_idle_, nullptr)(); });
}

host::Task<void> DiscoveryFollower::run() {
  while (std::exchange(again_, false) && !stopped_) co_await run_once();
  running_ = false;
  if (stopped_ && on_idle_) loop_.post(std::exchange(on_idle_, nullptr));
}

host::Task<void> DiscoveryFollower::run_once() {
  said_before_ = std::exchange(said_, {});
  auto log = co_await host::read_discovery_log(loop_, controller_);
  if (stopped_) co_return;
  if (!log) {
    // Without an association there will be another one, and then we are called.
    if (log.error().code == ENOTCONN) co_return;
    say(log.error().message);
    co_return try_again_later();
  }
  host::log(host::LogLevel::info, fmt::format("the discovery log has {} records (generation {})",
                                              log->header.numrec, log->header.genctr));
  const ConnectAllOutcome outcome = co_await all_.run(std::move(*log));
  if (stopped_) co_return;
  if (outcome.failed != 0 || outcome.answered != outcome.asked) co_return try_again_later();
  pause_ = kFollowPauseFirst;
}

void DiscoveryFollower::try_again_later() {
  again_timer_.arm(loop_.now() + pause_);
  pause_ = std::min(2 * pause_, kFollowPauseLast);
}

void DiscoveryFollower::say(const std::string& sentence) {
  said_.insert(sentence);
  if (!said_before_.contains(sentence)) host::log(host::LogLevel::warning, sentence);
}

}  // namespace nvmf::tools
