// A namespace in memory behind a volatile write cache: what a loss of power does to a disk, without
// one. Written data is lost by power_loss() until a flush, or FUA, has made it stable.
//
// There are two images: what reads see, and what is stable. Every operation completes inside
// submit(). The cache may always write back of its own accord; it does so only when it remembers
// too many ranges.
#pragma once

#include <cstdint>
#include <map>
#include <memory>

#include "controller/disk.h"
#include "controller/memory_disk.h"
#include "controller/system.h"
#include "nvme/result.h"

namespace nvmf::controller {

class CachedDisk final : public Disk {
 public:
  /// Dirty ranges that are remembered; beyond it, everything becomes stable.
  static constexpr std::size_t kRangesMax = 65536;

  static Result<std::unique_ptr<CachedDisk>> create(std::uint64_t size_bytes);

  [[nodiscard]] std::uint64_t size_bytes() const override { return seen_->size_bytes(); }
  [[nodiscard]] bool read_only() const override { return false; }
  [[nodiscard]] bool volatile_cache() const override { return true; }
  void submit(DiskOp& op) override;
  void extents(DiskExtents& query) override { seen_->extents(query); }
  void power_loss() override;
  Result<void> resize(std::uint64_t size_bytes) override;

  /// Bytes that a loss of power would take.
  [[nodiscard]] std::uint64_t dirty_bytes() const;

 private:
  CachedDisk(std::unique_ptr<MemoryDisk> seen, SparseMemory stable)
      : seen_(std::move(seen)), stable_(std::move(stable)) {}
  void mark(std::uint64_t begin, std::uint64_t end);
  void forget(std::uint64_t begin, std::uint64_t end);
  void make_stable(std::uint64_t begin, std::uint64_t end);
  void flush();

  std::unique_ptr<MemoryDisk> seen_;
  SparseMemory stable_;
  std::map<std::uint64_t, std::uint64_t> dirty_;  // begin to end; apart from one another
};

}  // namespace nvmf::controller
