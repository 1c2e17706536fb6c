#include "host/counters.h"

namespace nvmf::host {

namespace {

std::uint64_t value(const Counter& counter) {
  return counter.load(std::memory_order_relaxed);
}

}  // namespace

Latencies LatencyKinds::read() const {
  Latencies all;
  for (std::size_t i = 0; i < kLatencyKinds; ++i) all.kinds[i] = kinds[i].read();
  return all;
}

QueueStatistics QueueCounters::read() const {
  return {.commands = value(commands),
          .read_bytes = value(read_bytes),
          .written_bytes = value(written_bytes),
          .errors = value(errors),
          .retries = value(retries),
          .timeouts = value(timeouts),
          .latencies = latencies.read()};
}

void RequestCounters::add_to(RequestStatistics& sum) const {
  sum.read_bytes += value(read_bytes);
  sum.written_bytes += value(written_bytes);
  sum.errors += value(errors);
  sum.latencies.add(latencies.read());
}

QueueCounters& ConnectionCounters::queue(std::uint16_t qid) {
  while (queues_.size() <= qid) queues_.push_back(std::make_unique<QueueCounters>());
  return *queues_[qid];
}

}  // namespace nvmf::host
