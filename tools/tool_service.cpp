#include "tool_service.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace nvmf::tools {

namespace {

/// A line of its own for each of `sentence`'s would be another variable of the protocol.
std::string one_line(std::string sentence) {
  for (char& c : sentence) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  return sentence;
}

/// sd_notify waits for a manager that does not read. It may not read because it waits for a disk
/// that is served here: then both would wait for ever. So what it has no room for is not said.
void tell_now(const std::string& what) {
  const char* const place = std::getenv("NOTIFY_SOCKET");
  const std::string_view name = place == nullptr ? "" : place;
  sockaddr_un at{};
  at.sun_family = AF_UNIX;
  if (name.size() < 2 || name.size() >= sizeof at.sun_path) return;
  if (name.front() != '/' && name.front() != '@') return;
  name.copy(at.sun_path, name.size());
  if (name.front() == '@') at.sun_path[0] = '\0';
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  const auto bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
  (void)::sendto(fd, what.data(), what.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
                 reinterpret_cast<const sockaddr*>(&at), bytes);
  ::close(fd);
}

/// A unix socket whose name is no path in the file system.
bool is_abstract(int fd) {
  sockaddr_un at{};
  socklen_t bytes = sizeof at;
  return ::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &bytes) == 0 &&
         at.sun_family == AF_UNIX && bytes > offsetof(sockaddr_un, sun_path) && at.sun_path[0] == 0;
}

}  // namespace

Service::Service(transport::Loop& loop)
    : loop_(loop), watchdog_(loop.timers(), [this] { tell_alive(); }) {
  std::uint64_t microseconds = 0;
  if (::sd_watchdog_enabled(0, &microseconds) <= 0 || microseconds == 0) return;
  period_ = std::chrono::microseconds(microseconds) / 2;
  tell_alive();
}

void Service::tell_alive() {
  tell_now("WATCHDOG=1");
  watchdog_.arm(loop_.now() + period_);
}

void Service::ready(const std::string& status) {
  ::sd_notify(0, ("READY=1\nSTATUS=" + one_line(status)).c_str());
}

void Service::status(const std::string& line) {
  tell_now("STATUS=" + one_line(line));
}

void Service::stopping(const std::string& why) {
  tell_now("STOPPING=1\nSTATUS=" + one_line(why));
}

Result<std::vector<transport::Endpoint>> handed_sockets() {
  std::vector<transport::Endpoint> sockets;
  const int count = ::sd_listen_fds(1);
  if (count < 0) {
    return fail(fmt::format("The sockets of the service manager (LISTEN_FDS) cannot be taken: {}",
                            std::strerror(-count)),
                -count);
  }
  for (int fd = SD_LISTEN_FDS_START; fd < SD_LISTEN_FDS_START + count; ++fd) {
    if (::sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1) <= 0) {
      return fail(fmt::format("Descriptor {} of the service manager is no listening stream socket: "
                              "its unit wants ListenStream= and Accept=no",
                              fd),
                  EINVAL);
    }
    if (is_abstract(fd)) {
      return fail(
          fmt::format("Descriptor {} of the service manager is an abstract unix socket, which "
                      "no NBD URI can name: give ListenStream= a path",
                      fd),
          EINVAL);
    }
    sockets.push_back({.handed_fd = fd});
  }
  return sockets;
}

}  // namespace nvmf::tools
