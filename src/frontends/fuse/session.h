// The kernel's end of the file system: the mount, the one file descriptor that messages come
// through, and the way back to an empty directory.
//
// Threads. open(), close() and the destructor are the control loop's. From open() to close() every
// reactor may call receive(), and may answer what it received.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "frontends/fuse/tree.h"
#include "nvme/result.h"

struct fuse_session;

namespace nvmf::fuse {

struct Served;

struct MountOptions {
  /// An absolute path. Or "/dev/fd/N": somebody else has opened /dev/fuse and mounts it, and
  /// unmounts it.
  std::string mount_point;
  std::string source;  // what `mount` and `df` say it is of: letters, digits, '-', '_', '.'
  bool read_only = false;
  bool allow_other = false;
};

enum class Received : std::uint8_t {
  message,  // and it has been handed to the handlers
  nothing,  // there is none just now
  end,      // unmounted: there will be no more
};

class Session {
 public:
  /// Mounts, as root by itself and else by fusermount3, and greets the kernel. `served` is handed
  /// to the handlers and outlives the session. What somebody of ours left behind on the directory
  /// when killed is unmounted first.
  static Result<std::unique_ptr<Session>> open(const MountOptions& options, Served& served);
  /// Does close().
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  [[nodiscard]] int fd() const;
  /// Reads a message into `memory`, kMessageBytesMax bytes, and has it handled, inside the call.
  /// A handler may keep the memory of a write's data.
  [[nodiscard]] Received receive(std::byte* memory);
  /// Tells the kernel that what it knows of a file's size is not true any more. Never blocks: the
  /// kernel only marks the attributes, and takes no lock that a request could hold.
  void attributes_changed(Inode inode);

  /// Closes the descriptor, which ends all that the kernel still waits for, and unmounts, whoever
  /// has files open (ENOTCONN is what they see from now on). To be called when every message has
  /// been answered and no reactor reads or watches. Idempotent.
  void close();

 private:
  Session() = default;
  Result<void> mount(const MountOptions& options, Served& served);
  Result<void> greet(Served& served);

  fuse_session* session_ = nullptr;
  std::string mount_point_;  // resolved; empty: somebody else's
  std::string device_;       // the mounted file system's "0:57"
};

}  // namespace nvmf::fuse
