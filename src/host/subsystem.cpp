#include "host/subsystem.h"

#include <algorithm>
#include <utility>

#include "host/connect_error.h"
#include "nvme/check.h"

namespace nvmf::host {

namespace {

// What is in flight when a connection is ended on purpose may take this long.
constexpr Duration kDrain = std::chrono::milliseconds(500);
constexpr Duration kDrainPoll = std::chrono::milliseconds(5);

std::uint64_t jitter_seed(const ConnectParams& p) {
  if (p.jitter_seed != 0) return p.jitter_seed;
  std::uint64_t seed = 0;
  for (const std::byte b : p.hostid) seed = seed * 257 + static_cast<std::uint64_t>(b);
  return seed;
}

}  // namespace

RemoteSubsystem::RemoteSubsystem(ConnectParams params, std::vector<transport::Loop*> loops,
                                 SubsystemEvents& events)
    : params_(std::move(params)),
      loops_(std::move(loops)),
      events_(events),
      io_share_(*loops_.at(0), kPassthroughWaitersMax),
      alone_(*loops_[0], kPassthroughWaitersMax),
      look_(*loops_[0], kRescanWaitersMax),
      newcomers_(*loops_[0], kNewcomersWaitersMax),
      extents_share_(*loops_[0], kExtentsWaitersMax),
      tasks_(*loops_.at(0)),
      replays_(*loops_[0]),
      reconnect_(params_.loss, jitter_seed(params_)),
      timer_(loops_[0]->timers(), [this] { on_timer(); }) {
  extents_share_.set_slots(kExtentsCommandsMax);
}

RemoteSubsystem::~RemoteSubsystem() {
  NVMF_CHECK(state_ == State::idle || state_ == State::ended);
}

void RemoteSubsystem::start() {
  NVMF_CHECK(state_ == State::idle);
  state_ = State::connecting;
  started_at_ = loops_[0]->now();
  spawn(run());
}

void RemoteSubsystem::stop(bool force) {
  if (state_ == State::idle || state_ == State::ended) return;
  const bool again = std::exchange(stop_asked_, true);
  if (again && (!force || forced_)) return;
  cancel_passthrough(nullptr, ENOTCONN);
  if (state_ == State::live && !force) {
    state_ = State::stopping;
    spawn(wind_down());
    return;
  }
  forced_ = true;
  const Error reason{"the connection was called off", 0};
  bring_up_control_.cancel(reason);
  if (association_ != nullptr) association_->end(reason);
  wake();
}

Task<void> RemoteSubsystem::run() {
  co_await switch_to(*loops_[0]);
  auto made = co_await bring_up(params_, loops_, bring_up_control_, WhenBusy::wait, counters_);
  Error reason;
  if (made) {
    take(std::move(*made));
    namespaces_ = association_->namespaces;
    refused_namespaces_ = association_->refused_namespaces;
    make_devices();
    hold_writes();
    co_await attach_queues();
    if (stop_asked_) association_->end(Error{"the connection was called off", 0});
    // On a first connect every error is final.
    const bool came = !association_->ending();
    if (came) {
      state_ = State::live;
      for (std::size_t i = 0; i < states_.size(); ++i) states_[i].told = to_be_told(i);
      told_live_ = true;
      events_.on_live();
    }
    do {
      co_await association_->ended();
      reason = association_->end_reason();
      if (!stop_asked_ && came) begin_loss(reason);
      co_await end_association();
    } while (!stop_asked_ && came && co_await reconnect());
    timer_.cancel();
    if (given_up_) reason = *given_up_;
    state_ = State::stopping;
    co_await shut_groups(stop_asked_ ? ESHUTDOWN : EIO, ESHUTDOWN, Duration::zero());
    co_await tasks_.wait_empty();
    co_await replays_.wait_empty();
  } else {
    reason = made.error();
  }
  state_ = State::ended;
  if (stop_asked_) reason = Error{"disconnected from " + params_.subnqn, 0};
  events_.on_ended(reason);
}

/// The orderly end of a live association. A loss meanwhile ends it faster.
Task<void> RemoteSubsystem::wind_down() {
  const Gate::Pass inside(tasks_);
  co_await shut_groups(ESHUTDOWN, ESHUTDOWN, kDrain);
  co_await association_->shut_down();
}

RemoteSubsystem::NamespaceState RemoteSubsystem::new_state(const Namespace& ns) {
  NamespaceState s;
  s.shared = std::make_shared<NamespaceShared>(params_.unflushed);
  s.shared->rules = params_.rules;
  s.shared->extents = this;
  if (params_.unflushed == Unflushed::replay) {
    s.shared->replay_bytes = std::max<std::size_t>(params_.replay_bytes_max / groups_.size(), 1);
  }
  s.shared->unflushed.set_cache(association_->info.volatile_write_cache);
  s.attached = true;
  s.told = {.size_bytes = ns.info.size_bytes, .read_only = ns.info.read_only};
  return s;
}

std::shared_ptr<RangeHolds> RemoteSubsystem::holds_of_all() const {
  return RangeHolds::make({loops_.data(), loops_.data() + groups_.size()});
}

void RemoteSubsystem::add_replayer(NamespaceState& s, const std::shared_ptr<const Namespace>& ns) {
  if (params_.unflushed != Unflushed::replay) return;
  s.replayer = std::make_unique<NamespaceDevice>(ns, *groups_[0], RangeHolds::make({loops_[0]}), 0);
}

/// Before any reactor knows of them.
void RemoteSubsystem::make_devices() {
  const std::size_t reactors = std::min(loops_.size(), association_->queues().size());
  for (std::size_t r = 0; r < reactors; ++r) {
    groups_.push_back(std::make_unique<QueueGroup>(*loops_[r]));
    groups_.back()->set_patience(patience());
    groups_.back()->set_retry_delays(association_->info.retry_delays);
  }
  if (reactors == 0) {
    namespaces_.clear();  // nothing could be asked of them
    return;
  }
  for (const auto& ns : namespaces_) {
    NamespaceState& s = states_.emplace_back(new_state(*ns));
    const auto holds = holds_of_all();
    for (std::size_t r = 0; r < reactors; ++r) {
      s.devices.push_back(std::make_unique<NamespaceDevice>(ns, *groups_[r], holds, r, s.shared));
    }
    add_replayer(s, ns);
    by_nsid_[ns->info.nsid] = states_.size() - 1;
  }
  bare_ = std::make_unique<NamespaceDevice>(std::make_shared<Namespace>(), *groups_[0],
                                            RangeHolds::make({loops_[0]}), 0);
}

/// Reactors that have no queue this time are lent one.
Task<void> RemoteSubsystem::attach_queues() {
  const auto& queues = association_->queues();
  for (const Association::QueueSlot& slot : queues) {
    QueueGroup& group = *groups_[slot.reactor];
    IoQueue& queue = *slot.queue;
    co_await switch_to(*loops_[slot.reactor]);
    group.add(queue);
    co_await switch_to(*loops_[0]);
  }
  for (std::size_t r = queues.size(); r < groups_.size(); ++r) {
    const Association::QueueSlot& lender = queues[r % queues.size()];
    LentQueue& lent = *lent_.emplace_back(
        std::make_unique<LentQueue>(*loops_[r], *loops_[lender.reactor], *lender.queue));
    co_await switch_to(*loops_[r]);
    if (co_await lent.open()) groups_[r]->add(lent);
    co_await switch_to(*loops_[0]);
  }
}

Task<void> RemoteSubsystem::return_lent_queues() {
  for (const auto& lent : lent_) {
    co_await switch_to(lent->home());
    co_await lent->close();
    co_await switch_to(*loops_[0]);
  }
  lent_.clear();
}

Task<void> RemoteSubsystem::shut_group(QueueGroup& group, int waiting_error, int later_error,
                                       Duration drain) {
  transport::Loop& reactor = group.loop();
  co_await switch_to(reactor);
  group.shut(waiting_error, later_error);
  const Instant until = reactor.now() + drain;
  while (group.in_flight() != 0 && reactor.now() < until) co_await sleep(reactor, kDrainPoll);
  co_await switch_to(*loops_[0]);
}

Task<void> RemoteSubsystem::shut_groups(int waiting_error, int later_error, Duration drain) {
  std::vector<Task<void>> shutting;
  shutting.reserve(groups_.size());
  for (const auto& group : groups_) {
    shutting.push_back(shut_group(*group, waiting_error, later_error, drain));
  }
  co_await when_all(std::move(shutting));
}

std::size_t RemoteSubsystem::index_of(std::uint32_t nsid) const {
  const auto found = by_nsid_.find(nsid);
  return found == by_nsid_.end() ? kNoIndex : found->second;
}

std::vector<NamespaceDevice*> RemoteSubsystem::devices_on(std::size_t reactor) const {
  std::vector<NamespaceDevice*> devices;
  devices.reserve(states_.size());
  for (const NamespaceState& s : states_) devices.push_back(s.devices[reactor].get());
  return devices;
}

void RemoteSubsystem::emit(HostEvent event) {
  event.time = std::chrono::system_clock::now();
  ++event_counts_[static_cast<std::size_t>(event.kind)];
  events_.on_event(event);
}

BlockDevice* RemoteSubsystem::device(std::size_t reactor, std::uint32_t nsid) {
  const std::size_t index = index_of(nsid);
  if (reactor >= groups_.size() || index == kNoIndex) return nullptr;
  return states_[index].devices[reactor].get();
}

Health RemoteSubsystem::health() const {
  const Instant now = loops_[0]->now();
  Health h;
  h.last_loss = last_loss_;
  h.last_attempt = last_attempt_;
  h.losses = losses_;
  h.policy = reconnect_.policy();
  switch (state_) {
    case State::idle:
    case State::connecting:
      h.state = ConnectionState::connecting;
      return h;
    case State::live:
      h.state = ConnectionState::live;
      return h;
    case State::stopping:
    case State::ended:
      h.state = ConnectionState::gone;
      return h;
    case State::lost:
      break;
  }
  const bool trying = reconnect_.state() == LossState::reconnecting;
  h.state = failing_ ? ConnectionState::failing
            : trying ? ConnectionState::reconnecting
                     : ConnectionState::lost;
  h.attempts = reconnect_.attempts();
  h.lost_for = now - reconnect_.lost_at();
  const auto left = [now](const std::optional<Instant>& at) -> std::optional<Duration> {
    if (!at) return std::nullopt;
    return std::max(*at - now, Duration::zero());
  };
  if (!trying) h.next_attempt_in = left(reconnect_.next_attempt_at());
  h.io_fails_in = left(reconnect_.io_fails_at());
  h.gone_in = left(reconnect_.gone_at());
  return h;
}

Task<void> RemoteSubsystem::describe_on(std::size_t reactor, std::vector<NamespaceHealth>& all) {
  const std::vector<NamespaceDevice*> devices = devices_on(reactor);
  co_await switch_to(*loops_[reactor]);
  for (std::size_t i = 0; i < all.size(); ++i) devices[i]->describe(all[i]);
  co_await switch_to(*loops_[0]);
}

Task<std::vector<NamespaceHealth>> RemoteSubsystem::namespace_health() {
  const Gate::Pass inside(tasks_);
  std::vector<NamespaceHealth> all(states_.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].nsid = namespaces_[i]->info.nsid;
    all[i].attached = states_[i].attached;
    all[i].stopped = states_[i].stopped;
    all[i].acceptable = states_[i].found != nullptr;
    all[i].unflushed = states_[i].shared->unflushed.count();
  }
  for (std::size_t r = 0; r < groups_.size() && state_ != State::ended; ++r) {
    co_await describe_on(r, all);
  }
  co_return all;
}

