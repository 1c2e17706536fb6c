// A namespace in a regular file or on a block device, through the loop's files.
//
// Written data is in the system's page cache until a flush, or on stable storage at once with FUA:
// volatile_cache() is true. Operations complete later, never inside submit().
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "controller/disk.h"
#include "controller/limits.h"
#include "nvme/result.h"
#include "transport/loop.h"

namespace nvmf::controller {

class FileDisk final : public Disk {
 public:
  /// The file must exist, and its size be a multiple of `block_bytes` and not 0; otherwise the
  /// error names the file and both sizes.
  static Result<std::unique_ptr<FileDisk>> open(transport::Loop& loop, const std::string& path,
                                                std::uint32_t block_bytes, bool read_only);

  [[nodiscard]] std::uint64_t size_bytes() const override { return size_bytes_; }
  [[nodiscard]] bool read_only() const override { return read_only_; }
  [[nodiscard]] bool volatile_cache() const override { return true; }
  void submit(DiskOp& op) override;
  /// As the file system tells; all of a block device.
  void extents(DiskExtents& query) override;
  /// At most what the file had when it was opened: files do not grow by this.
  Result<void> resize(std::uint64_t size_bytes) override;

 private:
  /// One file operation and the disk operation that it serves.
  struct Slot : transport::FileOp {
    DiskOp* op = nullptr;
    FileDisk* disk = nullptr;
    Slot* next_free = nullptr;
  };

  FileDisk(std::unique_ptr<transport::File> file, bool read_only);
  void start(Slot& slot, DiskOp& op);
  static void on_complete(transport::FileOp& file);
  void complete(Slot& slot);

  std::unique_ptr<transport::File> file_;
  std::uint64_t size_bytes_;
  bool read_only_;
  std::array<Slot, kFileOpsMax> slots_;
  Slot* free_ = nullptr;
  DiskOp* waiting_first_ = nullptr;  // linked by DiskOp::next, in the order they came
  DiskOp* waiting_last_ = nullptr;
};

}  // namespace nvmf::controller
