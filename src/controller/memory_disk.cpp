#include "controller/memory_disk.h"

#include <cerrno>
#include <cstring>
#include <utility>

namespace nvmf::controller {

Result<std::unique_ptr<MemoryDisk>> MemoryDisk::create(std::uint64_t size_bytes) {
  auto memory = SparseMemory::reserve(size_bytes);
  if (!memory) return std::unexpected(std::move(memory.error()));
  return std::unique_ptr<MemoryDisk>(new MemoryDisk(std::move(*memory)));
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
      std::memcpy(place, op.data, op.length_bytes);
      return 0;
    case DiskOp::Kind::flush:
      return 0;
    case DiskOp::Kind::write_zeroes:
      if (op.deallocate) return memory_.discard(op.offset_bytes, op.length_bytes);
      std::memset(place, 0, op.length_bytes);
      return 0;
    case DiskOp::Kind::deallocate:
      return memory_.discard(op.offset_bytes, op.length_bytes);
  }
  return EINVAL;
}

}  // namespace nvmf::controller
