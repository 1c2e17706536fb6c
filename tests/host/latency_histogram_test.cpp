// The histogram: every latency has a bucket, near enough to it, and quantiles come out of them.
#include "host/latency_histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace nvmf::test {
namespace {

using host::latency_bucket;
using host::latency_bucket_begin_ns;

TEST(LatencyHistogram, BucketsFollowOneAnotherWithoutGapOrOverlap) {
  EXPECT_EQ(latency_bucket_begin_ns(0), 0u);
  for (std::size_t i = 0; i < host::kLatencyLongBucket; ++i) {
    const std::uint64_t begin = latency_bucket_begin_ns(i);
    const std::uint64_t end = latency_bucket_begin_ns(i + 1);
    ASSERT_LT(begin, end);
    ASSERT_EQ(latency_bucket(begin), i);
    ASSERT_EQ(latency_bucket(end - 1), i);
    if (begin >= 1024) ASSERT_LE((end - begin) * 16, begin) << "bucket " << i << " is too wide";
  }
  EXPECT_EQ(latency_bucket_begin_ns(host::kLatencyLongBucket), host::kLatencyLongNs);
  EXPECT_EQ(latency_bucket(host::kLatencyLongNs), host::kLatencyLongBucket);
  EXPECT_EQ(latency_bucket(~std::uint64_t{0}), host::kLatencyLongBucket);
}

TEST(LatencyHistogram, QuantilesAreOffByAThirtySecondAtMost) {
  std::mt19937_64 random(7);
  std::lognormal_distribution<double> shape(11, 1.5);  // 60 µs in the middle, long tail
  host::LatencyCounters counters;
  std::vector<std::uint64_t> all;
  for (int i = 0; i < 200'000; ++i) {
    all.push_back(2'000 + static_cast<std::uint64_t>(shape(random)));
    counters.record(all.back());
  }
  std::ranges::sort(all);
  const host::LatencyHistogram h = counters.read();
  EXPECT_EQ(h.count(), all.size());
  EXPECT_EQ(h.max_ns, all.back());
  for (const double q : {0.5, 0.9, 0.99, 0.999, 0.9999, 1.0}) {
    const auto rank = static_cast<std::size_t>(std::ceil(q * static_cast<double>(all.size())));
    const auto exact = static_cast<double>(all[rank - 1]);
    EXPECT_NEAR(static_cast<double>(h.quantile_ns(q)), exact, exact / 31) << q;
  }
  double sum = 0;
  for (const std::uint64_t one : all) sum += static_cast<double>(one);
  EXPECT_NEAR(h.mean_ns(), sum / static_cast<double>(all.size()), 1);
}

TEST(LatencyHistogram, EndsOfTheScale) {
  host::LatencyCounters counters;
  EXPECT_EQ(counters.read().quantile_ns(0.99), 0u);
  EXPECT_EQ(counters.read().mean_ns(), 0);
  counters.record(0);
  EXPECT_EQ(counters.read().quantile_ns(0.5), 0u);
  const std::uint64_t long_ns = 200'000'000'000;
  counters.record(long_ns);
  EXPECT_EQ(counters.read().quantile_ns(1), long_ns);
  EXPECT_EQ(counters.read().quantile_ns(7), long_ns);
  EXPECT_LE(counters.read().quantile_ns(-1), 64u);
}

TEST(LatencyHistogram, AddsAndCountsBelow) {
  host::LatencyCounters one, other;
  one.record(1'000);
  other.record(50'000);
  other.record(3'000'000);
  host::LatencyHistogram sum = one.read();
  sum.add(other.read());
  EXPECT_EQ(sum.count(), 3u);
  EXPECT_EQ(sum.sum_ns, 3'051'000u);
  EXPECT_EQ(sum.max_ns, 3'000'000u);
  EXPECT_EQ(sum.count_below(0), 0u);
  EXPECT_EQ(sum.count_below(2'000), 1u);
  EXPECT_EQ(sum.count_below(60'000), 2u);
  EXPECT_EQ(sum.count_below(~std::uint64_t{0}), 3u);
}

}  // namespace
}  // namespace nvmf::test
