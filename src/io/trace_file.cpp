#include "io/trace_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <ctime>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

namespace nvmf::io {

namespace {

// Block types and options of pcapng.
constexpr std::uint32_t kSectionHeader = 0x0a0d0d0a;
constexpr std::uint32_t kByteOrderMagic = 0x1a2b3c4d;
constexpr std::uint32_t kInterfaceDescription = 1;
constexpr std::uint32_t kInterfaceStatistics = 5;
constexpr std::uint32_t kEnhancedPacket = 6;
constexpr std::uint16_t kLinkRaw = 101;  // packets begin with their IP header
constexpr std::uint16_t kOptEnd = 0;
constexpr std::uint16_t kOptUserApplication = 4;
constexpr std::uint16_t kOptTimeResolution = 9;
constexpr std::uint16_t kOptPacketDropCount = 4;
constexpr std::uint16_t kOptReceived = 4;
constexpr std::uint16_t kOptDropped = 5;

std::uint64_t wall_clock_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u +
         static_cast<std::uint64_t>(now.tv_nsec);
}

/// A block under construction: its lengths are put in at the end.
class Block {
 public:
  Block(std::vector<std::byte>& out, std::uint32_t type) : out_(out), begin_(out.size()) {
    add(type);
    add(std::uint32_t{0});
  }
  template <class T>
  void add(T value) {
    bytes(&value, sizeof value);
  }
  void bytes(const void* data, std::size_t length) {
    const auto* from = static_cast<const std::byte*>(data);
    out_.insert(out_.end(), from, from + length);
  }
  void pad() { out_.resize((out_.size() + 3) & ~std::size_t{3}); }
  void option(std::uint16_t code, const void* data, std::size_t length) {
    add(code);
    add(static_cast<std::uint16_t>(length));
    bytes(data, length);
    pad();
  }
  void time(std::uint64_t ns) {
    add(static_cast<std::uint32_t>(ns >> 32));
    add(static_cast<std::uint32_t>(ns));
  }
  void end_options() { add(std::uint32_t{kOptEnd}); }
  void end() {
    const auto length = static_cast<std::uint32_t>(out_.size() - begin_ + sizeof(std::uint32_t));
    add(length);
    std::memcpy(out_.data() + begin_ + 4, &length, sizeof length);
  }

 private:
  std::vector<std::byte>& out_;
  std::size_t begin_;
};

std::size_t total_bytes(std::span<const iovec> pieces) {
  std::size_t n = 0;
  for (const iovec& piece : pieces) n += piece.iov_len;
  return n;
}

}  // namespace

void append_section_header(std::vector<std::byte>& out, const std::string& program) {
  // The sizes of vectors are multiples of four here.
  Block section(out, kSectionHeader);
  section.add(kByteOrderMagic);
  section.add(std::uint16_t{1});
  section.add(std::uint16_t{0});
  section.add(~std::uint64_t{0});  // length not known
  section.option(kOptUserApplication, program.data(), program.size());
  section.end_options();
  section.end();
  Block interface(out, kInterfaceDescription);
  interface.add(kLinkRaw);
  interface.add(std::uint16_t{0});
  interface.add(std::uint32_t{0});  // no packet is cut
  const std::uint8_t nanoseconds = 9;
  interface.option(kOptTimeResolution, &nanoseconds, 1);
  interface.end_options();
  interface.end();
}

void append_packet(std::vector<std::byte>& out, std::uint64_t time_ns,
                   std::span<const iovec> pieces, std::uint64_t dropped) {
  const auto length = static_cast<std::uint32_t>(total_bytes(pieces));
  Block packet(out, kEnhancedPacket);
  packet.add(std::uint32_t{0});  // the interface
  packet.time(time_ns);
  packet.add(length);
  packet.add(length);
  for (const iovec& piece : pieces) packet.bytes(piece.iov_base, piece.iov_len);
  packet.pad();
  if (dropped != 0) {
    packet.option(kOptPacketDropCount, &dropped, sizeof dropped);
    packet.end_options();
  }
  packet.end();
}

void append_interface_statistics(std::vector<std::byte>& out, std::uint64_t time_ns,
                                 std::uint64_t received, std::uint64_t dropped) {
  Block block(out, kInterfaceStatistics);
  block.add(std::uint32_t{0});
  block.time(time_ns);
  block.option(kOptReceived, &received, sizeof received);
  block.option(kOptDropped, &dropped, sizeof dropped);
  block.end_options();
  block.end();
}

