// Which pages of a sparse memory may hold something: a bit for each 4 KiB, and one for each group
// of pages so that a large empty disk is looked through at once. What the system itself tells
// (mincore) would leave out pages that were swapped out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "controller/system.h"
#include "nvme/result.h"

namespace nvmf::controller {

class AllocationMap {
 public:
  static constexpr std::uint64_t kPageBytes = 4096;

  /// All of `bytes` is empty.
  static Result<AllocationMap> create(std::uint64_t bytes);

  /// Something may be in [begin, end) from now on.
  void mark(std::uint64_t begin, std::uint64_t end);
  /// Nothing is in [begin, end): its whole pages are empty.
  void clear(std::uint64_t begin, std::uint64_t end);
  Result<void> resize(std::uint64_t bytes);

  struct Run {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
  };
  /// The first pages from `from` on that may hold something, as bytes within the size; `begin` is
  /// the size if there are none.
  [[nodiscard]] Run next(std::uint64_t from) const;

 private:
  static constexpr std::uint64_t kWordPages = 64;
  static constexpr std::uint64_t kGroupWords = 512;
  static constexpr std::uint64_t kGroupPages = kWordPages * kGroupWords;

  AllocationMap(SparseMemory bits, std::uint64_t bytes);
  static std::uint64_t memory_bytes(std::uint64_t bytes);
  [[nodiscard]] std::uint64_t* words() const {
    return reinterpret_cast<std::uint64_t*>(bits_.data());
  }
  template <class Change>
  void change(std::uint64_t first_page, std::uint64_t end_page, const Change& one);
  /// The first page from `page` on whose bit is `set`; pages() if there is none.
  [[nodiscard]] std::uint64_t find(std::uint64_t page, bool set) const;
  [[nodiscard]] std::uint64_t pages() const { return (bytes_ + kPageBytes - 1) / kPageBytes; }

  SparseMemory bits_;
  std::uint64_t bytes_ = 0;
  std::vector<bool> groups_;  // bits of the group's pages may be set
};

}  // namespace nvmf::controller
