#include "frontends/fuse/session.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <tuple>

#include "frontends/fuse/fuse_api.h"
#include "frontends/fuse/handlers.h"
#include "frontends/fuse/limits.h"
#include "frontends/fuse/mount_point.h"

namespace nvmf::fuse {

namespace {

constexpr std::string_view kOpenedByOthers = "/dev/fd/";
constexpr std::string_view kHelper = "fusermount3: ";

// libfuse says why on stderr, and nothing in what it returns. Each thread keeps what it heard last.
thread_local std::string said;

void listen_to_libfuse(fuse_log_level level, const char* format, va_list arguments) {
  if (level > FUSE_LOG_WARNING) return;
  std::array<char, 512> line{};
  std::vsnprintf(line.data(), line.size(), format, arguments);
  said = line.data();
  while (said.ends_with('\n')) said.pop_back();
  if (said.starts_with("fuse: ")) said.erase(0, 6);
}

/// fusermount3 tells its reasons to stderr and no one else, where nobody may be looking: what goes
/// there while this lives is kept, and passed on in the end.
class WordsOfHelper {
 public:
  WordsOfHelper()
      : kept_(::memfd_create("nvmf", MFD_CLOEXEC)),
        real_(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3)) {
    std::fflush(stderr);
    if (kept_ >= 0 && real_ >= 0) ::dup2(kept_, STDERR_FILENO);
  }
  ~WordsOfHelper() {
    if (kept_ >= 0) ::close(kept_);
    if (real_ >= 0) ::close(real_);
  }
  /// The last line that begins as the helper's do. All else was for the real stderr, and goes
  /// there.
  std::string end() {
    if (kept_ < 0 || real_ < 0) return {};
    std::fflush(stderr);
    ::dup2(real_, STDERR_FILENO);
    std::string all(4096, '\0');
    const ssize_t got = ::pread(kept_, all.data(), all.size(), 0);
    all.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    std::string words;
    for (std::size_t at = 0; at < all.size();) {
      const std::size_t end = std::min(all.find('\n', at), all.size());
      const std::string line = all.substr(at, end - at);
      if (line.starts_with(kHelper)) {
        words = line;
      } else if (!line.empty()) {
        std::fprintf(stderr, "%s\n", line.c_str());
      }
      at = end + 1;
    }
    return words;
  }

 private:
  int kept_;
  int real_;
};

/// What it said, or else what there is to try.
std::string why(std::string_view otherwise) {
  return said.empty() ? std::string(otherwise) : std::exchange(said, {});
}

std::string mount_words(const MountOptions& options) {
  std::string words =
      fmt::format("default_permissions,fsname={},subtype={}", options.source, kSubtype);
  if (options.read_only) words += ",ro";
  if (options.allow_other) words += ",allow_other";
  return words;
}

}  // namespace

Result<std::unique_ptr<Session>> Session::open(const MountOptions& options, Served& served) {
  ::fuse_set_log_func(listen_to_libfuse);
  std::unique_ptr<Session> session(new Session);
  if (auto mounted = session->mount(options, served); !mounted) {
    return std::unexpected(mounted.error());
  }
  if (auto greeted = session->greet(served); !greeted) return std::unexpected(greeted.error());
  return session;
}

Session::~Session() {
  close();
}

