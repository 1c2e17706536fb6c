// A namespace in memory: sparse, zero at the start, gone at the end of the process.
//
// Every operation completes inside submit(). Nothing of it survives a loss of power, so that there
// is no cache to flush either: volatile_cache() is false.
#pragma once

#include <memory>

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
  Result<void> resize(std::uint64_t size_bytes) override { return memory_.resize(size_bytes); }

  /// Does it, without completing it. 0 or an errno.
  int run(const DiskOp& op);
  [[nodiscard]] std::byte* data() const { return memory_.data(); }
  [[nodiscard]] std::uint64_t resident_bytes() const { return memory_.resident_bytes(); }

 private:
  explicit MemoryDisk(SparseMemory memory) : memory_(std::move(memory)) {}
  SparseMemory memory_;
};

}  // namespace nvmf::controller
