// What a service manager (systemd) hears of a program, and what it hands to it: sd_notify(3),
// sd_watchdog_enabled(3), sd_listen_fds(3). Without a manager nothing happens.
#pragma once

#include <string>
#include <vector>

#include "nvme/result.h"
#include "transport/loop.h"

namespace nvmf::tools {

/// On the loop's thread. While it lives, the manager hears that the loop turns, twice in each
/// period of its watchdog.
class Service {
 public:
  explicit Service(transport::Loop& loop);

  /// It serves; once.
  void ready(const std::string& status);
  /// One line of what is going on, for `systemctl status`.
  void status(const std::string& line);
  void stopping(const std::string& why);

 private:
  void tell_alive();
  transport::Loop& loop_;
  Duration period_{};  // zero: nobody watches
  transport::Timer watchdog_;
};

/// The listening sockets that the manager hands to this process, for Loop::listen. Once, before
/// other descriptors are made and before any fork; those that it starts get none. An error if one
/// of them is not a listening stream socket.
Result<std::vector<transport::Endpoint>> handed_sockets();

}  // namespace nvmf::tools
