// What bring-up learns for the recovery of its association, and what its errors say about trying
// again.

#include <gmock/gmock.h>

#include "host/connect_error.h"
#include "host/fixture.h"

namespace nvmf::test {
namespace {

using nvme::Feature;
using nvme::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;
using transport::ControllerCommand;

constexpr host::RetryDelays kNoDelays{};

class BringUpRecovery : public HostTest {
 protected:
  BringUpRecovery() { target.add_namespace(1, 2048); }

  static bool is_connect(const ControllerCommand& c, std::uint16_t qid) {
    return c.sqe.is_fabrics() && c.sqe.fabrics_type() == nvme::FabricsType::connect &&
           nvme::ConnectCommand::from_sqe(c.sqe).qid == qid;
  }
  static bool is_feature(const ControllerCommand& c, nvme::AdminOpcode opcode, Feature feature) {
    return c.sqe.opcode == static_cast<std::uint8_t>(opcode) &&
           nvme::FeatureCommand::from_sqe(c.sqe).feature == feature;
  }
  static bool gets(const ControllerCommand& c, Feature feature) {
    return is_feature(c, nvme::AdminOpcode::get_features, feature);
  }
  static bool sets(const ControllerCommand& c, Feature feature) {
    return is_feature(c, nvme::AdminOpcode::set_features, feature);
  }
  [[nodiscard]] std::vector<SeenCommand> feature_commands(Feature feature) const {
    std::vector<SeenCommand> out;
    for (const SeenCommand& s : target.seen) {
      const auto opcode = static_cast<nvme::AdminOpcode>(s.sqe.opcode);
      const bool any = s.qid == 0 && (opcode == nvme::AdminOpcode::get_features ||
                                      opcode == nvme::AdminOpcode::set_features);
      if (any && nvme::FeatureCommand::from_sqe(s.sqe).feature == feature) out.push_back(s);
    }
    return out;
  }
  /// When each Connect of `qid` came.
  [[nodiscard]] std::vector<Instant> connects(std::uint16_t qid) const {
    std::vector<Instant> at;
    for (const SeenCommand& s : target.seen) {
      if (s.sqe.is_fabrics() && s.sqe.fabrics_type() == nvme::FabricsType::connect &&
          nvme::ConnectCommand::from_sqe(s.sqe).qid == qid) {
        at.push_back(s.at);
      }
    }
    return at;
  }
  /// Host Behavior Support is kept, and may be refused.
  void serve_host_behavior(nvme::Status get, nvme::Status set) {
    target.intercept = [=, this](FakeTarget::Connection& at, ControllerCommand& c) {
      if (gets(c, Feature::host_behavior)) {
        get.ok() ? at.send(c, behavior) : at.respond(c, get);
        return true;
      }
      if (!sets(c, Feature::host_behavior)) return false;
      if (set.ok()) behavior = target.seen.back().data;
      at.respond(c, set);
      return true;
    };
  }
  /// Connects of `qid` are answered with `status`, `times` of them.
  void refuse_connects(std::uint16_t qid, nvme::Status status, std::size_t times = SIZE_MAX) {
    target.intercept = [=, left = times](FakeTarget::Connection& at, ControllerCommand& c) mutable {
      if (!is_connect(c, qid) || left == 0) return false;
      --left;
      at.respond(c, status);
      return true;
    };
  }

