// transport::Loop made real: sockets, files, timers and posted tasks on one thread.
//
// Two backends stand behind it and behave alike: io_uring, and epoll where a ring cannot be had
// (containers, RLIMIT_MEMLOCK, old kernels). Nobody above needs to know which one runs.
#pragma once

#include <memory>

#include "transport/loop.h"

namespace nvmf::io {

enum class BackendKind : std::uint8_t {
  automatic,  // what NVMF_IO says, else io_uring if a ring can be set up, else epoll
  epoll,
  io_uring,
};

struct ReactorOptions {
  BackendKind backend = BackendKind::automatic;
  bool spin = false;  // never sleep: less latency for all of a core
};

/// A loop and the way to run it. May be made on one thread and run on another; from the first
/// run() on it belongs to the thread that called that, to the end.
class Reactor : public transport::Loop {
 public:
  /// Runs turns until stop(). May be called again.
  virtual void run() = 0;
  /// Makes run() return after the turn under way; one that starts later returns at once. From any
  /// thread. The only other method with that freedom is post().
  virtual void stop() = 0;
  /// The tidy end, on the thread that ran it: open streams are reset and their users told
  /// (ECANCELED), listeners and watches fall silent, file operations under way are waited for and
  /// completed, posted tasks destroyed without being run. The destructor does it if nobody has.
  virtual void end() = 0;
  /// "io_uring" or "epoll".
  [[nodiscard]] virtual const char* backend_name() const = 0;
};

/// Fails if a backend was forced (by `options` or by NVMF_IO=epoll|io_uring) that cannot be had, if
/// NVMF_IO says something else, or if the process is out of file descriptors.
Result<std::unique_ptr<Reactor>> make_reactor(const ReactorOptions& options = {});

}  // namespace nvmf::io
