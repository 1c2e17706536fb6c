#include "host/statistics.h"

#include <algorithm>

namespace nvmf::host {

const char* name_of(LatencyKind kind) {
  switch (kind) {
    case LatencyKind::read:
      return "read";
    case LatencyKind::write:
      return "write";
    case LatencyKind::flush:
      return "flush";
    case LatencyKind::other:
      return "other";
  }
  return "unknown";
}

void Latencies::add(const Latencies& other) {
  for (std::size_t i = 0; i < kLatencyKinds; ++i) kinds[i].add(other.kinds[i]);
}

std::size_t ConnectionStatistics::live_io_queues() const {
  return static_cast<std::size_t>(std::ranges::count_if(
      queues, [](const QueueStatistics& queue) { return queue.live && queue.qid != 0; }));
}

}  // namespace nvmf::host
