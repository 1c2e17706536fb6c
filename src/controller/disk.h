// What a namespace of our controller stores its blocks in. Implementations: memory_disk, file_disk;
// later others, and faults wrapped around any of them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nvmf::controller {

/// One operation. The caller owns it and its buffer and leaves both alone until `complete`.
struct DiskOp {
  enum class Kind : std::uint8_t { read, write, flush, write_zeroes, deallocate };
  Kind kind = Kind::read;
  bool fua = false;                // write, write_zeroes: stable when complete
  bool deallocate = false;         // write_zeroes: may deallocate (DEAC)
  std::uint64_t offset_bytes = 0;  // a multiple of the block size, inside the disk
  std::uint64_t length_bytes = 0;
  std::byte* data = nullptr;
  void (*complete)(DiskOp&) = nullptr;
  /// 0 or an errno.
  int error = 0;
  DiskOp* next = nullptr;  // for the disk's own use
  void* owner = nullptr;   // for the disk's own use
};

/// Deallocated blocks read as zero in every disk.
class Disk {
 public:
  virtual ~Disk() = default;  // not while an operation is under way
  [[nodiscard]] virtual std::uint64_t size_bytes() const = 0;
  [[nodiscard]] virtual bool read_only() const = 0;
  /// Whether writes may be lost on power failure before a flush (VWC).
  [[nodiscard]] virtual bool volatile_cache() const = 0;
  /// Completion may come inside submit().
  virtual void submit(DiskOp& op) = 0;
};

}  // namespace nvmf::controller
