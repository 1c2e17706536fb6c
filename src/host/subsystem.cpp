#include "host/subsystem.h"

#include <algorithm>
#include <utility>

#include "host/connect_error.h"
#include "nvme/check.h"

namespace nvmf::host {

namespace {

// What is in flight when a connection is ended on purpose may take this long.
constexpr Duration kDrain = std::chrono::seconds(1);
constexpr Duration kDrainPoll = std::chrono::milliseconds(5);

}  // namespace

RemoteSubsystem::RemoteSubsystem(ConnectParams params, std::vector<transport::Loop*> loops,
                                 SubsystemEvents& events)
    : params_(std::move(params)),
      loops_(std::move(loops)),
      events_(events),
      tasks_(*loops_.at(0)) {}

RemoteSubsystem::~RemoteSubsystem() {
  NVMF_CHECK(state_ == State::idle || state_ == State::ended);
}

void RemoteSubsystem::start() {
  NVMF_CHECK(state_ == State::idle);
  state_ = State::connecting;
  spawn(run());
}

void RemoteSubsystem::stop(bool /*force*/) {
  if (state_ == State::idle || state_ == State::ended || std::exchange(stop_asked_, true)) return;
  if (state_ == State::live) {
    state_ = State::stopping;
    spawn(wind_down());
  } else {
    bring_up_control_.cancel(Error{"the connection was called off", 0});
  }
}

Task<void> RemoteSubsystem::run() {
  co_await switch_to(*loops_[0]);
  auto made = co_await bring_up(params_, loops_, bring_up_control_);
  Error reason;
  if (made) {
    association_ = std::move(*made);
    namespaces_ = association_->namespaces;
    refused_namespaces_ = association_->refused_namespaces;
    make_devices();
    co_await attach_queues();
    if (stop_asked_) association_->end(Error{"the connection was called off", 0});
    if (!association_->ending()) {
      state_ = State::live;
      events_.on_live();
    }
    co_await association_->ended();
    state_ = State::stopping;
    reason = association_->end_reason();
    co_await shut_groups(EIO, ESHUTDOWN, Duration::zero());
    co_await association_->close(reason);
    // Tools' commands have been told by now; let them go before what they use goes.
    co_await tasks_.wait_empty();
    association_.reset();
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

void RemoteSubsystem::make_devices() {
  const std::size_t reactors = std::min(loops_.size(), association_->queues().size());
  std::vector<std::shared_ptr<RangeHolds>> holds;
  for (std::size_t i = 0; i < namespaces_.size(); ++i) {
    holds.push_back(RangeHolds::make({loops_.data(), loops_.data() + reactors}));
  }
  for (std::size_t r = 0; r < reactors; ++r) {
    groups_.push_back(std::make_unique<QueueGroup>(*loops_[r]));
    auto& devices = devices_.emplace_back();
    for (std::size_t i = 0; i < namespaces_.size(); ++i) {
      devices.push_back(
          std::make_unique<NamespaceDevice>(namespaces_[i], *groups_.back(), holds[i], r));
    }
  }
}

Task<void> RemoteSubsystem::attach_queues() {
  for (const Association::QueueSlot& slot : association_->queues()) {
    QueueGroup& group = *groups_[slot.reactor];
    IoQueue& queue = *slot.queue;
    co_await switch_to(*loops_[slot.reactor]);
    group.add(queue);
    co_await switch_to(*loops_[0]);
  }
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

BlockDevice* RemoteSubsystem::device(std::size_t reactor, std::uint32_t nsid) {
  if (reactor >= devices_.size()) return nullptr;
  const auto found =
      std::ranges::lower_bound(namespaces_, nsid, {}, [](const auto& ns) { return ns->info.nsid; });
  if (found == namespaces_.end() || (*found)->info.nsid != nsid) return nullptr;
  return devices_[reactor][static_cast<std::size_t>(found - namespaces_.begin())].get();
}

const AssociationInfo* RemoteSubsystem::info() const {
  return live() && association_ ? &association_->info : nullptr;
}

std::vector<QueueStatistics> RemoteSubsystem::statistics() const {
  std::vector<QueueStatistics> all;
  if (association_ == nullptr) return all;
  std::uint16_t qid = 0;
  for (const Association::QueueSlot& slot : association_->queues()) {
    const QueueCounters& c = *slot.counters;
    all.push_back({.qid = ++qid,
                   .reactor = slot.reactor,
                   .commands = c.commands.load(std::memory_order_relaxed),
                   .read_bytes = c.read_bytes.load(std::memory_order_relaxed),
                   .written_bytes = c.written_bytes.load(std::memory_order_relaxed),
                   .errors = c.errors.load(std::memory_order_relaxed)});
  }
  return all;
}

std::uint64_t RemoteSubsystem::async_events() const {
  return association_ ? association_->async_events() : 0;
}

Task<Result<CommandOutcome>> RemoteSubsystem::admin(nvme::Sqe sqe,
                                                    transport::DataDirection direction,
                                                    std::span<std::byte> data, Duration timeout) {
  const Gate::Pass inside(tasks_);
  if (!live()) co_return fail(params_.name + " is not connected", ENOTCONN);
  co_return co_await association_->admin().execute(
      sqe, direction, data, timeout > Duration::zero() ? timeout : params_.admin_timeout);
}

Task<Result<CommandOutcome>> RemoteSubsystem::log_page(nvme::GetLogPage log,
                                                       std::span<std::byte> out) {
  const Gate::Pass inside(tasks_);
  if (!live()) co_return fail(params_.name + " is not connected", ENOTCONN);
  co_return co_await read_log_page(association_->admin(), log, out,
                                   admin_piece_bytes(association_->info), params_.admin_timeout);
}

}  // namespace nvmf::host
