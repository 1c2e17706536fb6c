#include "controller/memory_disk.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace nvmf::controller {

Result<std::unique_ptr<MemoryDisk>> MemoryDisk::create(std::uint64_t size_bytes) {
  auto memory = SparseMemory::reserve(size_bytes);
  if (!memory) return std::unexpected(std::move(memory.error()));
  auto allocated = AllocationMap::create(size_bytes);
  if (!allocated) return std::unexpected(std::move(allocated.error()));
  return std::unique_ptr<MemoryDisk>(new MemoryDisk(std::move(*memory), std::move(*allocated)));
}

void MemoryDisk::submit(DiskOp& op) {
  op.error = run(op);
  op.complete(op);
}

int MemoryDisk::run(const DiskOp& op) {
  // Ranges were checked against the namespace; it may have become smaller since.
  if (op.offset_bytes > size_bytes() || op.length_bytes > size_bytes() - op.offset_bytes) {
    return ENODATA;
  }
  std::byte* const place = memory_.data() + op.offset_bytes;
  switch (op.kind) {
    case DiskOp::Kind::read:
      std::memcpy(op.data, place, op.length_bytes);
      return 0;
    case DiskOp::Kind::write:
      mark(op.offset_bytes, op.offset_bytes + op.length_bytes);
      std::memcpy(place, op.data, op.length_bytes);
      return 0;
    case DiskOp::Kind::flush:
      return 0;
    case DiskOp::Kind::write_zeroes:
      if (op.deallocate) return discard(op.offset_bytes, op.length_bytes);
      mark(op.offset_bytes, op.offset_bytes + op.length_bytes);
      std::memset(place, 0, op.length_bytes);
      return 0;
    case DiskOp::Kind::deallocate:
      return discard(op.offset_bytes, op.length_bytes);
  }
  return EINVAL;
}

int MemoryDisk::discard(std::uint64_t offset, std::uint64_t length) {
  const int error = memory_.discard(offset, length);
  if (error == 0) allocated_.clear(offset, offset + length);
  return error;
}

void MemoryDisk::extents(DiskExtents& query) {
  // It may have become smaller since the range was checked.
  const std::uint64_t begin = std::min(query.offset_bytes, size_bytes());
  const std::uint64_t end = begin + std::min(query.length_bytes, size_bytes() - begin);
  std::uint64_t at = begin;
  query.count = 0;
  query.error = begin == end ? ENODATA : 0;
  while (at < end) {
    const AllocationMap::Run run = allocated_.next(at);
    at = std::min(run.begin, end);
    if (at == end || query.count == query.found.size()) break;
    const std::uint64_t stop = std::min(run.end, end);
    query.found[query.count++] = {at, stop - at};
    at = stop;
  }
  query.examined_bytes = at - begin;
  query.complete(query);
}

Result<void> MemoryDisk::resize(std::uint64_t size_bytes) {
  if (auto resized = memory_.resize(size_bytes); !resized) return resized;
  return allocated_.resize(size_bytes);
}

}  // namespace nvmf::controller