std::optional<Duration> RemoteSubsystem::still_executing_for() const {
  if (safe_at_ == kNever) return std::nullopt;
  return std::max(safe_at_ - loops_[0]->now(), Duration::zero());
}

const AssociationInfo* RemoteSubsystem::info() const {
  return live() && association_ ? &association_->info : nullptr;
}

ConnectionStatistics RemoteSubsystem::statistics() const {
  const auto value = [](const Counter& counter) { return counter.load(std::memory_order_relaxed); };
  ConnectionStatistics s;
  s.name = params_.name;
  s.subnqn = params_.subnqn;
  s.address = params_.address();
  s.state = health().state;
  s.age = state_ == State::idle ? Duration::zero() : loops_[0]->now() - started_at_;
  s.losses = losses_;
  s.reconnects = value(counters_->reconnects);
  s.failed_attempts = value(counters_->failed_attempts);
  s.aborts = value(counters_->aborts);
  s.keep_alives = value(counters_->keep_alives);
  s.async_events = value(counters_->async_events);
  s.passthrough_commands = value(counters_->passthrough_commands);
  for (std::size_t i = 0; i < counters_->queues(); ++i) {
    const auto qid = static_cast<std::uint16_t>(i);
    QueueStatistics& queue = s.queues.emplace_back(counters_->queue(qid).read());
    queue.qid = qid;
    // As associations put them; see Association.
    queue.reactor = qid == 0 ? 0 : (i - 1) % (groups_.empty() ? loops_.size() : groups_.size());
    queue.live = live() && association_ && i <= association_->queues().size();
  }
  for (const auto& group : groups_) group->counters().add_to(s.requests);
  return s;
}

Task<Result<CommandOutcome>> RemoteSubsystem::log_page(nvme::GetLogPage log,
                                                       std::span<std::byte> out) {
  const Gate::Pass inside(tasks_);
  if (!live()) co_return fail(params_.name + " is not connected", ENOTCONN);
  co_return co_await read_log_page(association_->admin(), log, out,
                                   admin_piece_bytes(association_->info), params_.admin_timeout);
}

}  // namespace nvmf::host
