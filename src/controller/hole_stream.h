// A black hole between a queue pair and its connection: while it is on, nothing is read, nothing is
// sent and nothing is told; the connection stays. What the kernel had in its hands when it came on
// is brought to its end as stream.h wants it, but is not told before it goes off.
//
// A reset asked for meanwhile is carried out when the hole goes off: the peer must see silence, not
// an RST. Whoever cannot wait for that turns the hole off first.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "transport/loop.h"
#include "transport/stream.h"

namespace nvmf::controller {

class HoleStream final : public transport::Stream, private transport::StreamUser {
 public:
  /// Takes the connection for `user`, as Loop::adopt() does.
  static std::unique_ptr<HoleStream> adopt(transport::Loop& loop,
                                           std::unique_ptr<transport::Incoming> incoming,
                                           transport::StreamUser& user);

  [[nodiscard]] bool on() const { return on_; }
  /// Not inside a call of the stream's to its user. Turned off, it may deliver what came meanwhile
  /// in the call itself; all but the end of the stream.
  void set(bool on);

  // transport::Stream
  void wake() override {
    if (!ended_) below_->wake();
  }
  void reset(Error reason) override;
  void finish(std::chrono::nanoseconds linger) override;
  [[nodiscard]] std::string peer() const override { return peer_; }
  [[nodiscard]] std::string local() const override { return local_; }

 private:
  HoleStream(transport::Loop& loop, transport::StreamUser& user);

  // transport::StreamUser, for the connection below
  void on_open(transport::Stream& stream) override;
  std::size_t recv_vectors(std::span<iovec> out) override;
  void recv_advance(std::size_t bytes) override;
  std::size_t send_vectors(std::span<iovec> out) override;
  void send_advance(std::size_t bytes) override;
  void on_eof() override;
  void on_closed(const Error& reason) override;

  transport::StreamUser& user_;
  std::unique_ptr<transport::Stream> below_;
  std::string peer_;
  std::string local_;
  transport::Timer closer_;  // tells of an end that came during the hole
  bool on_ = false;
  bool receiving_ = false;      // places are named
  std::size_t sending_ = 0;     // bytes named and not released
  std::size_t received_ = 0;    // bytes that came during the hole
  bool eof_ = false;            // came during the hole
  std::optional<Error> ended_;  // the connection below has ended, during the hole
  std::optional<Error> reset_;  // asked for during the hole
  std::optional<std::chrono::nanoseconds> finish_;
};

}  // namespace nvmf::controller
