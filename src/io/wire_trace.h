// What a host's connections carry, as packets in a trace file; switched on and off while they live.
//
// A Connector that puts a tap between each connection and its protocol engine. Off, a tap hands
// everything on and looks at one flag; it keeps the first bytes of each direction, so that a trace
// that begins later can begin with the handshake, by which a reader tells queues apart. On, what
// was received or sent is copied into the trace's buffer before the engine hears of it.
//
// The packets have IP and TCP headers of our making: real addresses and ports, sequence numbers
// that count from 1 in what is recorded, SYN and FIN where they belong. In a connection that is
// older than the trace each direction begins at the next border of a message that is recognized.
//
// Threads: start(), stop() and counts() from any; the rest as Connector says. The trace outlives
// its taps.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>

#include "io/trace_file.h"
#include "transport/connector.h"

namespace nvmf::io {

/// What the trace must know of the protocol that it records.
struct StreamFraming {
  /// Whether a message begins here.
  bool (*begins)(std::span<const std::byte>) = nullptr;
  /// How much of a connection's first bytes is the handshake, in whole messages.
  std::size_t (*handshake_bytes)(std::span<const std::byte>) = nullptr;
};

/// ICReq and Connect with their digests are 1232 bytes.
inline constexpr std::size_t kHandshakeBytesMax = 1280;
/// Of one packet: an IP packet has at most 65535 bytes, and IPv6 counts without its header.
inline constexpr std::size_t kTraceSegmentBytes = 32 * 1024;

class WireTrace final : public transport::Connector {
 public:
  explicit WireTrace(StreamFraming framing) : framing_(framing) {}
  /// stop(), and waits up to a second for what is to be written.
  ~WireTrace();

  /// EBUSY while one is being written; otherwise what open_trace_file() says.
  Result<void> start(const std::string& path);
  /// The counts of the one that ends; nothing if there was none. What it still has to write is
  /// written soon.
  std::optional<TraceCounts> stop();
  /// Of the one that is on.
  [[nodiscard]] std::optional<TraceCounts> counts() const;
  /// For tests: into this one.
  void start(std::shared_ptr<TraceFile> file);

  std::unique_ptr<transport::Stream> connect(transport::Loop& loop, const transport::Endpoint& to,
                                             const transport::ConnectOptions& options,
                                             transport::StreamUser& user) override;

  // For the taps.
  /// Another number for each trace; 0: none is on.
  [[nodiscard]] std::uint64_t number() const { return number_.load(std::memory_order_relaxed); }
  [[nodiscard]] const StreamFraming& framing() const { return framing_; }
  /// The file of the trace that is on, and its number.
  std::shared_ptr<TraceFile> file(std::uint64_t& number) const;

 private:
  StreamFraming framing_;
  std::atomic<std::uint64_t> number_{0};
  mutable std::mutex mutex_;
  std::uint64_t last_number_ = 0;
  std::shared_ptr<TraceFile> file_;
  std::shared_ptr<TraceFile> ended_;  // the last one, while it may still be written
};

}  // namespace nvmf::io
