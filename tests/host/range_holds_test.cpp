// Holds and fences by themselves: who waits for whom, across reactors whose posts come late.

#include "host/range_holds.h"

#include <gmock/gmock.h>

#include <functional>
#include <memory>
#include <set>

#include "host/delayed_loop.h"

namespace nvmf::test {
namespace {

using host::BlockRequest;
using host::ByteRange;
using host::ReactorHolds;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

/// A device without a disk: it notes what it is told.
struct User final : host::HoldUser {
  void on_granted(std::size_t slot) override {
    granted.push_back(slot);
    if (when_granted) when_granted(slot);
  }
  void on_admitted(BlockRequest& r) override {
    admitted.push_back(&r);
    if (when_admitted) when_admitted(r);
  }
  std::vector<std::size_t> granted;
  std::vector<BlockRequest*> admitted;
  std::function<void(std::size_t)> when_granted;
  std::function<void(BlockRequest&)> when_admitted;
};

BlockRequest write_of(ByteRange range) {
  BlockRequest r;
  r.op = host::BlockOp::write;
  r.offset_bytes = range.begin;
  r.length_bytes = range.end - range.begin;
  r.fence = host::kNoSlot;
  return r;
}

class Rig {
 public:
  explicit Rig(std::size_t reactors, std::uint64_t seed = 1, Duration delay = {}) : loop(seed) {
    std::vector<transport::Loop*> seen;
    for (std::size_t i = 0; i < reactors; ++i) {
      loops.push_back(std::make_unique<DelayedLoop>(loop, delay));
      seen.push_back(loops.back().get());
    }
    holds = host::RangeHolds::make(seen);
    users = std::vector<User>(reactors);
    for (std::size_t i = 0; i < reactors; ++i) on(i).attach(users[i]);
  }
  ReactorHolds& on(std::size_t i) { return holds->on(i); }
  void settle() { loop.run_for(seconds(1)); }
  [[nodiscard]] std::size_t in_force() {
    std::size_t sum = 0;
    for (std::size_t i = 0; i < loops.size(); ++i) sum += on(i).in_force();
    return sum;
  }

