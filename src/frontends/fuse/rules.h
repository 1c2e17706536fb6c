// What a file may be asked to do, decided from its size: a namespace behaves as a block device
// does. Pure functions.
#pragma once

#include <cstdint>

namespace nvmf::fuse {

/// Which part of a request is carried out: its first `length_bytes`, or nothing and `error`.
struct Part {
  int error = 0;
  std::uint64_t length_bytes = 0;
};

/// Short at the end, nothing behind it.
[[nodiscard]] Part read_part(std::uint64_t size_bytes, std::uint64_t offset_bytes,
                             std::uint64_t length_bytes);
/// Short at the end; ENOSPC where nothing fits.
[[nodiscard]] Part write_part(std::uint64_t size_bytes, std::uint64_t offset_bytes,
                              std::uint64_t length_bytes);

/// What fallocate() comes to: zeroes over a range, which may be empty, or `error`.
struct Zeroes {
  int error = 0;
  std::uint64_t offset_bytes = 0;
  std::uint64_t length_bytes = 0;
  bool no_hole = false;
};
/// PUNCH_HOLE (blocks may be given back) and ZERO_RANGE (they stay) read back as zeroes. What lies
/// behind the end is nothing to be done with KEEP_SIZE and ENOSPC without. All else is EOPNOTSUPP,
/// as on block devices: also plain allocation, since we cannot promise that a later write will find
/// room at a target that allocates when it is written to.
[[nodiscard]] Zeroes zeroes_for(int mode, std::uint64_t size_bytes, std::uint64_t offset_bytes,
                                std::uint64_t length_bytes);

/// SEEK_DATA and SEEK_HOLE, where all is data as far as we know.
struct Found {
  int error = 0;
  std::uint64_t offset_bytes = 0;
};
[[nodiscard]] Found seek_in(int whence, std::uint64_t size_bytes, std::uint64_t offset_bytes);

/// The errno that a program sees of a BlockRequest's.
[[nodiscard]] int file_error(int block_error);

}  // namespace nvmf::fuse
