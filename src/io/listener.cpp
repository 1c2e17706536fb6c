#include "io/listener.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "io/error_words.h"
#include "io/socket_address.h"

namespace nvmf::io {

using transport::Endpoint;

namespace {

/// Connections accepted per turn, so that a crowd at the door does not stop those inside.
constexpr int kAcceptsPerTurn = 32;
/// The kernel queues this many; more than a host opens at once for all its queues.
constexpr int kBacklog = 1024;
/// How long we wait for a free file descriptor before accepting again.
constexpr Duration kPause = std::chrono::milliseconds(100);

/// What to try.
std::string hint(bool is_unix, int code) {
  switch (code) {
    case EADDRINUSE:
      return is_unix ? ": somebody else listens there; choose another path"
                     : ": somebody else listens there; choose another port, 0 picks a free one";
    case EACCES:
      return is_unix ? ": this user may not make files in its folder"
                     : ": ports below 1024 need more rights, choose a higher one";
    case EADDRNOTAVAIL:
      return ": no interface of this machine has that address; `ip address` shows those that there "
             "are, 0.0.0.0 or [::] stand for all of them";
    case ENOENT:
    case ENOTDIR:
      return ": its folder does not exist, make that first";
    case EROFS:
      return ": its folder cannot be written to, choose another one";
    default:
      return try_words(code);
  }
}

std::unexpected<Error> cannot_listen(const Endpoint& where, int code) {
  const char* name = ::strerrorname_np(code);
  return fail(fmt::format("cannot listen on {}: {} ({}){}", where.to_string(), std::strerror(code),
                          name != nullptr ? name : "unknown", hint(where.is_unix(), code)),
              code);
}

}  // namespace

std::optional<std::uint32_t> SocketIncoming::peer_uid() const {
  ucred who{};
  socklen_t bytes = sizeof who;
  if (family_ != AF_UNIX || ::getsockopt(fd_.get(), SOL_SOCKET, SO_PEERCRED, &who, &bytes) != 0) {
    return std::nullopt;
  }
  return who.uid;
}

SocketListener::SocketListener(ReactorCore& core, OnAccept on_accept)
    : core_(&core), on_accept_(std::move(on_accept)) {
  core.enlist(*this);
}

SocketListener::~SocketListener() {
  *alive_ = false;
  if (core_ != nullptr) {
    core_->backend().remove(*this);
    core_->dismiss(*this);
  }
  rest();
}

void SocketListener::loop_ended() {
  core_->backend().remove(*this);
  core_->dismiss(*this);
  core_ = nullptr;
  rest();
}

/// Gives up the socket and the path.
void SocketListener::rest() {
  pause_.reset();
  // The path first: whoever comes meanwhile finds nothing there, rather than a socket that refuses
  // as one does whose process was killed.
  struct stat st{};
  if (inode_ != 0 && ::lstat(local_.unix_path.c_str(), &st) == 0 && st.st_dev == device_ &&
      st.st_ino == inode_) {
    ::unlink(local_.unix_path.c_str());
  }
  inode_ = 0;
  fd_.reset();
}

/// Makes way for bind(): removes a socket on which nobody accepts, refuses everything else.
Result<void> SocketListener::clear_path(const std::string& path) const {
  struct stat st{};
  if (::lstat(path.c_str(), &st) != 0) return {};  // bind() will say what is wrong, if anything
  if (!S_ISSOCK(st.st_mode)) {
    return fail(fmt::format("cannot listen on {}: it exists and is not a socket; choose another "
                            "path",
                            path),
                EEXIST);
  }
  const Endpoint at{.host = {}, .port = 0, .unix_path = path};
  const auto address = to_address(at);
  if (!address) return std::unexpected(address.error());
  auto probe = make_socket(*address);
  if (!probe) return std::unexpected(probe.error());
  const int code = ::connect(probe->get(), address->get(), address->length) == 0 ? 0 : errno;
  if (code == 0 || code == EAGAIN || code == EINPROGRESS) {
    return fail(fmt::format("cannot listen on {}: another process serves that socket; choose "
                            "another path",
                            path),
                EADDRINUSE);
  }
  if (code != ECONNREFUSED) return cannot_listen(at, code);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return cannot_listen(at, errno);
  return {};
}

/// A socket that listens already.
Result<void> SocketListener::take_over(int fd) {
  fd_ = UniqueFd(fd);
  int listens = 0;
  socklen_t bytes = sizeof listens;
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 ||
      ::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 ||
      ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &bytes) != 0 || listens == 0) {
    return fail(fmt::format("descriptor {} was handed to us to listen on, and is no listening "
                            "socket",
                            fd),
                EINVAL);
  }
  const SocketAddress address = local_address(fd);
  family_ = address.family();
  local_ = to_endpoint(address);
  local_.handed_fd = fd;
  return poll();
}

Result<void> SocketListener::start(const Endpoint& at) {
  if (at.handed_fd >= 0) return take_over(at.handed_fd);
  auto address = to_address(at);
  if (!address) return std::unexpected(address.error());
  if (at.is_unix()) {
    if (auto clear = clear_path(at.unix_path); !clear) return clear;
  }
  auto fd = make_socket(*address);
  if (!fd) return std::unexpected(fd.error());
  fd_ = std::move(*fd);
  family_ = address->family();
  const int on = 1;
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd_.get(), address->get(), address->length) != 0) return cannot_listen(at, errno);
  local_ = at.is_unix() ? at : to_endpoint(local_address(fd_.get()));
  struct stat st{};
  if (at.is_unix() && ::lstat(at.unix_path.c_str(), &st) == 0) {
    device_ = st.st_dev;
    inode_ = st.st_ino;
  }
  if (::listen(fd_.get(), kBacklog) != 0) return cannot_listen(at, errno);
  return poll();
}

Result<void> SocketListener::poll() {
  return core_->backend().add(*this, fd_.get(), EPOLLIN, Trigger::level);
}

void SocketListener::on_ready(std::uint32_t) {
  const std::shared_ptr<bool> alive = alive_;
  for (int i = 0; i < kAcceptsPerTurn && *alive && core_ != nullptr; ++i) {
    SocketAddress from;
    from.length = sizeof from.storage;
    UniqueFd fd(::accept4(fd_.get(), from.get(), &from.length, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (fd.valid()) {
      const std::string peer =
          family_ == AF_UNIX ? local_.unix_path : to_endpoint(from).to_string();
      on_accept_(std::make_unique<SocketIncoming>(std::move(fd), family_, peer));
      continue;
    }
    if (errno == EAGAIN) return;
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      // The connection stays in the backlog and keeps us readable: look away for a while.
      core_->backend().remove(*this);
      pause_ = std::make_unique<transport::Timer>(core_->timers(), [this] {
        if (!poll()) pause_->arm(ReactorCore::clock() + kPause);
      });
      pause_->arm(ReactorCore::clock() + kPause);
      return;
    }
    // Anything else is the fate of that one connection (ECONNABORTED, network errors): next.
  }
}

}  // namespace nvmf::io
