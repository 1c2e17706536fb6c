#include "host/bounce.h"

#include <algorithm>
#include <cstring>

#include "nvme/check.h"

namespace nvmf::host {

BlockCover BlockCover::of(std::uint64_t offset_bytes, std::uint64_t length_bytes, unsigned shift) {
  const std::uint64_t mask = (std::uint64_t{1} << shift) - 1;
  const std::uint64_t end_bytes = offset_bytes + length_bytes;
  BlockCover c;
  c.first = offset_bytes >> shift;
  c.end = (end_bytes + mask) >> shift;
  c.whole_first = (offset_bytes + mask) >> shift;
  // Within one block, cut at both sides: it counts as head.
  c.whole_end = std::max(end_bytes >> shift, c.whole_first);
  return c;
}

BounceSlots::BounceSlots(std::size_t slots, unsigned block_shift)
    : shift_(block_shift),
      requests_(slots),
      lost_(slots),
      memory_(std::make_unique_for_overwrite<std::byte[]>((slots * 2) << block_shift)) {
  NVMF_CHECK(slots < kNoSlot);
}

std::uint8_t BounceSlots::take(BlockRequest& request) {
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    if (requests_[i] != nullptr || lost_[i]) continue;
    requests_[i] = &request;
    return static_cast<std::uint8_t>(i);
  }
  return kNoSlot;
}

void BounceSlots::put(std::uint8_t slot) {
  requests_[slot] = nullptr;
}

void BounceSlots::lose(std::uint8_t slot) {
  requests_[slot] = nullptr;
  lost_[slot] = true;
}

bool BounceSlots::regain(std::uint8_t slot) {
  const bool was = lost_[slot];
  lost_[slot] = false;
  return was;
}

std::byte* BounceSlots::head(std::size_t slot) const {
  return &memory_[(slot * 2) << shift_];
}

std::byte* BounceSlots::tail(std::size_t slot) const {
  return &memory_[(slot * 2 + 1) << shift_];
}

/// each(bytes in the slot, index of the first in the request's data, number of bytes)
template <class Each>
void BounceSlots::for_each_end(const BlockRequest& r, const BlockCover& c, Each each) const {
  const std::uint64_t block = std::uint64_t{1} << shift_;
  if (c.head()) {
    const std::uint64_t skip = r.offset_bytes & (block - 1);
    each(head(r.slot) + skip, std::uint64_t{0}, std::min(r.length_bytes, block - skip));
  }
  if (c.tail()) {
    const std::uint64_t bytes = (r.offset_bytes + r.length_bytes) & (block - 1);
    each(tail(r.slot), r.length_bytes - bytes, bytes);
  }
}

void BounceSlots::copy_in(const BlockRequest& r, const BlockCover& c) const {
  for_each_end(r, c, [&](std::byte* at, std::uint64_t from, std::uint64_t bytes) {
    std::memcpy(at, r.data + from, bytes);
  });
}

void BounceSlots::copy_out(const BlockRequest& r, const BlockCover& c) const {
  for_each_end(r, c, [&](const std::byte* at, std::uint64_t from, std::uint64_t bytes) {
    std::memcpy(r.data + from, at, bytes);
  });
}

void BounceSlots::zero(const BlockRequest& r, const BlockCover& c) const {
  for_each_end(
      r, c, [](std::byte* at, std::uint64_t, std::uint64_t bytes) { std::memset(at, 0, bytes); });
}

}  // namespace nvmf::host