  sim::VirtualLoop loop;
  std::vector<std::unique_ptr<DelayedLoop>> loops;
  std::shared_ptr<host::RangeHolds> holds;
  std::vector<User> users;
};

TEST(RangeHolds, OneReactorPostsNothing) {
  Rig rig(1);
  rig.on(0).ask(3, {0, 4096});
  EXPECT_THAT(rig.users[0].granted, ElementsAre(3));
  BlockRequest inside = write_of({512, 1024});
  BlockRequest beside = write_of({4096, 8192});
  EXPECT_FALSE(rig.on(0).admit(inside));
  EXPECT_TRUE(rig.on(0).admit(beside));
  rig.on(0).release(3);
  EXPECT_THAT(rig.users[0].admitted, ElementsAre(&inside));
  rig.on(0).finished(inside);
  rig.on(0).finished(beside);
  EXPECT_EQ(rig.in_force(), 0u);
  EXPECT_EQ(rig.loops[0]->posts, 0u);
}

TEST(RangeHolds, CountsOnceAllReactorsHaveDrained) {
  Rig rig(3);
  BlockRequest before = write_of({0, 512});
  BlockRequest elsewhere = write_of({4096, 8192});
  ASSERT_TRUE(rig.on(2).admit(before));
  ASSERT_TRUE(rig.on(2).admit(elsewhere));
  rig.on(1).ask(0, {0, 4096});
  rig.settle();
  EXPECT_THAT(rig.users[1].granted, IsEmpty());
  BlockRequest after = write_of({0, 512});
  EXPECT_FALSE(rig.on(0).admit(after));
  rig.on(2).finished(before);
  rig.settle();
  EXPECT_THAT(rig.users[1].granted, ElementsAre(0));
  EXPECT_THAT(rig.users[0].admitted, IsEmpty());
  rig.on(1).release(0);
  rig.settle();
  EXPECT_THAT(rig.users[0].admitted, ElementsAre(&after));
  rig.on(0).finished(after);
  rig.on(2).finished(elsewhere);
  EXPECT_EQ(rig.in_force(), 0u);
}

TEST(RangeHolds, OverlappingOnesInTheOrderAskedOthersAtTheSameTime) {
  Rig rig(3);
  rig.on(1).ask(0, {0, 8192});
  rig.on(2).ask(0, {4096, 12288});   // overlaps the first
  rig.on(0).ask(0, {8192, 16384});   // overlaps the second only; comes first, as nothing is posted
  rig.on(1).ask(1, {32768, 36864});  // nobody's
  rig.settle();
  EXPECT_THAT(rig.users[0].granted, ElementsAre(0));
  EXPECT_THAT(rig.users[1].granted, UnorderedElementsAre(0, 1));
  EXPECT_THAT(rig.users[2].granted, IsEmpty());
  rig.on(1).release(0);
  rig.settle();
  EXPECT_THAT(rig.users[2].granted, IsEmpty());
  rig.on(0).release(0);
  rig.settle();
  EXPECT_THAT(rig.users[2].granted, ElementsAre(0));
}

TEST(RangeHolds, WhatCameBeforeAHoldGoesBeforeItHoweverManyFollow) {
  Rig rig(2);
  rig.on(0).ask(0, {0, 4096});
  rig.settle();
  BlockRequest waits = write_of({0, 512});
  ASSERT_FALSE(rig.on(1).admit(waits));
  rig.on(0).ask(1, {0, 4096});
  rig.on(1).ask(0, {0, 4096});
  rig.settle();
  rig.on(0).release(0);
  rig.settle();
  EXPECT_THAT(rig.users[1].admitted, ElementsAre(&waits));
  EXPECT_THAT(rig.users[0].granted, ElementsAre(0));
  rig.on(1).finished(waits);
  rig.settle();
  EXPECT_THAT(rig.users[0].granted, ElementsAre(0, 1));
}

TEST(RangeHolds, AFenceKeepsLaterOnesWaitingOnEveryReactor) {
  Rig rig(2);
  BlockRequest gone = write_of({0, 4096});
  BlockRequest later[2] = {write_of({512, 1024}), write_of({2048, 8192})};
  BlockRequest beside = write_of({4096, 8192});
  ASSERT_TRUE(rig.on(0).admit(gone));
  rig.on(0).abandon(gone);
  rig.on(0).abandon(gone);
  rig.settle();
  EXPECT_FALSE(rig.on(0).admit(later[0]));
  EXPECT_FALSE(rig.on(1).admit(later[1]));
  EXPECT_TRUE(rig.on(1).admit(beside));
  rig.on(1).ask(0, {0, 512});
  rig.settle();
  EXPECT_THAT(rig.users[1].granted, IsEmpty());
  rig.on(0).finished(gone);
  rig.settle();
  EXPECT_THAT(rig.users[0].admitted, ElementsAre(&later[0]));
  EXPECT_THAT(rig.users[1].admitted, ElementsAre(&later[1]));
  EXPECT_THAT(rig.users[1].granted, ElementsAre(0));
  rig.on(1).release(0);
  rig.settle();
  EXPECT_EQ(rig.in_force(), 0u);
}

TEST(RangeHolds, AFenceOfNoRequestKeepsHoldsWaitingToo) {
  Rig rig(2);
  const std::uint8_t fence = rig.on(1).fence({4096, 8192});
  rig.on(0).ask(0, {0, 8192});
  rig.on(0).ask(1, {8192, 12288});
  rig.settle();
  EXPECT_THAT(rig.users[0].granted, ElementsAre(1));
  rig.on(1).lift(fence);
  rig.settle();
  EXPECT_THAT(rig.users[0].granted, ElementsAre(1, 0));
}

TEST(RangeHolds, MoreFencesThanThereAreGrowRatherThanLeak) {
  Rig rig(2);
  const std::size_t many = 3 * host::kFenceSlots;
  std::vector<std::uint8_t> fences;
  for (std::size_t i = 0; i < many; ++i) {
    fences.push_back(rig.on(0).fence({i << 20, (i << 20) + 4096}));
  }
  EXPECT_EQ(std::set<std::uint8_t>(fences.begin(), fences.end()).size(), host::kLossFenceSlots);
  rig.settle();
  std::vector<BlockRequest> later;
  for (std::size_t i = 0; i < many; ++i) later.push_back(write_of({i << 20, (i << 20) + 512}));
  for (BlockRequest& r : later) EXPECT_FALSE(rig.on(1).admit(r));
  // Which request goes once its own fence, and all that grew together with it, are lifted.
  for (std::size_t i = 0; i < many; ++i) {
    rig.on(0).lift(fences[i]);
    rig.settle();
    for (std::size_t k = i + 1; k < many; ++k) {
      EXPECT_THAT(rig.users[1].admitted, testing::Not(testing::Contains(&later[k])));
    }
  }
  EXPECT_EQ(rig.users[1].admitted.size(), many);
  EXPECT_EQ(rig.in_force(), 0u);
}

TEST(RangeHolds, WhatIsWithdrawnIsWaitedForNoLonger) {
  Rig rig(2);
  rig.on(0).ask(0, {0, 4096});
  rig.settle();
  BlockRequest waits = write_of({0, 4096});
  ASSERT_FALSE(rig.on(1).admit(waits));
  rig.on(0).ask(1, {2048, 8192});
  rig.on(0).release(0);
  rig.on(1).withdraw(waits);
  rig.settle();
  EXPECT_THAT(rig.users[1].admitted, IsEmpty());
  EXPECT_THAT(rig.users[0].granted, ElementsAre(0, 1));
}

TEST(RangeHolds, PostsMayOutliveWhoeverAsked) {
  Rig rig(3, 1, milliseconds(5));
  BlockRequest waits = write_of({0, 512});
  rig.on(1).ask(0, {0, 4096});
  rig.loop.run_for(milliseconds(20));
  ASSERT_THAT(rig.users[1].granted, ElementsAre(0));
  ASSERT_FALSE(rig.on(2).admit(waits));
  rig.on(2).ask(0, {0, 4096});  // on its way
  for (std::size_t i = 0; i < 3; ++i) {
    rig.on(i).close();
    while (rig.on(i).take_waiting() != nullptr) {
    }
  }
  rig.on(1).release(0);
  rig.on(2).release(0);  // never granted
  rig.users.clear();
  rig.holds.reset();
  rig.settle();
}

/// Requests and holds of random ranges and durations on several reactors. Whoever is active is
/// alone with its range as its kind demands; everybody's turn comes; nothing is left in force.
class Chaos {
 public:
  Chaos(std::size_t reactors, std::uint64_t seed)
      : rig_(reactors, seed, microseconds(rig_delay(seed))) {
    for (std::size_t i = 0; i < reactors; ++i) {
      rig_.users[i].when_granted = [this, i](std::size_t slot) { granted(i, slot); };
      rig_.users[i].when_admitted = [this](BlockRequest& r) { active(static_cast<Write&>(r)); };
      holders_.emplace_back(rig_.on(i).slots());
    }
  }
  void run(int steps) {
    for (int i = 0; i < steps; ++i) {
      step();
      rig_.loop.run_for(microseconds(random(60)));
    }
    rig_.loop.run_for(seconds(10));
    EXPECT_EQ(under_way_, 0) << "somebody waits for ever";
    EXPECT_EQ(rig_.in_force(), 0u);
  }

