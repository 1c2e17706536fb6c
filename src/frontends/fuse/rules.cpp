#include "frontends/fuse/rules.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace nvmf::fuse {

Part read_part(std::uint64_t size_bytes, std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  if (offset_bytes >= size_bytes) return {};
  return {.length_bytes = std::min(length_bytes, size_bytes - offset_bytes)};
}

Part write_part(std::uint64_t size_bytes, std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  if (length_bytes == 0) return {};
  if (offset_bytes >= size_bytes) return {.error = ENOSPC};
  return {.length_bytes = std::min(length_bytes, size_bytes - offset_bytes)};
}

Zeroes zeroes_for(int mode, std::uint64_t size_bytes, std::uint64_t offset_bytes,
                  std::uint64_t length_bytes) {
  const bool keep_size = (mode & FALLOC_FL_KEEP_SIZE) != 0;
  const int what = mode & ~FALLOC_FL_KEEP_SIZE;
  if (what != FALLOC_FL_PUNCH_HOLE && what != FALLOC_FL_ZERO_RANGE) return {.error = EOPNOTSUPP};
  const Part part = read_part(size_bytes, offset_bytes, length_bytes);
  if (!keep_size && part.length_bytes < length_bytes) return {.error = ENOSPC};
  return {.offset_bytes = offset_bytes,
          .length_bytes = part.length_bytes,
          .no_hole = what == FALLOC_FL_ZERO_RANGE};
}

Found seek_in(int whence, std::uint64_t size_bytes, std::uint64_t offset_bytes) {
  if (whence != SEEK_DATA && whence != SEEK_HOLE) return {.error = EINVAL};
  if (offset_bytes >= size_bytes) return {.error = ENXIO};
  return {.offset_bytes = whence == SEEK_DATA ? offset_bytes : size_bytes};
}

int file_error(int block_error) {
  switch (block_error) {
    case 0:
    case ENOSPC:
    case EPERM:
    case EINTR:
    case EINVAL:
    case ENOMEM:
      return block_error;
    case ENOTSUP:
      return EOPNOTSUPP;
    default:
      return EIO;
  }
}

}  // namespace nvmf::fuse