Result<void> Session::mount(const MountOptions& options, Served& served) {
  const bool ours = !options.mount_point.starts_with(kOpenedByOthers);
  std::string at = options.mount_point;
  if (ours) {
    if (auto usable = check_fuse(); !usable) return usable;
    auto resolved = prepare_mount_point(options.mount_point);
    if (!resolved) return std::unexpected(resolved.error());
    at = std::move(*resolved);
  }
  std::string name = "nvmf";
  std::string flag = "-o";
  std::string words = mount_words(options);
  std::array<char*, 3> arguments = {name.data(), flag.data(), words.data()};
  fuse_args args = {.argc = arguments.size(), .argv = arguments.data(), .allocated = 0};
  said.clear();
  session_ = ::fuse_session_new(&args, &handlers(), sizeof(fuse_lowlevel_ops), &served);
  ::fuse_opt_free_args(&args);
  if (session_ == nullptr) {
    return fail(fmt::format("libfuse refuses to begin: {}", why("no memory")), ENOMEM);
  }
  WordsOfHelper helper;
  const bool mounted = ::fuse_session_mount(session_, at.c_str()) == 0;
  const std::string words_of_helper = helper.end();
  if (!mounted) {
    // It is setuid root: who may gain no rights by that (in a container, under a service manager's
    // NoNewPrivileges) gets none for it either.
    const bool no_right = words_of_helper.find("Operation not permitted") != std::string::npos;
    return fail(
        fmt::format("cannot mount on {}: {}{}", at,
                    words_of_helper.empty() ? why("fusermount3 could not be started: install fuse3")
                                            : words_of_helper,
                    no_right ? "; nothing that is started here may gain the right to mount: allow "
                               "the container that, or serve with --nbd, which needs none"
                             : ""),
        EACCES);
  }
  if (ours) {
    mount_point_ = std::move(at);
    if (const auto here = mounts_on(mount_point_); !here.empty()) device_ = here.back().device;
  }
  return {};
}

/// The kernel's first message, which it sent when it was mounted.
Result<void> Session::greet(Served& served) {
  const int flags = ::fcntl(fd(), F_GETFL);
  if (flags < 0 || ::fcntl(fd(), F_SETFL, flags | O_NONBLOCK) < 0) {
    return fail(fmt::format("cannot use the FUSE device: {}", std::strerror(errno)), errno);
  }
  pollfd ready = {.fd = fd(), .events = POLLIN, .revents = 0};
  const auto patience = std::chrono::duration_cast<std::chrono::milliseconds>(kFirstMessageMax);
  while (::poll(&ready, 1, static_cast<int>(patience.count())) < 0 && errno == EINTR) {
  }
  // Its memory is libfuse's: how large it wants it is agreed on with this very message.
  fuse_buf message{};
  said.clear();
  if (::fuse_session_receive_buf(session_, &message) > 0) {
    ::fuse_session_process_buf(session_, &message);
  }
  std::free(message.mem);
  if (served.greeted && ::fuse_session_exited(session_) == 0) return {};
  return fail(fmt::format("the kernel's FUSE does not begin: {}", why("it sends nothing")), EPROTO);
}

int Session::fd() const {
  return ::fuse_session_fd(session_);
}

Received Session::receive(std::byte* memory) {
  fuse_buf message{};
  message.mem = memory;
  const int got = ::fuse_session_receive_buf(session_, &message);
  if (got == -EAGAIN || got == -EINTR) return Received::nothing;
  if (got <= 0) {
    ::fuse_session_exit(session_);  // and it says no more of what cannot be answered
    return Received::end;
  }
  ::fuse_session_process_buf(session_, &message);
  return Received::message;
}

void Session::attributes_changed(Inode inode) {
  ::fuse_lowlevel_notify_inval_inode(session_, inode, -1, 0);
}

void Session::close() {
  if (session_ == nullptr) return;
  ::fuse_session_exit(session_);
  ::fuse_session_unmount(session_);
  ::fuse_session_destroy(session_);
  session_ = nullptr;
  // libfuse leaves alone what was cut off by /sys/fs/fuse/connections. Whether it is still ours
  // that is there is asked first: the directory may be in use for something else by now.
  if (mount_point_.empty() || device_.empty()) return;
  const auto here = mounts_on(mount_point_);
  if (!here.empty() && here.back().device == device_ && here.back().type == kFileSystemType) {
    // As far as it goes: what is left is told to the next who mounts there.
    std::ignore = unmount_lazily(mount_point_);
  }
}

}  // namespace nvmf::fuse
