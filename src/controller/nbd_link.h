// One connection to an NBD server, through libnbd's asynchronous interface on a Loop: connects,
// negotiates, sends requests, says what became of them, and when the connection is lost.
//
// Nothing here blocks, with one exception: libnbd looks host names up with getaddrinfo, so names
// are resolved by the loop first and libnbd is given addresses; but for nbds:// with a name, which
// libnbd must be given to compare it with the server's certificate, it looks the name up again.
//
// libnbd calls back inside its own functions, with its lock held: such a callback only notes what
// ended. The user is told outside, and never inside connect(), send() or drop(): there it may send,
// drop, or destroy other links, though not this one.
//
// Loop's thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nvme/result.h"
#include "transport/loop.h"

struct nbd_handle;

namespace nvmf::controller {

/// Where an NBD server is, as the NBD project's doc/uri.md spells it.
struct NbdUri {
  std::string text;  // all of it
  // Of nbd:// and nbds:// only; empty host: a unix or vsock address, which libnbd reads itself.
  std::string host;  // without brackets
  std::uint16_t port = 0;
  std::string export_name;  // decoded
  bool tls = false;

  /// nbd, nbds, nbd+unix, nbds+unix, nbd+vsock or nbds+vsock; unix needs ?socket=.
  static Result<NbdUri> parse(std::string_view text);
};

/// What the server said of the export.
struct NbdExport {
  std::uint64_t size_bytes = 0;
  bool read_only = false;
  bool flush = false;
  bool fua = false;
  bool trim = false;
  bool zero = false;
  bool fast_zero = false;
  bool multi_conn = false;
  bool allocation = false;  // base:allocation
  std::uint64_t block_bytes_min = 1;
  std::uint64_t payload_bytes_max = 0;  // of one read or write; never 0 once connected
};

class NbdLink;

/// So many bytes that are all of one kind.
struct NbdRun {
  std::uint64_t length_bytes = 0;
  bool hole = false;  // not allocated, and reads as zero
};

/// One request. Its owner leaves it and its data alone from send() until it has been completed or
/// given back by NbdLinkUser::nbd_lost().
struct NbdRequest {
  enum class Kind : std::uint8_t { read, write, flush, zero, extents };
  Kind kind = Kind::read;
  bool fua = false;
  bool no_hole = false;    // zero: the blocks stay allocated
  bool fast_only = false;  // zero: ENOTSUP where it is no faster than writing
  std::byte* data = nullptr;
  std::uint64_t offset_bytes = 0;
  std::uint64_t length_bytes = 0;
  /// 0 or an errno: the server's.
  int error = 0;
  /// extents: what is at the beginning of the range, kNbdRunsMax at most; perhaps less than it all.
  std::vector<NbdRun> runs;

  Instant sent{};
  // For the link's own use.
  NbdLink* link = nullptr;
  std::size_t place = 0;
  bool lost = false;
};

class NbdLinkUser {
 public:
  virtual void nbd_ready(NbdLink& link) = 0;
  virtual void nbd_completed(NbdRequest& request) = 0;
  /// The connection ended, or there never was one. `unanswered` may have been executed, all or in
  /// part; `by_server`: it was the server who ended it.
  virtual void nbd_lost(NbdLink& link, std::vector<NbdRequest*> unanswered, const Error& why,
                        bool by_server) = 0;

 protected:
  ~NbdLinkUser() = default;
};

class NbdLink {
 public:
  NbdLink(transport::Loop& loop, const NbdUri& uri, NbdLinkUser& user);
  /// Resets the connection. Requests under way are forgotten: nobody hears of them any more.
  ~NbdLink();
  NbdLink(const NbdLink&) = delete;
  NbdLink& operator=(const NbdLink&) = delete;

  /// Only while idle. nbd_ready() or nbd_lost() follows, in kNbdConnectTimeout at most.
  void connect();
  [[nodiscard]] bool idle() const { return state_ == State::idle; }
  [[nodiscard]] bool ready() const { return state_ == State::ready; }
  /// Of the last time that it was ready.
  [[nodiscard]] const NbdExport& exported() const { return export_; }

  /// Only while ready, and while there is room. nbd_completed() or nbd_lost() follows.
  void send(NbdRequest& request);
  [[nodiscard]] bool room() const;
  [[nodiscard]] std::size_t in_flight() const { return in_flight_.size(); }
  /// A request has been under way for longer than this; a flush, for which a server may have much
  /// to write, for longer than kNbdFlushTimeouts of it.
  [[nodiscard]] bool overdue(Duration timeout) const;
  /// Resets the connection, if there is one; nbd_lost() follows.
  void drop(Error why);

 private:
  enum class State : std::uint8_t { idle, resolving, connecting, ready, lost };

  void connect_next();
  [[nodiscard]] bool start_connecting();
  void on_event();
  void settle(bool failed);
  void watch();
  void become_ready();
  void lose(Error why, bool by_server);
  void close_handle();
  void deliver();
  static int on_completion(void* request, int* error);
  static int on_extents(void* request, const char* context, std::uint64_t offset,
                        std::uint32_t* entries, std::size_t count, int* error);
  [[nodiscard]] std::int64_t issue(NbdRequest& request);

  transport::Loop& loop_;
  const NbdUri& uri_;
  NbdLinkUser& user_;
  State state_ = State::idle;
  NbdExport export_;
  nbd_handle* handle_ = nullptr;
  std::unique_ptr<transport::FdWatch> watch_;
  int watched_fd_ = -1;
  unsigned watched_ = 0;                // LIBNBD_AIO_DIRECTION_*
  std::uint64_t handshake_bytes_ = 0;   // received since it connects
  std::vector<std::string> addresses_;  // still to be tried, the next one last
  std::vector<NbdRequest*> in_flight_;
  std::vector<NbdRequest*> ended_;  // completed, and not yet told
  NbdRequest* issuing_ = nullptr;   // while libnbd is given it, unless it is over in there
  Error why_;                       // lost: what nbd_lost() is to say
  bool by_server_ = false;
  transport::Timer deadline_;  // of connecting
  transport::Timer soon_;      // deliver()
  std::shared_ptr<NbdLink*> alive_;
};

}  // namespace nvmf::controller
