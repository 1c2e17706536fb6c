// How associations live and end: enabling, reset, shutdown, keep-alive, lost connections.
#include "controller/test_host.h"

namespace nvmf::controller {
namespace {

using nvme::StatusCode;

class AssociationTest : public ControllerTest {
 protected:
  void SetUp() override { start(one_subsystem({file("disk.img", 1 << 20), memory(1 << 20)})); }
};

TEST_F(AssociationTest, FollowsTheEnableBit) {
  TestHost& h = host();
  ASSERT_TRUE(h.connect_admin().ok());
  EXPECT_FALSE(h.csts().rdy);
  EXPECT_EQ(h.admin().send(nvme::keep_alive()).code(), code_of(StatusCode::command_sequence_error));
  ASSERT_TRUE(h.set_cc(TestHost::enabled()).ok());
  EXPECT_TRUE(h.csts().rdy);
  EXPECT_TRUE(h.admin().send(nvme::keep_alive()).ok());
  ASSERT_TRUE(h.set_cc({}).ok());
  EXPECT_FALSE(h.csts().rdy);
  EXPECT_EQ(h.admin().send(nvme::keep_alive()).code(), code_of(StatusCode::command_sequence_error));
  ASSERT_TRUE(h.set_cc(TestHost::enabled()).ok());
  EXPECT_TRUE(h.csts().rdy);
}

TEST_F(AssociationTest, RefusesConfigurationsThatCannotBe) {
  std::vector<nvme::ControllerConfiguration> wrong(5, TestHost::enabled());
  wrong[0].iosqes = 4;
  wrong[1].iocqes = 6;
  wrong[2].mps = 1;
  wrong[3].ams = 1;
  wrong[4].css = 6;
  for (const auto& cc : wrong) {
    TestHost& h = host();
    ASSERT_TRUE(h.connect_admin().ok());
    ASSERT_TRUE(h.set_cc(cc).ok());
    EXPECT_TRUE(h.csts().cfs);
    EXPECT_FALSE(h.csts().rdy);
    // A reset helps.
    ASSERT_TRUE(h.set_cc({}).ok());
    ASSERT_TRUE(h.set_cc(TestHost::enabled()).ok());
    EXPECT_TRUE(h.csts().rdy);
    EXPECT_FALSE(h.csts().cfs);
  }
}

TEST_F(AssociationTest, ForgetsEverythingAtReset) {
  TestHost& h = host();
  h.bring_up_io();
  ASSERT_TRUE(h.admin().send(nvme::set_features(nvme::Feature::arbitration, 5)).ok());
  ASSERT_TRUE(h.admin().send(nvme::set_queue_count(1)).code() ==
              code_of(StatusCode::command_sequence_error));
  ASSERT_TRUE(h.set_cc({}).ok());
  ASSERT_TRUE(loop.run_until([&] { return h.io().ended(); }, 1s));
  EXPECT_FALSE(h.csts().rdy);
  ASSERT_TRUE(h.set_cc(TestHost::enabled()).ok());
  EXPECT_EQ(h.admin().send(nvme::get_features(nvme::Feature::arbitration)).dw0(), 0u);
  EXPECT_TRUE(h.connect_io(1).ok());
  EXPECT_TRUE(h.read(0, 1).ok());
}

// A host takes CSTS.RDY = 0 as the word that nothing of before will still be written.
TEST_F(AssociationTest, IsNotDisabledBeforeTheDiskIsDone) {
  TestHost& h = host();
  h.bring_up_io();
  const Bytes data = random_bytes(4096, 1);
  loop.file_latency = 3s;
  auto write = h.io().start(nvme::write_command(1, 0, 8), data);
  loop.run_for(1s);
  ASSERT_FALSE(write->done);
  ASSERT_TRUE(h.set_cc({}).ok());
  ASSERT_TRUE(loop.run_until([&] { return write->done; }, 1s));
  EXPECT_EQ(write->delivery, transport::Delivery::unanswered);
  EXPECT_TRUE(h.csts().rdy);
  EXPECT_NE(loop.file_bytes("disk.img")[0], data[0]);
  loop.run_for(1s);
  EXPECT_TRUE(h.csts().rdy);
  loop.run_for(2s);
  EXPECT_FALSE(h.csts().rdy);
  EXPECT_TRUE(std::ranges::equal(std::span(loop.file_bytes("disk.img")).first(4096), data));
}

// A controller that is being disabled ends while a disk still holds its last I/O queue: its event
// requests have no admin connection to be answered on any more.
TEST_F(AssociationTest, EndsWithEventRequestsWhileADiskIsBusy) {
  TestHost& h = host();
  h.bring_up_io();
  loop.file_latency = kIdleControllerTimeout + 4s;
  auto event = h.admin().start(nvme::async_event_request());
  auto write = h.io().start(nvme::write_command(1, 0, 8), Bytes(4096));
  loop.run_for(500ms);
  auto disable = h.admin().start(nvme::property_set(nvme::Property::cc, 0));
  ASSERT_TRUE(loop.run_until([&] { return event->done; }, kIdleControllerTimeout + 2s));
  EXPECT_FALSE(event->answer().answered());
  EXPECT_EQ(target->controller_count(), 1u);
  loop.run_for(5s);
  EXPECT_EQ(target->controller_count(), 0u);
  EXPECT_EQ(target->connection_count(), 0u);
}

TEST_F(AssociationTest, FlushesTheDisksBeforeItIsShutDown) {
  TestHost& h = host();
  h.bring_up_io();
  ASSERT_TRUE(h.write(0, Bytes(512)).ok());
  int syncs = 0;
  loop.file_fault = [&](const std::string&, const transport::FileOp& op) {
    syncs += op.kind == transport::FileOp::Kind::sync ? 1 : 0;
    return 0;
  };
  loop.file_latency = 1s;
  auto cc = TestHost::enabled();
  cc.shn = nvme::kShnNormal;
  ASSERT_TRUE(h.set_cc(cc).ok());
  EXPECT_EQ(h.csts().shst, nvme::kShstInProgress);
  EXPECT_EQ(syncs, 0);
  loop.run_for(2s);
  EXPECT_EQ(h.csts().shst, nvme::kShstComplete);
  EXPECT_EQ(syncs, 1);
  EXPECT_EQ(h.admin().send(nvme::keep_alive()).code(), code_of(StatusCode::command_sequence_error));
  EXPECT_EQ(target->find(kSubsystemNqn)->counters.unsafe_shutdowns, 0u);
}

// A host reads CSTS before it closes its queues: it must not see a loss before that.
TEST_F(AssociationTest, KeepsIoConnectionsWhileItIsShutDown) {
  TestHost& h = host();
  h.bring_up_io();
  auto cc = TestHost::enabled();
  cc.shn = nvme::kShnNormal;
  ASSERT_TRUE(h.set_cc(cc).ok());
  EXPECT_EQ(h.csts().shst, nvme::kShstComplete);
  EXPECT_FALSE(h.io().ended());
  const Answer refused = h.write(0, Bytes(512));
  EXPECT_EQ(refused.code(), code_of(StatusCode::command_sequence_error));
  loop.run_for(kShutdownGrace - 1s);
  EXPECT_FALSE(h.io().ended());
  loop.run_for(2s);
  EXPECT_TRUE(h.io().ended());
  EXPECT_FALSE(h.admin().ended());
  EXPECT_EQ(target->find(kSubsystemNqn)->counters.unsafe_shutdowns, 0u);
}

TEST_F(AssociationTest, IsNotShutDownBeforeTheDiskIsDone) {
  TestHost& h = host();
  h.bring_up_io();
  const Bytes data = random_bytes(4096, 1);
  loop.file_latency = 3s;
  auto write = h.io().start(nvme::write_command(1, 0, 8), data);
  loop.run_for(1ms);
  // This one's data is still on its way, and comes behind the shutdown: it is not executed.
  auto transfer = h.io().start(nvme::write_command(2, 0, 2048), Bytes(1 << 20, std::byte{1}));
  for (const auto& link : loop.links()) {
    if (link->id == 2) link->options.latency = 1s;  // the I/O queue: capsule, R2T, data
  }
  loop.run_for(1s);
  loop.file_latency = {};  // the flush takes no time
  auto cc = TestHost::enabled();
  cc.shn = nvme::kShnNormal;
  ASSERT_TRUE(h.set_cc(cc).ok());
  loop.run_for(500ms);
  EXPECT_EQ(h.csts().shst, nvme::kShstInProgress);
  EXPECT_NE(loop.file_bytes("disk.img")[0], data[0]);
  loop.run_for(2s);
  EXPECT_EQ(h.csts().shst, nvme::kShstComplete);
  EXPECT_EQ(loop.file_bytes("disk.img")[0], data[0]);
  loop.run_for(1s);
  EXPECT_FALSE(transfer->answer().ok());
  TestHost& next = host();
  next.bring_up_io();
  EXPECT_EQ(next.read(0, 1, 512, 2).data, Bytes(512));
}

TEST_F(AssociationTest, LetsAShutDownControllerBeReadFor2Minutes) {
  TestHost& h = host();
  h.bring_up();
  auto cc = TestHost::enabled();
  cc.shn = nvme::kShnAbrupt;
  ASSERT_TRUE(h.set_cc(cc).ok());
  loop.run_for(60s);
  EXPECT_EQ(h.csts().shst, nvme::kShstComplete);
  loop.run_for(130s);
  loop.run_for(130s);
  EXPECT_TRUE(h.admin().ended());
  EXPECT_EQ(target->controller_count(), 0u);
}

TEST_F(AssociationTest, EndsWhenKeepAliveExpires) {
  TestHost& h = host({.kato_ms = 1000});
  h.bring_up_io();
  ASSERT_TRUE(h.connect_io(2).ok());
  loop.run_for(900ms);
  EXPECT_FALSE(h.admin().ended());
  loop.run_for(1200ms);
  EXPECT_TRUE(h.admin().ended());
  EXPECT_TRUE(h.io(1).ended());
  EXPECT_TRUE(h.io(2).ended());
  EXPECT_EQ(target->controller_count(), 0u);
  EXPECT_EQ(target->connection_count(), 0u);
  EXPECT_EQ(target->find(kSubsystemNqn)->counters.unsafe_shutdowns, 1u);
}

TEST_F(AssociationTest, IsKeptAliveByKeepAliveAndByTraffic) {
  TestHost& h = host({.kato_ms = 1000});
  h.bring_up_io();
  for (int i = 0; i < 10; ++i) {
    loop.run_for(700ms);
    ASSERT_TRUE(h.admin().send(nvme::keep_alive()).ok());
  }
  // CTRATT.TBKAS: commands on an I/O queue count.
  for (int i = 0; i < 10; ++i) {
    loop.run_for(700ms);
    ASSERT_TRUE(h.read(0, 1).ok());
  }
  EXPECT_FALSE(h.admin().ended());
  // Set Features changes the time, 0 ends the watch.
  ASSERT_TRUE(h.admin().send(nvme::set_keep_alive(0)).ok());
  loop.run_for(100s);
  EXPECT_FALSE(h.admin().ended());
  ASSERT_TRUE(h.admin().send(nvme::set_keep_alive(500)).ok());
  loop.run_for(1100ms);
  EXPECT_TRUE(h.admin().ended());
}

TEST_F(AssociationTest, EndsWithoutKeepAliveTimeoutOnlyWhenTold) {
  TestHost& h = host();
  h.bring_up_io();
  loop.run_for(std::chrono::hours(1));
  EXPECT_TRUE(h.read(0, 1).ok());
}

TEST_F(AssociationTest, EndsWithItsAdminConnection) {
  TestHost& h = host();
  h.bring_up_io();
  ASSERT_TRUE(h.connect_io(2).ok());
  h.admin().end();
  ASSERT_TRUE(loop.run_until([&] { return h.io(1).ended() && h.io(2).ended(); }, 1s));
  loop.run_for(1s);
  EXPECT_EQ(target->controller_count(), 0u);
}

TEST_F(AssociationTest, EndsAfterAnIoConnectionIsLost) {
  TestHost& h = host();
  h.bring_up_io();
  ASSERT_TRUE(h.connect_io(2).ok());
  h.io(1).end();
  loop.run_for(1s);
  EXPECT_FALSE(h.admin().ended());
  loop.run_for(2s);
  EXPECT_TRUE(h.admin().ended());
  EXPECT_TRUE(h.io(2).ended());
}

// What Linux does: I/O connections first, then the shutdown over the admin queue.
TEST_F(AssociationTest, CanBeShutDownAfterItsIoConnectionsAreGone) {
  TestHost& h = host();
  h.bring_up_io();
  h.io(1).finish();
  loop.run_for(1s);
  auto cc = TestHost::enabled();
  cc.shn = nvme::kShnNormal;
  ASSERT_TRUE(h.set_cc(cc).ok());
  EXPECT_EQ(h.csts().shst, nvme::kShstComplete);
  loop.run_for(10s);
  EXPECT_FALSE(h.admin().ended());
}

TEST_F(AssociationTest, OutlivesQueuesWhereTheHostDeletesThemOneByOne) {
  TestHost& h = host({.cattr = 1u << 3});
  h.bring_up_io();
  ASSERT_TRUE(h.connect_io(2).ok());
  h.io(1).end();
  loop.run_for(10s);
  EXPECT_FALSE(h.admin().ended());
  EXPECT_TRUE(h.io(2).send(nvme::flush_command(2)).ok());
  ASSERT_TRUE(h.connect_io(1).ok());
  // Disconnect ends a queue in order.
  const Answer disconnected = h.io(2).send(nvme::disconnect_command());
  EXPECT_TRUE(disconnected.ok()) << nvme::describe(disconnected.status,
                                                   nvme::StatusContext::fabrics);
  EXPECT_EQ(h.io(2).send(nvme::flush_command(1)).code(), code_of(StatusCode::aborted_sq_deletion));
  EXPECT_TRUE(loop.run_until([&] { return h.io(2).ended(); }, 10s));
  EXPECT_TRUE(h.read(0, 1).ok());
}

TEST_F(AssociationTest, KeepsAQueueNumberUntilItsDiskIsDone) {
  TestHost& h = host({.cattr = 1u << 3});
  h.bring_up_io();
  loop.file_latency = 5s;
  auto write = h.io().start(nvme::write_command(1, 0, 8), Bytes(4096));
  loop.run_for(1s);
  h.io().end();
  loop.run_for(1s);
  const Answer early = h.connect_io(1);
  EXPECT_EQ(early.code(), code_of(StatusCode::command_sequence_error));
  EXPECT_FALSE(early.status.dnr);
  loop.run_for(5s);
  EXPECT_TRUE(h.connect_io(1).ok());
}

TEST_F(AssociationTest, SurvivesAWholeNetworkOfLosses) {
  for (int round = 0; round < 20; ++round) {
    TestHost& h = host();
    h.bring_up_io();
    loop.file_latency = 50ms;
    std::vector<std::shared_ptr<Pending>> commands;
    for (std::uint32_t i = 0; i < 20; ++i) {
      commands.push_back(h.io().start(nvme::write_command(1 + i % 2, i, 100), Bytes(51200)));
    }
    loop.run_for(std::chrono::milliseconds(7 * round));
    for (const auto& link : loop.links()) {
      if (round % 3 == 0) {
        link->cut();
      } else if (round % 3 == 1) {
        link->vanish(sim::Side::client);
      } else {
        h.admin().end();
      }
    }
    loop.run_for(5s);
    for (const auto& command : commands) EXPECT_TRUE(command->done) << round;
    loop.file_latency = {};
    h.drop_all();
  }
  loop.run_for(kIdleControllerTimeout);
}

TEST_F(AssociationTest, StopsInBoundedTimeWithCommandsUnderWay) {
  TestHost& h = host();
  h.bring_up_io();
  loop.file_latency = 2s;
  auto write = h.io().start(nvme::write_command(1, 0, 8), Bytes(4096));
  loop.run_for(100ms);
  stop();
  EXPECT_EQ(write->delivery, transport::Delivery::unanswered);
}

}  // namespace
}  // namespace nvmf::controller
