// What a namespace of our controller stores its blocks in. Implementations: memory_disk, file_disk,
// nbd_disk, cached_disk (a volatile cache over memory), faulty_disk (a filter around any other),
// and what tests put behind a namespace (TargetConfig::wrap_disk, NamespaceConfig::factory).
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>

#include "nvme/result.h"

namespace nvmf::controller {

/// One operation. The caller owns it and its buffer and leaves both alone until `complete`.
struct DiskOp {
  enum class Kind : std::uint8_t { read, write, flush, write_zeroes, deallocate };
  Kind kind = Kind::read;
  bool fua = false;                // write, write_zeroes, deallocate: stable when complete
  bool deallocate = false;         // write_zeroes: may deallocate (DEAC)
  std::uint64_t offset_bytes = 0;  // a multiple of the block size, inside the disk
  std::uint64_t length_bytes = 0;
  std::byte* data = nullptr;
  void (*complete)(DiskOp&) = nullptr;
  /// 0 or an errno. EAGAIN: what is behind the disk is not there, and may come back.
  int error = 0;
  // Whose it is, for filters that make a difference: controller, queue and opcode of the command.
  // All 0: the target's own (the flush of a shutdown).
  std::uint16_t cntlid = 0;
  std::uint16_t qid = 0;
  std::uint8_t opcode = 0;
  DiskOp* next = nullptr;  // for the disk's own use
  void* owner = nullptr;   // for the disk's own use
};

struct DiskExtent {
  std::uint64_t offset_bytes = 0;
  std::uint64_t length_bytes = 0;
  friend bool operator==(const DiskExtent&, const DiskExtent&) = default;
};

/// Asks what of a range is allocated. The caller owns it and `found`, and leaves both alone until
/// `complete`.
struct DiskExtents {
  std::uint64_t offset_bytes = 0;  // multiples of the block size, inside the disk
  std::uint64_t length_bytes = 0;  // at least one block
  std::span<DiskExtent> found;     // room for the answer: at least one
  void (*complete)(DiskExtents&) = nullptr;

  /// The answer: so many of `found`, allocated ranges that rise and do not touch or overlap, within
  /// the range asked for. Those between them are deallocated, up to `examined_bytes` from the
  /// beginning; beyond that, which is no further than the range, nothing is known. It is at least
  /// one block, unless there is an error.
  std::size_t count = 0;
  std::uint64_t examined_bytes = 0;
  int error = 0;  // 0 or an errno

  DiskExtents* next = nullptr;  // for the disk's own use
  void* owner = nullptr;        // for the disk's own use
};

/// Deallocated blocks read as zero in every disk.
class Disk {
 public:
  virtual ~Disk() = default;  // not while an operation is under way
  [[nodiscard]] virtual std::uint64_t size_bytes() const = 0;
  [[nodiscard]] virtual bool read_only() const = 0;
  /// Whether writes may be lost on power failure before a flush (VWC).
  [[nodiscard]] virtual bool volatile_cache() const = 0;
  /// Blocks of a namespace may not be smaller: what can be read or written at once.
  [[nodiscard]] virtual std::uint32_t block_bytes_min() const { return 512; }
  /// Nothing is under way that no caller waits for: it may be destroyed when its last caller has
  /// gone.
  [[nodiscard]] virtual bool idle() const { return true; }
  /// Completion may come inside submit().
  virtual void submit(DiskOp& op) = 0;

  /// Completion may come inside. What was written, and completed, before is never said to be
  /// deallocated; borders may lie between blocks: whatever is deallocated in part counts as
  /// allocated. Whoever does not know says that all of it is.
  virtual void extents(DiskExtents& query) {
    query.found[0] = {query.offset_bytes, query.length_bytes};
    query.count = 1;
    query.examined_bytes = query.length_bytes;
    query.error = 0;
    query.complete(query);
  }

  /// Why nobody waits for an operation any more: its connection is gone, or its host stops the
  /// controller and is told that it has stopped only when the operation is complete.
  enum class Abandoned : std::uint8_t { lost, stopped };
  /// For disks that hold operations back: `op`, submitted and not complete, is to be complete as
  /// soon as can be, never inside this call; one that was not begun may end as ECANCELED. Others
  /// simply go on.
  virtual void abandon(DiskOp& /*op*/, Abandoned /*why*/) {}
  /// The same for a question: it ends as ECANCELED.
  virtual void abandon_extents(DiskExtents& /*query*/) {}
  /// Takes back an operation that it holds back: that ends as ECANCELED inside this call, which
  /// returns true. False: it goes on.
  virtual bool take_back(DiskOp& /*op*/) { return false; }
  /// What was written and neither flushed nor FUA is lost, as are operations that are held back
  /// (they end as ECANCELED, never inside this call). A disk without a volatile cache loses
  /// nothing.
  virtual void power_loss() {}
  /// Blocks have another size from now on; for disks that speak of blocks.
  virtual void formatted(std::uint32_t /*block_bytes*/) {}
  /// Another size from now on, a multiple of the block size and not 0; operations beyond it end as
  /// ENODATA.
  virtual Result<void> resize(std::uint64_t /*size_bytes*/) {
    return fail("This namespace cannot change its size", ENOTSUP);
  }
};

}  // namespace nvmf::controller
