// The requests that one reactor may have under way, with the memory for their data: all made
// beforehand. When there are none, the reactor reads no more messages until one is free; the
// kernel keeps them as long.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "frontends/fuse/tree.h"
#include "host/block_device.h"

struct fuse_req;

namespace nvmf::fuse {

class Worker;

enum class SlotSize : std::uint8_t { small, medium, large };
inline constexpr std::size_t kSlotSizes = 3;

/// A request of ours to the device, and whose it is.
struct Slot : host::BlockRequest {
  Worker* worker = nullptr;
  SlotSize size = SlotSize::small;
  std::byte* buffer = nullptr;
  std::uint32_t generation = 0;  // how often it has been used: which request an interrupt means

  fuse_req* waiting = nullptr;  // null: it has been answered
  host::BlockDevice* device = nullptr;
  FileTimes* times = nullptr;
  std::uint32_t nsid = 0;
  bool short_already = false;  // a read that was cut to a size that has become less
};

/// How many of each size one reactor has.
using SlotCounts = std::array<std::size_t, kSlotSizes>;
/// Of `bytes`, which `reactors` share: all of them together never have more. At least
/// kReactorBufferBytesMin for each.
[[nodiscard]] SlotCounts slot_counts(std::size_t reactors, std::size_t bytes);

/// Tells the system that the contents of whole pages are not needed. From any thread.
using DiscardPages = void (*)(std::byte* pages, std::size_t bytes);

class Slots {
 public:
  Slots(Worker& worker, const SlotCounts& counts);

  /// Of that size; null: none is free.
  [[nodiscard]] Slot* take(SlotSize size);
  /// The smallest that holds so much, but not a large one: those are what messages are read into.
  [[nodiscard]] Slot* take_for(std::size_t bytes);
  void give_back(Slot& slot);
  /// All memory goes back to the system until it is used again. Only while no slot is in use.
  void discard(DiscardPages discard) { discard(memory_.get(), bytes_); }
  [[nodiscard]] bool available(SlotSize size) const { return !free_[index(size)].empty(); }
  [[nodiscard]] std::vector<Slot>& all() { return slots_; }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  static std::size_t index(SlotSize size) { return static_cast<std::size_t>(size); }

  std::unique_ptr<std::byte, Free> memory_;
  std::size_t bytes_ = 0;
  std::vector<Slot> slots_;
  std::array<std::vector<Slot*>, kSlotSizes> free_;
};

}  // namespace nvmf::fuse
