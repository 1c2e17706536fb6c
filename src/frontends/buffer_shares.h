// How the faces of a process divide the memory for the data of requests under way: one budget, a
// share for each face that there is. A face never takes from another's share: a crowd of NBD
// clients must not be able to starve the kernel, which may be waiting for its disk to free memory.
#pragma once

#include <algorithm>
#include <cstddef>

namespace nvmf::frontends {

/// All faces of a process together: what somebody with a small container has to expect.
inline constexpr std::size_t kBufferBytesMax = std::size_t{64} << 20;
/// The most that FUSE has any use for: 6 MiB for each of its reactors (fuse/limits.h).
inline constexpr std::size_t kFuseBufferBytesMax = std::size_t{48} << 20;
/// What FUSE gets of three. Less than a third: its requests wait in the kernel at no cost, while
/// NBD's clients and the kernel's connections have reserves (16 MiB each at most) of their shares.
inline constexpr std::size_t kFuseBufferBytesOfThree = std::size_t{16} << 20;

/// The faces that a process has.
struct FacesThere {
  bool nbd = false;
  bool fuse = false;
  bool kernel = false;  // devices /dev/nbdN
};

/// Bytes; 0 for a face that is not there.
struct BufferShares {
  std::size_t nbd = 0;
  std::size_t fuse = 0;
  std::size_t kernel = 0;
};

/// One face gets all that it has a use for; two get halves; of three, what FUSE does not get is
/// halved between the other two.
[[nodiscard]] constexpr BufferShares buffer_shares(const FacesThere& there) {
  const auto others = static_cast<std::size_t>(there.nbd) + static_cast<std::size_t>(there.kernel);
  BufferShares shares;
  if (there.fuse) {
    shares.fuse = others == 2 ? kFuseBufferBytesOfThree
                              : std::min(kFuseBufferBytesMax, kBufferBytesMax / (others + 1));
  }
  if (others == 0) return shares;
  const std::size_t each = (kBufferBytesMax - shares.fuse) / others;
  if (there.nbd) shares.nbd = each;
  if (there.kernel) shares.kernel = each;
  return shares;
}

}  // namespace nvmf::frontends
