#include "io/backend.h"
#include "nvme/check.h"

namespace nvmf::io {

PollTable::Key PollTable::insert(Pollable& user, int fd, std::uint32_t events, Trigger trigger) {
  NVMF_CHECK(user.poll_slot_ == Pollable::kNotPolled);
  if (free_.empty()) {
    free_.push_back(static_cast<std::uint32_t>(slots_.size()));
    slots_.emplace_back();
  }
  const std::uint32_t index = free_.back();
  free_.pop_back();
  Slot& slot = slots_[index];
  slot = {&user, fd, events, trigger, slot.generation + 1, false};
  user.poll_slot_ = index;
  return {index, slot.generation};
}

PollTable::Slot* PollTable::find(Key key) {
  if (key.index >= slots_.size()) return nullptr;
  Slot& slot = slots_[key.index];
  return slot.user != nullptr && slot.generation == key.generation ? &slot : nullptr;
}

void PollTable::erase(Pollable& user) {
  const std::uint32_t index = user.poll_slot_;
  NVMF_CHECK(index < slots_.size() && slots_[index].user == &user);
  slots_[index].user = nullptr;
  free_.push_back(index);
  user.poll_slot_ = Pollable::kNotPolled;
}

}  // namespace nvmf::io
