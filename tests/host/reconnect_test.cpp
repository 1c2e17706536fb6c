// When a lost association is tried for again, and when it is given up.

#include "host/reconnect.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace nvmf::host {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr Instant kStart = Instant(hours(100));

LossPolicy policy(Duration reconnect_delay) {
  LossPolicy p;
  p.reconnect_delay = reconnect_delay;
  return p;
}

/// The pauses between `n` attempts, each of which fails at once.
std::vector<Duration> pauses(Reconnect& r, Instant& now, int n, bool refused) {
  std::vector<Duration> seen;
  for (int i = 0; i < n; ++i) {
    now = *r.next_attempt_at();
    r.attempt_begins(now);
    r.attempt_failed(now, refused);
    seen.push_back(*r.next_attempt_at() - now);
  }
  return seen;
}

TEST(Reconnect, NothingIsDueWhileLive) {
  LossPolicy p;
  p.fast_io_fail = seconds(1);
  Reconnect r(p, 1);
  EXPECT_EQ(r.state(), LossState::live);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(r.next_attempt_at(), std::nullopt);
    EXPECT_EQ(r.io_fails_at(), std::nullopt);
    EXPECT_EQ(r.gone_at(), std::nullopt);
    r.lost(kStart);
    r.attempt_begins(kStart);
    r.live_again();
  }
}

TEST(Reconnect, TheFirstAttemptComesAtOnce) {
  Reconnect r({}, 1);
  r.lost(kStart);
  EXPECT_EQ(r.state(), LossState::lost);
  EXPECT_EQ(r.next_attempt_at(), kStart);
  EXPECT_EQ(r.attempts(), 0u);
  r.attempt_begins(kStart + milliseconds(1));
  EXPECT_EQ(r.state(), LossState::reconnecting);
  EXPECT_EQ(r.attempts(), 1u);
  EXPECT_EQ(r.next_attempt_at(), std::nullopt) << "one at a time";
  r.attempt_failed(kStart + seconds(3), false);
  EXPECT_EQ(r.state(), LossState::lost);
  EXPECT_GT(*r.next_attempt_at(), kStart + seconds(3)) << "from the failure, not the beginning";
}

TEST(Reconnect, PausesDoubleFrom20MsUpToTheDelay) {
  Reconnect r(policy(seconds(10)), 7);
  r.lost(kStart);
  Instant now;
  Duration full = milliseconds(20);
  for (const Duration pause : pauses(r, now, 14, false)) {
    EXPECT_GE(pause, full / 2);
    EXPECT_LE(pause, full);
    full = std::min<Duration>(2 * full, seconds(10));
  }
  EXPECT_EQ(full, seconds(10)) << "the cap was reached";
  EXPECT_EQ(r.attempts(), 14u);
}

TEST(Reconnect, PausesHaveJitter) {
  Reconnect a(policy(milliseconds(20)), 1);
  Reconnect b(policy(milliseconds(20)), 2);
  Reconnect again(policy(milliseconds(20)), 1);
  for (Reconnect* r : {&a, &b, &again}) r->lost(kStart);
  Instant now;
  const auto of_a = pauses(a, now, 200, false);
  EXPECT_NE(of_a, pauses(b, now, 200, false)) << "hosts do not walk in step";
  EXPECT_EQ(of_a, pauses(again, now, 200, false)) << "the same seed, the same times";
  const Duration least = *std::ranges::min_element(of_a);
  const Duration most = *std::ranges::max_element(of_a);
  EXPECT_GE(least, milliseconds(10));
  EXPECT_LE(most, milliseconds(20));
  EXPECT_LT(least, milliseconds(11)) << "the whole range is used";
  EXPECT_GT(most, milliseconds(19));
}

TEST(Reconnect, RefusedAttemptsFollowFastWithinTheFirstDelay) {
  Reconnect r(policy(seconds(10)), 3);
  r.lost(kStart);
  Instant now;
  while (!r.next_attempt_at() || *r.next_attempt_at() < kStart + seconds(10)) {
    EXPECT_LE(pauses(r, now, 1, true)[0], milliseconds(100));
  }
  EXPECT_GE(r.attempts(), 100u);
  EXPECT_GE(pauses(r, now, 1, true)[0], seconds(5)) << "then as after any other failure";
}

TEST(Reconnect, AnAttemptThatIsNotRefusedHasItsPauseAlsoAtFirst) {
  Reconnect r(policy(seconds(10)), 3);
  r.lost(kStart);
  Instant now;
  const auto seen = pauses(r, now, 8, false);
  EXPECT_GT(seen.back(), milliseconds(1000));
  EXPECT_LT(now, kStart + seconds(10));
}

TEST(Reconnect, AShortDelayCapsRefusedAttemptsToo) {
  Reconnect r(policy(milliseconds(50)), 3);
  r.lost(kStart);
  Instant now;
  for (const Duration pause : pauses(r, now, 50, true)) EXPECT_LE(pause, milliseconds(50));
}

