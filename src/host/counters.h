// What is counted while a connection works; statistics.h is what is made of it.
//
// They belong to the connection, not to an association: queue number N of the next association goes
// on where the last one's ended. Each is written by one thread at a time without locked
// instructions, and read from anywhere; nothing is allocated but when a queue number is seen for
// the first time.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "host/statistics.h"

namespace nvmf::host {

using Counter = std::atomic<std::uint64_t>;

/// For the one thread that writes.
inline void count(Counter& counter, std::uint64_t n = 1) {
  counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
}

struct LatencyKinds {
  std::array<LatencyCounters, kLatencyKinds> kinds;

  void record(LatencyKind kind, Duration latency) {
    const std::int64_t ns = latency.count();
    kinds[static_cast<std::size_t>(kind)].record(ns > 0 ? static_cast<std::uint64_t>(ns) : 0);
  }
  [[nodiscard]] Latencies read() const;
};

/// Of a queue number. Written on the reactor that the queue is on.
struct QueueCounters {
  Counter commands{0};  // given to the network
  Counter read_bytes{0};
  Counter written_bytes{0};
  Counter errors{0};
  /// Seldom; also from the reactor of a LentQueue, so by fetch_add.
  Counter retries{0};
  Counter timeouts{0};
  /// When the last command was submitted, in the loops' time.
  std::atomic<std::int64_t> submitted_at_ns{0};
  LatencyKinds latencies;

  /// All but what only the association knows: qid, reactor, live.
  [[nodiscard]] QueueStatistics read() const;
};

/// Of a reactor's requests. Written there.
struct RequestCounters {
  Counter read_bytes{0};
  Counter written_bytes{0};
  Counter errors{0};
  LatencyKinds latencies;

  void add_to(RequestStatistics& sum) const;
};

/// Of a connection. All but what `queue()` gives is written on the control loop.
class ConnectionCounters {
 public:
  Counter aborts{0};
  Counter keep_alives{0};
  Counter async_events{0};
  /// Commands on behalf of tools.
  Counter passthrough_commands{0};
  Counter reconnects{0};
  Counter failed_attempts{0};

  /// Those of a queue number, made if need be; there for as long as this is. On the control loop.
  QueueCounters& queue(std::uint16_t qid);
  /// How many numbers there were so far, 0 included.
  [[nodiscard]] std::size_t queues() const { return queues_.size(); }

 private:
  std::vector<std::unique_ptr<QueueCounters>> queues_;
};

}  // namespace nvmf::host
