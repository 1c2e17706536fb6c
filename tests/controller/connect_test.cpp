// Connect: every parameter checked, and what a refusal says.
#include "controller/test_host.h"

namespace nvmf::controller {
namespace {

using nvme::ConnectInvalidParameter;
using nvme::StatusCode;

class ConnectTest : public ControllerTest {
 protected:
  void SetUp() override {
    TargetConfig config = one_subsystem({memory(1 << 20)});
    config.subsystems.push_back(
        {"nqn.2026-01.org.example:private", {memory(1 << 20)}, {kHostNqn}, {}});
    config.max_queues = 2;
    config.queue_entries = 64;
    start(std::move(config));
  }
  /// A Connect on a connection of its own.
  Answer attempt(TestHost& one, nvme::ConnectCommand command, const nvme::ConnectData& data) {
    TestQueue queue(loop, at, command.qid);
    return one.connect(queue, command, data);
  }
  static void expect_invalid(const Answer& answer, bool in_data, std::uint16_t offset) {
    EXPECT_EQ(answer.code(), code_of(StatusCode::connect_invalid_parameters));
    EXPECT_TRUE(answer.status.dnr);
    const auto where = ConnectInvalidParameter::decode(answer.result);
    EXPECT_EQ(where.in_data, in_data);
    EXPECT_EQ(where.offset, offset);
  }
};

TEST_F(ConnectTest, GivesEachHostAControllerOfItsOwn) {
  TestHost& a = host();
  TestHost& b = host({.hostid = host_id(2)});
  ASSERT_TRUE(a.connect_admin().ok());
  ASSERT_TRUE(b.connect_admin().ok());
  EXPECT_NE(a.cntlid(), b.cntlid());
  EXPECT_GE(a.cntlid(), 1);
  EXPECT_LE(b.cntlid(), kCntlidMax);
  EXPECT_EQ(target->controller_count(), 2u);
}

TEST_F(ConnectTest, RefusesWrongParametersAndNamesThem) {
  TestHost& h = host();
  const auto good_command = h.connect_command(0);
  const auto good_data = h.connect_data();

  auto command = good_command;
  command.recfmt = 1;
  EXPECT_EQ(attempt(h, command, good_data).code(),
            code_of(StatusCode::connect_incompatible_format));
  command = good_command;
  command.queue_entries = 1;  // SQSIZE 0
  expect_invalid(attempt(h, command, good_data), false, nvme::kConnectSqeSqsize);
  command.queue_entries = kAdminQueueEntriesMax + 1;
  expect_invalid(attempt(h, command, good_data), false, nvme::kConnectSqeSqsize);

  auto data = good_data;
  data.cntlid = 5;
  expect_invalid(attempt(h, good_command, data), true, nvme::kConnectDataCntlid);
  data = good_data;
  data.hostid = {};
  expect_invalid(attempt(h, good_command, data), true, nvme::kConnectDataHostid);
  data = good_data;
  data.subnqn = "nqn.2026-01.org.example:nowhere";
  expect_invalid(attempt(h, good_command, data), true, nvme::kConnectDataSubnqn);
  data = good_data;
  data.hostnqn = "";
  expect_invalid(attempt(h, good_command, data), true, nvme::kConnectDataHostnqn);
  data = good_data;
  data.subnqn = "bad\tname";
  expect_invalid(attempt(h, good_command, data), true, nvme::kConnectDataSubnqn);
  EXPECT_EQ(target->controller_count(), 0u);
}

TEST_F(ConnectTest, RefusesNamesThatDoNotEnd) {
  TestHost& h = host();
  Bytes data(nvme::kConnectDataBytes);
  h.connect_data().encode(std::span<std::byte, nvme::kConnectDataBytes>(data));
  std::fill(data.begin() + 512, data.begin() + 768, std::byte{'x'});
  TestQueue queue(loop, at, 0);
  expect_invalid(queue.send(h.connect_command(0).to_sqe(), data), true, nvme::kConnectDataHostnqn);
}

TEST_F(ConnectTest, RefusesDataOfAnotherLength) {
  TestQueue queue(loop, at, 0);
  EXPECT_EQ(queue.send(host().connect_command(0).to_sqe(), Bytes(512)).code(),
            code_of(StatusCode::data_sgl_length_invalid));
}

TEST_F(ConnectTest, KeepsHostsThatAreNotAllowedOut) {
  TestHost& stranger = host(
      {.subnqn = "nqn.2026-01.org.example:private", .hostnqn = "nqn.2026-01.org.example:stranger"});
  const Answer refused = stranger.connect_admin();
  EXPECT_EQ(refused.code(), code_of(StatusCode::connect_invalid_host));
  EXPECT_TRUE(refused.status.dnr);
  TestHost& friendly = host({.subnqn = "nqn.2026-01.org.example:private"});
  EXPECT_TRUE(friendly.connect_admin().ok());
}

TEST_F(ConnectTest, TakesNothingButConnectFirst) {
  TestQueue queue(loop, at, 0);
  EXPECT_EQ(queue.send(nvme::keep_alive()).code(), code_of(StatusCode::command_sequence_error));
  EXPECT_EQ(queue.send(nvme::property_get(nvme::Property::cap)).code(),
            code_of(StatusCode::command_sequence_error));
  // A refused command does not spoil the connection.
  TestHost& h = host();
  EXPECT_TRUE(h.connect(queue, h.connect_command(0), h.connect_data()).ok());
  EXPECT_EQ(h.connect(queue, h.connect_command(0), h.connect_data()).code(),
            code_of(StatusCode::command_sequence_error));
}

TEST_F(ConnectTest, MakesIoQueuesOfAnEnabledControllerOnly) {
  TestHost& h = host();
  ASSERT_TRUE(h.connect_admin().ok());
  EXPECT_EQ(h.connect_io(1).code(), code_of(StatusCode::command_sequence_error));
  ASSERT_TRUE(h.set_cc(TestHost::enabled()).ok());
  EXPECT_TRUE(h.connect_io(1).ok());
}

TEST_F(ConnectTest, ChecksIoQueues) {
  TestHost& h = host();
  h.bring_up();
  const auto good_command = h.connect_command(1);
  const auto good_data = h.connect_data();
  auto command = good_command;
  command.qid = 3;  // of 2
  expect_invalid(attempt(h, command, good_data), false, nvme::kConnectSqeQid);
  command = good_command;
  command.queue_entries = 65;  // MQES + 2
  expect_invalid(attempt(h, command, good_data), false, nvme::kConnectSqeSqsize);
  auto data = good_data;
  data.cntlid = static_cast<std::uint16_t>(h.cntlid() + 1);
  expect_invalid(attempt(h, good_command, data), true, nvme::kConnectDataCntlid);
  data = good_data;
  data.hostnqn = "nqn.2026-01.org.example:other";
  expect_invalid(attempt(h, good_command, data), true, nvme::kConnectDataHostnqn);
  data = good_data;
  data.hostid = host_id(9);
  expect_invalid(attempt(h, good_command, data), true, nvme::kConnectDataHostid);
  data = good_data;
  data.subnqn = "nqn.2026-01.org.example:private";
  expect_invalid(attempt(h, good_command, data), true, nvme::kConnectDataCntlid);

  ASSERT_TRUE(h.connect_io(1).ok());
  EXPECT_EQ(attempt(h, good_command, good_data).code(),
            code_of(StatusCode::command_sequence_error));
  ASSERT_TRUE(h.connect_io(2).ok());
  EXPECT_TRUE(h.admin().send(nvme::keep_alive()).ok());
}

TEST_F(ConnectTest, GrantsAsManyQueuesAsItHas) {
  TestHost& h = host();
  h.bring_up();
  const Answer granted = h.admin().send(nvme::set_queue_count(16));
  ASSERT_TRUE(granted.ok());
  EXPECT_EQ(nvme::QueueCount::decode(granted.dw0()), (nvme::QueueCount{2, 2}));
  ASSERT_TRUE(h.admin().send(nvme::set_queue_count(1)).ok());
  expect_invalid(h.connect_io(2), false, nvme::kConnectSqeQid);
  ASSERT_TRUE(h.connect_io(1).ok());
  EXPECT_EQ(h.admin().send(nvme::set_queue_count(2)).code(),
            code_of(StatusCode::command_sequence_error));
}

TEST_F(ConnectTest, DropsConnectionsThatDoNotConnect) {
  TestQueue idle(loop, at, 0);
  ASSERT_TRUE(idle.ready());
  EXPECT_EQ(target->connection_count(), 1u);
  loop.run_for(kHandshakeTimeout + 1s);
  EXPECT_TRUE(idle.ended());
  EXPECT_EQ(target->connection_count(), 0u);
}

TEST_F(ConnectTest, KeepsConnectFailuresOutOfTheErrorLog) {
  TestHost& h = host();
  h.bring_up();
  auto data = h.connect_data();
  data.cntlid = 77;
  attempt(h, h.connect_command(1), data);
  EXPECT_EQ(h.connect(h.admin(), h.connect_command(0), h.connect_data()).code(),
            code_of(StatusCode::command_sequence_error));
  EXPECT_EQ(h.smart().num_err_log_entries.low, 0u);
}

TEST_F(ConnectTest, TurnsSqFlowControlOffOnRequest) {
  TestHost& h = host({.cattr = nvme::kCattrDisableSqFlowControl});
  h.bring_up_io();
  const Bytes data = random_bytes(512, 3);
  ASSERT_TRUE(h.write(7, data).ok());
  // Now the reads end with SUCCESS instead of a response.
  const Answer back = h.read(7, 1);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back.data, data);
}

}  // namespace
}  // namespace nvmf::controller
