// The seam between protocols and sockets.
//
// A StreamUser is a protocol engine without I/O: it says where the next bytes may go and which
// bytes are to be sent, and is told how many came and went. A Stream carries those bytes: over a
// socket (io/), or through a simulated network in virtual time (tests/sim). Everything here happens
// on the thread of one Loop.
//
// Buffers. A place that recv_vectors() named and a byte range that send_vectors() named may be in
// the kernel's hands from then on. They stay valid and unchanged until
// recv_advance()/send_advance() has covered them or until on_closed(). Between two calls a user may
// append to what is to be sent, and may name more places, but never moves or withdraws one that it
// has named.
//
// Order. For one user the calls are: on_open, then any number of recv/send, at most one on_eof, and
// last on_closed, exactly once. No call is made from inside Stream::wake(), reset() or finish().
#pragma once

#include <sys/uio.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "nvme/result.h"

namespace nvmf::transport {

/// The most iovecs a Stream asks for at once.
inline constexpr std::size_t kStreamVectors = 64;

class Stream;

class StreamUser {
 public:
  /// The stream is up; `stream` stays valid until on_closed() returns.
  virtual void on_open(Stream& stream) = 0;

  /// Writes up to out.size() places for incoming bytes, in order, and returns how many. 0 means
  /// "nothing can be taken now": the user calls Stream::wake() when that changes.
  virtual std::size_t recv_vectors(std::span<iovec> out) = 0;
  /// `bytes` came, filling the named places in order. May submit, complete and call wake/reset.
  virtual void recv_advance(std::size_t bytes) = 0;

  /// Writes up to out.size() ranges to be sent, in order, and returns how many; 0 if none.
  virtual std::size_t send_vectors(std::span<iovec> out) = 0;
  /// The first `bytes` of what send_vectors() named are no longer needed by the stream.
  virtual void send_advance(std::size_t bytes) = 0;

  /// The peer sent FIN: no more bytes will come. Sending still works.
  virtual void on_eof() = 0;

  /// The stream is gone and no buffer is used any more. `reason` says why in words; it repeats what
  /// was given to reset(), if that was called. The user may destroy the Stream and itself in here.
  virtual void on_closed(const Error& reason) = 0;

 protected:
  ~StreamUser() = default;
};

/// One connection. Owned by whoever opened it; not to be destroyed before on_closed() was called.
class Stream {
 public:
  virtual ~Stream() = default;

  /// The user has bytes to send, or a place to receive again. Cheap; acted on at the end of the
  /// loop's turn, so that one system call carries what a whole turn produced.
  virtual void wake() = 0;

  /// Ends the connection at once: pending operations are cancelled, the peer sees RST, nothing that
  /// was queued is delivered later. Then on_closed(reason).
  virtual void reset(Error reason) = 0;

  /// Ends it in order: what send_vectors() still has is sent, then FIN, then on_closed() once the
  /// peer has closed too, or reset after `linger` at the latest.
  virtual void finish(std::chrono::nanoseconds linger) = 0;

  /// "127.0.0.1:4420", "[::1]:4420", or a unix socket's path; for messages.
  [[nodiscard]] virtual std::string peer() const = 0;
  [[nodiscard]] virtual std::string local() const = 0;
};

}  // namespace nvmf::transport
