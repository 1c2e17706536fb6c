#include "host/latency_histogram.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace nvmf::host {

std::uint64_t LatencyHistogram::count() const {
  return std::accumulate(buckets.begin(), buckets.end(), std::uint64_t{0});
}

double LatencyHistogram::mean_ns() const {
  const std::uint64_t n = count();
  return n == 0 ? 0 : static_cast<double>(sum_ns) / static_cast<double>(n);
}

std::uint64_t LatencyHistogram::quantile_ns(double quantile) const {
  const std::uint64_t n = count();
  if (n == 0) return 0;
  const double share = std::clamp(quantile, 0.0, 1.0) * static_cast<double>(n);
  // Of what a double cannot hold exactly, the last one counts.
  const std::uint64_t rank =
      std::clamp<std::uint64_t>(static_cast<std::uint64_t>(std::ceil(share)), 1, n);
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < kLatencyLongBucket; ++i) {
    seen += buckets[i];
    if (seen < rank) continue;
    const std::uint64_t begin = latency_bucket_begin_ns(i);
    return std::min(begin + (latency_bucket_begin_ns(i + 1) - begin) / 2, max_ns);
  }
  return max_ns;
}

std::uint64_t LatencyHistogram::count_below(std::uint64_t ns) const {
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < kLatencyLongBucket && latency_bucket_begin_ns(i + 1) <= ns; ++i) {
    seen += buckets[i];
  }
  return seen;
}

void LatencyHistogram::add(const LatencyHistogram& other) {
  for (std::size_t i = 0; i < kLatencyBuckets; ++i) buckets[i] += other.buckets[i];
  sum_ns += other.sum_ns;
  max_ns = std::max(max_ns, other.max_ns);
}

LatencyHistogram LatencyCounters::read() const {
  LatencyHistogram h;
  for (std::size_t i = 0; i < kLatencyBuckets; ++i) {
    h.buckets[i] = buckets_[i].load(std::memory_order_relaxed);
  }
  h.sum_ns = sum_ns_.load(std::memory_order_relaxed);
  h.max_ns = max_ns_.load(std::memory_order_relaxed);
  return h;
}

}  // namespace nvmf::host
