// What controllers have said at bring-up that broke hosts; the other half is in bring_up_test and
// association_test. tests/README.md says which case is where.

#include <gmock/gmock.h>

#include "host/fixture.h"
#include "sim/byte_user.h"

namespace nvmf::test {
namespace {

using host::BlockOp;
using nvme::AdminOpcode;
using nvme::NvmOpcode;
using nvme::StatusCode;
using testing::AllOf;
using testing::HasSubstr;
using transport::ControllerCommand;

class ControlCases : public HostTest {
 protected:
  ControlCases() { target.add_namespace(1, 65536); }  // 32 MiB

  static bool is_admin(const FakeTarget::Connection& at, const ControllerCommand& c,
                       AdminOpcode opcode) {
    return at.qid == 0 && !c.sqe.is_fabrics() && c.sqe.opcode == static_cast<std::uint8_t>(opcode);
  }
  static bool is_connect(const ControllerCommand& c, std::uint16_t qid) {
    return c.sqe.is_fabrics() && c.sqe.fabrics_type() == nvme::FabricsType::connect &&
           nvme::ConnectCommand::from_sqe(c.sqe).qid == qid;
  }
  /// Writes `bytes` and reads them back; how many Write commands it took.
  std::size_t write_and_read(std::uint64_t bytes) {
    const std::size_t before = target.io_commands(NvmOpcode::write).size();
    std::vector<std::byte> data = sim::pattern(bytes, bytes);
    Request write;
    write.op = BlockOp::write;
    write.length_bytes = bytes;
    write.data = data.data();
    EXPECT_EQ(run(write), 0);
    std::vector<std::byte> back(bytes);
    Request read;
    read.length_bytes = bytes;
    read.data = back.data();
    EXPECT_EQ(run(read), 0);
    EXPECT_EQ(back, data);
    return target.io_commands(NvmOpcode::write).size() - before;
  }
};

TEST_F(ControlCases, MdtsZeroMeansNoLimit) {
  target.id.mdts = 0;
  ASSERT_TRUE(go_live()) << outcome.ended->message;
  // As much in one command as is good for anything: 1 MiB.
  EXPECT_EQ(write_and_read(4 << 20), 4u);
  for (const SeenCommand& c : target.io_commands(NvmOpcode::write)) {
    EXPECT_EQ(c.sqe.blocks(), 2048u);
  }
}

TEST_F(ControlCases, TinyMdtsIsObeyed) {
  target.id.mdts = 1;  // two pages of 4 KiB
  ASSERT_TRUE(go_live()) << outcome.ended->message;
  EXPECT_EQ(write_and_read(100 * 1024), 13u);
  for (const SeenCommand& c : target.io_commands(NvmOpcode::write)) {
    EXPECT_LE(c.sqe.blocks(), 16u);
  }
}

TEST_F(ControlCases, SmallestCapsuleTakesNoData) {
  target.id.ioccsz = 4;  // an SQE and nothing else
  ASSERT_TRUE(go_live()) << outcome.ended->message;
  EXPECT_EQ(write_and_read(512), 1u);
  EXPECT_EQ(target.io_commands(NvmOpcode::write).back().sqe.sgl.type, nvme::kSglTransportDataBlock);
  // Connect's own data is in the capsule all the same.
  for (const SeenCommand& c : target.seen) {
    if (!c.sqe.is_fabrics() || c.sqe.fabrics_type() != nvme::FabricsType::connect) continue;
    EXPECT_EQ(c.sqe.sgl.type, nvme::kSglDataBlockOffset);
  }
}

TEST_F(ControlCases, CapsuleTooSmallForACommandIsRefused) {
  for (const std::uint32_t ioccsz : {0u, 3u}) {
    target.id.ioccsz = ioccsz;
    subsystem.reset();
    outcome = {};
    EXPECT_THAT(failure(), HasSubstr("IOCCSZ " + std::to_string(ioccsz)));
  }
}

TEST_F(ControlCases, DoNotRetryIsFinalAtTheFirstConnect) {
  for (const std::uint16_t qid : {std::uint16_t{0}, std::uint16_t{1}}) {
    target.intercept = [=](FakeTarget::Connection& at, ControllerCommand& c) {
      if (!is_connect(c, qid)) return false;
      at.respond(c, {StatusCode::connect_invalid_host, true});
      return true;
    };
    const std::size_t before = target.accepted;
    subsystem.reset();
    outcome = {};
    EXPECT_THAT(failure(seconds(2)), HasSubstr("does not allow the host NQN"));
    loop.run_for(seconds(60));
    // The I/O queues are opened side by side.
    EXPECT_LE(target.accepted - before, qid == 0 ? 1u : 3u) << "it came back";
  }
}

TEST_F(ControlCases, WrongHostNqnIsRefusedWithItsPlace) {
  target.intercept = [](FakeTarget::Connection& at, ControllerCommand& c) {
    if (!is_connect(c, 0)) return false;
    const nvme::ConnectInvalidParameter where{.in_data = true, .offset = nvme::kConnectDataHostnqn};
    at.respond(c, {StatusCode::connect_invalid_parameters, true}, where.encode());
    return true;
  };
  EXPECT_THAT(failure(), AllOf(HasSubstr("HOSTNQN"), HasSubstr("byte 512"),
                               HasSubstr(params.hostnqn), HasSubstr("--hostnqn")));
  EXPECT_EQ(outcome.ended->code, EACCES);
}

TEST_F(ControlCases, OneQueueGrantedOfMany) {
  params.nr_io_queues = 8;
  target.queues_granted = 1;
  ASSERT_TRUE(go_live(4)) << outcome.ended->message;
  EXPECT_EQ(subsystem->reactors(), 1u);
  EXPECT_EQ(target.open_connections(), 2u);
  EXPECT_EQ(write_and_read(65536), 1u);
}

TEST_F(ControlCases, NamespacesBeyond1024AreServed) {
  target.namespaces.clear();
  for (std::uint32_t n = 1; n <= 1025; ++n) target.add_namespace(n, 64);
  ASSERT_TRUE(go_live()) << outcome.ended->message;
  ASSERT_EQ(subsystem->namespaces().size(), 1025u);
  std::vector<std::byte> data(512, std::byte{7});
  Request write;
  write.op = BlockOp::write;
  write.length_bytes = 512;
  write.data = data.data();
  EXPECT_EQ(run(write, 1025), 0);
  EXPECT_EQ(target.namespaces.at(1025).bytes[0], std::byte{7});
  EXPECT_EQ(target.namespaces.at(1024).bytes[0], std::byte{0});
}

TEST_F(ControlCases, KeepAliveLateUnderLoadIsNoLoss) {
  ASSERT_TRUE(go_live());
  // A controller that is busy: nothing of I/O comes back for 12 s, each Keep Alive comes back 3 s
  // late, the timeout being 5.
  std::vector<std::unique_ptr<transport::Timer>> timers;
  std::vector<std::pair<FakeTarget::Connection*, ControllerCommand*>> held;
  std::size_t late = 0;
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    if (at.qid != 0 && !c.sqe.is_fabrics()) {
      held.emplace_back(&at, &c);
      return true;
    }
    if (!is_admin(at, c, AdminOpcode::keep_alive)) return false;
    timers.push_back(std::make_unique<transport::Timer>(loop.timers(), [&at, &c, &late] {
      ++late;
      at.respond(c, {});
    }));
    timers.back()->arm(loop.now() + seconds(3));
    return true;
  };
  std::vector<Request> requests(200);  // more than the queues hold
  for (Request& r : requests) {
    r.op = BlockOp::flush;
    subsystem->device(0, 1)->submit(r);
  }
  loop.run_for(seconds(12));
  ASSERT_EQ(outcome.ended, std::nullopt) << outcome.ended->message;
  EXPECT_GE(late, 2u);
  EXPECT_GT(held.size(), 10u);
  target.intercept = nullptr;
  for (const auto& [at, c] : held) at->respond(*c, {});
  ASSERT_TRUE(loop.run_until(
      [&] { return std::ranges::all_of(requests, [](const Request& r) { return r.done(); }); },
      seconds(30)));
  for (const Request& r : requests) EXPECT_EQ(r.error, 0);
}

}  // namespace
}  // namespace nvmf::test
