#include "frontends/nbd/buffer_pool.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "fixtures.h"

namespace nvmf::nbd {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

TEST(BufferPool, GivesDisjointMemoryAndNeverGrows) {
  BufferArena arena(9 * kMiB, 16);
  test::TestLoop loop;
  BufferPool pool(arena, loop);
  std::mt19937 random(7);
  struct Taken {
    Buffer buffer;
    std::byte mark;
  };
  std::map<std::byte*, Taken> held;
  std::size_t refused = 0;
  std::size_t shorter = 0;
  for (int turn = 0; turn < 4000; ++turn) {
    if (random() % 5 < 3 || held.empty()) {
      const std::size_t want = 1 + random() % (random() % 8 == 0 ? kMiB : 300000);
      const std::size_t least = 1 + random() % want;
      const Buffer b = pool.take(want, least);
      if (!b) {
        ++refused;
        continue;
      }
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(b.data) % 4096, 0u);
      EXPECT_EQ(b.bytes % 4096, 0u);
      EXPECT_GE(b.bytes, least);
      EXPECT_LT(b.bytes, want + 4096);
      if (b.bytes < want) ++shorter;
      const auto mark = static_cast<std::byte>(random());
      std::memset(b.data, static_cast<int>(mark), b.bytes);
      held[b.data] = {b, mark};
    } else {
      auto it = held.begin();
      std::advance(it, static_cast<std::ptrdiff_t>(random() % held.size()));
      const auto [b, mark] = it->second;
      ASSERT_TRUE(std::all_of(b.data, b.data + b.bytes, [m = mark](auto x) { return x == m; }));
      pool.put(b);
      held.erase(it);
    }
    ASSERT_LE(arena.used_chunks(), 8u);
    ASSERT_EQ(pool.free_bytes() + pool.used_bytes(), 8 * kMiB);
  }
  EXPECT_GT(refused, 0u);
  EXPECT_GT(shorter, 0u);
  for (const auto& [p, taken] : held) pool.put(taken.buffer);
  EXPECT_EQ(arena.used_chunks(), 0u);
}

TEST(BufferReserve, IsAClientsOwn) {
  BufferArena arena(2 * kMiB, 2);
  BufferReserve one;
  BufferReserve other;
  one.open(arena);
  other.open(arena);
  const Buffer all = one.take(kReserveBytes);
  ASSERT_TRUE(all);
  std::memset(all.data, 1, all.bytes);
  EXPECT_FALSE(one.take(1));
  EXPECT_TRUE(one.owns(all.data));
  EXPECT_FALSE(other.owns(all.data));
  const Buffer a = other.take(1);
  const Buffer b = other.take(30000);
  EXPECT_TRUE(a && b && a.data != b.data);
  EXPECT_FALSE(other.take(kReserveBytes));
  EXPECT_EQ(other.used_bytes(), 4096u + 32768u);
  other.put(a);
  other.put(b);
  EXPECT_TRUE(other.take(kReserveBytes).data == a.data);
  other.put({a.data, kReserveBytes});
  one.put(all);
}

std::vector<std::pair<std::byte*, std::size_t>> g_discarded;
void discard(std::byte* p, std::size_t bytes) {
  std::memset(p, 0, bytes);
  g_discarded.emplace_back(p, bytes);
}

