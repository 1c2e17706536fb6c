#include "controller/allocation_map.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace nvmf::controller {

AllocationMap::AllocationMap(SparseMemory bits, std::uint64_t bytes)
    : bits_(std::move(bits)), bytes_(bytes), groups_(pages() / kGroupPages + 1) {}

/// In whole groups: find() reads words up to the end of a group.
std::uint64_t AllocationMap::memory_bytes(std::uint64_t bytes) {
  return (bytes / kPageBytes / kGroupPages + 1) * kGroupWords * sizeof(std::uint64_t);
}

Result<AllocationMap> AllocationMap::create(std::uint64_t bytes) {
  auto bits = SparseMemory::reserve(memory_bytes(bytes));
  if (!bits) return std::unexpected(std::move(bits.error()));
  return AllocationMap(std::move(*bits), bytes);
}

/// `one(word, mask)` for each word that has pages of the range.
template <class Change>
void AllocationMap::change(std::uint64_t first, std::uint64_t end, const Change& one) {
  while (first < end) {
    const std::uint64_t bit = first % kWordPages;
    const std::uint64_t count = std::min(kWordPages - bit, end - first);
    const std::uint64_t ones =
        count == kWordPages ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1;
    one(first, ones << bit);
    first += count;
  }
}

void AllocationMap::mark(std::uint64_t begin, std::uint64_t end) {
  change(begin / kPageBytes, (end + kPageBytes - 1) / kPageBytes,
         [this](std::uint64_t page, std::uint64_t mask) {
           words()[page / kWordPages] |= mask;
           groups_[page / kGroupPages] = true;
         });
}

void AllocationMap::clear(std::uint64_t begin, std::uint64_t end) {
  // The last page may be one in part: there is nothing behind it.
  const std::uint64_t last = end >= bytes_ ? pages() : end / kPageBytes;
  std::uint64_t page = (begin + kPageBytes - 1) / kPageBytes;
  while (page < last) {
    const std::uint64_t group = page / kGroupPages;
    const std::uint64_t stop = std::min(last, (group + 1) * kGroupPages);
    if (groups_[group]) {
      change(page, stop,
             [this](std::uint64_t at, std::uint64_t mask) { words()[at / kWordPages] &= ~mask; });
      if (stop - page == kGroupPages) groups_[group] = false;
    }
    page = stop;
  }
}

Result<void> AllocationMap::resize(std::uint64_t bytes) {
  if (bytes < bytes_) clear(bytes, bytes_);
  if (auto resized = bits_.resize(memory_bytes(bytes)); !resized) return resized;
  bytes_ = bytes;
  groups_.resize(pages() / kGroupPages + 1);
  return {};
}

std::uint64_t AllocationMap::find(std::uint64_t page, bool set) const {
  const std::uint64_t end = pages();
  while (page < end) {
    const std::uint64_t group = page / kGroupPages;
    if (!groups_[group]) {
      if (!set) return page;
      page = (group + 1) * kGroupPages;
      continue;
    }
    const std::uint64_t word = words()[page / kWordPages];
    const std::uint64_t wanted = (set ? word : ~word) >> page % kWordPages;
    if (wanted != 0) return std::min(end, page + static_cast<unsigned>(std::countr_zero(wanted)));
    page += kWordPages - page % kWordPages;
  }
  return end;
}

AllocationMap::Run AllocationMap::next(std::uint64_t from) const {
  const std::uint64_t first = find(from / kPageBytes, true);
  const std::uint64_t last = find(first, false);
  return {std::min(std::max(first * kPageBytes, from), bytes_),
          std::min(last * kPageBytes, bytes_)};
}

}  // namespace nvmf::controller
