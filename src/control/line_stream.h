// Lines, and bytes between them, over a Stream, sans-IO: what the control socket's two ends have in
// common.
#pragma once

#include <array>
#include <cstddef>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "transport/stream.h"

namespace nvmf::control {

/// Everything happens on the thread of the stream's loop.
class LineStream : public transport::StreamUser {
 public:
  explicit LineStream(std::size_t line_bytes_max) : line_bytes_max_(line_bytes_max) {}
  LineStream(const LineStream&) = delete;
  LineStream& operator=(const LineStream&) = delete;

  /// Before on_open().
  void attach(std::unique_ptr<transport::Stream> stream) { stream_ = std::move(stream); }

  // transport::StreamUser, all but on_closed()
  void on_open(transport::Stream& stream) final;
  std::size_t recv_vectors(std::span<iovec> out) final;
  void recv_advance(std::size_t bytes) final;
  std::size_t send_vectors(std::span<iovec> out) final;
  void send_advance(std::size_t bytes) final;
  void on_eof() final;

 protected:
  virtual ~LineStream() = default;

  /// A line without its newline, valid during the call.
  virtual void on_line(std::string_view line) = 0;
  /// More than line_bytes_max bytes without a newline. Nothing is received any more.
  virtual void on_line_too_long() = 0;
  /// The peer sends no more, and all its whole lines have been delivered.
  virtual void on_end_of_lines() = 0;
  /// All that was to be sent has been.
  virtual void on_all_sent() = 0;
  virtual void on_up() {}
  /// The bytes that expect_payload() was called for are there.
  virtual void on_payload(std::vector<std::byte> /*payload*/) {}

  /// `line` includes its newline. Nothing is sent after finish().
  void send_line(std::string line);
  /// Bytes behind the last line. The memory is freed when they have been sent.
  void send_payload(std::vector<std::byte> payload);
  /// From inside on_line(), or while paused: what follows is `bytes` bytes (not 0), no line.
  /// on_payload() follows when they have come; not inside this call, and never while paused.
  void expect_payload(std::size_t bytes);
  /// Holds further lines back, or goes on. Bytes that come meanwhile wait in the socket.
  void set_paused(bool paused);
  [[nodiscard]] bool sending() const { return !outgoing_.empty(); }
  /// Bytes that wait to be sent.
  [[nodiscard]] std::size_t backlog_bytes() const { return backlog_bytes_; }
  [[nodiscard]] bool ended() const { return eof_; }
  [[nodiscard]] transport::Stream& stream() { return *stream_; }

 private:
  using Chunk = std::variant<std::string, std::vector<std::byte>>;
  static std::span<const std::byte> bytes_of(const Chunk& chunk);
  void send(Chunk chunk);
  void deliver();
  [[nodiscard]] std::size_t deliver_line(std::size_t start);
  [[nodiscard]] std::size_t deliver_payload(std::size_t start);

  std::size_t line_bytes_max_;
  std::unique_ptr<transport::Stream> stream_;
  std::array<std::byte, 16 * 1024> place_;  // void after every advance
  std::string incoming_;                    // from the last whole line on
  std::size_t scanned_ = 0;                 // no newline before this
  std::vector<std::byte> payload_;          // being received
  std::size_t payload_got_ = 0;
  bool in_payload_ = false;
  bool named_payload_ = false;  // by the last recv_vectors()
  std::deque<Chunk> outgoing_;
  std::size_t sent_ = 0;  // of the first
  std::size_t backlog_bytes_ = 0;
  bool open_ = false;
  bool paused_ = false;
  bool delivering_ = false;
  bool eof_ = false;
  bool end_told_ = false;
  bool deaf_ = false;  // after a line that was too long
};

}  // namespace nvmf::control
