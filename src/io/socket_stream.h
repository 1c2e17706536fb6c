// transport::Stream over a socket.
//
// All system calls on the socket are non-blocking and made directly: the backend only says when it
// is readable or writable. So no buffer of the user is ever in the kernel's hands between two
// calls, and there is nothing to cancel before on_closed().
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "io/backend.h"
#include "io/core.h"
#include "io/socket_address.h"
#include "io/unique_fd.h"
#include "transport/stream.h"
#include "transport/timer.h"

namespace nvmf::io {

class SocketStream final : public transport::Stream, public Pollable, public LoopChild {
 public:
  SocketStream(ReactorCore& core, transport::StreamUser& user, std::string peer);
  /// Before on_closed() it is a mistake of the owner's; the socket is aborted and nobody told.
  ~SocketStream() override;

  /// One of these two follows construction. Neither calls the user.
  void start_connect(const transport::Endpoint& to, const transport::ConnectOptions& options);
  void start_accepted(UniqueFd fd, int family);

  // transport::Stream
  void wake() override;
  void reset(Error reason) override;
  void finish(std::chrono::nanoseconds linger) override;
  [[nodiscard]] std::string peer() const override { return peer_; }
  [[nodiscard]] std::string local() const override { return local_; }

  void on_ready(std::uint32_t events) override;
  void loop_ended() override;
  /// The end of a turn: opens, receives what was held back, sends, closes.
  void serve();

 private:
  enum class State : std::uint8_t { connecting, opening, open, closed };

  void try_connect();
  void connected();
  void established();
  Result<void> prepare(const transport::Endpoint& to, const transport::ConnectOptions& options);
  void receive();
  void send();
  void received_error(int code);
  void fail_with(Error reason);
  void mark();
  void expire();
  void close(const Error& reason, bool abort);

  ReactorCore& core_;
  transport::StreamUser& user_;
  std::string peer_;
  std::string local_;
  UniqueFd fd_;
  int family_ = 0;
  State state_ = State::connecting;
  SocketAddress to_;
  transport::Timer deadline_;  // of the connect, or of the linger
  transport::Timer retry_;     // a unix socket whose backlog is full says EAGAIN, and never more
  std::optional<Error> failure_;
  int send_error_ = 0;  // sending failed; what the peer said before is still to be read
  bool queued_ = false;
  bool readable_ = false;
  bool writable_ = false;
  bool hung_up_ = false;  // FIN or an error waits behind the bytes: a short read is not the end
  bool eof_ = false;
  bool finishing_ = false;
  bool fin_sent_ = false;
};

}  // namespace nvmf::io
