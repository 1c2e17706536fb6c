// Addresses, socket options and what to say when a socket fails.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <string>

#include "io/unique_fd.h"
#include "transport/loop.h"

namespace nvmf::io {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;

  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  [[nodiscard]] sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  [[nodiscard]] int family() const { return storage.ss_family; }
  friend bool operator==(const SocketAddress& a, const SocketAddress& b);
};

/// Numeric IPv4, numeric IPv6 (with %scope) or a unix path of at most 107 bytes; names are refused.
Result<SocketAddress> to_address(const transport::Endpoint& endpoint);
[[nodiscard]] bool is_numeric_host(const std::string& host);
transport::Endpoint to_endpoint(const SocketAddress& address);
/// Of a connected or bound socket; length 0 if the kernel does not say.
SocketAddress local_address(int fd);
SocketAddress peer_address(int fd);

/// A non-blocking stream socket for `address`.
Result<UniqueFd> make_socket(const SocketAddress& address);
/// Everything of ConnectOptions that is a property of the socket, and TCP_NODELAY.
Result<void> apply_options(int fd, const SocketAddress& to,
                           const transport::ConnectOptions& options);
/// TCP_NODELAY; nothing for a unix socket.
void set_no_delay(int fd, int family);
/// The next close() of a TCP socket sends RST; this one is sent at once even where somebody else
/// (a ring) still refers to the socket.
void abort_connection(int fd, int family);

/// Why a connection could not be made, for the user: who, what, and what to try.
Error connect_error(const std::string& peer, int code);
/// Why an established connection ended.
Error stream_error(const std::string& peer, int code);

}  // namespace nvmf::io
