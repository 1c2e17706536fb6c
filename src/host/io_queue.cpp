#include "host/io_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "host/namespace_device.h"
#include "host/queue_group.h"

namespace nvmf::host {

IoQueue::IoQueue(transport::Loop& loop, std::uint16_t qid, QueueCounters& counters,
                 Duration command_timeout, std::move_only_function<void(const Error&)> on_down)
    : QueueLink(loop, qid),
      counters_(counters),
      timeout_(command_timeout),
      on_down_(std::move(on_down)),
      timeout_check_(loop.timers(), [this] { check_timeouts(); }) {}

void IoQueue::prepare() {
  commands_ = std::make_unique<IoCommand[]>(slots());
  for (std::uint32_t i = slots(); i-- > 0;) {
    commands_[i].queue = this;
    commands_[i].next = std::exchange(free_, &commands_[i]);
  }
  ranges_ = std::make_unique_for_overwrite<DsmRanges[]>(kDsmRangesPerQueue);
  for (std::size_t i = 0; i < kDsmRangesPerQueue; ++i) {
    ranges_[i].next = std::exchange(free_ranges_, &ranges_[i]);
  }
  prepared_ = true;
}

IoCommand* IoQueue::take() {
  if (free_ == nullptr || free_slots() == 0) return nullptr;
  IoCommand* command = static_cast<IoCommand*>(free_);
  free_ = command->next;
  command->next = nullptr;
  command->sqe = {};
  command->direction = transport::DataDirection::none;
  command->data = nullptr;
  command->data_bytes = 0;
  return command;
}

DsmRanges* IoQueue::take_ranges() {
  DsmRanges* ranges = free_ranges_;
  if (ranges != nullptr) free_ranges_ = ranges->next;
  return ranges;
}

void IoQueue::submit(IoCommand& command) {
  command.submitted_at = loop().now();
  command.complete = [](transport::HostCommand& c) {
    IoCommand& io = static_cast<IoCommand&>(c);
    io.queue->completed(io);
  };
  command.older = newest_;
  command.newer = nullptr;
  (newest_ != nullptr ? newest_->newer : oldest_) = &command;
  newest_ = &command;
  ++in_flight_;
  QueueCounters::add(counters_.commands, 1);
  if (!timeout_check_.armed()) timeout_check_.arm(loop().now() + timeout_);
  qpair().submit(command);
}

void IoQueue::completed(IoCommand& command) {
  (command.older != nullptr ? command.older->newer : oldest_) = command.newer;
  (command.newer != nullptr ? command.newer->older : newest_) = command.older;
  --in_flight_;
  const bool answered = command.delivery == transport::Delivery::answered;
  if (!answered || !command.cqe.status.ok()) {
    QueueCounters::add(counters_.errors, 1);
  } else if (command.direction == transport::DataDirection::from_controller) {
    QueueCounters::add(counters_.read_bytes, command.data_bytes);
  } else if (command.request->op == BlockOp::write) {
    QueueCounters::add(counters_.written_bytes, command.data_bytes);
  }
  NamespaceDevice& device = *command.device;
  BlockRequest& request = *command.request;
  const int error = device.outcome(command);
  if (command.ranges != nullptr) {
    command.ranges->next = std::exchange(free_ranges_, command.ranges);
    command.ranges = nullptr;
  }
  command.next = std::exchange(free_, &command);
  // The command may be taken again from here on.
  QueueGroup* const waiting = group;
  device.part_done(request, error);
  if (waiting != nullptr) waiting->pump();
}

/// Commands are looked at once in a while, not each by a timer of its own: the oldest tells.
void IoQueue::check_timeouts() {
  if (oldest_ == nullptr) return;
  const Duration age = loop().now() - oldest_->submitted_at;
  if (age >= timeout_) {
    end(Error{fmt::format("{} did not answer a {} command within {:g} s", describe(),
                          nvme::opcode_name(oldest_->sqe, false),
                          std::chrono::duration<double>(timeout_).count()),
              ETIMEDOUT});
    return;
  }
  // At the earliest when the oldest of now is due; not more than ten times per timeout.
  timeout_check_.arm(loop().now() + std::max(timeout_ - age, timeout_ / 10));
}

void IoQueue::on_slot() {
  if (group != nullptr) group->pump();
}

void IoQueue::on_down(const Error& reason) {
  timeout_check_.cancel();
  if (group != nullptr) group->remove(*this);
  if (on_down_) on_down_(reason);
}

}  // namespace nvmf::host
