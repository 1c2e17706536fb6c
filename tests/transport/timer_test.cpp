#include "transport/timer.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <vector>

#include "transport/loop.h"

namespace nvmf::transport {
namespace {

Instant at(int ns) {
  return Instant(Duration(ns));
}

TEST(TimerQueue, RunsInOrderOfDeadlinesThenOfArming) {
  TimerQueue queue;
  std::vector<int> ran;
  Timer a(queue, [&] { ran.push_back(1); });
  Timer b(queue, [&] { ran.push_back(2); });
  Timer c(queue, [&] { ran.push_back(3); });
  a.arm(at(20));
  b.arm(at(10));
  c.arm(at(20));
  EXPECT_EQ(queue.next(), at(10));
  EXPECT_EQ(queue.run(at(9)), 0u);
  EXPECT_EQ(queue.run(at(20)), 3u);
  EXPECT_EQ(ran, (std::vector<int>{2, 1, 3}));
  EXPECT_FALSE(queue.next().has_value());
}

TEST(TimerQueue, RearmedInThePastWaitsForTheNextTurn) {
  TimerQueue queue;
  int runs = 0;
  Timer* self = nullptr;
  Timer t(queue, [&] {
    ++runs;
    self->arm(at(0));
  });
  self = &t;
  t.arm(at(5));
  EXPECT_EQ(queue.run(at(5)), 1u);
  EXPECT_EQ(queue.run(at(5)), 1u);
  EXPECT_EQ(runs, 2);
}

TEST(TimerQueue, CallbackMayDestroyItsOwnAndOtherTimers) {
  TimerQueue queue;
  auto other = std::make_unique<Timer>(queue, [] { FAIL(); });
  std::unique_ptr<Timer> own;
  own = std::make_unique<Timer>(queue, [&] {
    other.reset();
    own.reset();
  });
  own->arm(at(1));
  other->arm(at(2));
  EXPECT_EQ(queue.run(at(10)), 1u);
}

TEST(TimerQueue, ManyArmedMovedAndCancelled) {
  TimerQueue queue;
  std::mt19937 random(1);
  std::vector<std::unique_ptr<Timer>> timers;
  std::vector<Instant> fired;
  Instant now = at(0);
  for (int i = 0; i < 500; ++i) {
    timers.push_back(std::make_unique<Timer>(queue, [&, i] {
      EXPECT_LE(timers[static_cast<std::size_t>(i)]->deadline(), now);
      fired.push_back(timers[static_cast<std::size_t>(i)]->deadline());
    }));
  }
  for (int i = 0; i < 5000; ++i) {
    Timer& t = *timers[random() % timers.size()];
    if (random() % 3 == 0) {
      t.cancel();
    } else {
      t.arm(at(static_cast<int>(random() % 100'000)));
    }
  }
  std::size_t armed = 0;
  for (const auto& t : timers) armed += t->armed();
  now = at(100'000);
  EXPECT_EQ(queue.run(now), armed);
  EXPECT_TRUE(std::is_sorted(fired.begin(), fired.end()));
}

TEST(Endpoint, Text) {
  EXPECT_EQ((Endpoint{"127.0.0.1", 4420, ""}).to_string(), "127.0.0.1:4420");
  EXPECT_EQ((Endpoint{"::1", 4420, ""}).to_string(), "[::1]:4420");
  EXPECT_EQ((Endpoint{"", 0, "/run/x"}).to_string(), "/run/x");
}

}  // namespace
}  // namespace nvmf::transport
