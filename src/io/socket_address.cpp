#include "io/socket_address.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "io/error_words.h"

namespace nvmf::io {

using transport::ConnectOptions;
using transport::Endpoint;

namespace {

template <class T>
bool set_option(int fd, int level, int name, const T& value) {
  return ::setsockopt(fd, level, name, &value, sizeof value) == 0;
}

std::string code_name(int code) {
  const char* name = ::strerrorname_np(code);
  return name != nullptr ? name : std::to_string(code);
}

Result<SocketAddress> numeric(const std::string& host, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (host.empty() ||
      ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) {
    return fail(fmt::format("'{}' is not a numeric IPv4 or IPv6 address, which is needed here: "
                            "`getent hosts {}` tells that of a name",
                            host, host),
                EINVAL);
  }
  SocketAddress address;
  std::memcpy(&address.storage, found->ai_addr, found->ai_addrlen);
  address.length = found->ai_addrlen;
  ::freeaddrinfo(found);
  return address;
}

/// What to try when the kernel refuses an option: only the interface and the source address depend
/// on the machine.
std::string option_hint(int code) {
  switch (code) {
    case ENODEV:
      return ": `ip link` shows the interfaces that there are";
    case EADDRNOTAVAIL:
      return ": no interface of this machine has that address, `ip address` shows those that there "
             "are";
    case EPERM:
      return ": it needs a right that this process lacks (CAP_NET_RAW for an interface)";
    default:
      return try_words(code);
  }
}

}  // namespace

bool operator==(const SocketAddress& a, const SocketAddress& b) {
  return a.length == b.length && std::memcmp(&a.storage, &b.storage, a.length) == 0;
}

bool is_numeric_host(const std::string& host) {
  return numeric(host, 0).has_value();
}

Result<SocketAddress> to_address(const Endpoint& endpoint) {
  if (!endpoint.is_unix()) return numeric(endpoint.host, endpoint.port);
  SocketAddress address;
  auto* un = reinterpret_cast<sockaddr_un*>(&address.storage);
  if (endpoint.unix_path.size() >= sizeof un->sun_path) {
    return fail(fmt::format("the socket path {} is longer than the {} bytes that the system "
                            "allows: choose a shorter one",
                            endpoint.unix_path, sizeof un->sun_path - 1),
                ENAMETOOLONG);
  }
  un->sun_family = AF_UNIX;
  std::memcpy(un->sun_path, endpoint.unix_path.c_str(), endpoint.unix_path.size() + 1);
  address.length = sizeof(sockaddr_un);
  return address;
}

Endpoint to_endpoint(const SocketAddress& address) {
  Endpoint endpoint;
  if (address.family() == AF_UNIX) {
    const auto* un = reinterpret_cast<const sockaddr_un*>(&address.storage);
    const std::size_t most =
        address.length - std::min<std::size_t>(address.length, offsetof(sockaddr_un, sun_path));
    endpoint.unix_path.assign(un->sun_path, ::strnlen(un->sun_path, most));
    return endpoint;
  }
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  if (address.length == 0 || ::getnameinfo(address.get(), address.length, host, sizeof host, port,
                                           sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return endpoint;
  }
  endpoint.host = host;
  endpoint.port = static_cast<std::uint16_t>(std::strtoul(port, nullptr, 10));
  return endpoint;
}

SocketAddress local_address(int fd) {
  SocketAddress address;
  address.length = sizeof address.storage;
  if (::getsockname(fd, address.get(), &address.length) != 0) return {};
  return address;
}

SocketAddress peer_address(int fd) {
  SocketAddress address;
  address.length = sizeof address.storage;
  if (::getpeername(fd, address.get(), &address.length) != 0) return {};
  return address;
}

Result<UniqueFd> make_socket(const SocketAddress& address) {
  UniqueFd fd(::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) {
    const int code = errno;
    return fail(fmt::format("cannot make a socket: {} ({}){}", std::strerror(code), code_name(code),
                            try_words(code)),
                code);
  }
  return fd;
}

void set_no_delay(int fd, int family) {
  if (family != AF_UNIX) set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
}

Result<void> apply_options(int fd, const SocketAddress& to, const ConnectOptions& options) {
  const auto refuse = [](const std::string& what) {
    const int code = errno;
    return fail(fmt::format("cannot {}: {} ({}){}", what, std::strerror(code), code_name(code),
                            option_hint(code)),
                code);
  };
  if (options.receive_buffer_bytes > 0 &&
      !set_option(fd, SOL_SOCKET, SO_RCVBUF, options.receive_buffer_bytes)) {
    return refuse("set the receive buffer");
  }
  if (options.send_buffer_bytes > 0 &&
      !set_option(fd, SOL_SOCKET, SO_SNDBUF, options.send_buffer_bytes)) {
    return refuse("set the send buffer");
  }
  if (to.family() == AF_UNIX) return {};
  set_no_delay(fd, to.family());
  if (options.user_timeout > Duration::zero()) {
    const auto ms = std::chrono::ceil<std::chrono::milliseconds>(options.user_timeout).count();
    const auto value = static_cast<unsigned>(std::min<std::int64_t>(ms, INT32_MAX));
    if (!set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, value)) {
      return refuse("set the user timeout");
    }
  }
  if (options.tos >= 0) {
    const bool v6 = to.family() == AF_INET6;
    if (!set_option(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_TCLASS : IP_TOS, options.tos)) {
      return refuse(fmt::format("set the type of service {}", options.tos));
    }
  }
  if (!options.host_iface.empty() &&
      ::setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, options.host_iface.c_str(),
                   static_cast<socklen_t>(options.host_iface.size())) != 0) {
    return refuse("use the interface " + options.host_iface);
  }
  if (options.host_traddr.empty()) return {};
  const auto source = numeric(options.host_traddr, 0);
  if (!source) return std::unexpected(source.error());
  if (source->family() != to.family()) {
    return fail(fmt::format("the source address {} is of another IP version than the target",
                            options.host_traddr),
                EAFNOSUPPORT);
  }
  // The port is chosen at connect, by the pair of addresses.
  set_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
  if (::bind(fd, source->get(), source->length) != 0) {
    return refuse("use the source address " + options.host_traddr);
  }
  return {};
}