TEST(Reconnect, TimersRunFromTheLoss) {
  LossPolicy p;
  p.ctrl_loss = seconds(60);
  p.fast_io_fail = seconds(5);
  Reconnect r(p, 1);
  r.lost(kStart);
  EXPECT_EQ(r.io_fails_at(), kStart + seconds(5));
  EXPECT_EQ(r.gone_at(), kStart + seconds(60));
  r.attempt_begins(kStart + seconds(1));
  EXPECT_EQ(r.io_fails_at(), kStart + seconds(5)) << "an attempt changes nothing";
  r.attempt_failed(kStart + seconds(30), false);
  EXPECT_EQ(r.io_fails_at(), kStart + seconds(5));
  EXPECT_EQ(r.gone_at(), kStart + seconds(60));
  r.lost(kStart + seconds(31));
  EXPECT_EQ(r.lost_at(), kStart) << "lost is lost";
}

TEST(Reconnect, ByDefaultGoneAfterTenMinutesAndIoWaits) {
  Reconnect r({}, 1);
  r.lost(kStart);
  EXPECT_EQ(r.gone_at(), kStart + minutes(10));
  EXPECT_EQ(r.io_fails_at(), std::nullopt);
}

TEST(Reconnect, ZeroIsAtOnceAndNothingIsNever) {
  LossPolicy p;
  p.ctrl_loss = Duration::zero();
  p.fast_io_fail = Duration::zero();
  Reconnect r(p, 1);
  r.lost(kStart);
  EXPECT_EQ(r.gone_at(), kStart);
  EXPECT_EQ(r.io_fails_at(), kStart);
  p.ctrl_loss = std::nullopt;
  p.fast_io_fail = std::nullopt;
  r.set_policy(p, kStart);
  EXPECT_EQ(r.gone_at(), std::nullopt);
  EXPECT_EQ(r.io_fails_at(), std::nullopt);
}

TEST(Reconnect, ANewPolicyCountsFromTheLoss) {
  Reconnect r({}, 1);
  r.lost(kStart);
  LossPolicy p;
  p.ctrl_loss = seconds(20);
  p.fast_io_fail = seconds(10);
  r.set_policy(p, kStart + seconds(30));
  EXPECT_EQ(r.gone_at(), kStart + seconds(20)) << "passed: due";
  EXPECT_EQ(r.io_fails_at(), kStart + seconds(10));
  EXPECT_EQ(r.policy(), p);
}

TEST(Reconnect, AShorterDelayBringsTheNextAttemptNearer) {
  Reconnect r(policy(minutes(10)), 1);
  r.lost(kStart);
  Instant now;
  (void)pauses(r, now, 20, false);
  ASSERT_GE(*r.next_attempt_at() - now, minutes(5));
  r.set_policy(policy(seconds(1)), now);
  EXPECT_EQ(*r.next_attempt_at(), now + seconds(1));
  EXPECT_LE(pauses(r, now, 1, false)[0], seconds(1));
  r.set_policy(policy(minutes(10)), now);
  EXPECT_LE(*r.next_attempt_at() - now, seconds(1)) << "a longer one puts nothing off";
}

TEST(Reconnect, EachLossBeginsAnew) {
  Reconnect r(policy(seconds(1)), 1);
  r.lost(kStart);
  Instant now;
  (void)pauses(r, now, 10, false);
  now = *r.next_attempt_at();
  r.attempt_begins(now);
  r.live_again();
  const Instant later = now + seconds(1);
  r.lost(later);
  EXPECT_EQ(r.next_attempt_at(), later);
  EXPECT_EQ(r.attempts(), 0u);
  EXPECT_EQ(r.lost_at(), later);
  EXPECT_EQ(r.gone_at(), later + minutes(10));
  EXPECT_LE(pauses(r, now, 1, false)[0], milliseconds(20));
}

TEST(Reconnect, ATargetThatDropsUsAgainAndAgainIsGivenPauses) {
  Reconnect r(policy(seconds(10)), 1);
  Instant now = kStart;
  r.lost(now);
  EXPECT_EQ(r.next_attempt_at(), now) << "the first loss of a connection that was there";
  Duration full = milliseconds(20);
  for (int i = 0; i < 12; ++i) {
    now = *r.next_attempt_at();
    r.attempt_begins(now);
    r.live_again();
    now += milliseconds(5);
    r.lost(now);
    const Duration pause = *r.next_attempt_at() - now;
    EXPECT_GE(pause, full / 2);
    EXPECT_LE(pause, full);
    full = std::min<Duration>(2 * full, seconds(10));
  }
}

TEST(Reconnect, WhatDoesNotFitIsPassedOver) {
  Reconnect r({}, 1);
  r.attempt_begins(kStart);
  r.attempt_failed(kStart, true);
  EXPECT_EQ(r.state(), LossState::live);
  EXPECT_EQ(r.attempts(), 0u);
  r.lost(kStart);
  r.attempt_failed(kStart, true);
  EXPECT_EQ(r.next_attempt_at(), kStart) << "no attempt, no failure";
}

}  // namespace
}  // namespace nvmf::host
