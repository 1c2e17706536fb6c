// What a loss policy may say, and what the parameters of recovery may.

#include "host/policy.h"

#include <gmock/gmock.h>

#include "host/health.h"
#include "host/params.h"

namespace nvmf::host {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;
using testing::AllOf;
using testing::HasSubstr;

ConnectParams possible() {
  ConnectParams p;
  p.traddr = "10.0.0.1";
  p.subnqn = "nqn.2024-01.org.example:a";
  p.hostnqn = "nqn.2024-01.org.example:host";
  p.hostid[0] = std::byte{1};
  return p;
}

std::string refusal(const LossPolicy& policy) {
  ConnectParams params = possible();
  params.loss = policy;
  const auto of_params = params.validate();
  const auto result = check(policy);
  EXPECT_EQ(result.has_value(), of_params.has_value()) << "validate() asks check()";
  if (result) return "";
  EXPECT_EQ(result.error().code, EINVAL);
  EXPECT_EQ(result.error().message, of_params.error().message);
  return result.error().message;
}

TEST(LossPolicyCheck, Defaults) {
  EXPECT_EQ(refusal({}), "");
}

TEST(LossPolicyCheck, ReconnectDelay) {
  LossPolicy p;
  for (const Duration good : {Duration(milliseconds(20)), Duration(hours(24))}) {
    p.reconnect_delay = good;
    EXPECT_EQ(refusal(p), "");
  }
  for (const Duration bad : {Duration(milliseconds(20) - nanoseconds(1)), Duration::zero(),
                             Duration(seconds(-1)), hours(24) + nanoseconds(1)}) {
    p.reconnect_delay = bad;
    EXPECT_THAT(refusal(p), AllOf(HasSubstr("--reconnect-delay"), HasSubstr("0.02 to 86400 s")));
  }
}

TEST(LossPolicyCheck, Timers) {
  for (const auto timer : {&LossPolicy::ctrl_loss, &LossPolicy::fast_io_fail}) {
    const char* option = timer == &LossPolicy::ctrl_loss ? "--ctrl-loss-tmo" : "--fast_io_fail_tmo";
    LossPolicy p;
    for (const std::optional<Duration> good :
         {std::optional<Duration>(), {Duration::zero()}, {Duration(hours(24))}}) {
      p.*timer = good;
      EXPECT_EQ(refusal(p), "");
    }
    for (const Duration bad : {Duration(nanoseconds(-1)), hours(24) + nanoseconds(1)}) {
      p.*timer = bad;
      EXPECT_THAT(refusal(p), AllOf(HasSubstr(option), HasSubstr("0 to 86400 s, or -1")));
    }
  }
}

std::string refusal(const ConnectParams& params) {
  const auto result = params.validate();
  return result ? "" : result.error().message;
}

TEST(RecoveryParams, Cqt) {
  ConnectParams p = possible();
  for (const Duration good : {Duration::zero(), Duration(seconds(3600))}) {
    p.cqt_unreported = good;
    EXPECT_EQ(refusal(p), "");
  }
  for (const Duration bad : {Duration(nanoseconds(-1)), seconds(3600) + nanoseconds(1)}) {
    p.cqt_unreported = bad;
    EXPECT_THAT(refusal(p), AllOf(HasSubstr("--cqt"), HasSubstr("0 to 3600 s")));
  }
}

TEST(RecoveryParams, ReplayBytes) {
  ConnectParams p = possible();
  for (const std::uint64_t good : {kReplayBytesMin, kReplayBytesMax}) {
    p.replay_bytes_max = good;
    EXPECT_EQ(refusal(p), "");
  }
  for (const std::uint64_t bad : {kReplayBytesMin - 1, kReplayBytesMax + 1, std::uint64_t{0}}) {
    p.replay_bytes_max = bad;
    EXPECT_THAT(refusal(p), HasSubstr("copies of unflushed writes"));
  }
}

TEST(RecoveryParams, HeldWrites) {
  ConnectParams p = possible();
  p.hold_writes = Duration::max();
  EXPECT_EQ(refusal(p), "");
  p.hold_writes = seconds(-1);
  EXPECT_NE(refusal(p), "");
}

TEST(ConnectionState, EachHasAName) {
  EXPECT_STREQ(name_of(ConnectionState::connecting), "connecting");
  EXPECT_STREQ(name_of(ConnectionState::live), "live");
  EXPECT_STREQ(name_of(ConnectionState::lost), "lost");
  EXPECT_STREQ(name_of(ConnectionState::reconnecting), "reconnecting");
  EXPECT_STREQ(name_of(ConnectionState::failing), "failing");
  EXPECT_STREQ(name_of(ConnectionState::gone), "gone");
}

}  // namespace
}  // namespace nvmf::host