void abort_connection(int fd, int family) {
  const linger at_once{1, 0};
  set_option(fd, SOL_SOCKET, SO_LINGER, at_once);
  if (family == AF_UNIX) {
    ::shutdown(fd, SHUT_RDWR);
    return;
  }
  // connect() to no address dissolves the connection: RST goes out here and now.
  sockaddr nobody{};
  nobody.sa_family = AF_UNSPEC;
  ::connect(fd, &nobody, sizeof nobody);
}

Error connect_error(const std::string& peer, int code) {
  const std::string name = code_name(code);
  switch (code) {
    case ECONNREFUSED:
      return {
          fmt::format("{} refused the connection ({}): is a target listening there?", peer, name),
          code};
    case ENOENT:
      return {fmt::format("there is no socket {} ({}): is its server running?", peer, name), code};
    case EACCES:
    case EPERM:
      return {fmt::format("this user may not connect to {} ({}): look at the rights of a socket's "
                          "file, or at the firewall's rules",
                          peer, name),
              code};
    case ETIMEDOUT:
      return {fmt::format("{} did not answer in time ({}): is the address right, and does a "
                          "firewall drop the packets?",
                          peer, name),
              code};
    case ENETUNREACH:
    case EHOSTUNREACH:
      return {
          fmt::format("{} cannot be reached ({}): there is no way to that network or host; try `ip "
                      "route get` and `ping` for it",
                      peer, name),
          code};
    case EADDRNOTAVAIL:
      return {fmt::format("no local address or port is left to connect to {} ({}): close other "
                          "connections to it, or widen net.ipv4.ip_local_port_range",
                          peer, name),
              code};
    default:
      return {fmt::format("cannot connect to {}: {} ({}){}", peer, std::strerror(code), name,
                          try_words(code)),
              code};
  }
}

Error stream_error(const std::string& peer, int code) {
  const std::string name = code_name(code);
  switch (code) {
    case ECONNRESET:
      return {fmt::format("{} reset the connection ({}); try its log for the reason", peer, name),
              code};
    case EPIPE:
      return {fmt::format(
                  "{} closed the connection while we were sending ({}); try its log for the reason",
                  peer, name),
              code};
    case ETIMEDOUT:
      return {fmt::format(
                  "{} no longer acknowledges what we send ({}): the connection is given up; try "
                  "`ping` for it",
                  peer, name),
              code};
    default:
      return {fmt::format("the connection to {} failed: {} ({}){}", peer, std::strerror(code), name,
                          try_words(code)),
              code};
  }
}

}  // namespace nvmf::io
