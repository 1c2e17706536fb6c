// The directory that a file system is mounted on: what is wrong with it, what lies on it, and how
// it gets free again.
//
// /proc/self/mountinfo is what is asked, never the mounted file system itself: it may be ours,
// whose answer would have to come from the thread that waits for it, or one that hangs.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "nvme/result.h"

namespace nvmf::fuse {

/// What `mount` shows as the type of ours.
inline constexpr std::string_view kSubtype = "nvmf";
inline constexpr std::string_view kFileSystemType = "fuse.nvmf";

struct Mount {
  std::string device;  // "0:57"
  std::string path;
  std::string type;
  std::string source;
};
/// Lines that are not as proc(5) says are left out.
[[nodiscard]] std::vector<Mount> parse_mountinfo(std::string_view text);
/// What is mounted here now, the uppermost last; empty if it cannot be read.
[[nodiscard]] std::vector<Mount> mounts_on(const std::string& path);

/// Resolves the path of a directory to mount on. Unmounts what killed processes of ours left there.
/// Refuses what does not exist, is no directory, is not empty, or has something mounted on it that
/// lives, in words that say what to do.
Result<std::string> prepare_mount_point(const std::string& path);
/// Why there can be no FUSE here at all, or nothing.
Result<void> check_fuse();

/// Takes the uppermost mount off, also while files are open in it.
Result<void> unmount_lazily(const std::string& path);

}  // namespace nvmf::fuse
