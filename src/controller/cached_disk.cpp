#include "controller/cached_disk.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace nvmf::controller {

Result<std::unique_ptr<CachedDisk>> CachedDisk::create(std::uint64_t size_bytes) {
  auto seen = MemoryDisk::create(size_bytes);
  if (!seen) return std::unexpected(std::move(seen.error()));
  auto stable = SparseMemory::reserve(size_bytes);
  if (!stable) return std::unexpected(std::move(stable.error()));
  return std::unique_ptr<CachedDisk>(new CachedDisk(std::move(*seen), std::move(*stable)));
}

void CachedDisk::submit(DiskOp& op) {
  const std::uint64_t begin = op.offset_bytes;
  const std::uint64_t end = begin + op.length_bytes;
  op.error = seen_->run(op);
  const bool changes = op.kind != DiskOp::Kind::read && op.kind != DiskOp::Kind::flush;
  if (op.error == 0 && op.kind == DiskOp::Kind::flush) {
    flush();
  } else if (op.error == 0 && changes && op.fua) {
    if (op.kind == DiskOp::Kind::deallocate) {
      op.error = stable_.discard(begin, op.length_bytes);  // gives memory back, as `seen` has
    } else {
      make_stable(begin, end);
    }
    forget(begin, end);
  } else if (op.error == 0 && changes) {
    mark(begin, end);
  }
  op.complete(op);
}

void CachedDisk::mark(std::uint64_t begin, std::uint64_t end) {
  if (begin == end) return;
  // Whatever touches the new range becomes part of it.
  auto at = dirty_.upper_bound(begin);
  if (at != dirty_.begin() && std::prev(at)->second >= begin) --at;
  while (at != dirty_.end() && at->first <= end) {
    begin = std::min(begin, at->first);
    end = std::max(end, at->second);
    at = dirty_.erase(at);
  }
  dirty_.emplace(begin, end);
  if (dirty_.size() > kRangesMax) flush();
}

void CachedDisk::forget(std::uint64_t begin, std::uint64_t end) {
  auto at = dirty_.upper_bound(begin);
  if (at != dirty_.begin()) --at;
  while (at != dirty_.end() && at->first < end) {
    const auto [first, last] = *at;
    if (last <= begin) {
      ++at;
      continue;
    }
    at = dirty_.erase(at);
    if (first < begin) dirty_.emplace(first, begin);
    if (last > end) dirty_.emplace(end, last);
  }
}

void CachedDisk::make_stable(std::uint64_t begin, std::uint64_t end) {
  std::memcpy(stable_.data() + begin, seen_->data() + begin, end - begin);
}

void CachedDisk::flush() {
  for (const auto& [begin, end] : dirty_) make_stable(begin, end);
  dirty_.clear();
}

void CachedDisk::power_loss() {
  for (const auto& [begin, end] : dirty_) {
    seen_->mark(begin, end);
    std::memcpy(seen_->data() + begin, stable_.data() + begin, end - begin);
  }
  dirty_.clear();
}

std::uint64_t CachedDisk::dirty_bytes() const {
  std::uint64_t bytes = 0;
  for (const auto& [begin, end] : dirty_) bytes += end - begin;
  return bytes;
}

Result<void> CachedDisk::resize(std::uint64_t size_bytes) {
  // Like a flush: what a resize does to a cache is nobody's promise.
  flush();
  if (auto resized = seen_->resize(size_bytes); !resized) return resized;
  return stable_.resize(size_bytes);
}

}  // namespace nvmf::controller
