// Files and block devices: what one operation asks of the kernel, step by step, the same for both
// backends. A step is one system call; an operation may take several (short transfers, fallbacks).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "io/unique_fd.h"
#include "transport/loop.h"

namespace nvmf::io {

class Backend;

class DiskFile final : public transport::File {
 public:
  DiskFile(std::shared_ptr<Backend*> backend, UniqueFd fd, std::uint64_t size_bytes)
      : backend_(std::move(backend)), fd_(std::move(fd)), size_bytes_(size_bytes) {}

  void submit(transport::FileOp& op) override;
  [[nodiscard]] std::uint64_t size_bytes() const override;
  [[nodiscard]] transport::FileRange next_data(std::uint64_t from) const override;
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  friend struct FileStep;
  std::shared_ptr<Backend*> backend_;  // null inside once the loop has ended
  UniqueFd fd_;
  std::uint64_t size_bytes_;  // of a block device; 0: a regular file, asked each time
  // What the file system has refused once is not asked again. Worker threads set them too.
  std::atomic<bool> can_zero_range_{true};
  std::atomic<bool> can_punch_{true};
};

/// The next system call of an operation.
struct FileStep {
  enum class Call : std::uint8_t { none, read, write, sync, zero_range, punch };
  Call call = Call::none;
  int fd = -1;
  std::byte* data = nullptr;
  std::uint64_t offset_bytes = 0;
  std::uint64_t length_bytes = 0;
  int flags = 0;  // write: RWF_*; the last two: FALLOC_FL_*

  static FileStep next(const transport::FileOp& op);
  /// Takes the call's result (bytes, 0, or a negative errno). True if the operation is over, with
  /// op.error set; false if next() has more to do.
  static bool finish(transport::FileOp& op, Call call, std::int64_t result);
  /// Makes the call, blocking.
  [[nodiscard]] std::int64_t perform() const;
};

/// Opens an existing regular file or block device.
Result<std::unique_ptr<DiskFile>> open_disk_file(std::shared_ptr<Backend*> backend,
                                                 const std::string& path, bool writable);

}  // namespace nvmf::io
