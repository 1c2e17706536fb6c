// Copies of the writes that a volatile write cache may still lose (--unflushed=replay): of one
// namespace on one reactor, in a ring of fixed size, until a flush has covered them.
//
// Thread: the reactor's; while nothing is answered there (its queues are lost and the device is
// paused) entries and their data stay as they are and may be read elsewhere. Its memory is taken at
// the first append() and touched as it is used; nothing is allocated after that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "host/block_device.h"

namespace nvmf::host {

class ReplayLog {
 public:
  struct Entry {
    std::uint64_t mark = 0;  // UnflushedWrites::written(): their order, over all reactors
    BlockOp op = BlockOp::write;
    bool no_hole = false;
    bool durable = false;  // it went with FUA: nothing to write again, but older copies are void
    std::uint64_t offset_bytes = 0;
    std::uint64_t length_bytes = 0;
    std::byte* data = nullptr;  // of a write that is not durable
    std::size_t ring_end = 0;   // where in the ring its data ends
  };

  explicit ReplayLog(std::size_t bytes);

  /// Whether one more with so much data fits now.
  [[nodiscard]] bool has_room(std::uint64_t data_bytes) const;
  /// A copy of a request that ended well; there is room for it (no data if it had FUA).
  void append(std::uint64_t mark, const BlockRequest& request);
  /// Entries up to this mark are on stable storage, or given up.
  void drop(std::uint64_t flushed_mark);
  [[nodiscard]] std::size_t size() const { return count_; }
  /// By rising mark.
  [[nodiscard]] const Entry& at(std::size_t index) const {
    return entries_[(first_ + index) % entries_.size()];
  }

 private:
  /// Where `bytes` in a row could begin; bytes_ if nowhere.
  [[nodiscard]] std::size_t place_for(std::uint64_t bytes) const;

  const std::size_t bytes_;
  const std::size_t entries_max_;
  std::unique_ptr<std::byte[]> ring_;
  std::vector<Entry> entries_;  // a ring, too
  std::size_t first_ = 0;
  std::size_t count_ = 0;
  // The data in use: [begin_, end_), or around the end of the ring when end_ <= begin_.
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::size_t with_data_ = 0;  // entries that have some
};

}  // namespace nvmf::host
