#include "tool_service.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>

#include <cerrno>
#include <cstring>

namespace nvmf::tools {

namespace {

/// A line of its own for each of `sentence`'s would be another variable of the protocol.
std::string one_line(std::string sentence) {
  for (char& c : sentence) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  return sentence;
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
  ::sd_notify(0, "WATCHDOG=1");
  watchdog_.arm(loop_.now() + period_);
}

void Service::ready(const std::string& status) {
  ::sd_notify(0, ("READY=1\nSTATUS=" + one_line(status)).c_str());
}

void Service::status(const std::string& line) {
  ::sd_notify(0, ("STATUS=" + one_line(line)).c_str());
}

void Service::stopping(const std::string& why) {
  ::sd_notify(0, ("STOPPING=1\nSTATUS=" + one_line(why)).c_str());
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
    sockets.push_back({.handed_fd = fd});
  }
  return sockets;
}

}  // namespace nvmf::tools