TEST(BufferArena, GivesBackWhatWasNotUsedForAWhile) {
  g_discarded.clear();
  BufferArena arena(5 * kMiB, 16, discard);
  test::TestLoop loop;
  {
    BufferPool pool(arena, loop);
    const Buffer a = pool.take(kMiB, 1);
    const Buffer b = pool.take(kMiB, 1);
    pool.put(a);
    loop.advance(kDiscardAfter / 2);
    EXPECT_TRUE(g_discarded.empty());
    pool.put(b);
    loop.advance(kDiscardAfter / 2);
    ASSERT_EQ(g_discarded.size(), 1u);
    EXPECT_EQ(g_discarded[0], std::make_pair(a.data, kMiB));
    // Meanwhile the other one is taken again: it is not touched while in use.
    const Buffer c = pool.take(4096, 1);
    EXPECT_EQ(c.data, b.data);
    loop.advance(kDiscardAfter);
    EXPECT_EQ(g_discarded.size(), 1u);
    pool.put(c);
    loop.advance(kDiscardAfter);
    ASSERT_EQ(g_discarded.size(), 2u);
    EXPECT_EQ(g_discarded[1].first, b.data);
    // Each once; and an idle pool has no timer.
    loop.advance(10 * kDiscardAfter);
    EXPECT_EQ(g_discarded.size(), 2u);
    EXPECT_FALSE(loop.timers().next());
    EXPECT_EQ(arena.used_chunks(), 0u);
  }
  {
    BufferReserve unused;
    unused.open(arena);
    BufferReserve used;
    used.open(arena);
    used.put(used.take(4096));
  }
  ASSERT_EQ(g_discarded.size(), 3u);
  EXPECT_EQ(g_discarded[2].second, kReserveBytes);
}

struct Waiter final : BufferWaiter {
  BufferPool* pool = nullptr;
  std::size_t bytes = 0;
  Buffer got;
  int told = 0;
  void on_buffers() override {
    ++told;
    got = pool->take(bytes, bytes);
    if (!got) pool->wait(*this);
  }
};

TEST(BufferPool, TellsThoseWhoWaitAlsoOfOtherPools) {
  BufferArena arena(2 * kMiB, 16);
  test::TestLoop loop;
  BufferPool here(arena, loop);
  BufferPool there(arena, loop);
  const Buffer b = there.take(kMiB, kMiB);
  Waiter waiter;
  waiter.pool = &here;
  waiter.bytes = 4096;
  EXPECT_FALSE(here.take(4096, 4096));
  here.wait(waiter);
  loop.advance(kBufferRetry);
  EXPECT_EQ(waiter.told, 1);
  EXPECT_FALSE(waiter.got);
  // In vain for long: ever more seldom, but it goes on.
  for (int i = 0; i < 10'000; ++i) loop.advance(kBufferRetry);
  EXPECT_LT(waiter.told, 10'000 * kBufferRetry / kBufferRetryMax + 20);
  const int told = waiter.told;
  there.put(b);
  loop.advance(kBufferRetryMax);
  EXPECT_TRUE(waiter.got);
  loop.advance(kBufferRetryMax);
  EXPECT_EQ(waiter.told, told + 1);  // no longer waiting: no timer runs
  EXPECT_FALSE(loop.timers().next());
  here.put(waiter.got);
}

TEST(BufferArena, ThreadsShareItWithoutOverlap) {
  const auto wipe = [](std::byte* p, std::size_t bytes) { p[0] = p[bytes - 1] = std::byte{0}; };
  BufferArena arena(3 * kMiB, 16, wipe);
  const auto work = [&arena](unsigned seed) {
    Instant now{};
    for (int i = 0; i < 20000; ++i) {
      now += kDiscardAfter / 2;
      arena.discard_idle(now);
      const std::size_t index = arena.claim();
      if (index == BufferArena::kNone) continue;
      std::byte* p = arena.chunk(index);
      p[0] = p[kMiB - 1] = static_cast<std::byte>(seed);
      std::byte* reserve = arena.claim_reserve();
      reserve[i % kReserveBytes] = static_cast<std::byte>(seed);
      EXPECT_EQ(p[0], static_cast<std::byte>(seed));
      EXPECT_EQ(p[kMiB - 1], static_cast<std::byte>(seed));
      EXPECT_EQ(reserve[i % kReserveBytes], static_cast<std::byte>(seed));
      arena.give_back_reserve(reserve, true);
      arena.give_back(index, now);
    }
  };
  std::thread one(work, 1);
  std::thread two(work, 2);
  std::thread three(work, 3);
  one.join();
  two.join();
  three.join();
  EXPECT_EQ(arena.used_chunks(), 0u);
}

}  // namespace
}  // namespace nvmf::nbd
