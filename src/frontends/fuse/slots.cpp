#include "frontends/fuse/slots.h"

#include <algorithm>

#include "frontends/fuse/limits.h"
#include "nvme/check.h"

namespace nvmf::fuse {

namespace {

constexpr std::array<std::size_t, kSlotSizes> kBytes = {kSmallBytes, kMediumBytes,
                                                        kMessageBytesMax};
/// Nobody has less: a message to be read while two large requests are under way.
constexpr SlotCounts kLeast = {16, 2, 3};
constexpr SlotCounts kMost = {kSmallMax, kMediumMax, kLargeMax};
constexpr std::size_t kLeastBytes =
    kLeast[0] * kBytes[0] + kLeast[1] * kBytes[1] + kLeast[2] * kBytes[2];
static_assert(kLeastBytes <= kReactorBufferBytesMin);
/// Of what a reactor has beyond that, in eighths.
constexpr SlotCounts kEighths = {3, 2, 3};
constexpr std::size_t kPageBytes = 4096;
static_assert(kSmallBytes % kPageBytes == 0 && kMediumBytes % kPageBytes == 0 &&
              kMessageBytesMax % kPageBytes == 0);

}  // namespace

SlotCounts slot_counts(std::size_t reactors, std::size_t bytes) {
  NVMF_CHECK(reactors >= 1 && bytes / reactors >= kReactorBufferBytesMin);
  const std::size_t more = bytes / reactors - kLeastBytes;
  SlotCounts counts{};
  for (std::size_t i = 0; i < kSlotSizes; ++i) {
    counts[i] = std::min(kLeast[i] + more * kEighths[i] / 8 / kBytes[i], kMost[i]);
  }
  return counts;
}

Slots::Slots(Worker& worker, const SlotCounts& counts) {
  std::size_t slots = 0;
  for (std::size_t i = 0; i < kSlotSizes; ++i) {
    bytes_ += counts[i] * kBytes[i];
    slots += counts[i];
  }
  // So large that it is a mapping of its own, whose pages come when they are used.
  memory_.reset(static_cast<std::byte*>(std::aligned_alloc(kPageBytes, bytes_)));
  NVMF_CHECK(memory_ != nullptr);
  slots_.resize(slots);
  std::byte* at = memory_.get();
  auto slot = slots_.begin();
  for (std::size_t i = 0; i < kSlotSizes; ++i) {
    free_[i].reserve(counts[i]);
    for (std::size_t n = 0; n < counts[i]; ++n, ++slot, at += kBytes[i]) {
      slot->worker = &worker;
      slot->size = static_cast<SlotSize>(i);
      slot->buffer = at;
      free_[i].push_back(&*slot);
    }
    // The first is taken first, so that a quiet file system uses few pages.
    std::ranges::reverse(free_[i]);
  }
}

Slot* Slots::take(SlotSize size) {
  auto& free = free_[index(size)];
  if (free.empty()) return nullptr;
  Slot* slot = free.back();
  free.pop_back();
  return slot;
}

Slot* Slots::take_for(std::size_t bytes) {
  if (bytes <= kSmallBytes) {
    if (Slot* slot = take(SlotSize::small)) return slot;
  }
  return bytes <= kMediumBytes ? take(SlotSize::medium) : nullptr;
}

void Slots::give_back(Slot& slot) {
  ++slot.generation;
  free_[index(slot.size)].push_back(&slot);
}

}  // namespace nvmf::fuse