 private:
  struct Write : BlockRequest {
    std::size_t reactor = 0;
    bool active = false;
    std::unique_ptr<transport::Timer> ends;
  };
  struct Holder {
    ByteRange range;
    bool taken = false;
    bool granted = false;
    std::unique_ptr<transport::Timer> ends;
  };
  static std::int64_t rig_delay(std::uint64_t seed) {
    return static_cast<std::int64_t>(seed % 4) * 30;
  }

  std::uint64_t random(std::uint64_t below) { return rig_.loop.random()() % below; }
  ByteRange random_range() {
    const std::uint64_t begin = random(12) * 512;
    return {begin, begin + (1 + random(6)) * 512};
  }
  void step() {
    const std::size_t reactor = random(holders_.size());
    if (random(3) == 0) {
      const std::size_t slot = random(holders_[reactor].size());
      Holder& h = holders_[reactor][slot];
      if (h.taken) return;
      h.taken = true;
      h.range = random_range();
      ++under_way_;
      return rig_.on(reactor).ask(slot, h.range);
    }
    auto& w = *writes_.emplace_back(std::make_unique<Write>());
    static_cast<BlockRequest&>(w) = write_of(random_range());
    w.reactor = reactor;
    ++under_way_;
    if (rig_.on(reactor).admit(w)) active(w);
  }
  void active(Write& w) {
    w.active = true;
    for (const auto& reactor : holders_) {
      for (const Holder& h : reactor) {
        EXPECT_FALSE(h.granted && h.range.overlaps(host::range_of(w))) << "not alone";
      }
    }
    if (random(4) == 0) rig_.on(w.reactor).abandon(w);
    w.ends = std::make_unique<transport::Timer>(rig_.loop.timers(), [this, &w] {
      w.active = false;
      --under_way_;
      rig_.on(w.reactor).finished(w);
    });
    w.ends->arm(rig_.loop.now() + microseconds(random(300)));
  }
  void granted(std::size_t reactor, std::size_t slot) {
    Holder& h = holders_[reactor][slot];
    EXPECT_TRUE(h.taken && !h.granted);
    for (const auto& each : holders_) {
      for (const Holder& other : each) {
        EXPECT_FALSE(other.granted && other.range.overlaps(h.range)) << "two have it";
      }
    }
    for (const auto& w : writes_) {
      EXPECT_FALSE(w->active && host::range_of(*w).overlaps(h.range)) << "not drained";
    }
    h.granted = true;
    h.ends = std::make_unique<transport::Timer>(rig_.loop.timers(), [this, &h, reactor, slot] {
      h.granted = h.taken = false;
      --under_way_;
      rig_.on(reactor).release(slot);
    });
    h.ends->arm(rig_.loop.now() + microseconds(random(300)));
  }

  Rig rig_;
  std::vector<std::vector<Holder>> holders_;
  std::vector<std::unique_ptr<Write>> writes_;
  int under_way_ = 0;
};

TEST(RangeHolds, AloneWithTheirRangesAndNobodyWaitsForEver) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(seed);
    Chaos(1 + seed % 4, seed).run(400);
    if (testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace nvmf::test
