#include "frontends/fuse/handlers.h"

#include <fcntl.h>
#include <linux/fuse.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <vector>

#include "frontends/fuse/fuse_api.h"
#include "frontends/fuse/limits.h"
#include "frontends/fuse/rules.h"
#include "frontends/fuse/text_files.h"
#include "frontends/fuse/worker.h"

namespace nvmf::fuse {

namespace {

/// FOPEN_PARALLEL_DIRECT_WRITES came with version 7.38 of the protocol (Linux 6.2).
constexpr unsigned kParallelWritesMinor = 38;
/// One answer to readdir, at most: some hundred names.
constexpr std::size_t kListingBytesMax = 32 * 1024;
/// A listing's places: what is the directory's own, then the namespaces by NSID.
constexpr std::uint64_t kFirstDiskPlace = 16;

Served& served(fuse_req_t request) {
  return *static_cast<Served*>(::fuse_req_userdata(request));
}

Worker& worker() {
  return *Worker::current();
}

std::optional<std::size_t> text_index(const Served& s, fuse_ino_t inode) {
  if (inode < kFirstTextInode || inode >= kFirstTextInode + s.texts->count()) return std::nullopt;
  return inode - kFirstTextInode;
}

/// Of whatever the kernel knows the number of.
std::optional<struct stat> attributes(const Served& s, fuse_ino_t inode) {
  if (inode == kRootInode || inode == kTextsInode) return directory_attributes(inode, s.owner);
  if (text_index(s, inode)) return text_attributes(inode, s.owner);
  if (const DiskFile* disk = worker().tree().by_inode(inode)) {
    return disk_attributes(*disk, worker().device(*disk).info(), s.owner);
  }
  return std::nullopt;
}

/// What may be read and written is a namespace's file and nothing else.
const DiskFile* disk_or_refuse(fuse_req_t request, fuse_ino_t inode) {
  const DiskFile* disk = worker().tree().by_inode(inode);
  if (disk == nullptr) ::fuse_reply_err(request, EINVAL);
  return disk;
}

void on_init(void* userdata, fuse_conn_info* connection) {
  auto& s = *static_cast<Served*>(userdata);
  connection->max_write = std::min(connection->max_write, kTransferBytesMax);
  connection->max_background = kBackgroundMax;
  // Without it the kernel would have an O_TRUNC done as a truncation, which is refused.
  connection->want |= connection->capable & FUSE_CAP_ATOMIC_O_TRUNC;
  s.open_flags = FOPEN_DIRECT_IO;
  if (connection->proto_minor >= kParallelWritesMinor) s.open_flags |= FOPEN_PARALLEL_DIRECT_WRITES;
  s.greeted = true;
}

void on_lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  const Served& s = served(request);
  fuse_entry_param entry{};  // timeouts of 0: the kernel asks again each time
  if (parent == kRootInode) {
    if (name == kTextsName && s.texts->count() != 0) {
      entry.ino = kTextsInode;
    } else if (const DiskFile* disk = worker().tree().by_name(name)) {
      entry.ino = disk->inode();
    }
  } else if (parent == kTextsInode) {
    if (const auto i = s.texts->find(name)) entry.ino = kFirstTextInode + *i;
  }
  const auto found = attributes(s, entry.ino);
  if (!found) {
    ::fuse_reply_err(request, ENOENT);
    return;
  }
  entry.attr = *found;
  ::fuse_reply_entry(request, &entry);
}

void on_getattr(fuse_req_t request, fuse_ino_t inode, fuse_file_info*) {
  if (const auto found = attributes(served(request), inode)) {
    ::fuse_reply_attr(request, &*found, 0);
  } else {
    ::fuse_reply_err(request, ENOENT);
  }
}

/// What can be set is the time of the last change. That which stays as it is may be set, too.
void on_setattr(fuse_req_t request, fuse_ino_t inode, struct stat* wanted, int which,
                fuse_file_info*) {
  const auto now = attributes(served(request), inode);
  if (!now) {
    ::fuse_reply_err(request, ENOENT);
    return;
  }
  const auto sets = [&](int what) { return (which & what) != 0; };
  const DiskFile* disk = worker().tree().by_inode(inode);
  if ((sets(FUSE_SET_ATTR_SIZE) && (disk == nullptr || wanted->st_size != now->st_size)) ||
      (sets(FUSE_SET_ATTR_MODE) && (wanted->st_mode & 07777) != (now->st_mode & 07777)) ||
      (sets(FUSE_SET_ATTR_UID) && wanted->st_uid != now->st_uid) ||
      (sets(FUSE_SET_ATTR_GID) && wanted->st_gid != now->st_gid)) {
    ::fuse_reply_err(request, EPERM);
    return;
  }
  if (disk != nullptr && sets(FUSE_SET_ATTR_MTIME_NOW)) {
    disk->times->changed_ns = wall_clock_ns();
  } else if (disk != nullptr && sets(FUSE_SET_ATTR_MTIME)) {
    disk->times->changed_ns = to_ns(wanted->st_mtim);
  }
  on_getattr(request, inode, nullptr);
}

/// O_TRUNC is ignored, as block devices do.
void on_open(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
  const Served& s = served(request);
  const bool writes = (info->flags & O_ACCMODE) != O_RDONLY;
  if (const auto i = text_index(s, inode)) {
    if (writes) {
      ::fuse_reply_err(request, EACCES);
    } else {
      s.texts->open(request, *i);
    }
    return;
  }
  const DiskFile* disk = worker().tree().by_inode(inode);
  if (disk == nullptr || !disk->attached) {
    ::fuse_reply_err(request, ENOENT);
  } else if (writes && (s.owner.read_only || worker().device(*disk).info().read_only)) {
    ::fuse_reply_err(request, EROFS);
  } else {
    // libfuse 3.14 has no name for parallel writes, but lets any answer through.
    fuse_open_out out{};
    out.open_flags = s.open_flags;
    ::fuse_reply_buf(request, reinterpret_cast<const char*>(&out), sizeof out);
  }
}

void on_release(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
  const Served& s = served(request);
  if (text_index(s, inode)) s.texts->release(info->fh);
  ::fuse_reply_err(request, 0);
}

void on_read(fuse_req_t request, fuse_ino_t inode, std::size_t size_bytes, off_t offset_bytes,
             fuse_file_info* info) {
  const Served& s = served(request);
  const auto offset = static_cast<std::uint64_t>(offset_bytes);
  if (text_index(s, inode)) {
    s.texts->read(request, info->fh, size_bytes, offset);
  } else if (const DiskFile* disk = disk_or_refuse(request, inode)) {
    worker().read(request, *disk, size_bytes, offset);
  }
}

void on_write(fuse_req_t request, fuse_ino_t inode, const char* data, std::size_t size_bytes,
              off_t offset_bytes, fuse_file_info* info) {
  if (const DiskFile* disk = disk_or_refuse(request, inode)) {
    worker().write(request, *disk, reinterpret_cast<const std::byte*>(data), size_bytes,
                   static_cast<std::uint64_t>(offset_bytes), (info->flags & O_DSYNC) != 0);
  }
}

/// There is no on_flush(): closing a file does no more than closing a block device, which also
/// leaves the disk's cache alone.
void on_fsync(fuse_req_t request, fuse_ino_t inode, int, fuse_file_info*) {
  if (const DiskFile* disk = worker().tree().by_inode(inode)) {
    worker().flush(request, *disk);
  } else {
    ::fuse_reply_err(request, 0);
  }
}

void on_fsyncdir(fuse_req_t request, fuse_ino_t, int, fuse_file_info*) {
  ::fuse_reply_err(request, 0);
}

void on_fallocate(fuse_req_t request, fuse_ino_t inode, int mode, off_t offset_bytes,
                  off_t length_bytes, fuse_file_info*) {
  const DiskFile* disk = disk_or_refuse(request, inode);
  if (disk == nullptr) return;
  const Zeroes zeroes = zeroes_for(mode, worker().device(*disk).info().size_bytes,
                                   static_cast<std::uint64_t>(offset_bytes),
                                   static_cast<std::uint64_t>(length_bytes));
  if (zeroes.error != 0 || zeroes.length_bytes == 0) {
    ::fuse_reply_err(request, zeroes.error);
  } else {
    worker().write_zeroes(request, *disk, zeroes.offset_bytes, zeroes.length_bytes, zeroes.no_hole);
  }
}

void on_lseek(fuse_req_t request, fuse_ino_t inode, off_t offset_bytes, int whence,
              fuse_file_info*) {
  if (const DiskFile* disk = disk_or_refuse(request, inode)) {
    worker().seek(request, *disk, whence, static_cast<std::uint64_t>(offset_bytes));
  }
}

/// Names, as long as there is room for them.
class Listing {
 public:
  Listing(fuse_req_t request, std::size_t size_bytes)
      : request_(request), bytes_(std::min(size_bytes, kListingBytesMax)) {}