Result<UniqueFd> open_trace_file(const std::string& path) {
  // Not blocking: a pipe without a reader is refused below, not waited for.
  UniqueFd fd(::open(path.c_str(),
                     O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0600));
  if (!fd.valid()) {
    const int code = errno;
    const char* what = code == ELOOP   ? "it is a symbolic link, which is not followed"
                       : code == ENXIO ? "it is no regular file"
                                       : std::strerror(code);
    return fail(fmt::format("cannot write the trace {}: {}", path, what), code);
  }
  struct stat about{};
  if (::fstat(fd.get(), &about) != 0) {
    return fail(fmt::format("cannot write the trace {}: {}", path, std::strerror(errno)), errno);
  }
  const char* wrong = !S_ISREG(about.st_mode)       ? "it is no regular file"
                      : about.st_uid != ::geteuid() ? "it belongs to somebody else"
                      : about.st_nlink != 1         ? "it has other names (hard links)"
                                                    : nullptr;
  if (wrong != nullptr) {
    return fail(fmt::format("cannot write the trace {}: {}; name a file that is not there yet",
                            path, wrong),
                EPERM);
  }
  if (::fchmod(fd.get(), 0600) != 0 || ::ftruncate(fd.get(), 0) != 0) {
    return fail(fmt::format("cannot write the trace {}: {}", path, std::strerror(errno)), errno);
  }
  return fd;
}

struct TraceFile::Shared {
  UniqueFd fd;
  std::size_t buffer_bytes = 0;
  mutable std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::byte> filling;
  TraceCounts counts;
  std::uint64_t dropped_since = 0;  // since the last packet that was taken
  bool finishing = false;
  bool written = false;
};

Result<std::shared_ptr<TraceFile>> TraceFile::make(UniqueFd fd, std::size_t buffer_bytes) {
  auto shared = std::make_shared<Shared>();
  shared->fd = std::move(fd);
  shared->buffer_bytes = buffer_bytes;
  append_section_header(shared->filling, "nvmf " NVMF_VERSION);
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are for the main thread
  Result<void> started;
  try {
    // What hangs in a write can be waited for by nobody: it keeps what it needs.
    std::thread([shared] { write(shared); }).detach();
  } catch (const std::system_error& error) {
    started = fail(fmt::format("cannot start a thread for the trace: {}", error.what()),
                   error.code().value());
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (!started) return std::unexpected(started.error());
  return std::shared_ptr<TraceFile>(new TraceFile(std::move(shared)));
}

TraceFile::~TraceFile() {
  finish();
  wait_written(1);
}

bool TraceFile::packet(std::span<const iovec> pieces) {
  const std::uint64_t now_ns = wall_clock_ns();
  // Header, padding, and an option for what was dropped.
  constexpr std::size_t kAround = 64;
  Shared& s = *shared_;
  const std::scoped_lock lock(s.mutex);
  if (s.finishing || !s.counts.error.empty()) return false;
  if (s.filling.size() + total_bytes(pieces) + kAround > s.buffer_bytes) {
    ++s.counts.dropped;
    ++s.dropped_since;
    return false;
  }
  if (s.filling.empty()) s.changed.notify_all();
  append_packet(s.filling, now_ns, pieces, std::exchange(s.dropped_since, 0));
  ++s.counts.packets;
  return true;
}

void TraceFile::finish() {
  Shared& s = *shared_;
  const std::scoped_lock lock(s.mutex);
  if (std::exchange(s.finishing, true)) return;
  append_interface_statistics(s.filling, wall_clock_ns(), s.counts.packets + s.counts.dropped,
                              s.counts.dropped);
  s.changed.notify_all();
}

bool TraceFile::wait_written(unsigned seconds) {
  std::unique_lock lock(shared_->mutex);
  return shared_->changed.wait_for(lock, std::chrono::seconds(seconds),
                                   [this] { return shared_->written; });
}

TraceCounts TraceFile::counts() const {
  const std::scoped_lock lock(shared_->mutex);
  return shared_->counts;
}

void TraceFile::write(const std::shared_ptr<Shared>& shared) {
  Shared& s = *shared;
  std::vector<std::byte> writing;
  std::unique_lock lock(s.mutex);
  for (;;) {
    s.changed.wait(lock, [&s] { return !s.filling.empty() || s.finishing; });
    if (s.filling.empty()) break;
    writing.swap(s.filling);
    lock.unlock();
    std::size_t done = 0;
    int code = 0;
    while (done < writing.size() && code == 0) {
      const ssize_t n = ::write(s.fd.get(), writing.data() + done, writing.size() - done);
      if (n > 0) done += static_cast<std::size_t>(n);
      if (n < 0 && errno != EINTR) code = errno;
    }
    lock.lock();
    writing.clear();
    s.counts.bytes += done;
    if (code == 0) continue;
    s.counts.error = fmt::format("the trace ends early: {}", std::strerror(code));
    s.filling.clear();
    break;
  }
  lock.unlock();
  s.fd.reset();
  lock.lock();
  s.written = true;
  s.changed.notify_all();
}

}  // namespace nvmf::io
