// Writes that were answered and not flushed.

#include "host/unflushed.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace nvmf::host {
namespace {

struct Cached : UnflushedWrites {
  explicit Cached(Unflushed mode) : UnflushedWrites(mode) { set_cache(true); }
  void write(int n) {
    for (int i = 0; i < n; ++i) written();
  }
};

TEST(Unflushed, WithoutACacheNothingCounts) {
  UnflushedWrites u(Unflushed::fail);
  u.written();
  EXPECT_EQ(u.count(), 0u);
  EXPECT_EQ(u.lost(), 0u);
  EXPECT_FALSE(u.must_fail());
}

TEST(Unflushed, AFlushCoversWhatEndedBeforeIt) {
  Cached u(Unflushed::trust);
  u.write(5);
  const auto mark = u.mark();
  u.write(2);
  EXPECT_EQ(u.count(), 7u) << "a flush under way has flushed nothing";
  u.flushed(mark);
  EXPECT_EQ(u.count(), 2u);
}

TEST(Unflushed, FlushesMayEndInAnyOrder) {
  Cached u(Unflushed::trust);
  u.write(1);
  const auto first = u.mark();
  u.write(1);
  const auto second = u.mark();
  u.flushed(second);
  EXPECT_EQ(u.count(), 0u);
  u.flushed(first);
  EXPECT_EQ(u.count(), 0u) << "the earlier mark takes nothing back";
}

TEST(Unflushed, ALossTakesWhatWasNotFlushed) {
  Cached u(Unflushed::trust);
  u.write(3);
  u.flushed(u.mark());
  u.write(4);
  EXPECT_EQ(u.lost(), 4u);
  EXPECT_EQ(u.count(), 0u);
  EXPECT_EQ(u.lost(), 0u) << "lost once";
  EXPECT_FALSE(u.must_fail()) << "trust never fails";
  u.write(1);
  EXPECT_EQ(u.count(), 1u);
}

TEST(Unflushed, AMarkFromBeforeALossCoversNothingAfterIt) {
  Cached u(Unflushed::trust);
  u.write(3);
  const auto mark = u.mark();
  EXPECT_EQ(u.lost(), 3u);
  u.write(2);
  u.flushed(mark);
  EXPECT_EQ(u.count(), 2u);
}

TEST(Unflushed, FailFailsOnceAfterALoss) {
  Cached u(Unflushed::fail);
  EXPECT_FALSE(u.must_fail());
  u.write(1);
  EXPECT_FALSE(u.must_fail());
  EXPECT_EQ(u.lost(), 1u);
  EXPECT_TRUE(u.must_fail());
  EXPECT_FALSE(u.must_fail()) << "one EIO";
  u.write(1);
  u.flushed(u.mark());
  EXPECT_EQ(u.lost(), 0u);
  EXPECT_FALSE(u.must_fail()) << "nothing was lost";
}

TEST(Unflushed, TwoLossesBeforeAFlushAreOneFailure) {
  Cached u(Unflushed::fail);
  u.write(1);
  EXPECT_EQ(u.lost(), 1u);
  u.write(1);
  EXPECT_EQ(u.lost(), 1u);
  EXPECT_TRUE(u.must_fail());
  EXPECT_FALSE(u.must_fail());
}

TEST(Unflushed, ReplayNeverFails) {
  Cached u(Unflushed::replay);
  u.write(2);
  EXPECT_EQ(u.lost(), 2u);
  EXPECT_FALSE(u.must_fail());
}

TEST(Unflushed, ACacheThatIsTurnedOffKeepsWhatWasCounted) {
  Cached u(Unflushed::trust);
  u.write(2);
  u.set_cache(false);
  u.write(5);
  EXPECT_EQ(u.count(), 2u);
  EXPECT_EQ(u.lost(), 2u);
}

/// Every write is either covered by a flush that followed it or among the lost: none twice, none
/// forgotten, whatever the reactors do at the same time.
TEST(Unflushed, NothingIsForgottenBetweenThreads) {
  constexpr int kThreads = 4;
  constexpr int kWrites = 20'000;
  Cached u(Unflushed::fail);
  std::atomic<std::uint64_t> lost{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kWrites; ++i) {
        u.written();
        if (t == 0 && i % 64 == 0) lost += u.lost();
        if (u.count() > std::uint64_t{kThreads} * kWrites) ADD_FAILURE() << "count wrapped around";
      }
    });
  }
  for (auto& t : threads) t.join();
  lost += u.lost();
  EXPECT_EQ(lost, std::uint64_t{kThreads} * kWrites);
  EXPECT_TRUE(u.must_fail());
}

}  // namespace
}  // namespace nvmf::host
