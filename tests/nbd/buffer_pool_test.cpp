#include "frontends/nbd/buffer_pool.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <thread>

#include "fixtures.h"

namespace nvmf::nbd {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

TEST(BufferPool, GivesDisjointMemoryAndNeverGrows) {
  BufferArena arena(8 * kMiB);
  test::TestLoop loop;
  BufferPool pool(arena, loop);
  std::mt19937 random(7);
  struct Taken {
    std::size_t bytes;
    std::byte mark;
  };
  std::map<std::byte*, Taken> held;
  std::size_t refused = 0;
  for (int turn = 0; turn < 4000; ++turn) {
    if (random() % 2 == 0 || held.empty()) {
      const std::size_t bytes = 1 + random() % (random() % 50 == 0 ? 3 * kMiB : 300000);
      std::byte* p = pool.take(bytes);
      if (p == nullptr) {
        ++refused;
        continue;
      }
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p) % 4096, 0u);
      const auto mark = static_cast<std::byte>(random());
      std::memset(p, static_cast<int>(mark), bytes);
      held[p] = {bytes, mark};
    } else {
      auto it = held.begin();
      std::advance(it, static_cast<std::ptrdiff_t>(random() % held.size()));
      const auto [bytes, mark] = it->second;
      ASSERT_TRUE(std::all_of(it->first, it->first + bytes, [m = mark](auto b) { return b == m; }));
      pool.put(it->first, bytes);
      held.erase(it);
    }
    ASSERT_LE(arena.used_chunks(), 8u);
  }
  EXPECT_GT(refused, 0u);
  for (const auto& [p, taken] : held) pool.put(p, taken.bytes);
  EXPECT_EQ(arena.used_chunks(), 0u);
}

TEST(BufferPool, LargeOnesLeaveRoomForSmallOnes) {
  BufferArena arena(8 * kMiB);
  test::TestLoop loop;
  BufferPool pool(arena, loop);
  EXPECT_EQ(arena.largest_bytes(), 6 * kMiB);
  std::byte* large = pool.take(6 * kMiB);
  ASSERT_NE(large, nullptr);
  EXPECT_EQ(pool.take(2 * kMiB), nullptr);
  std::byte* small = pool.take(kMiB);
  EXPECT_NE(small, nullptr);
  pool.put(small, kMiB);
  pool.put(large, 6 * kMiB);
}

struct Waiter final : BufferWaiter {
  BufferPool* pool = nullptr;
  std::size_t bytes = 0;
  std::byte* got = nullptr;
  int told = 0;
  void on_buffers() override {
    ++told;
    got = pool->take(bytes);
    if (got == nullptr) pool->wait(*this);
  }
};

TEST(BufferPool, TellsThoseWhoWaitAlsoOfOtherPools) {
  BufferArena arena(kMiB);
  test::TestLoop loop;
  BufferPool here(arena, loop);
  BufferPool there(arena, loop);
  std::byte* p = there.take(kMiB);
  Waiter waiter;
  waiter.pool = &here;
  waiter.bytes = 4096;
  EXPECT_EQ(here.take(4096), nullptr);
  here.wait(waiter);
  loop.advance(kBufferRetry);
  EXPECT_EQ(waiter.told, 1);
  EXPECT_EQ(waiter.got, nullptr);
  there.put(p, kMiB);
  loop.advance(kBufferRetry);
  EXPECT_NE(waiter.got, nullptr);
  loop.advance(kBufferRetry);
  EXPECT_EQ(waiter.told, 2);  // no longer waiting: no timer runs
  EXPECT_FALSE(loop.timers().next());
  here.put(waiter.got, 4096);
}

TEST(BufferArena, ThreadsShareItWithoutOverlap) {
  BufferArena arena(8 * kMiB);
  const auto work = [&arena](unsigned seed) {
    std::mt19937 random(seed);
    for (int i = 0; i < 20000; ++i) {
      const std::size_t count = 1 + random() % 4;
      const std::size_t first = arena.claim(count);
      if (first == BufferArena::kNone) continue;
      std::byte* p = arena.chunk(first);
      p[0] = p[count * kMiB - 1] = static_cast<std::byte>(seed);
      EXPECT_EQ(p[0], static_cast<std::byte>(seed));
      EXPECT_EQ(p[count * kMiB - 1], static_cast<std::byte>(seed));
      arena.give_back(first, count);
    }
  };
  std::thread one(work, 1);
  std::thread two(work, 2);
  one.join();
  two.join();
  EXPECT_EQ(arena.used_chunks(), 0u);
}

}  // namespace
}  // namespace nvmf::nbd
