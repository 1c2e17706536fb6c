// Which refused commands are tried again, and when.

#include "host/retry_rules.h"

#include <gtest/gtest.h>

#include <set>

namespace nvmf::host {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr RetryDelays kNone{};

nvme::Status with_crd(nvme::StatusCode code, std::uint8_t crd) {
  nvme::Status s = code;
  s.crd = crd;
  return s;
}

bool again(nvme::Status status, std::uint32_t tries = 0, Duration age = {}) {
  return decide_retry(status, tries, age, kNone).again;
}

/// Every status there can be: only those that the header names are tried again.
TEST(RetryRules, EveryStatus) {
  const std::set<unsigned> worth = {0x007, 0x008, 0x021, 0x022, 0x082};
  for (unsigned code = 0; code < 0x800; ++code) {
    const nvme::Status status(static_cast<nvme::StatusCode>(code));
    EXPECT_EQ(again(status), worth.contains(code) || code >> 8 == 3) << std::hex << code;
    const nvme::Status final(static_cast<nvme::StatusCode>(code), true);
    EXPECT_FALSE(again(final)) << std::hex << code << " with DNR";
  }
  EXPECT_FALSE(again(nvme::StatusCode::reservation_conflict));
}

TEST(RetryRules, ATransientTransportErrorIsTriedAgainThreeTimes) {
  const nvme::Status status = nvme::StatusCode::transient_transport_error;
  for (const std::uint32_t tries : {0u, 1u, 2u}) EXPECT_TRUE(again(status, tries)) << tries;
  EXPECT_FALSE(again(status, 3));
  EXPECT_TRUE(again(nvme::StatusCode::namespace_not_ready, 3));
}

TEST(RetryRules, PausesDoubleUpToASecond) {
  const nvme::Status status = nvme::StatusCode::namespace_not_ready;
  const int expected[] = {100, 200, 400, 800, 1000, 1000};
  for (std::uint32_t tries = 0; tries < std::size(expected); ++tries) {
    EXPECT_EQ(decide_retry(status, tries, {}, kNone).pause, milliseconds(expected[tries])) << tries;
  }
  EXPECT_EQ(decide_retry(status, 0xffffffff, {}, kNone).pause, seconds(1));
}

TEST(RetryRules, CrdCountsFromOneInHundredMilliseconds) {
  const RetryDelays delays{5, 20, 70};
  const auto pause = [&](std::uint8_t crd) {
    const auto d =
        decide_retry(with_crd(nvme::StatusCode::namespace_not_ready, crd), 1, {}, delays);
    EXPECT_TRUE(d.again);
    return d.pause;
  };
  EXPECT_EQ(pause(1), milliseconds(500));
  EXPECT_EQ(pause(2), seconds(2));
  EXPECT_EQ(pause(3), seconds(7));
  EXPECT_EQ(pause(0), milliseconds(200)) << "names none";
}

TEST(RetryRules, CrdMeansNothingWithoutDelays) {
  const nvme::Status status = with_crd(nvme::StatusCode::command_interrupted, 2);
  EXPECT_EQ(decide_retry(status, 0, {}, kNone).pause, milliseconds(100));
  EXPECT_EQ(decide_retry(status, 2, {}, {5, 0, 5}).pause, milliseconds(400));
}

TEST(RetryRules, TriesEndAfterThirtySeconds) {
  const nvme::Status status = nvme::StatusCode::ana_transition;
  EXPECT_TRUE(again(status, 40, seconds(29)));
  EXPECT_FALSE(again(status, 40, seconds(29) + milliseconds(1))) << "would begin after it";
  EXPECT_FALSE(again(status, 40, seconds(31)));
  EXPECT_FALSE(again(status, 0, seconds(31)));
}

TEST(RetryRules, APauseBeyondTheEndIsNone) {
  const nvme::Status status = with_crd(nvme::StatusCode::namespace_not_ready, 1);
  EXPECT_TRUE(decide_retry(status, 0, {}, {300, 0, 0}).again);
  EXPECT_FALSE(decide_retry(status, 0, {}, {301, 0, 0}).again);
  EXPECT_FALSE(decide_retry(status, 0, {}, {0xffff, 0, 0}).again);
}

}  // namespace
}  // namespace nvmf::host
