#include "io/socket_pair.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "io/listener.h"

namespace nvmf::io {
namespace {

void enlarge(int fd, int bytes) {
  for (const auto [force, plain] :
       {std::pair{SO_SNDBUFFORCE, SO_SNDBUF}, {SO_RCVBUFFORCE, SO_RCVBUF}}) {
    if (::setsockopt(fd, SOL_SOCKET, force, &bytes, sizeof bytes) != 0) {
      ::setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof bytes);
    }
  }
}

}  // namespace

Result<SocketPair> make_socket_pair(int buffer_bytes) {
  int fds[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
    return fail(fmt::format("cannot make a pair of sockets: {}", std::strerror(errno)), errno);
  }
  SocketPair pair{UniqueFd(fds[0]), UniqueFd(fds[1])};
  for (const int fd : fds) enlarge(fd, buffer_bytes);
  if (::fcntl(fds[0], F_SETFL, O_NONBLOCK) != 0) {
    return fail(fmt::format("cannot make a socket non-blocking: {}", std::strerror(errno)), errno);
  }
  return pair;
}

std::unique_ptr<transport::Incoming> incoming_of(UniqueFd ours, std::string peer) {
  return std::make_unique<SocketIncoming>(std::move(ours), AF_UNIX, std::move(peer));
}

bool is_read(int fd) {
  int unread = 0;
  return ::ioctl(fd, SIOCOUTQ, &unread) != 0 || unread == 0;
}

bool is_deserted(int fd) {
  pollfd p{.fd = fd, .events = 0, .revents = 0};
  return ::poll(&p, 1, 0) == 1 && (p.revents & POLLHUP) != 0;
}

}  // namespace nvmf::io
