// The runtime directory: where running connections are found by name.
//
//   NAME.lock      held by the connection's process for its life; says who it is and to what
//   NAME.sock      its control socket
//   NAME.nbd.sock  its NBD socket, unless another place was asked for
//   NAME.log       what it has to say, when it runs in the background; gone when it ended well
//   NAME.1.log     the log before that one
//   NAME.crash     for how long what it had sent may be executed, if it is killed (crash_record.h)
//   .lock          held for the moments in which names are claimed and given up
//
// A name is taken exactly as long as a process holds a lock on NAME.lock. The kernel drops that
// lock with the process, however it ends: what a killed process leaves behind blocks nobody, and is
// swept away when the next name is claimed.
//
// This is the one part of control/ that makes system calls: files and locks, none of which blocks
// for longer than kDirectoryLockPatience.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/unique_fd.h"
#include "nvme/result.h"

namespace nvmf::control {

/// How long somebody may hold .lock before we say that something is wrong: it is held for
/// microseconds, unless its holder is stopped.
inline constexpr std::chrono::seconds kDirectoryLockPatience{5};
/// Default names tried: more connections than one user's processes and memory allow.
inline constexpr unsigned kDefaultNamesMax = 4096;
inline constexpr std::size_t kNameBytesMax = 64;

/// A connection as its lock file describes it.
struct Connection {
  std::string name;
  pid_t pid = 0;  // 0: it has not written its description yet
  std::string address;
  std::uint16_t port = 0;
  std::string subnqn;
  std::string hostnqn;
};

/// "nvmf0": 1 to 64 letters, digits, '.', '_' and '-', beginning with a letter or a digit, not
/// ending in ".nbd".
Result<void> check_name(std::string_view name);

class RuntimeDir;

/// A name that is ours until this is destroyed. Survives fork(): it is held until the last process
/// that has it is gone, but only one may release it.
class Claim {
 public:
  Claim(Claim&& other) noexcept
      : directory_(std::move(other.directory_)),
        name_(std::move(other.name_)),
        fd_(std::move(other.fd_)) {}
  Claim& operator=(Claim&&) = delete;
  /// Gives the name up and removes the lock file.
  ~Claim();
  [[nodiscard]] const std::string& name() const { return name_; }

 private:
  friend class RuntimeDir;
  Claim(std::string directory, std::string name, io::UniqueFd fd)
      : directory_(std::move(directory)), name_(std::move(name)), fd_(std::move(fd)) {}
  std::string directory_;
  std::string name_;
  io::UniqueFd fd_;
};

class RuntimeDir {
 public:
  /// $NVMF_RUNTIME_DIR, else /run/nvmf for root, else $XDG_RUNTIME_DIR/nvmf. Made with mode 0700 if
  /// it is missing. Fails if there is none, or if others than its owner, who must be us or root,
  /// can write to it.
  static Result<RuntimeDir> open();
  /// The same for a given path.
  static Result<RuntimeDir> open(const std::string& path);

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string control_socket(std::string_view name) const;
  [[nodiscard]] std::string nbd_socket(std::string_view name) const;
  [[nodiscard]] std::string log_file(std::string_view name) const;

  /// Claims wanted.name, or the first free of nvmf0, nvmf1, … if that is empty. Before that, with
  /// the directory locked, `admit` sees each connection that there is and may refuse. Sweeps away
  /// what dead processes left. `on_claimed` is called with the name once it is ours, the directory
  /// still locked; if it fails, the name is given up again.
  Result<Claim> claim(const Connection& wanted,
                      const std::function<Result<void>(const Connection&)>& admit = {},
                      const std::function<Result<void>(const std::string&)>& on_claimed = {}) const;

  /// Sweeps away what dead processes left, as claim() does.
  Result<void> clean() const;
  /// Connections whose processes run, by name ("nvmf2" before "nvmf10").
  [[nodiscard]] Result<std::vector<Connection>> connections() const;
  [[nodiscard]] std::optional<Connection> find(std::string_view name) const;

 private:
  explicit RuntimeDir(std::string path) : path_(std::move(path)) {}
  [[nodiscard]] std::string file(std::string_view name, std::string_view ending) const;
  void sweep() const;

  std::string path_;
};

}  // namespace nvmf::control