  std::vector<std::byte> behavior = std::vector<std::byte>(nvme::kHostBehaviorBytes);
};

// ---- Host Behavior Support ----

TEST_F(BringUpRecovery, TurnsAdvancedCommandRetryOnAndLeavesTheRest) {
  target.id.crdt1 = 5;
  target.id.crdt2 = 20;
  behavior[2] = std::byte{1};
  behavior[511] = std::byte{0x5a};
  std::vector<std::byte> expected = behavior;
  expected[0] = std::byte{1};
  serve_host_behavior({}, {});
  ASSERT_TRUE(go_live()) << outcome.ended->message;
  EXPECT_EQ(behavior, expected);
  EXPECT_THAT(feature_commands(Feature::host_behavior), SizeIs(2));
  EXPECT_THAT(subsystem->info()->retry_delays, ElementsAre(5, 20, 0));
}

TEST_F(BringUpRecovery, AsksNothingOfAControllerWithoutDelays) {
  target.id.crdt2 = 20;  // means nothing while CRDT1 is 0
  serve_host_behavior({}, {});
  ASSERT_TRUE(go_live()) << outcome.ended->message;
  EXPECT_THAT(feature_commands(Feature::host_behavior), SizeIs(0));
  EXPECT_EQ(subsystem->info()->retry_delays, kNoDelays);
}

TEST_F(BringUpRecovery, AControllerMayRefuseAdvancedCommandRetry) {
  target.id.crdt1 = 5;
  serve_host_behavior({}, {StatusCode::invalid_field, true});
  ASSERT_TRUE(go_live()) << outcome.ended->message;
  EXPECT_EQ(subsystem->info()->retry_delays, kNoDelays);
  EXPECT_THAT(logged(), testing::Contains(HasSubstr("Advanced Command Retry")));
}

TEST_F(BringUpRecovery, ChangesNoBehaviorThatItCannotRead) {
  target.id.crdt1 = 5;
  serve_host_behavior({StatusCode::invalid_field, true}, {});
  ASSERT_TRUE(go_live()) << outcome.ended->message;
  EXPECT_THAT(feature_commands(Feature::host_behavior), SizeIs(1));
  EXPECT_EQ(subsystem->info()->retry_delays, kNoDelays);
}

TEST_F(BringUpRecovery, BehaviorThatIsReadShortIsNotWrittenBack) {
  target.id.crdt1 = 5;
  target.intercept = [](FakeTarget::Connection& at, ControllerCommand& c) {
    if (!gets(c, Feature::host_behavior)) return false;
    at.respond(c, {});  // success, and no data
    return true;
  };
  ASSERT_TRUE(go_live()) << outcome.ended->message;
  EXPECT_THAT(feature_commands(Feature::host_behavior), SizeIs(1));
  EXPECT_EQ(subsystem->info()->retry_delays, kNoDelays);
}

// ---- Volatile Write Cache ----

TEST_F(BringUpRecovery, KnowsWhetherThereIsAWriteCache) {
  struct Case {
    bool present;
    std::optional<std::uint32_t> enabled;  // DW0; nothing: refused
    bool expected;
  };
  const Case cases[] = {{false, 1, false},
                        {true, 1, true},
                        {true, 0, false},
                        {true, 0xfffffffe, false},
                        {true, std::nullopt, true}};
  for (const Case& c : cases) {
    target.id.vwc =
        c.present ? nvme::kVwcPresent | nvme::kVwcFlushAllSupported : nvme::kVwcFlushAllSupported;
    target.intercept = [&c](FakeTarget::Connection& at, ControllerCommand& command) {
      if (!gets(command, Feature::volatile_write_cache)) return false;
      c.enabled ? at.respond(command, {}, *c.enabled)
                : at.respond(command, {StatusCode::invalid_field, true});
      return true;
    };
    target.seen.clear();
    ASSERT_TRUE(go_live()) << outcome.ended->message;
    EXPECT_EQ(subsystem->info()->volatile_write_cache, c.expected);
    EXPECT_THAT(feature_commands(Feature::volatile_write_cache), SizeIs(c.present ? 1 : 0));
    subsystem->stop();
    ASSERT_TRUE(loop.run_until([this] { return outcome.ended.has_value(); }, seconds(5)));
    subsystem.reset();
    outcome = {};
  }
}

TEST_F(BringUpRecovery, ADiscoveryControllerIsNotAsked) {
  params.nr_io_queues = 0;
  target.id.crdt1 = 5;
  ASSERT_TRUE(go_live()) << outcome.ended->message;
  EXPECT_THAT(feature_commands(Feature::host_behavior), SizeIs(0));
  EXPECT_THAT(feature_commands(Feature::volatile_write_cache), SizeIs(0));
}

TEST_F(BringUpRecovery, FeaturesThatAreNeverAnsweredEndTheAttempt) {
  target.intercept = [](FakeTarget::Connection&, ControllerCommand& c) {
    return gets(c, Feature::volatile_write_cache);
  };
  EXPECT_THAT(failure(seconds(12)), HasSubstr("did not answer the command Get Features"));
}

// ---- a busy controller ----

TEST_F(BringUpRecovery, WaitsForAControllerThatIsBusy) {
  refuse_connects(0, StatusCode::connect_controller_busy, 3);
  ASSERT_TRUE(go_live()) << outcome.ended->message;
  const std::vector<Instant> at = connects(0);
  ASSERT_EQ(at.size(), 4u);
  EXPECT_EQ(at[1] - at[0], milliseconds(100));
  EXPECT_EQ(at[2] - at[1], milliseconds(200));
  EXPECT_EQ(at[3] - at[2], milliseconds(400));
  EXPECT_EQ(target.open_connections(), 3u) << "the refused ones are closed";
}

TEST_F(BringUpRecovery, AlsoWhenItIsAnIoQueueThatHasNoRoom) {
  refuse_connects(2, StatusCode::connect_controller_busy, 1);
  ASSERT_TRUE(go_live()) << outcome.ended->message;
  EXPECT_EQ(connects(0).size(), 2u);
  loop.run_for(seconds(2));
  EXPECT_EQ(target.open_connections(), 3u);
}

TEST_F(BringUpRecovery, WaitsNoLongerThanBringUpMayTake) {
  params.bring_up_timeout = seconds(7);
  refuse_connects(0, StatusCode::connect_controller_busy);
  EXPECT_THAT(failure(seconds(8)), HasSubstr("no controller free"));
  EXPECT_EQ(outcome.ended->code, host::kControllerBusy);
  EXPECT_GE(took, seconds(6));
  EXPECT_LE(took, seconds(7));
  const std::vector<Instant> at = connects(0);
  EXPECT_EQ(at.back() - at[at.size() - 2], seconds(1)) << "the longest pause";
}

TEST_F(BringUpRecovery, BusyForGoodIsFinalAtOnce) {
  refuse_connects(0, {StatusCode::connect_controller_busy, true});
  EXPECT_THAT(failure(seconds(1)), HasSubstr("no controller free"));
  EXPECT_NE(outcome.ended->code, host::kControllerBusy);
  EXPECT_EQ(connects(0).size(), 1u);
}

TEST_F(BringUpRecovery, StopEndsThePause) {
  refuse_connects(0, StatusCode::connect_controller_busy);
  start();
  loop.run_for(milliseconds(1600));  // in a pause of a second
  const std::size_t before = connects(0).size();
  subsystem->stop();
  const Instant begin = loop.now();
  ASSERT_TRUE(loop.run_until([this] { return outcome.ended.has_value(); }, seconds(5)));
  EXPECT_LE(loop.now() - begin, milliseconds(100));
  EXPECT_EQ(outcome.ended->code, 0);
  loop.run_for(seconds(5));
  EXPECT_EQ(connects(0).size(), before);
}

host::Task<void> bring_up_once(host::ConnectParams params, std::vector<transport::Loop*> loops,
                               host::BringUpControl& control, std::optional<Error>& error) {
  auto made =
      co_await host::bring_up(std::move(params), std::move(loops), control, host::WhenBusy::fail);
  error = made ? Error{"it was made", 0} : made.error();
}

TEST_F(BringUpRecovery, AReconnectHasPausesOfItsOwn) {
  refuse_connects(0, StatusCode::connect_controller_busy);
  host::BringUpControl control;
  std::optional<Error> error;
  host::spawn(bring_up_once(params, {&loop}, control, error));
  ASSERT_TRUE(loop.run_until([&] { return error.has_value(); }, seconds(1)));
  EXPECT_EQ(error->code, host::kControllerBusy);
  EXPECT_FALSE(host::final_for_reconnect(*error));
  EXPECT_EQ(connects(0).size(), 1u);
}

// ---- what is final ----

TEST_F(BringUpRecovery, OnAReconnectOnlyAuthenticationIsFinal) {
  const StatusCode refusals[] = {
      StatusCode::connect_invalid_parameters,
      StatusCode::connect_invalid_host,
      StatusCode::connect_incompatible_format,
      StatusCode::connect_controller_busy,
      StatusCode::connect_restart_discovery,
      StatusCode::internal_error,
      StatusCode::invalid_field,
      StatusCode::authentication_required,
  };
  for (const StatusCode code : refusals) {
    for (const std::uint16_t qid : {std::uint16_t{0}, std::uint16_t{1}}) {
      refuse_connects(qid, {code, true});
      (void)failure(seconds(1));
      EXPECT_EQ(host::final_for_reconnect(*outcome.ended),
                code == StatusCode::authentication_required)
          << outcome.ended->message;
      subsystem.reset();
      outcome = {};
    }
  }
}

TEST_F(BringUpRecovery, AControllerThatAsksForAuthenticationAfterConnectIsFinalToo) {
  target.intercept = [](FakeTarget::Connection& at, ControllerCommand& c) {
    if (!is_connect(c, 0)) return false;
    at.respond(c, {}, nvme::ConnectResponse{.cntlid = 7, .authentication_required = true}.encode());
    return true;
  };
  EXPECT_THAT(failure(seconds(1)), HasSubstr("requires authentication"));
  EXPECT_TRUE(host::final_for_reconnect(*outcome.ended));
}

TEST_F(BringUpRecovery, SilenceAndRefusalByTheNetworkAreNotFinal) {
  params.port = 4421;
  (void)failure(seconds(1));
  EXPECT_EQ(outcome.ended->code, ECONNREFUSED) << "tells Reconnect to come back soon";
  EXPECT_FALSE(host::final_for_reconnect(*outcome.ended));
}

}  // namespace
}  // namespace nvmf::test
