// RemoteSubsystem: how an association is followed by the next one, and what its namespaces may do
// meanwhile.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "host/connect_error.h"
#include "host/log.h"
#include "host/subsystem.h"

namespace nvmf::host {

namespace {

double seconds(Duration d) {
  return std::chrono::duration<double>(d).count();
}

}  // namespace

void RemoteSubsystem::take(std::unique_ptr<Association> association) {
  association_ = std::move(association);
  io_share_.set_slots(
      std::max(association_->info.io_queue_entries / kPassthroughIoShare, std::uint32_t{1}));
  extents_slow_ = false;
  association_->made();
  association_->on_namespaces_changed = [this](std::vector<std::uint32_t> nsids) {
    return check_namespaces(std::move(nsids));
  };
  association_->on_event = [this](HostEvent event) { emit(std::move(event)); };
}

// ---- the loss ----

void RemoteSubsystem::begin_loss(const Error& reason) {
  const Instant now = loops_[0]->now();
  state_ = State::lost;
  ++losses_;
  last_loss_ = reason.message;
  last_attempt_.clear();
  reconnect_.lost(now);
  arm_timers();
  cancel_passthrough(nullptr, ENOTCONN);
  events_.on_lost(reason);
  tell_all_users();
  emit({.kind = EventKind::connection_lost, .message = reason.message});
}

/// From its loss, or shutdown, to the last of its connections; and what follows for unanswered
/// writes.
Task<void> RemoteSubsystem::end_association() {
  Association& a = *association_;
  if (!stop_asked_) co_await a.settle();
  co_await a.close(a.end_reason());
  // What was lent has come home when its lender went down.
  co_await return_lent_queues();
  const AssociationEnd end = a.how_it_ended();
  const Instant lifts_at = nothing_executes_from(end, params_);
  safe_at_ = std::max(safe_at_, lifts_at);
  on_all_devices([lifts_at](NamespaceDevice& device) { device.settle_losses(lifts_at); });
  for (const NamespaceState& s : states_) {
    if (s.replayer) s.replayer->settle_losses(lifts_at);
  }
  if (bare_) bare_->settle_losses(lifts_at);
  if (!stop_asked_) count_unflushed();
  // Tools' commands have been told by now, but for those that wait, or were to be done again; let
  // them go before what they use goes.
  cancel_passthrough(nullptr, ENOTCONN);
  co_await tasks_.wait_empty();
  association_.reset();
}

/// What an earlier process may have left under way.
void RemoteSubsystem::hold_writes() {
  if (params_.hold_writes <= Duration::zero() || !params_.fence || groups_.empty()) return;
  const bool never = params_.hold_writes == Duration::max();
  const Instant lifts_at = never ? kNever : loops_[0]->now() + params_.hold_writes;
  safe_at_ = std::max(safe_at_, lifts_at);
  loops_[0]->post([devices = devices_on(0), lifts_at] {
    for (NamespaceDevice* device : devices) device->fence_all(lifts_at);
  });
}

void RemoteSubsystem::wake() {
  if (waiter_ != nullptr) std::exchange(waiter_, nullptr)->fire();
}

Task<void> RemoteSubsystem::wait_until(Instant at) {
  Signal waiter(*loops_[0]);
  transport::Timer timer(loops_[0]->timers(), [this] { wake(); });
  timer.arm(at);
  waiter_ = &waiter;
  co_await waiter;
}

/// True when there is an association again; false when there will be none.
Task<bool> RemoteSubsystem::reconnect() {
  while (!stop_asked_ && !given_up_) {
    const auto next = reconnect_.next_attempt_at();
    if (next && *next > loops_[0]->now()) {
      co_await wait_until(*next);
      continue;  // whatever woke us: look again
    }
    reconnect_.attempt_begins(loops_[0]->now());
    const auto error = co_await try_once();
    if (!error) co_return true;
    count(counters_->failed_attempts);
    reconnect_.attempt_failed(loops_[0]->now(), error->code == ECONNREFUSED);
    if (stop_asked_ || given_up_) break;
    if (last_attempt_ != error->message) {
      last_attempt_ = error->message;
      log(LogLevel::info, error->message);
      emit({.kind = EventKind::attempt_failed, .message = error->message});
      if (stop_asked_) break;
    }
    if (final_for_reconnect(*error)) given_up_ = *error;
  }
  co_return false;
}

Task<std::optional<Error>> RemoteSubsystem::try_once() {
  // The reactors that have clients are those that there were at first; the control loop has the
  // admin queue, also if there is nothing else.
  const std::size_t reactors = std::max<std::size_t>(groups_.size(), 1);
  std::vector<transport::Loop*> loops(loops_.begin(),
                                      loops_.begin() + static_cast<std::ptrdiff_t>(reactors));
  auto made =
      co_await bring_up(params_, std::move(loops), bring_up_control_, WhenBusy::fail, counters_);
  if (!made) co_return made.error();
  take(std::move(*made));
  for (std::size_t i = 0; i < namespaces_.size(); ++i) {
    const auto& there = association_->namespaces;
    const auto found = std::ranges::find(there, namespaces_[i]->info.nsid,
                                         [](const auto& ns) { return ns->info.nsid; });
    const std::uint32_t nsid = namespaces_[i]->info.nsid;
    if (std::ranges::find(association_->unsure_namespaces, nsid) !=
        association_->unsure_namespaces.end()) {
      const Error reason{fmt::format("the controller cannot tell of namespace {} yet", nsid),
                         EAGAIN};
      association_->end(reason);
      co_await end_association();
      co_return reason;
    }
    if (found == there.end() && !states_[i].attached) continue;  // nobody expects it
    judge(i, found != there.end() ? *found : nullptr);
  }
  co_await serve_found();
  co_await attach_queues();
  if (association_->ending() || stop_asked_) {
    const Error reason = association_->ending() ? association_->end_reason() : Error{"", 0};
    association_->end(reason);
    co_await end_association();
    co_return reason;
  }
  co_await resume_all();
  co_return std::nullopt;
}

/// Before the queues are attached, devices that stopped have been told so.
Task<void> RemoteSubsystem::resume_all() {
  const Instant now = loops_[0]->now();
  log(LogLevel::info,
      fmt::format("connected to {} again after {:.1f} s and {} attempts", params_.subnqn,
                  seconds(now - reconnect_.lost_at()), reconnect_.attempts()));
  reconnect_.live_again();
  count(counters_->reconnects);
  failing_ = false;
  state_ = State::live;
  // A timer that is due meanwhile finds it live: what was failing fails no more.
  std::vector<const NamespaceState*> going_on;
  for (const NamespaceState& s : states_) {
    if (s.stopped.empty()) going_on.push_back(&s);
  }
  const RetryDelays delays = association_->info.retry_delays;
  for (std::size_t r = 0; r < groups_.size(); ++r) {
    std::vector<NamespaceDevice*> devices;
    devices.reserve(going_on.size());
    for (const NamespaceState* s : going_on) devices.push_back(s->devices[r].get());
    QueueGroup& group = *groups_[r];
    co_await switch_to(group.loop());
    group.set_retry_delays(delays);
    for (NamespaceDevice* device : devices) device->set_failing(0);
    co_await switch_to(*loops_[0]);
  }
  if (stop_asked_) co_return;
  for (std::size_t i = 0; i < states_.size(); ++i) begin_replay(i);
  arm_timers();
  events_.on_live_again();
  tell_all_users();
  emit({.kind = EventKind::connection_live,
        .message = fmt::format("connected to {} again", params_.subnqn)});
}

// ---- deadlines ----

std::optional<Duration> RemoteSubsystem::patience() const {
  const LossPolicy& policy = reconnect_.policy();
  return policy.fast_io_fail ? policy.fast_io_fail : policy.ctrl_loss;
}

void RemoteSubsystem::arm_timers() {
  std::optional<Instant> first;
  const auto consider = [&first](const std::optional<Instant>& at) {
    if (at && *at != Instant::max() && (!first || *at < *first)) first = at;
  };
  if (state_ == State::lost) {
    if (!failing_) consider(reconnect_.io_fails_at());
    consider(reconnect_.gone_at());
  }
  for (const NamespaceState& s : states_) consider(s.fails_at);
  timer_.cancel();
  if (first) timer_.arm(*first);
}

void RemoteSubsystem::on_timer() {
  const Instant now = loops_[0]->now();
  if (state_ == State::lost && !given_up_) {
    const auto gone_at = reconnect_.gone_at();
    if (gone_at && *gone_at <= now) {
      given_up_ = Error{fmt::format("{} (given up after {:g} s, --ctrl-loss-tmo)", last_loss_,
                                    seconds(now - reconnect_.lost_at())),
                        ETIMEDOUT};
      bring_up_control_.cancel(*given_up_);
      if (association_ != nullptr) association_->end(*given_up_);
      wake();
      return;
    }
    const auto fails_at = reconnect_.io_fails_at();
    if (!failing_ && fails_at && *fails_at <= now) {
      failing_ = true;
      log(LogLevel::warning,
          fmt::format("{}: requests fail until the target is back (--fast_io_fail_tmo)",
                      params_.name));
      on_all_devices([](NamespaceDevice& device) { device.set_failing(EIO); });
      // What is in flight on queues that are still being wound up fails with them.
      if (association_ != nullptr && association_->ending()) {
        association_->end(association_->end_reason());
      }
      tell_all_users();
    }
  }
  fail_stopped();
  arm_timers();
}

void RemoteSubsystem::fail_stopped() {
  for (std::size_t i = 0; i < states_.size(); ++i) {
    if (states_[i].fails_at > loops_[0]->now()) continue;
    states_[i].fails_at = Instant::max();
    states_[i].failing = true;
    on_devices(i, [](NamespaceDevice& device) { device.set_failing(EIO); });
    tell_users(i);
  }
}

Result<void> RemoteSubsystem::set_policy(const LossPolicy& policy) {
  if (auto ok = check(policy); !ok) return ok;
  if (state_ == State::stopping || state_ == State::ended) {
    return fail(params_.name + " is being disconnected", ENOTCONN);
  }
  reconnect_.set_policy(policy, loops_[0]->now());
  params_.loss = policy;
  // Deadlines that are no more, or not yet: what failed meanwhile has failed.
  const auto fails_at = reconnect_.io_fails_at();
  if (failing_ && (!fails_at || *fails_at > loops_[0]->now())) {
    failing_ = false;
    for (std::size_t i = 0; i < states_.size(); ++i) {
      if (!states_[i].stopped.empty()) continue;
      on_devices(i, [](NamespaceDevice& device) { device.set_failing(0); });
    }
  }
  for (std::size_t r = 0; r < groups_.size(); ++r) {
    loops_[r]->post([group = groups_[r].get(), p = patience()] { group->set_patience(p); });
  }
  if (state_ == State::live || state_ == State::lost) arm_timers();
  tell_all_users();
  wake();
  return {};
}

Result<void> RemoteSubsystem::reset() {
  if (!live()) return fail(params_.name + " is not connected", ENOTCONN);
  association_->lose(Error{"the controller was reset on request", ECONNRESET});
  return {};
}

}  // namespace nvmf::host
