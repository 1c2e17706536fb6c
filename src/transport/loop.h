// What the rooms above need from the outside world: time, timers, a way to run something on another
// thread, connections, listeners and files. Implemented for real in io/ (io_uring, epoll) and in
// virtual time by tests/sim/virtual_loop.h. Nothing above io/ makes a system call on the data path.
//
// A Loop belongs to one thread, the one that runs it. Every method and every callback happens
// there, except post(), which any thread may call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nvme/result.h"
#include "transport/stream.h"
#include "transport/timer.h"

namespace nvmf::transport {

/// Where something listens or is to be reached. Either an IP address with a port or a unix path.
struct Endpoint {
  std::string host;  // numeric IPv4 or IPv6 without brackets; a name only for Loop::resolve
  std::uint16_t port = 0;
  std::string unix_path;  // non-empty: a unix stream socket, host and port unused
  /// Only for Loop::listen, which takes it over, and where it listens then: a listening stream
  /// socket that somebody else has made (a service manager); the rest is unused.
  int handed_fd = -1;

  [[nodiscard]] bool is_unix() const { return !unix_path.empty(); }
  /// "127.0.0.1:4420", "[::1]:4420" or the path.
  [[nodiscard]] std::string to_string() const;
  friend bool operator==(const Endpoint&, const Endpoint&) = default;
};

class Connector;

struct ConnectOptions {
  std::string host_traddr;  // source address, numeric; empty: the kernel chooses
  std::string host_iface;   // bind to this interface; empty: none
  int tos = -1;             // IP TOS / traffic class, -1: leave
  Duration connect_timeout{std::chrono::seconds(10)};
  Duration user_timeout{};       // TCP_USER_TIMEOUT, 0: the kernel's default
  int receive_buffer_bytes = 0;  // SO_RCVBUF, 0: the kernel's default
  int send_buffer_bytes = 0;
  /// Who is to make the connection in the place of the loop, which takes no notice of it; nullptr:
  /// the loop. See connector.h.
  Connector* through = nullptr;
};

/// A connection that a Listener accepted and nobody uses yet. May be handed to another loop.
class Incoming {
 public:
  virtual ~Incoming() = default;  // destroying it closes the connection
  [[nodiscard]] virtual std::string peer() const = 0;
  /// Whose process it is, as the kernel says; of a unix socket only.
  [[nodiscard]] virtual std::optional<std::uint32_t> peer_uid() const { return std::nullopt; }
};

/// Destroying it stops listening (and removes a unix socket's file that it made).
class Listener {
 public:
  virtual ~Listener() = default;
  /// Where it listens really: the port that 0 became.
  [[nodiscard]] virtual Endpoint local() const = 0;
};

/// One file operation. Owned by the caller and unmoved until `complete` has been called.
struct FileOp {
  enum class Kind : std::uint8_t {
    read,
    write,
    write_durable,  // RWF_DSYNC: on stable storage when complete
    sync,           // fdatasync of all writes completed before
    zero,           // the range reads as zeroes and stays allocated
    punch,          // the range reads as zeroes and is deallocated
  };
  Kind kind = Kind::read;
  std::byte* data = nullptr;
  std::uint64_t offset_bytes = 0;
  std::uint64_t length_bytes = 0;
  void (*complete)(FileOp&) = nullptr;
  /// 0, or an errno. A read or write is complete only when all its bytes are: short transfers are
  /// continued by the loop; a read past the end of the file gives ENODATA.
  int error = 0;

  // For the loop's own use.
  std::uint64_t done_bytes = 0;
  FileOp* next = nullptr;
  void* owner = nullptr;
};

/// Bytes [begin, end) of a file.
struct FileRange {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  friend bool operator==(const FileRange&, const FileRange&) = default;
};

/// A regular file or a block device. Not to be destroyed while an operation is under way.
class File {
 public:
  virtual ~File() = default;
  virtual void submit(FileOp& op) = 0;  // never completes inside
  [[nodiscard]] virtual std::uint64_t size_bytes() const = 0;
  /// The first range of data that ends behind `from`, cut at `from`, which is less than the size;
  /// what lies before it is a hole. `begin` is the size, or more, if the rest is one. At once: it
  /// asks the file system's own tables. What those do not tell is data.
  [[nodiscard]] virtual FileRange next_data(std::uint64_t from) const {
    return {from, size_bytes()};
  }
};

/// Watches a file descriptor that somebody else owns (signalfd, libnbd, FUSE). Destroying it stops.
class FdWatch {
 public:
  virtual ~FdWatch() = default;
};

class Loop {
 public:
  virtual ~Loop() = default;

  /// The time at the start of this turn of the loop.
  [[nodiscard]] virtual Instant now() const = 0;
  [[nodiscard]] virtual TimerQueue& timers() = 0;

  /// Runs `task` on this loop's thread, in the order of the calls, never inside the call itself.
  /// From any thread. Tasks still queued when the loop ends are destroyed without being run.
  virtual void post(std::move_only_function<void()> task) = 0;

  /// Starts to connect. on_open() or on_closed() follows; neither inside this call. Connecting to
  /// ourselves (a TCP self-connection on a dead loopback port) is refused as ECONNREFUSED.
  virtual std::unique_ptr<Stream> connect(const Endpoint& to, const ConnectOptions& options,
                                          StreamUser& user) = 0;

  /// SO_REUSEADDR is set. A unix path that a dead process left behind is replaced; one on which
  /// somebody accepts, or which is no socket, is an error that says so. A socket that was handed to
  /// us is closed in the end, its file left to whoever made it.
  virtual Result<std::unique_ptr<Listener>> listen(
      const Endpoint& at, std::move_only_function<void(std::unique_ptr<Incoming>)> on_accept) = 0;

  /// Makes a Stream of an accepted connection, on this loop. on_open() follows, not inside.
  virtual std::unique_ptr<Stream> adopt(std::unique_ptr<Incoming> incoming, StreamUser& user) = 0;

  /// Numeric addresses of a host name, in the resolver's order. Numeric input needs no resolver.
  /// The callback is never made inside the call; it is dropped if the loop ends before.
  virtual void resolve(const std::string& host,
                       std::move_only_function<void(Result<std::vector<std::string>>)> done) = 0;

  /// Opens an existing file. `writable` false opens it read-only.
  virtual Result<std::unique_ptr<File>> open_file(const std::string& path, bool writable) = 0;

  /// Calls on_ready at each turn in which `fd` can be read (and/or written).
  virtual Result<std::unique_ptr<FdWatch>> watch(int fd, bool readable, bool writable,
                                                 std::move_only_function<void()> on_ready) = 0;
};

}  // namespace nvmf::transport
