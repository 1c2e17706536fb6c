#include "host/command_queue.h"

#include <utility>

#include "host/namespace_device.h"

namespace nvmf::host {

void CommandQueue::make_commands(std::uint32_t count) {
  commands_ = std::make_unique<IoCommand[]>(count);
  for (std::uint32_t i = count; i-- > 0;) {
    commands_[i].queue = this;
    commands_[i].next = std::exchange(free_, &commands_[i]);
  }
  ranges_ = std::make_unique_for_overwrite<DsmRanges[]>(kDsmRangesPerQueue);
  for (std::size_t i = 0; i < kDsmRangesPerQueue; ++i) {
    ranges_[i].next = std::exchange(free_ranges_, &ranges_[i]);
  }
}

IoCommand* CommandQueue::take() {
  if (free_ == nullptr || free_commands() == 0) return nullptr;
  IoCommand* command = static_cast<IoCommand*>(free_);
  free_ = command->next;
  command->next = nullptr;
  command->sqe = {};
  command->direction = transport::DataDirection::none;
  command->data = nullptr;
  command->data_bytes = 0;
  command->timeout = {};
  return command;
}

DsmRanges* CommandQueue::take_ranges() {
  DsmRanges* ranges = free_ranges_;
  if (ranges != nullptr) free_ranges_ = ranges->next;
  return ranges;
}

PartOutcome CommandQueue::tell_device(IoCommand& command) {
  NamespaceDevice& device = *command.device;
  BlockRequest& request = *command.request;
  const PartOutcome outcome = device.outcome(command);
  if (command.ranges != nullptr) {
    command.ranges->next = std::exchange(free_ranges_, command.ranges);
    command.ranges = nullptr;
  }
  command.next = std::exchange(free_, &command);
  // The command may be taken again from here on.
  device.part_done(request, outcome);
  return outcome;
}

}  // namespace nvmf::host
