#include "host/io_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "host/namespace_device.h"
#include "host/queue_group.h"

namespace nvmf::host {

namespace {

bool changes_data(const IoCommand& command) {
  switch (static_cast<nvme::NvmOpcode>(command.sqe.opcode)) {
    case nvme::NvmOpcode::write:
    case nvme::NvmOpcode::write_zeroes:
    case nvme::NvmOpcode::dataset_management:
      return true;
    default:
      return false;
  }
}

LatencyKind kind_of(const IoCommand& command) {
  switch (static_cast<nvme::NvmOpcode>(command.sqe.opcode)) {
    case nvme::NvmOpcode::read:
      return LatencyKind::read;
    case nvme::NvmOpcode::write:
      return LatencyKind::write;
    case nvme::NvmOpcode::flush:
      return LatencyKind::flush;
    default:
      return LatencyKind::other;
  }
}

}  // namespace

IoQueue::IoQueue(transport::Loop& loop, std::uint16_t qid, QueueCounters& counters,
                 Duration command_timeout, IoQueueEvents events)
    : QueueLink(loop, qid),
      counters_(counters),
      timeout_(command_timeout),
      events_(std::move(events)),
      timeout_check_(loop.timers(), [this] { check_timeouts(); }),
      own_timeouts_(loop, {.on_overdue =
                               [this](IoCommand& c) {
                                 if (events_.on_overdue) events_.on_overdue(c.sqe.cid);
                               },
                           .on_given_up = [this](IoCommand& c) { give_up(c); }}) {}

void IoQueue::prepare() {
  make_commands(slots());
  prepared_ = true;
}

void IoQueue::submit(IoCommand& command) {
  carry(command);
  lending_.own_submitted();
}

void IoQueue::share_room() {
  do {
    while (lending_.borrowers_turn() && room() != 0) carry(*lending_.next());
    if (group != nullptr) group->pump();
  } while (lending_.borrowers_turn() && room() != 0);
  // Ours have what they want: the rest is for the others, too.
  while (room() != 0) {
    IoCommand* const command = lending_.next();
    if (command == nullptr) return;
    carry(*command);
  }
}

void IoQueue::carry(IoCommand& command) {
  command.carrier = this;
  command.submitted_at = loop().now();
  command.complete = [](transport::HostCommand& c) {
    IoCommand& io = static_cast<IoCommand&>(c);
    io.carrier->completed(io);
  };
  link(command);
  ++in_flight_;
  command.counters = &counters_;
  count(counters_.commands);
  counters_.submitted_at_ns.store(command.submitted_at.time_since_epoch().count(),
                                  std::memory_order_relaxed);
  qpair().submit(command);
}

void IoQueue::link(IoCommand& command) {
  if (command.timeout != Duration::zero()) [[unlikely]]
    return own_timeouts_.add(command);
  command.older = newest_;
  command.newer = nullptr;
  (newest_ != nullptr ? newest_->newer : oldest_) = &command;
  newest_ = &command;
  if (!timeout_check_.armed()) timeout_check_.arm(loop().now() + timeout_);
}

void IoQueue::unlink(IoCommand& command) {
  if (command.timeout != Duration::zero()) [[unlikely]]
    return own_timeouts_.remove(command);
  (command.older != nullptr ? command.older->newer : oldest_) = command.newer;
  (command.newer != nullptr ? command.newer->older : newest_) = command.older;
}

void IoQueue::completed(IoCommand& command) {
  unlink(command);
  --in_flight_;
  const bool answered = command.delivery == transport::Delivery::answered;
  command.answered_late = answered && quiesced_;
  if (std::exchange(aborted_, aborted_ == &command ? nullptr : aborted_) == &command) {
    timeout_check_.arm(loop().now());  // others may be overdue, too
  }
  count_outcome(command);
  if (command.borrower != nullptr) {
    if (command.delivery == transport::Delivery::unanswered && changes_data(command)) {
      unanswered_changes_ = true;
    }
    command.borrower->carried(command);
  } else {
    const PartOutcome outcome = tell_device(command);
    if (outcome.maybe_executed) unanswered_changes_ = true;
    if (outcome.again) counters_.retries.fetch_add(1, std::memory_order_relaxed);
  }
  share_room();
}

void IoQueue::count_outcome(const IoCommand& command) {
  const bool answered = command.delivery == transport::Delivery::answered;
  const LatencyKind kind = kind_of(command);
  if (answered) counters_.latencies.record(kind, loop().now() - command.submitted_at);
  if (!answered || !command.cqe.status.ok()) {
    count(counters_.errors);
  } else if (command.direction == transport::DataDirection::from_controller) {
    count(counters_.read_bytes, command.data_bytes);
  } else if (kind == LatencyKind::write) {
    count(counters_.written_bytes, command.data_bytes);
  }
}

/// Commands are looked at once in a while, not each by a timer of its own: the oldest tells. It is
/// aborted first; an answer, whatever it says, is better than a connection that has to be ended.
void IoQueue::check_timeouts() {
  if (oldest_ == nullptr) return;
  const Instant now = loop().now();
  const Duration age = now - oldest_->submitted_at;
  const Duration grace = std::min(kAbortGrace, timeout_);
  // At the earliest when the oldest of now is due; not more than ten times per timeout.
  if (age < timeout_) return timeout_check_.arm(now + std::max(timeout_ - age, timeout_ / 10));
  // Of a command that is not out yet, the controller knows nothing.
  const bool known = oldest_->delivery == transport::Delivery::unanswered;
  if (known && aborted_ != oldest_) {
    aborted_ = oldest_;
    aborted_at_ = now;
    count(counters_.timeouts);
    if (events_.on_overdue) events_.on_overdue(oldest_->sqe.cid);
  } else if (!known || now - aborted_at_ >= grace) {
    return give_up(*oldest_);
  }
  timeout_check_.arm(aborted_at_ + grace);
}

void IoQueue::give_up(const IoCommand& command) {
  const Duration timeout = command.timeout != Duration::zero() ? command.timeout : timeout_;
  const bool known = command.delivery == transport::Delivery::unanswered;
  end(Error{fmt::format("{} did not answer a {} command within {:g} s{}", describe(),
                        nvme::opcode_name(command.sqe, false),
                        std::chrono::duration<double>(timeout).count(),
                        known ? ", nor when it was told to abort it" : ""),
            ETIMEDOUT});
}

void IoQueue::on_down(const Error& reason) {
  timeout_check_.cancel();
  own_timeouts_.cancel();
  if (group != nullptr) group->remove(*this);
  // First, so that what borrowers hear is posted before what follows from our end.
  lending_.down();
  if (events_.on_down) {
    events_.on_down({.reason = reason,
                     .peer_closed = qpair().peer_closed(),
                     .unanswered_changes = unanswered_changes_});
  }
}

}  // namespace nvmf::host
