// Histories made by hand: what the checker must and must not complain of.
#include "simulator/checker.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "simulator/stamp.h"

namespace nvmf::simulator {
namespace {

using What = Checker::What;

class CheckerTest : public testing::Test {
 protected:
  Id write(bool fua = false) { return checker_.submitted(What::write, 0, 0, 1, fua); }
  Id zeroes() { return checker_.submitted(What::zeroes, 0, 0, 1, false); }
  Id flush() { return checker_.submitted(What::flush, 0, 0, 0, false); }
  Id read() { return checker_.submitted(What::read, 0, 0, 1, false); }
  void good(Id id) { checker_.ended(id, true); }
  void bad(Id id) { checker_.ended(id, false); }
  Id written(bool fua = false) {
    const Id id = write(fua);
    good(id);
    return id;
  }
  void flushed() { good(flush()); }
  void finds(Id read, Id value) { checker_.ended_with(read, std::array{value}); }
  void reads(Id value) { finds(read(), value); }
  [[nodiscard]] bool fine() const { return !checker_.violation(); }
  [[nodiscard]] std::string said() const { return checker_.violation().value_or(""); }

  Checker checker_{{4, 2}};
};

TEST_F(CheckerTest, ReadsWhatWasWritten) {
  reads(0);
  const Id a = written();
  reads(a);
  const Id b = written();
  reads(b);
  EXPECT_TRUE(fine()) << said();
  EXPECT_EQ(checker_.judged(), 3U);
  EXPECT_EQ(checker_.stamped(), 2U);
}

TEST_F(CheckerTest, AnAcknowledgedWriteIsLost) {
  written();
  reads(0);
  EXPECT_NE(said().find("is zero, but write #1"), std::string::npos) << said();
}

TEST_F(CheckerTest, AnOlderValueComesBack) {
  const Id a = written();
  written();
  reads(a);
  EXPECT_NE(said().find("holds the value of write #1"), std::string::npos) << said();
}

TEST_F(CheckerTest, WritesAtTheSameTimeHaveNoOrder) {
  const Id a = write();
  const Id b = write();
  good(b);
  reads(b);
  good(a);
  reads(b);
  reads(a);
  reads(b);
  EXPECT_TRUE(fine()) << said();
}

TEST_F(CheckerTest, AReadAtTheSameTimeMaySeeEither) {
  const Id a = written();
  const Id early = read();
  const Id late = read();
  const Id b = write();
  finds(early, a);
  good(b);
  finds(late, a);
  EXPECT_TRUE(fine()) << said();
}

TEST_F(CheckerTest, AReadFromTheFutureAndFromNowhere) {
  reads(7);
  EXPECT_NE(said().find("nobody wrote"), std::string::npos) << said();
}

TEST_F(CheckerTest, AValueOfAnotherPlace) {
  const Id elsewhere = checker_.submitted(What::write, 0, 1, 3, false);
  good(elsewhere);
  reads(elsewhere);
  EXPECT_FALSE(fine());
}

TEST_F(CheckerTest, AFailedWriteMayOrMayNotBeThere) {
  const Id a = written();
  const Id b = write();
  bad(b);
  reads(a);
  reads(b);
  EXPECT_TRUE(fine()) << said();
  reads(a);  // and now it had been seen
  EXPECT_FALSE(fine());
}

TEST_F(CheckerTest, TheGhostOfAFailedWrite) {
  const Id a = write();
  bad(a);
  const Id b = written();
  reads(b);
  EXPECT_TRUE(fine());
  reads(a);
  EXPECT_NE(said().find("write #1"), std::string::npos) << said();
}

TEST_F(CheckerTest, TheGhostOfAFailedWriteBeforeAnyRead) {
  const Id a = write();
  bad(a);
  written();
  reads(a);
  EXPECT_FALSE(fine());
}

TEST_F(CheckerTest, AFailedWriteOverAFailedOneOnlyOnceItWasSeen) {
  const Id a = write();
  bad(a);
  const Id b = write();
  bad(b);
  reads(a);
  reads(b);
  EXPECT_TRUE(fine()) << said();
  reads(a);
  EXPECT_NE(said().find("has been read before"), std::string::npos) << said();
}

TEST_F(CheckerTest, AnOrphanMayLandUntilItsSuccessorIsSubmitted) {
  const Id a = write();
  checker_.orphaned(a);
  reads(0);
  reads(a);
  const Id b = written();
  reads(b);
  EXPECT_TRUE(fine()) << said();
  reads(a);
  EXPECT_FALSE(fine());
}

TEST_F(CheckerTest, AnOrphansEndComesTooLateForItsOrder) {
  const Id a = write();
  checker_.orphaned(a);
  const Id b = written();
  good(a);
  reads(b);
  EXPECT_TRUE(fine()) << said();
  reads(a);
  EXPECT_FALSE(fine());
}

TEST_F(CheckerTest, AnOpenWriteMayLandLate) {
  const Id a = write();
  const Id b = written();
  reads(b);
  reads(a);
  EXPECT_TRUE(fine()) << said();
}

TEST_F(CheckerTest, PowerTakesTheCache) {
  const Id a = written();
  flushed();
  const Id b = written();
  reads(b);
  checker_.power_lost();
  reads(a);
  EXPECT_TRUE(fine()) << said();
  reads(0);  // but not what was flushed
  EXPECT_FALSE(fine());
}

TEST_F(CheckerTest, PowerTakesNoFlushedAndNoFuaWrite) {
  for (const bool fua : {false, true}) {
    Checker checker({1});
    const Id a = checker.submitted(What::write, 0, 0, 1, fua);
    checker.ended(a, true);
    if (!fua) checker.ended(checker.submitted(What::flush, 0, 0, 0, false), true);
    checker.power_lost();
    checker.ended_with(checker.submitted(What::read, 0, 0, 1, false), std::array{Id{0}});
    EXPECT_TRUE(checker.violation()) << fua;
  }
}

TEST_F(CheckerTest, AFlushCoversWhatWasAcknowledgedBeforeIt) {
  const Id f = flush();
  written();
  good(f);
  checker_.power_lost();
  reads(0);
  EXPECT_TRUE(fine()) << said();
}

TEST_F(CheckerTest, AFlushThatEndsAfterThePowerLossBringsNothingBack) {
  written();
  const Id f = flush();
  checker_.power_lost();
  good(f);
  reads(0);
  EXPECT_TRUE(fine()) << said();
}

TEST_F(CheckerTest, AFailedFlushAndAnotherDisksAreNone) {
  written();
  bad(flush());
  good(checker_.submitted(What::flush, 1, 0, 0, false));
  checker_.power_lost();
  reads(0);
  EXPECT_TRUE(fine()) << said();
}

TEST_F(CheckerTest, WhatSurvivedThePowerLossStays) {
  const Id a = written();
  const Id b = written();
  checker_.power_lost();
  reads(b);
  EXPECT_TRUE(fine()) << said();
  reads(a);
  EXPECT_FALSE(fine());
}

TEST_F(CheckerTest, WritesAfterThePowerLossCountInFull) {
  written();
  checker_.power_lost();
  written();
  reads(0);
  EXPECT_FALSE(fine());
}

TEST_F(CheckerTest, WhatIsReplayedSurvivesUnlessItsProcessGoes) {
  for (const bool goes : {false, true}) {
    Checker checker({1}, host::Unflushed::replay);
    checker.ended(checker.submitted(What::write, 0, 0, 1, false), true);
    checker.power_lost();
    if (goes) checker.process_gone();
    checker.ended_with(checker.submitted(What::read, 0, 0, 1, false), std::array{Id{0}});
    EXPECT_EQ(checker.violation().has_value(), !goes);
  }
}

TEST_F(CheckerTest, AProcessReplaysOnlyWhatIsItsOwn) {
  Checker checker({1}, host::Unflushed::replay);
  checker.ended(checker.submitted(What::write, 0, 0, 1, false), true);
  checker.process_gone();
  checker.power_lost();
  checker.ended_with(checker.submitted(What::read, 0, 0, 1, false), std::array{Id{0}});
  EXPECT_FALSE(checker.violation());
}

TEST_F(CheckerTest, AReplayMayHideWhatWasNeverAcknowledged) {
  for (const bool replays : {false, true}) {
    Checker checker({1}, host::Unflushed::fail, replays);
    const auto read = [&](Id value) {
      checker.ended_with(checker.submitted(What::read, 0, 0, 1, false), std::array{value});
    };
    const Id a = checker.submitted(What::write, 0, 0, 1, false);
    checker.ended(a, true);
    const Id b = checker.submitted(What::write, 0, 0, 1, false);
    checker.ended(b, false);
    read(b);
    read(a);
    EXPECT_EQ(checker.violation().has_value(), !replays);
    const Id c = checker.submitted(What::write, 0, 0, 1, false);
    checker.ended(c, true);
    read(c);
    EXPECT_EQ(checker.violation().has_value(), !replays);
    read(a);
    EXPECT_TRUE(checker.violation());
  }
}

TEST_F(CheckerTest, AFlushAfterThePowerLossMustFailOnceWhereThatIsPromised) {
  for (const bool fails : {false, true}) {
    Checker checker({1}, host::Unflushed::fail);
    checker.ended(checker.submitted(What::write, 0, 0, 1, false), true);
    checker.power_lost();
    if (fails) checker.ended(checker.submitted(What::flush, 0, 0, 0, false), false);
    checker.ended(checker.submitted(What::flush, 0, 0, 0, false), true);
    checker.ended_with(checker.submitted(What::read, 0, 0, 1, false), std::array{Id{0}});
    EXPECT_EQ(checker.violation().has_value(), !fails);
  }
}

TEST_F(CheckerTest, AWarningBeforeThePowerIsLostWillDoAndAnotherDisksWillNot) {
  for (const std::size_t of : {0, 1}) {
    Checker checker({1, 1}, host::Unflushed::fail);
    checker.ended(checker.submitted(What::write, 0, 0, 1, false), true);
    checker.ended(checker.submitted(What::flush, of, 0, 0, false), false);
    checker.power_lost();
    checker.ended(checker.submitted(What::flush, 0, 0, 0, false), true);
    checker.ended_with(checker.submitted(What::read, 0, 0, 1, false), std::array{Id{0}});
    EXPECT_EQ(checker.violation().has_value(), of == 1);
  }
}

TEST_F(CheckerTest, ZeroesHaveAnOrderToo) {
  const Id a = written();
  const Id z = zeroes();
  reads(a);
  good(z);
  reads(0);
  EXPECT_TRUE(fine()) << said();
  reads(a);
  EXPECT_FALSE(fine());
}

TEST_F(CheckerTest, ZeroesThatNobodyOwnsAnyMore) {
  good(zeroes());
  written();
  reads(0);
  EXPECT_NE(said().find("is zero"), std::string::npos) << said();
}

TEST_F(CheckerTest, TheDiskItselfIsJudged) {
  const Id a = written();
  checker_.look(0, std::array<Id, 4>{a, 0, 0, 0});
  EXPECT_TRUE(fine()) << said();
  checker_.look(0, std::array<Id, 4>{a, a, 0, 0});
  EXPECT_FALSE(fine());
}

TEST_F(CheckerTest, TwoEndsOfOneRequest) {
  const Id a = written();
  good(a);
  EXPECT_NE(said().find("completed twice"), std::string::npos) << said();
}

TEST(StampTest, SaysWhoseItIs) {
  std::vector<std::byte> granule(128);
  EXPECT_EQ(read_stamp(granule, 3, 1), Id{0});
  put_stamp(granule, 17, 3, 1);
  EXPECT_EQ(read_stamp(granule, 3, 1), Id{17});
  EXPECT_EQ(read_stamp(granule, 4, 1), std::nullopt);
  EXPECT_EQ(read_stamp(granule, 3, 2), std::nullopt);
  std::vector<std::byte> torn = granule;
  std::fill(torn.begin() + 64, torn.end(), std::byte{0});
  EXPECT_EQ(read_stamp(torn, 3, 1), std::nullopt);
  granule[5] ^= std::byte{1};
  EXPECT_EQ(read_stamp(granule, 3, 1), std::nullopt);
}

}  // namespace
}  // namespace nvmf::simulator
