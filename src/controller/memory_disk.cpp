#include "controller/memory_disk.h"

#include <cstring>
#include <utility>

#include "nvme/check.h"

namespace nvmf::controller {

Result<std::unique_ptr<MemoryDisk>> MemoryDisk::create(std::uint64_t size_bytes) {
  auto memory = SparseMemory::reserve(size_bytes);
  if (!memory) return std::unexpected(std::move(memory.error()));
  return std::unique_ptr<MemoryDisk>(new MemoryDisk(std::move(*memory)));
}

void MemoryDisk::submit(DiskOp& op) {
  // Ranges are checked against the namespace before they come here.
  NVMF_CHECK(op.offset_bytes <= size_bytes() && op.length_bytes <= size_bytes() - op.offset_bytes);
  std::byte* const place = memory_.data() + op.offset_bytes;
  op.error = 0;
  switch (op.kind) {
    case DiskOp::Kind::read:
      std::memcpy(op.data, place, op.length_bytes);
      break;
    case DiskOp::Kind::write:
      std::memcpy(place, op.data, op.length_bytes);
      break;
    case DiskOp::Kind::flush:
      break;
    case DiskOp::Kind::write_zeroes:
      if (op.deallocate) {
        op.error = memory_.discard(op.offset_bytes, op.length_bytes);
      } else {
        std::memset(place, 0, op.length_bytes);
      }
      break;
    case DiskOp::Kind::deallocate:
      op.error = memory_.discard(op.offset_bytes, op.length_bytes);
      break;
  }
  op.complete(op);
}

}  // namespace nvmf::controller
