// What a connection has done so far, as a value: for `nvmf stats`, whatever shows it.
//
// Everything counts from the start of the connection (RemoteSubsystem::start()) and only grows; a
// reconnect takes nothing back. A queue is a queue number: after a loss, its successor goes on
// counting where it ended.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "host/health.h"
#include "host/latency_histogram.h"
#include "transport/timer.h"

namespace nvmf::host {

/// What latencies are told apart by.
enum class LatencyKind : std::uint8_t { read, write, flush, other };
inline constexpr std::size_t kLatencyKinds = 4;
const char* name_of(LatencyKind kind);  // "read", "write", "flush", "other"

/// From when a command was given to the queue pair to when its response was seen, both as the time
/// of the loop's turn; of answered commands only, refused ones included.
struct Latencies {
  std::array<LatencyHistogram, kLatencyKinds> kinds;

  [[nodiscard]] const LatencyHistogram& operator[](LatencyKind kind) const {
    return kinds[static_cast<std::size_t>(kind)];
  }
  void add(const Latencies& other);
};

/// One submission queue number; 0 is the admin queue, whose commands are all of kind `other`.
/// Connect and the commands of bring-up on I/O queues are not counted, neither are Keep Alives and
/// Asynchronous Event Requests on the admin queue: those are counted by themselves.
struct QueueStatistics {
  std::uint16_t qid = 0;
  std::size_t reactor = 0;  // index of the loop that it is on, or was last
  bool live = false;        // it is part of an association now
  std::uint64_t commands = 0;
  std::uint64_t read_bytes = 0;     // I/O: of commands that succeeded
  std::uint64_t written_bytes = 0;  // of Write commands that succeeded
  std::uint64_t errors = 0;         // refused by the controller, or never answered
  std::uint64_t retries = 0;        // ended in a way that makes them be done again
  std::uint64_t timeouts = 0;       // overdue: the controller was to be told to abort them
  Latencies latencies;
};

/// Requests as frontends see them, on all reactors together: from BlockDevice::submit() to
/// `complete`, with everything that they waited for, a loss included. What writes unflushed data
/// again (Unflushed::replay) counts, too; commands of tools do not.
struct RequestStatistics {
  std::uint64_t read_bytes = 0;  // of requests that succeeded
  std::uint64_t written_bytes = 0;
  std::uint64_t errors = 0;
  Latencies latencies;  // `other`: write zeroes and deallocate; failed ones included
};

struct ConnectionStatistics {
  std::string name;
  std::string subnqn;
  std::string address;  // "HOST:PORT" as asked for
  ConnectionState state = ConnectionState::connecting;
  Duration age{};                          // since the start
  std::uint64_t losses = 0;                // associations lost
  std::uint64_t reconnects = 0;            // associations made after a loss
  std::uint64_t failed_attempts = 0;       // attempts at that which failed
  std::uint64_t aborts = 0;                // Abort commands sent
  std::uint64_t keep_alives = 0;           // Keep Alive commands sent
  std::uint64_t async_events = 0;          // reported by the controller
  std::uint64_t passthrough_commands = 0;  // on behalf of tools, admin and I/O
  std::vector<QueueStatistics> queues;     // by rising number; the admin queue first
  RequestStatistics requests;

  [[nodiscard]] std::size_t live_io_queues() const;
};

}  // namespace nvmf::host
