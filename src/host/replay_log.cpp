#include "host/replay_log.h"

#include <algorithm>
#include <cstring>

#include "nvme/check.h"

namespace nvmf::host {

namespace {

// One entry for each KiB: smaller writes than that are seldom, and then end the ring earlier.
constexpr std::size_t kBytesPerEntry = 1024;
constexpr std::size_t kEntriesMin = 16;

}  // namespace

ReplayLog::ReplayLog(std::size_t bytes)
    : bytes_(bytes), entries_max_(std::max(bytes / kBytesPerEntry, kEntriesMin)) {}

std::size_t ReplayLog::place_for(std::uint64_t bytes) const {
  if (with_data_ == 0) return bytes <= bytes_ ? 0 : bytes_;
  if (end_ > begin_) {
    if (bytes <= bytes_ - end_) return end_;
    return bytes <= begin_ ? 0 : bytes_;
  }
  return bytes <= begin_ - end_ ? end_ : bytes_;
}

bool ReplayLog::has_room(std::uint64_t data_bytes) const {
  if (count_ == entries_max_) return false;
  return data_bytes == 0 || place_for(data_bytes) != bytes_;
}

void ReplayLog::append(std::uint64_t mark, const BlockRequest& r) {
  if (ring_ == nullptr) {
    ring_ = std::make_unique_for_overwrite<std::byte[]>(bytes_);
    entries_.resize(entries_max_);
  }
  Entry e{.mark = mark,
          .op = r.op,
          .no_hole = r.no_hole,
          .durable = r.fua,
          .offset_bytes = r.offset_bytes,
          .length_bytes = r.length_bytes};
  if (r.op == BlockOp::write && !r.fua) {
    const std::size_t at = place_for(r.length_bytes);
    NVMF_CHECK(at != bytes_);
    if (with_data_++ == 0) begin_ = at;
    end_ = at + r.length_bytes;
    e.data = &ring_[at];
    e.ring_end = end_;
    std::memcpy(e.data, r.data, r.length_bytes);
  }
  NVMF_CHECK(count_ < entries_max_);
  entries_[(first_ + count_) % entries_.size()] = e;
  ++count_;
}

void ReplayLog::drop(std::uint64_t flushed_mark) {
  while (count_ != 0 && entries_[first_].mark <= flushed_mark) {
    const Entry& e = entries_[first_];
    if (e.data != nullptr) {
      --with_data_;
      begin_ = e.ring_end;
    }
    first_ = (first_ + 1) % entries_.size();
    --count_;
  }
}

}  // namespace nvmf::host
