// The files and directories of a connection, as values: names, inode numbers, attributes.
//
//   /            a file per namespace, "nvmf0n1"
//   /.nvmf/      text files about the connection
//
// An inode's number says all about it (a namespace's has the NSID), so that nothing needs to be
// remembered of what the kernel knows.
//
// Threads. A Tree does not change: the control loop makes a new one when something has happened,
// and hands it to each reactor. What does change is in FileTimes, which they share.
#pragma once

#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "frontends/frontend.h"
#include "host/block_device.h"

namespace nvmf::fuse {

using Inode = std::uint64_t;
inline constexpr Inode kRootInode = 1;
inline constexpr Inode kTextsInode = 2;
/// Text file i.
inline constexpr Inode kFirstTextInode = 16;
inline constexpr std::size_t kTextFilesMax = 64;
/// The namespace with NSID n.
inline constexpr Inode kFirstDiskInode = Inode{1} << 32;
inline constexpr std::string_view kTextsName = ".nvmf";

/// When we changed a namespace's data last. Backup programs go by it: a file that is written to
/// with its time standing still would be left out.
struct FileTimes {
  std::atomic<std::int64_t> changed_ns{0};
};

/// A namespace as a file.
struct DiskFile {
  std::uint32_t nsid = 0;
  std::string name;
  std::vector<host::BlockDevice*> devices;  // one per reactor
  frontends::DiskState state = frontends::DiskState::live;
  /// Not so: the name is gone, and who has it open keeps it.
  bool attached = true;
  std::shared_ptr<FileTimes> times;

  [[nodiscard]] Inode inode() const { return kFirstDiskInode | nsid; }
};

/// What all files have in common.
struct Owner {
  uid_t uid = 0;
  gid_t gid = 0;
  bool read_only = false;
  std::int64_t mounted_ns = 0;  // since 1970
};

class Tree {
 public:
  Tree() = default;
  explicit Tree(std::map<std::uint32_t, std::shared_ptr<const DiskFile>> disks);

  /// Among those that are attached; null: there is none.
  [[nodiscard]] const DiskFile* by_name(std::string_view name) const;
  /// Also those that are not.
  [[nodiscard]] const DiskFile* by_nsid(std::uint32_t nsid) const;
  [[nodiscard]] const DiskFile* by_inode(Inode inode) const;
  /// The attached one with the lowest NSID above `nsid`, or from 0 on: null: there are no more.
  [[nodiscard]] const DiskFile* after(std::uint32_t nsid) const;
  [[nodiscard]] std::size_t attached() const { return by_name_.size(); }

 private:
  std::map<std::uint32_t, std::shared_ptr<const DiskFile>> disks_;
  std::map<std::string_view, const DiskFile*, std::less<>> by_name_;
};

/// Since 1970.
[[nodiscard]] std::int64_t wall_clock_ns();
/// The same of any time that a user may set; what lies outside of 1970 to 2262 becomes its end.
[[nodiscard]] std::int64_t to_ns(const timespec& time);

/// `info` is the device's own, of the reactor that is asked.
[[nodiscard]] struct stat disk_attributes(const DiskFile& disk, const host::BlockInfo& info,
                                          const Owner& owner);
[[nodiscard]] struct stat directory_attributes(Inode inode, const Owner& owner);
/// Text files have no size until they are opened, as those in /proc.
[[nodiscard]] struct stat text_attributes(Inode inode, const Owner& owner);
/// What df shows: as large as the namespaces together, and nothing free, since nothing can be made.
[[nodiscard]] struct statvfs file_system_attributes(const Tree& tree, std::size_t reactor);

}  // namespace nvmf::fuse
