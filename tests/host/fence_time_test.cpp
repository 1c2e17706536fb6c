// How long what was sent may still be executed after an association has ended.

#include "host/fence_time.h"

#include <gtest/gtest.h>

namespace nvmf::host {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Instant kStart = Instant(hours(100));

/// Silence: the last Keep Alive at 0 s, the last command at 2 s, ended at 5 s.
AssociationEnd silent_end() {
  AssociationEnd end;
  end.keep_alive_at = kStart;
  end.command_at = kStart + seconds(2);
  end.ended_at = kStart + seconds(5);
  end.katt_ms = 5000;
  end.cqt_ms = 3000;
  return end;
}

Duration lasts(const AssociationEnd& end, const ConnectParams& params = {}) {
  return nothing_executes_from(end, params) - kStart;
}

TEST(FenceTime, ADisabledControllerExecutesNothing) {
  AssociationEnd end = silent_end();
  end.controller_disabled = true;
  EXPECT_EQ(lasts(end), seconds(5));
  end.katt_ms = 0;
  EXPECT_EQ(lasts(end), seconds(5)) << "needs no keep-alive timer";
}

// Linux's target clears CSTS.RDY at once, whatever it has under way, and reports no CQT.
TEST(FenceTime, ADisabledControllerWithoutCqtIsGivenTime) {
  AssociationEnd end = silent_end();
  end.controller_disabled = true;
  end.cqt_ms = 0;
  ConnectParams params;
  params.cqt_unreported = seconds(4);
  EXPECT_EQ(lasts(end, params), seconds(5 + 4));
  end.nothing_unanswered = true;
  EXPECT_EQ(lasts(end, params), seconds(5));
}

TEST(FenceTime, SilenceIsTwoKattsAfterTheLastKeepAlive) {
  EXPECT_EQ(lasts(silent_end()), seconds(2 * 5 + 3));
}

TEST(FenceTime, WithTrafficBasedKeepAliveThreeKattsAfterTheLastCommand) {
  AssociationEnd end = silent_end();
  end.traffic_based = true;
  EXPECT_EQ(lasts(end), seconds(2 + 3 * 5 + 3));
  end.keep_alive_at = kStart + seconds(4);
  EXPECT_EQ(lasts(end), seconds(4 + 3 * 5 + 3)) << "a Keep Alive is a command, too";
}

TEST(FenceTime, ARuleThatIsBrokenOnPurposeIsBroken) {
  AssociationEnd end = silent_end();
  ConnectParams params;
  params.rules.silence_katts = 1;
  EXPECT_EQ(lasts(end, params), seconds(5 + 3));
  params.rules.silence_katts_traffic = 2;
  end.traffic_based = true;
  EXPECT_EQ(lasts(end, params), seconds(2 + 2 * 5 + 3));
}

TEST(FenceTime, AClosingPeerQuiescesWithinCqt) {
  AssociationEnd end = silent_end();
  end.peer_closed = true;
  end.traffic_based = true;
  EXPECT_EQ(lasts(end), seconds(5 + 3));
  end.katt_ms = 0;
  EXPECT_EQ(lasts(end), seconds(5 + 3)) << "needs no keep-alive timer";
}

TEST(FenceTime, ALateCloseIsWaitedForByCqtOnly) {
  AssociationEnd end = silent_end();
  end.peer_closed = true;
  end.cqt_ms = 20'000;
  end.ended_at = kStart + seconds(9);  // silence alone: 9 + 5 + 20 s
  EXPECT_EQ(lasts(end), seconds(29));
}

TEST(FenceTime, AProxysFinSaysNothing) {
  AssociationEnd end = silent_end();
  end.peer_closed = true;
  end.ended_at = kStart + seconds(1);
  ConnectParams params;
  params.trust_peer_close = false;
  EXPECT_EQ(lasts(end, params), seconds(2 * 5 + 3));
  end.katt_ms = 0;
  EXPECT_EQ(nothing_executes_from(end, params), kNever);
}

TEST(FenceTime, WithoutAKeepAliveTimerSilenceNeverLiftsIt) {
  AssociationEnd end = silent_end();
  end.katt_ms = 0;
  EXPECT_EQ(nothing_executes_from(end, {}), kNever);
}

TEST(FenceTime, CqtThatIsNotReportedIsTheUsers) {
  AssociationEnd end = silent_end();
  end.cqt_ms = 0;
  EXPECT_EQ(lasts(end), seconds(2 * 5 + 10)) << "10 s by default";
  ConnectParams params;
  params.cqt_unreported = milliseconds(500);
  EXPECT_EQ(lasts(end, params), milliseconds(10'500));
  end.peer_closed = true;
  EXPECT_EQ(lasts(end, params), milliseconds(5'500));
  end.cqt_ms = 1;
  EXPECT_EQ(lasts(end, params), milliseconds(5'001)) << "the controller's own word counts";
}

// As long as the sockets are open, what was submitted long before may still be fetched, and keep
// the association alive from then on.
TEST(FenceTime, WhatIsFetchedLateCountsFromTheEnd) {
  AssociationEnd end = silent_end();
  end.ended_at = kStart + seconds(60);
  EXPECT_EQ(lasts(end), seconds(60 + 5 + 3));
  end.traffic_based = true;
  EXPECT_EQ(lasts(end), seconds(60 + 2 * 5 + 3));
}

TEST(FenceTime, WithoutAFenceItIsOverAtOnce) {
  AssociationEnd end = silent_end();
  ConnectParams params;
  params.fence = false;
  EXPECT_EQ(lasts(end, params), seconds(5));
  end.katt_ms = 0;
  EXPECT_EQ(lasts(end, params), seconds(5));
}

TEST(FenceTime, TheLargestKattDoesNotWrapAround) {
  AssociationEnd end = silent_end();
  end.katt_ms = 0xffffffff;
  EXPECT_EQ(lasts(end), milliseconds(2 * 0xffffffffll) + seconds(3));
  end.traffic_based = true;
  EXPECT_EQ(lasts(end), milliseconds(3 * 0xffffffffll) + seconds(2 + 3));
  EXPECT_EQ(silence_bound({.katt_ms = 0xffffffff, .traffic_based = true, .cqt_ms = 1}, {}),
            milliseconds(3 * 0xffffffffll + 1));
}

TEST(SilenceBound, CountsFromNow) {
  const SilenceFacts facts{.katt_ms = 5000, .traffic_based = false, .cqt_ms = 3000};
  EXPECT_EQ(silence_bound(facts, {}), seconds(13));
  EXPECT_EQ(silence_bound({.katt_ms = 5000, .traffic_based = true}, {}), seconds(15 + 10));
  EXPECT_EQ(silence_bound({.katt_ms = 0, .cqt_ms = 1}, {}), std::nullopt);
  ConnectParams params;
  params.fence = false;
  EXPECT_EQ(silence_bound({}, params), Duration::zero());
}

}  // namespace
}  // namespace nvmf::host
