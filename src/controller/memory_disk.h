// A namespace in memory: sparse, zero at the start, gone at the end of the process.
//
// Every operation completes inside submit(). Nothing of it survives a loss of power, so that there
// is no cache to flush either: volatile_cache() is false.
#pragma once

#include <memory>

#include "controller/allocation_map.h"
#include "controller/disk.h"
#include "controller/system.h"
#include "nvme/result.h"

namespace nvmf::controller {

class MemoryDisk final : public Disk {
 public:
  /// 1 TiB starts at once and takes no memory. Fails if there is no such address space.
  static Result<std::unique_ptr<MemoryDisk>> create(std::uint64_t size_bytes);

  [[nodiscard]] std::uint64_t size_bytes() const override { return memory_.size_bytes(); }
  [[nodiscard]] bool read_only() const override { return false; }
  [[nodiscard]] bool volatile_cache() const override { return false; }
  void submit(DiskOp& op) override;
  /// Exact to 4 KiB: what was written, also zeroes, until it is deallocated.
  void extents(DiskExtents& query) override;
  Result<void> resize(std::uint64_t size_bytes) override;

  /// Does it, without completing it. 0 or an errno.
  int run(const DiskOp& op);
  [[nodiscard]] std::byte* data() const { return memory_.data(); }
  /// For who writes to data().
  void mark(std::uint64_t begin, std::uint64_t end) { allocated_.mark(begin, end); }
  [[nodiscard]] std::uint64_t resident_bytes() const { return memory_.resident_bytes(); }

 private:
  MemoryDisk(SparseMemory memory, AllocationMap allocated)
      : memory_(std::move(memory)), allocated_(std::move(allocated)) {}
  int discard(std::uint64_t offset, std::uint64_t length);
  SparseMemory memory_;
  AllocationMap allocated_;
};

}  // namespace nvmf::controller
