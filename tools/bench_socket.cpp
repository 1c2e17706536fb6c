#include "bench_socket.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace nvmf::tools {
namespace {

constexpr std::size_t kVectorsPerCall = 512;

std::unexpected<Error> socket_failure(const char* what) {
  const int code = errno;
  return fail(fmt::format("cannot {} on loopback: {}", what, std::strerror(code)), code);
}

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

void set_nodelay(int fd) {
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

}  // namespace

Result<io::UniqueFd> listen_loopback(std::uint16_t& port) {
  io::UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = loopback(0);
  socklen_t length = sizeof address;
  if (!fd.valid() || ::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      ::listen(fd.get(), SOMAXCONN) != 0 ||
      ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    return socket_failure("listen");
  }
  port = ntohs(address.sin_port);
  return fd;
}

Result<io::UniqueFd> accept_loopback(int listener) {
  for (;;) {
    io::UniqueFd fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
    if (!fd.valid()) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      return socket_failure("accept");
    }
    set_nodelay(fd.get());
    return fd;
  }
}

Result<io::UniqueFd> connect_loopback(std::uint16_t port) {
  io::UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = loopback(port);
  if (!fd.valid() ||
      ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return socket_failure("connect");
  }
  set_nodelay(fd.get());
  return fd;
}

bool send_all(int fd, std::span<iovec> v) {
  while (!v.empty()) {
    msghdr message{};
    message.msg_iov = v.data();
    message.msg_iovlen = std::min(v.size(), kVectorsPerCall);
    const ssize_t sent = ::sendmsg(fd, &message, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      return false;
    }
    auto left = static_cast<std::size_t>(sent);
    while (!v.empty() && left >= v.front().iov_len) {
      left -= v.front().iov_len;
      v = v.subspan(1);
    }
    if (left != 0) {
      v.front().iov_base = static_cast<std::byte*>(v.front().iov_base) + left;
      v.front().iov_len -= left;
    }
  }
  return true;
}

bool send_all(int fd, const void* data, std::size_t bytes) {
  iovec v{const_cast<void*>(data), bytes};
  return bytes == 0 || send_all(fd, std::span(&v, 1));
}

std::size_t receive_some(int fd, void* data, std::size_t bytes) {
  for (;;) {
    const ssize_t got = ::recv(fd, data, bytes, 0);
    if (got > 0) return static_cast<std::size_t>(got);
    if (got == 0 || errno != EINTR) return 0;
  }
}

bool receive_all(int fd, void* data, std::size_t bytes) {
  auto* at = static_cast<std::byte*>(data);
  while (bytes > 0) {
    const std::size_t got = receive_some(fd, at, bytes);
    if (got == 0) return false;
    at += got;
    bytes -= got;
  }
  return true;
}

}  // namespace nvmf::tools
