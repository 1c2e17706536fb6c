// The only two things that this room asks of the operating system itself: memory that is not there
// until it is written to, and which file a path means. Everything else goes through
// transport::Loop. Neither is used while a command runs on behalf of a host, except discard().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "nvme/result.h"

namespace nvmf::controller {

/// Address space that reads as zeroes and takes memory only where it was written to.
class SparseMemory {
 public:
  /// `bytes` at least 1. Fails if the address space is not to be had.
  static Result<SparseMemory> reserve(std::uint64_t bytes);
  ~SparseMemory();
  SparseMemory(SparseMemory&& other) noexcept;
  SparseMemory& operator=(SparseMemory&& other) noexcept;

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::uint64_t size_bytes() const { return bytes_; }

  /// Makes a range read as zeroes and gives its whole pages back to the system. 0 or an errno.
  int discard(std::uint64_t offset, std::uint64_t length);
  /// What is added reads as zeroes, what is cut off is gone. data() may be another place.
  Result<void> resize(std::uint64_t bytes);
  /// Bytes of physical memory in use, for tests and statistics.
  [[nodiscard]] std::uint64_t resident_bytes() const;

 private:
  SparseMemory(std::byte* data, std::uint64_t bytes) : data_(data), bytes_(bytes) {}
  std::byte* data_ = nullptr;
  std::uint64_t bytes_ = 0;
};

/// A text that stays the same for the same file: its canonical path and inode number. A path that
/// names no file of the system (tests have virtual ones) stands for itself.
std::string file_identity(const std::string& path);

}  // namespace nvmf::controller
