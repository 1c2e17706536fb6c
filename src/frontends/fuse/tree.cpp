#include "frontends/fuse/tree.h"

#include <ctime>
#include <limits>
#include <utility>

namespace nvmf::fuse {

namespace {

constexpr std::uint64_t kStatBlockBytes = 512;  // st_blocks is in these, whatever the disk
constexpr std::uint64_t kFileSystemBlockBytes = 4096;
constexpr std::int64_t kNsPerSecond = 1'000'000'000;

timespec to_timespec(std::int64_t ns) {
  return {ns / kNsPerSecond, ns % kNsPerSecond};
}

struct stat common(Inode inode, const Owner& owner, mode_t mode, std::int64_t changed_ns) {
  struct stat st{};
  st.st_ino = inode;
  st.st_mode = mode;
  st.st_nlink = 1;
  st.st_uid = owner.uid;
  st.st_gid = owner.gid;
  st.st_atim = st.st_mtim = st.st_ctim = to_timespec(changed_ns);
  return st;
}

}  // namespace

Tree::Tree(std::map<std::uint32_t, std::shared_ptr<const DiskFile>> disks)
    : disks_(std::move(disks)) {
  for (const auto& [nsid, disk] : disks_) {
    if (disk->attached) by_name_.emplace(disk->name, disk.get());
  }
}

const DiskFile* Tree::by_name(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

const DiskFile* Tree::by_nsid(std::uint32_t nsid) const {
  const auto found = disks_.find(nsid);
  return found == disks_.end() ? nullptr : found->second.get();
}

const DiskFile* Tree::by_inode(Inode inode) const {
  return (inode >> 32) == (kFirstDiskInode >> 32) ? by_nsid(static_cast<std::uint32_t>(inode))
                                                  : nullptr;
}

const DiskFile* Tree::after(std::uint32_t nsid) const {
  for (auto at = disks_.upper_bound(nsid); at != disks_.end(); ++at) {
    if (at->second->attached) return at->second.get();
  }
  return nullptr;
}

std::int64_t wall_clock_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * kNsPerSecond + now.tv_nsec;
}

std::int64_t to_ns(const timespec& time) {
  constexpr std::int64_t kSecondsMax = std::numeric_limits<std::int64_t>::max() / kNsPerSecond - 1;
  if (time.tv_sec < 0) return 0;
  if (time.tv_sec > kSecondsMax) return (kSecondsMax + 1) * kNsPerSecond;
  return time.tv_sec * kNsPerSecond + time.tv_nsec;
}

struct stat disk_attributes(const DiskFile& disk, const host::BlockInfo& info, const Owner& owner) {
  const bool read_only = owner.read_only || info.read_only;
  struct stat st = common(disk.inode(), owner, S_IFREG | (read_only ? 0400 : 0600),
                          disk.times->changed_ns.load(std::memory_order_relaxed));
  st.st_size = static_cast<off_t>(info.size_bytes);
  st.st_blksize = static_cast<blksize_t>(info.preferred_bytes);
  // All of it: as far as we know, nothing of it is a hole.
  st.st_blocks = static_cast<blkcnt_t>((info.size_bytes + kStatBlockBytes - 1) / kStatBlockBytes);
  return st;
}

struct stat directory_attributes(Inode inode, const Owner& owner) {
  struct stat st = common(inode, owner, S_IFDIR | 0500, owner.mounted_ns);
  st.st_nlink = inode == kRootInode ? 3 : 2;
  return st;
}

struct stat text_attributes(Inode inode, const Owner& owner) {
  return common(inode, owner, S_IFREG | 0400, owner.mounted_ns);
}

struct statvfs file_system_attributes(const Tree& tree, std::size_t reactor) {
  struct statvfs fs{};
  fs.f_bsize = fs.f_frsize = kFileSystemBlockBytes;
  fs.f_namemax = 255;
  for (const DiskFile* disk = tree.after(0); disk != nullptr; disk = tree.after(disk->nsid)) {
    const std::uint64_t size = disk->devices[reactor]->info().size_bytes;
    fs.f_blocks += (size + kFileSystemBlockBytes - 1) / kFileSystemBlockBytes;
    ++fs.f_files;
  }
  return fs;
}

}  // namespace nvmf::fuse
