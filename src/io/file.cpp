#include "io/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "io/backend.h"
#include "nvme/check.h"

namespace nvmf::io {

using transport::FileOp;

namespace {

/// The most bytes per call: the kernel itself stops below 2 GiB.
constexpr std::uint64_t kCallBytesMax = 1U << 30;
/// Zeroes are written in pieces of this many bytes where the file system cannot make them itself.
constexpr std::uint64_t kZeroBytes = 256 * 1024;

std::byte* zeroes() {
  alignas(4096) static std::byte block[kZeroBytes];  // only ever read
  return block;
}

bool unsupported(std::int64_t result) {
  return result == -EOPNOTSUPP || result == -ENOSYS || result == -EINVAL || result == -ENODEV;
}

/// What to try.
const char* open_hint(int code) {
  switch (code) {
    case ENOENT:
      return "; make it first, for example with truncate -s 1G FILE";
    case EACCES:
    case EPERM:
      return "; this user needs the right to read and write it";
    case EISDIR:
      return "; name a file in it, or a block device";
    default:
      return "";
  }
}

}  // namespace

void DiskFile::submit(FileOp& op) {
  NVMF_CHECK(*backend_ != nullptr && op.complete != nullptr);
  op.error = 0;
  op.done_bytes = 0;
  op.next = nullptr;
  op.owner = this;
  (*backend_)->submit(op);
}

std::uint64_t DiskFile::size_bytes() const {
  if (size_bytes_ != 0) return size_bytes_;
  struct stat st{};
  if (::fstat(fd_.get(), &st) != 0) return 0;
  return static_cast<std::uint64_t>(st.st_size);
}

transport::FileRange DiskFile::next_data(std::uint64_t from) const {
  const std::uint64_t size = size_bytes();
  if (size_bytes_ != 0) return {from, size};  // a block device keeps no such tables
  const off_t data = ::lseek(fd_.get(), static_cast<off_t>(from), SEEK_DATA);
  if (data < 0 && errno == ENXIO) return {size, size};
  if (data < 0) return {from, size};
  const off_t hole = ::lseek(fd_.get(), data, SEEK_HOLE);
  return {static_cast<std::uint64_t>(data), hole < 0 ? size : static_cast<std::uint64_t>(hole)};
}

FileStep FileStep::next(const FileOp& op) {
  const auto& file = *static_cast<const DiskFile*>(op.owner);
  const std::uint64_t rest = op.length_bytes - op.done_bytes;
  FileStep step;
  step.fd = file.fd();
  step.offset_bytes = op.offset_bytes + op.done_bytes;
  step.length_bytes = std::min(rest, kCallBytesMax);
  if (op.kind == FileOp::Kind::sync) {
    step.call = Call::sync;
    return step;
  }
  if (rest == 0) return step;
  switch (op.kind) {
    case FileOp::Kind::read:
      step.call = Call::read;
      step.data = op.data + op.done_bytes;
      break;
    case FileOp::Kind::write_durable:
      step.flags = RWF_DSYNC;
      [[fallthrough]];
    case FileOp::Kind::write:
      step.call = Call::write;
      step.data = op.data + op.done_bytes;
      break;
    case FileOp::Kind::punch:
      if (file.can_punch_.load(std::memory_order_relaxed)) {
        step.call = Call::punch;
        step.length_bytes = rest;
        step.flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        break;
      }
      [[fallthrough]];
    case FileOp::Kind::zero:
      if (file.can_zero_range_.load(std::memory_order_relaxed)) {
        step.call = Call::zero_range;
        step.length_bytes = rest;
        step.flags = FALLOC_FL_ZERO_RANGE;
        break;
      }
      step.call = Call::write;
      step.data = zeroes();
      step.length_bytes = std::min(rest, kZeroBytes);
      break;
    case FileOp::Kind::sync:
      break;
  }
  return step;
}

bool FileStep::finish(FileOp& op, Call call, std::int64_t result) {
  if (result == -EINTR || result == -EAGAIN) return false;
  auto& file = *static_cast<DiskFile*>(op.owner);
  if ((call == Call::zero_range || call == Call::punch) && unsupported(result)) {
    auto& can = call == Call::zero_range ? file.can_zero_range_ : file.can_punch_;
    can.store(false, std::memory_order_relaxed);
    return false;
  }
  if (result < 0) {
    op.error = static_cast<int>(-result);
    return true;
  }
  switch (call) {
    case Call::none:
    case Call::sync:
      return true;
    case Call::zero_range:
    case Call::punch:
      op.done_bytes = op.length_bytes;
      return true;
    case Call::read:
    case Call::write:
      if (result == 0) {
        op.error = call == Call::read ? ENODATA : ENOSPC;
        return true;
      }
      op.done_bytes += static_cast<std::uint64_t>(result);
      return op.done_bytes == op.length_bytes;
  }
  return true;
}

std::int64_t FileStep::perform() const {
  const auto at = static_cast<off_t>(offset_bytes);
  const iovec one{data, length_bytes};
  std::int64_t result = 0;
  switch (call) {
    case Call::none:
      return 0;
    case Call::read:
      result = ::pread(fd, data, length_bytes, at);
      break;
    case Call::write:
      result = ::pwritev2(fd, &one, 1, at, flags);
      break;
    case Call::sync:
      result = ::fdatasync(fd);
      break;
    case Call::zero_range:
    case Call::punch:
      result = ::fallocate(fd, flags, at, static_cast<off_t>(length_bytes));
      break;
  }
  return result < 0 ? -errno : result;
}

Result<std::unique_ptr<DiskFile>> open_disk_file(std::shared_ptr<Backend*> backend,
                                                 const std::string& path, bool writable) {
  UniqueFd fd(::open(path.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) {
    const int error = errno;
    return fail(fmt::format("cannot open {} for {}: {}{}", path, writable ? "writing" : "reading",
                            std::strerror(error), open_hint(error)),
                error);
  }
  struct stat st{};
  if (::fstat(fd.get(), &st) != 0) return fail("cannot examine " + path, errno);
  std::uint64_t size = 0;
  if (S_ISBLK(st.st_mode)) {
    if (::ioctl(fd.get(), BLKGETSIZE64, &size) != 0 || size == 0) {
      return fail(fmt::format("the block device {} does not tell its size", path), ENODEV);
    }
  } else if (!S_ISREG(st.st_mode)) {
    return fail(fmt::format("{} is neither a regular file nor a block device", path), EINVAL);
  }
  // O_NONBLOCK kept us from hanging on a FIFO; a ring would answer EAGAIN because of it.
  ::fcntl(fd.get(), F_SETFL, 0);
  return std::make_unique<DiskFile>(std::move(backend), std::move(fd), size);
}

}  // namespace nvmf::io
