// How long something took, many times: a log-linear histogram of fixed size.
//
// Buckets. Below 32 units of 64 ns (2.048 µs) each bucket is one unit wide; from there on every
// octave is cut into 16 of equal width, up to 2^37 ns (137 s), and one more bucket takes what was
// longer. So a value is known to within 1/16 of itself from 1.024 µs on, and what is reported for a
// bucket, its middle, is off by 1/32 (3.2 %) at most. 449 counters, 3.6 KiB.
//
// Threads. LatencyCounters is written by one thread at a time, without a locked instruction, and
// read from anywhere: what is read is not a moment's picture, but each counter only grows.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace nvmf::host {

inline constexpr unsigned kLatencyUnitShift = 6;    // 64 ns
inline constexpr unsigned kLatencyOctaveShift = 4;  // 16 buckets an octave
inline constexpr unsigned kLatencyBitsMax = 37;     // 137 s, longer than any command's timeout
inline constexpr std::uint64_t kLatencyLongNs = std::uint64_t{1} << kLatencyBitsMax;
/// The last one, for what took kLatencyLongNs or longer.
inline constexpr std::size_t kLatencyLongBucket =
    (kLatencyBitsMax - kLatencyUnitShift - kLatencyOctaveShift + 1) << kLatencyOctaveShift;
inline constexpr std::size_t kLatencyBuckets = kLatencyLongBucket + 1;

/// The bucket of a latency.
constexpr std::size_t latency_bucket(std::uint64_t ns) {
  if (ns >= kLatencyLongNs) return kLatencyLongBucket;
  const std::uint64_t units = ns >> kLatencyUnitShift;
  const unsigned width = static_cast<unsigned>(std::bit_width(units));
  const unsigned octave = width > kLatencyOctaveShift + 1 ? width - kLatencyOctaveShift - 1 : 0;
  return (std::size_t{octave} << kLatencyOctaveShift) + static_cast<std::size_t>(units >> octave);
}

/// The shortest latency that falls into a bucket; of kLatencyBuckets, where the last one would end.
constexpr std::uint64_t latency_bucket_begin_ns(std::size_t bucket) {
  const std::size_t per_octave = std::size_t{1} << kLatencyOctaveShift;
  const std::size_t octave = bucket < 2 * per_octave ? 0 : bucket / per_octave - 1;
  const std::uint64_t units = bucket - octave * per_octave;
  return (units << octave) << kLatencyUnitShift;
}

/// What was counted, as a value.
struct LatencyHistogram {
  std::array<std::uint64_t, kLatencyBuckets> buckets{};
  std::uint64_t sum_ns = 0;
  std::uint64_t max_ns = 0;

  [[nodiscard]] std::uint64_t count() const;
  /// 0 if there is nothing.
  [[nodiscard]] double mean_ns() const;
  /// The latency that the share `quantile` (0 to 1) of all did not exceed: the middle of its
  /// bucket, or the longest one seen if that is shorter; 0 if there is nothing.
  [[nodiscard]] std::uint64_t quantile_ns(double quantile) const;
  /// How many took less than `ns`, counted by whole buckets: those that end at or before it.
  [[nodiscard]] std::uint64_t count_below(std::uint64_t ns) const;
  void add(const LatencyHistogram& other);
  friend bool operator==(const LatencyHistogram&, const LatencyHistogram&) = default;
};

/// The same while it is being counted.
class LatencyCounters {
 public:
  /// For the one thread that writes.
  void record(std::uint64_t ns) {
    bump(buckets_[latency_bucket(ns)], 1);
    bump(sum_ns_, ns);
    if (ns > max_ns_.load(std::memory_order_relaxed)) {
      max_ns_.store(ns, std::memory_order_relaxed);
    }
  }
  [[nodiscard]] LatencyHistogram read() const;

 private:
  static void bump(std::atomic<std::uint64_t>& counter, std::uint64_t n) {
    counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }

  std::array<std::atomic<std::uint64_t>, kLatencyBuckets> buckets_{};
  std::atomic<std::uint64_t> sum_ns_{0};
  std::atomic<std::uint64_t> max_ns_{0};
};

}  // namespace nvmf::host