  /// `next`: the place after this name. False: it did not fit.
  bool add(const char* name, const struct stat& st, std::uint64_t next) {
    const std::size_t took =
        ::fuse_add_direntry(request_, bytes_.data() + used_, bytes_.size() - used_, name, &st,
                            static_cast<off_t>(next));
    if (took > bytes_.size() - used_) return false;
    used_ += took;
    return true;
  }
  void send() { ::fuse_reply_buf(request_, bytes_.data(), used_); }

 private:
  fuse_req_t request_;
  std::vector<char> bytes_;
  std::size_t used_ = 0;
};

/// The directory's own names come first: a place up to kFirstDiskPlace counts them, a later one has
/// the NSID that was the last, so that a listing goes on rightly whatever comes and goes meanwhile.
void list_root(const Served& s, std::uint64_t place, Listing& listing) {
  const struct stat root = directory_attributes(kRootInode, s.owner);
  if (place < 1 && !listing.add(".", root, 1)) return;
  if (place < 2 && !listing.add("..", root, 2)) return;
  if (place < kFirstDiskPlace && s.texts->count() != 0 &&
      !listing.add(kTextsName.data(), directory_attributes(kTextsInode, s.owner),
                   kFirstDiskPlace)) {
    return;
  }
  const Tree& tree = worker().tree();
  const std::uint64_t last = place > kFirstDiskPlace ? place - kFirstDiskPlace : 0;
  for (const DiskFile* disk = tree.after(static_cast<std::uint32_t>(last)); disk != nullptr;
       disk = tree.after(disk->nsid)) {
    struct stat st{};
    st.st_ino = disk->inode();
    st.st_mode = S_IFREG;
    if (!listing.add(disk->name.c_str(), st, kFirstDiskPlace + disk->nsid)) return;
  }
}

void list_texts(const Served& s, std::uint64_t place, Listing& listing) {
  if (place < 1 && !listing.add(".", directory_attributes(kTextsInode, s.owner), 1)) return;
  if (place < 2 && !listing.add("..", directory_attributes(kRootInode, s.owner), 2)) return;
  for (std::size_t i = place < 2 ? 0 : place - 2; i < s.texts->count(); ++i) {
    const struct stat st = text_attributes(kFirstTextInode + i, s.owner);
    if (!listing.add(s.texts->name(i).c_str(), st, i + 3)) return;
  }
}

void on_readdir(fuse_req_t request, fuse_ino_t inode, std::size_t size_bytes, off_t place,
                fuse_file_info*) {
  const Served& s = served(request);
  Listing listing(request, size_bytes);
  if (inode == kRootInode) {
    list_root(s, static_cast<std::uint64_t>(place), listing);
  } else if (inode == kTextsInode) {
    list_texts(s, static_cast<std::uint64_t>(place), listing);
  } else {
    ::fuse_reply_err(request, ENOTDIR);
    return;
  }
  listing.send();
}

void on_statfs(fuse_req_t request, fuse_ino_t) {
  const struct statvfs fs = file_system_attributes(worker().tree(), worker().index());
  ::fuse_reply_statfs(request, &fs);
}

// What files there are is the controller's to say.
void on_mknod(fuse_req_t request, fuse_ino_t, const char*, mode_t, dev_t) {
  ::fuse_reply_err(request, EPERM);
}
void on_mkdir(fuse_req_t request, fuse_ino_t, const char*, mode_t) {
  ::fuse_reply_err(request, EPERM);
}
void on_remove(fuse_req_t request, fuse_ino_t, const char*) {
  ::fuse_reply_err(request, EPERM);
}
void on_symlink(fuse_req_t request, const char*, fuse_ino_t, const char*) {
  ::fuse_reply_err(request, EPERM);
}
void on_rename(fuse_req_t request, fuse_ino_t, const char*, fuse_ino_t, const char*, unsigned) {
  ::fuse_reply_err(request, EPERM);
}
void on_link(fuse_req_t request, fuse_ino_t, fuse_ino_t, const char*) {
  ::fuse_reply_err(request, EPERM);
}
void on_create(fuse_req_t request, fuse_ino_t, const char*, mode_t, fuse_file_info*) {
  ::fuse_reply_err(request, EPERM);
}

}  // namespace

const fuse_lowlevel_ops& handlers() {
  static const fuse_lowlevel_ops all = {
      .init = on_init,
      .lookup = on_lookup,
      .getattr = on_getattr,
      .setattr = on_setattr,
      .mknod = on_mknod,
      .mkdir = on_mkdir,
      .unlink = on_remove,
      .rmdir = on_remove,
      .symlink = on_symlink,
      .rename = on_rename,
      .link = on_link,
      .open = on_open,
      .read = on_read,
      .write = on_write,
      .release = on_release,
      .fsync = on_fsync,
      .readdir = on_readdir,
      .fsyncdir = on_fsyncdir,
      .statfs = on_statfs,
      .create = on_create,
      .fallocate = on_fallocate,
      .lseek = on_lseek,
  };
  return all;
}

}  // namespace nvmf::fuse
