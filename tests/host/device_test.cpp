// Requests become commands: splitting, limits, errors, and the ends of a connection.

#include <gmock/gmock.h>

#include <set>

#include "host/fixture.h"
#include "nvme/endian.h"
#include "sim/alloc_count.h"
#include "sim/byte_user.h"

namespace nvmf::test {
namespace {

using host::BlockOp;
using nvme::NvmOpcode;
using nvme::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using transport::ControllerCommand;

constexpr std::uint64_t kMiB = 1 << 20;

class Device : public HostTest {
 protected:
  Device() { target.add_namespace(1, 65536); }  // 32 MiB

  static Request request(BlockOp op, std::uint64_t offset, std::uint64_t length,
                         std::byte* data = nullptr) {
    Request r;
    r.op = op;
    r.offset_bytes = offset;
    r.length_bytes = length;
    r.data = data;
    return r;
  }
  int run_op(BlockOp op, std::uint64_t offset, std::uint64_t length, bool fua = false) {
    Request r = request(op, offset, length);
    r.fua = fua;
    return run(r);
  }
  void answer_io(NvmOpcode opcode, StatusCode code) {
    target.intercept = [=](FakeTarget::Connection& at, ControllerCommand& c) {
      if (at.qid == 0 || c.sqe.is_fabrics() || c.sqe.opcode != static_cast<std::uint8_t>(opcode)) {
        return false;
      }
      at.respond(c, {code, true});
      return true;
    };
  }
  /// I/O commands are never answered.
  void hold_io() {
    target.intercept = [this](FakeTarget::Connection& at, ControllerCommand& c) {
      if (at.qid == 0 || c.sqe.is_fabrics()) return false;
      ++held;
      return true;
    };
  }
  int held = 0;
};

TEST_F(Device, WritesAndReadsBack) {
  ASSERT_TRUE(go_live());
  std::vector<std::byte> out = sim::pattern(5 * kMiB, 1);
  std::vector<std::byte> in(out.size());
  Request w = request(BlockOp::write, 1024, out.size(), out.data());
  EXPECT_EQ(run(w), 0);
  Request r = request(BlockOp::read, 1024, in.size(), in.data());
  EXPECT_EQ(run(r), 0);
  EXPECT_TRUE(in == out);
  const host::ConnectionStatistics stats = subsystem->statistics();
  ASSERT_EQ(stats.queues.size(), 3u);
  EXPECT_EQ(stats.queues[1].written_bytes + stats.queues[2].written_bytes, out.size());
  EXPECT_EQ(stats.queues[1].read_bytes + stats.queues[2].read_bytes, in.size());
  EXPECT_EQ(stats.queues[1].errors + stats.queues[2].errors, 0u);
}

TEST_F(Device, SplitsByMdtsWithFuaOnEveryPart) {
  target.id.mdts = 5;  // 128 KiB
  ASSERT_TRUE(go_live());
  std::vector<std::byte> out = sim::pattern(300 * 1024, 2);
  Request w = request(BlockOp::write, 0, out.size(), out.data());
  w.fua = true;
  EXPECT_EQ(run(w), 0);
  std::vector<std::uint32_t> blocks;
  for (const SeenCommand& s : target.io_commands(NvmOpcode::write)) {
    blocks.push_back(s.sqe.blocks());
    EXPECT_NE(s.sqe.cdw12 & nvme::kCdw12Fua, 0u);
  }
  EXPECT_THAT(blocks, testing::UnorderedElementsAre(256u, 256u, 88u));
  EXPECT_TRUE(std::equal(out.begin(), out.end(), target.namespaces[1].bytes.begin()));
}

TEST_F(Device, MoreRequestsThanSlotsWait) {
  params.queue_size = 16;
  params.nr_io_queues = 1;
  ASSERT_TRUE(go_live());
  std::vector<std::byte> data = sim::pattern(512, 3);
  std::vector<Request> requests(500);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    requests[i] = request(BlockOp::write, 512 * i, 512, data.data());
    subsystem->device(0, 1)->submit(requests[i]);
  }
  loop.run_for(seconds(1));
  for (const Request& r : requests) EXPECT_TRUE(r.done() && r.error == 0);
}

TEST_F(Device, NamespacesTakeTurns) {
  target.add_namespace(2, 65536);
  target.id.mdts = 1;
  params.queue_size = 16;
  params.nr_io_queues = 1;
  ASSERT_TRUE(go_live());
  std::vector<std::byte> data(4 * kMiB);
  Request large = request(BlockOp::read, 0, data.size(), data.data());
  Request small = request(BlockOp::read, 0, 512, data.data());
  std::size_t before = 0;
  small.complete = [](host::BlockRequest& r) { ++static_cast<Request&>(r).completions; };
  subsystem->device(0, 1)->submit(large);
  subsystem->device(0, 2)->submit(small);
  loop.run_until([&] { return small.done(); }, seconds(10));
  before = target.io_commands(NvmOpcode::read).size();
  EXPECT_LT(before, 64u) << "of 512 parts";
  EXPECT_FALSE(large.done());
  loop.run_until([&] { return large.done(); }, seconds(10));
}

TEST_F(Device, RefusesWhatIsOutOfRange) {
  ASSERT_TRUE(go_live());
  std::vector<std::byte> data(4096);
  const std::uint64_t size = 32 * kMiB;
  const struct {
    BlockOp op;
    std::uint64_t offset, length;
    int error;
  } cases[] = {
      {BlockOp::read, size, 512, EINVAL},
      {BlockOp::write, size, 512, ENOSPC},
      {BlockOp::write, size - 512, 1024, ENOSPC},
      {BlockOp::write_zeroes, size, 512, ENOSPC},
      {BlockOp::deallocate, size, 512, EINVAL},
      {BlockOp::read, ~0ull - 511, 1024, EINVAL},
      {BlockOp::read, 512, ~0ull - 511, EINVAL},
      {BlockOp::read, size - 1, 2, EINVAL},
      {BlockOp::write, size - 1, 2, ENOSPC},
      {BlockOp::write_zeroes, size - 511, 512, ENOSPC},
      {BlockOp::read, 0, size + 1, EINVAL},
      {BlockOp::read, ~0ull, 1, EINVAL},
      {BlockOp::read, 1, 0, 0},
      {BlockOp::write_zeroes, 1, 0, 0},
      {BlockOp::deallocate, 1, 0, 0},
      {BlockOp::read, 0, 0, 0},
      {BlockOp::write, size, 0, 0},
  };
  for (const auto& c : cases) {
    Request r = request(c.op, c.offset, c.length, data.data());
    EXPECT_EQ(run(r), c.error) << static_cast<int>(c.op) << " " << c.offset << " " << c.length;
  }
  EXPECT_EQ(target.io_commands(NvmOpcode::read).size(), 0u);
}

TEST_F(Device, ReadOnlyConnection) {
  params.read_only = true;
  ASSERT_TRUE(go_live());
  std::vector<std::byte> data(512);
  Request w = request(BlockOp::write, 0, 512, data.data());
  EXPECT_EQ(run(w), EPERM);
  EXPECT_EQ(run_op(BlockOp::write_zeroes, 0, 512), EPERM);
  EXPECT_EQ(run_op(BlockOp::deallocate, 0, 512), EPERM);
  EXPECT_EQ(run_op(BlockOp::flush, 0, 0), 0);
}

TEST_F(Device, EachFlushIsACommandOfItsOwn) {
  ASSERT_TRUE(go_live());
  std::vector<Request> flushes(5);
  for (Request& f : flushes) {
    f = request(BlockOp::flush, 0, 0);
    subsystem->device(0, 1)->submit(f);
  }
  loop.run_for(seconds(1));
  const auto seen = target.io_commands(NvmOpcode::flush);
  ASSERT_EQ(seen.size(), 5u);
  for (const SeenCommand& s : seen) EXPECT_EQ(s.sqe.nsid, 1u);
}

TEST_F(Device, WriteZeroesDeallocatesOnlyWhereItReadsAsZero) {
  target.namespaces[1].id.dlfeat = nvme::kDlfeatWriteZeroesDeac | nvme::kDlfeatReadsZero;
  target.add_namespace(2, 100).id.dlfeat = nvme::kDlfeatWriteZeroesDeac | nvme::kDlfeatReadsOnes;
  target.add_namespace(3, 100).id.dlfeat = nvme::kDlfeatReadsZero;
  ASSERT_TRUE(go_live());
  std::vector<bool> deac;
  for (const std::uint32_t nsid : {1u, 2u, 3u}) {
    for (const bool no_hole : {false, true}) {
      Request r = request(BlockOp::write_zeroes, 0, 512);
      r.no_hole = no_hole;
      EXPECT_EQ(run(r, nsid), 0);
    }
  }
  for (const SeenCommand& s : target.io_commands(NvmOpcode::write_zeroes)) {
    deac.push_back((s.sqe.cdw12 & nvme::kCdw12Deac) != 0);
  }
  EXPECT_THAT(deac, ElementsAre(true, false, false, false, false, false));
}

TEST_F(Device, WriteZeroesSplitsByWzsl) {
  target.nvm.emplace().wzsl = 4;  // 64 KiB
  ASSERT_TRUE(go_live());
  EXPECT_EQ(run_op(BlockOp::write_zeroes, 0, 160 * 1024, true), 0);
  std::vector<std::uint32_t> blocks;
  for (const SeenCommand& s : target.io_commands(NvmOpcode::write_zeroes)) {
    blocks.push_back(s.sqe.blocks());
    EXPECT_NE(s.sqe.cdw12 & nvme::kCdw12Fua, 0u);
  }
  EXPECT_THAT(blocks, testing::UnorderedElementsAre(128u, 128u, 64u));
}

TEST_F(Device, WithoutWriteZeroesZeroesAreWrittenUnlessThatIsTooSlow) {
  target.id.oncs = 0;
  ASSERT_TRUE(go_live());
  std::ranges::fill(target.namespaces[1].bytes, std::byte{0xff});
  Request fast = request(BlockOp::write_zeroes, 0, kMiB);
  fast.fast_only = true;
  EXPECT_EQ(run(fast), ENOTSUP);
  EXPECT_EQ(run_op(BlockOp::write_zeroes, 512, kMiB), 0);
  const auto& bytes = target.namespaces[1].bytes;
  EXPECT_EQ(bytes[511], std::byte{0xff});
  EXPECT_TRUE(std::all_of(bytes.begin() + 512, bytes.begin() + 512 + kMiB,
                          [](std::byte b) { return b == std::byte{0}; }));
  EXPECT_EQ(bytes[512 + kMiB], std::byte{0xff});
  EXPECT_EQ(run_op(BlockOp::deallocate, 0, 4096), ENOTSUP);
}

TEST_F(Device, DeallocateRoundsInward) {
  ASSERT_TRUE(go_live());
  EXPECT_EQ(run_op(BlockOp::deallocate, 100, 511), 0);   // no whole block
  EXPECT_EQ(run_op(BlockOp::deallocate, 100, 2000), 0);  // blocks 1 to 3
  const auto seen = target.io_commands(NvmOpcode::dataset_management);
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_EQ(seen[0].sqe.cdw11, nvme::kCdw11DsmDeallocate);
  EXPECT_THAT(nvme::decode_dsm_ranges(seen[0].data),
              ElementsAre(nvme::DsmRange{.attributes = 0, .blocks = 3, .lba = 1}));
}

TEST_F(Device, DeallocateInRangesByTheControllersLimits) {
  auto& nvm = target.nvm.emplace();
  nvm.dmrsl = 100;
  nvm.dmrl = 3;
  nvm.dmsl = 250;
  ASSERT_TRUE(go_live());
  EXPECT_EQ(run_op(BlockOp::deallocate, 0, 300 * 512), 0);
  const auto seen = target.io_commands(NvmOpcode::dataset_management);
  ASSERT_EQ(seen.size(), 2u);
  using R = nvme::DsmRange;
  EXPECT_EQ(nvme::dsm_ranges(seen[0].sqe), 3u);
  EXPECT_THAT(nvme::decode_dsm_ranges(seen[0].data),
              ElementsAre(R{0, 100, 0}, R{0, 100, 100}, R{0, 50, 200}));
  EXPECT_THAT(nvme::decode_dsm_ranges(seen[1].data), ElementsAre(R{0, 50, 250}));
}

TEST_F(Device, DeallocateOf256RangesAndMoreThanTheBuffers) {
  target.nvm.emplace().dmrsl = 1;
  ASSERT_TRUE(go_live());
  std::vector<Request> requests(10);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    requests[i] = request(BlockOp::deallocate, i * 300 * 512, 300 * 512);
    subsystem->device(0, 1)->submit(requests[i]);
  }
  loop.run_for(seconds(1));
  std::set<std::uint64_t> lbas;
  std::size_t most = 0;
  for (const SeenCommand& s : target.io_commands(NvmOpcode::dataset_management)) {
    const auto ranges = nvme::decode_dsm_ranges(s.data);
    most = std::max(most, ranges.size());
    for (const auto& range : ranges) EXPECT_TRUE(lbas.insert(range.lba).second);
  }
  EXPECT_EQ(lbas.size(), 3000u);
  EXPECT_EQ(most, 256u);
  for (const Request& r : requests) EXPECT_TRUE(r.done() && r.error == 0);
}

TEST_F(Device, DeallocateWithFuaFlushesAfterwards) {
  ASSERT_TRUE(go_live());
  EXPECT_EQ(run_op(BlockOp::deallocate, 0, 4096, true), 0);
  EXPECT_EQ(run_op(BlockOp::deallocate, 100, 200, true), 0);  // nothing whole: the flush remains
  std::vector<NvmOpcode> order;
  for (const SeenCommand& s : target.seen) {
    if (s.qid != 0 && !s.sqe.is_fabrics()) order.push_back(static_cast<NvmOpcode>(s.sqe.opcode));
  }
  EXPECT_THAT(order,
              ElementsAre(NvmOpcode::dataset_management, NvmOpcode::flush, NvmOpcode::flush));
}

TEST_F(Device, StatusBecomesErrno) {
  ASSERT_TRUE(go_live());
  std::vector<std::byte> data(512);
  const struct {
    StatusCode code;
    BlockOp op;
    int error;
  } cases[] = {
      {StatusCode::lba_out_of_range, BlockOp::read, EINVAL},
      {StatusCode::lba_out_of_range, BlockOp::write, ENOSPC},
      {StatusCode::capacity_exceeded, BlockOp::write, ENOSPC},
      {StatusCode::namespace_write_protected, BlockOp::write, EPERM},
      {StatusCode::unrecovered_read_error, BlockOp::read, EIO},
      {StatusCode::write_fault, BlockOp::write, EIO},
      {StatusCode::invalid_field, BlockOp::read, EIO},
  };
  for (const auto& c : cases) {
    answer_io(c.op == BlockOp::read ? NvmOpcode::read : NvmOpcode::write, c.code);
    Request r = request(c.op, 0, 512, data.data());
    EXPECT_EQ(run(r), c.error) << static_cast<int>(c.code);
  }
  EXPECT_THAT(logged(), testing::Contains(HasSubstr("nvmf0n1: read of 512 bytes from byte 0")));
  EXPECT_EQ(outcome.ended, std::nullopt);
}

TEST_F(Device, LogOfErrorsIsLimited) {
  ASSERT_TRUE(go_live());
  std::vector<std::byte> data(512);
  answer_io(NvmOpcode::read, StatusCode::unrecovered_read_error);
  const std::size_t before = logged().size();
  for (int i = 0; i < 200; ++i) {
    Request r = request(BlockOp::read, 0, 512, data.data());
    EXPECT_EQ(run(r), EIO);
  }
  EXPECT_LE(logged().size() - before, 10u);
}

TEST_F(Device, OneBadPartFailsTheRequestOnce) {
  target.id.mdts = 1;
  ASSERT_TRUE(go_live());
  std::vector<std::byte> data(2 * kMiB);
  int n = 0;
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    if (at.qid == 0 || c.sqe.is_fabrics() || ++n != 40) return false;
    at.respond(c, StatusCode::unrecovered_read_error);
    return true;
  };
  Request r = request(BlockOp::read, 0, data.size(), data.data());
  EXPECT_EQ(run(r), EIO);
  loop.run_for(seconds(1));
  EXPECT_EQ(r.completions, 1);
  EXPECT_LT(n, 256) << "the rest was sent although it was lost";
  Request again = request(BlockOp::read, 0, 512, data.data());
  EXPECT_EQ(run(again), 0);
}

// ---- the ends ----

TEST_F(Device, UnansweredCommandEndsTheAssociationWithAReason) {
  params.loss.ctrl_loss = Duration{};
  ASSERT_TRUE(go_live());
  hold_io();
  std::vector<std::byte> data(512);
  Request r = request(BlockOp::read, 0, 512, data.data());
  const Instant begin = loop.now();
  EXPECT_EQ(run(r), EIO);
  EXPECT_GE(loop.now() - begin, seconds(30));
  EXPECT_LE(loop.now() - begin, seconds(40));
  ASSERT_TRUE(loop.run_until([&] { return outcome.ended.has_value(); }, seconds(5)));
  EXPECT_THAT(outcome.ended->message, HasSubstr("did not answer a Read command within 30 s"));
}

TEST_F(Device, LossFailsWhatIsInFlightAndWaitingThenShutsDown) {
  params.queue_size = 16;
  params.loss.ctrl_loss = Duration{};
  for (std::uint16_t qid = 0; qid <= 2; ++qid) {
    SCOPED_TRACE(qid);
    outcome = {};
    subsystem.reset();
    target.intercept = {};
    ASSERT_TRUE(go_live(2));
    hold_io();
    std::vector<std::byte> data(512);
    std::vector<Request> requests(100);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      requests[i] = request(BlockOp::write, 512 * i, 512, data.data());
      subsystem->device(i % 2, 1)->submit(requests[i]);
    }
    loop.run_for(milliseconds(10));
    target.connection(qid)->qpair.end(Error{"cut", 0});
    ASSERT_TRUE(loop.run_until([&] { return outcome.ended.has_value(); }, seconds(2)));
    for (const Request& r : requests) EXPECT_TRUE(r.done() && r.error == EIO);
    EXPECT_NE(outcome.ended->code, 0);
    EXPECT_THAT(outcome.ended->message, HasSubstr("10.0.0.1:4420"));
    loop.run_for(seconds(1));
    EXPECT_EQ(target.open_connections(), 0u);
    Request late = request(BlockOp::read, 0, 512, data.data());
    EXPECT_EQ(run(late), ESHUTDOWN);
  }
}

TEST_F(Device, StopTellsTheControllerAndCloses) {
  ASSERT_TRUE(go_live(2));
  const Instant begin = loop.now();
  subsystem->stop();
  ASSERT_TRUE(loop.run_until([&] { return outcome.ended.has_value(); }, seconds(10)));
  EXPECT_LE(loop.now() - begin, milliseconds(100));
  EXPECT_EQ(outcome.ended->code, 0);
  loop.run_for(milliseconds(10));
  EXPECT_EQ(target.open_connections(), 0u);
  const SeenCommand* last_set = nullptr;
  for (const SeenCommand& s : target.seen) {
    if (s.sqe.is_fabrics() && s.sqe.fabrics_type() == nvme::FabricsType::property_set) {
      last_set = &s;
    }
  }
  const auto value = nvme::PropertyCommand::from_sqe(last_set->sqe)->value;
  const auto cc = nvme::ControllerConfiguration::decode(static_cast<std::uint32_t>(value));
  EXPECT_EQ(cc.shn, nvme::kShnNormal);
  EXPECT_TRUE(cc.en);
}

TEST_F(Device, StopIsBoundedWhateverTheTargetDoes) {
  const std::function<void()> faults[] = {
      [&] { target.shuts_down = false; },
      [&] { target.intercept = [](auto&, auto&) { return true; }; },
      [&] {
        for (const auto& link : loop.links()) link->blackhole();
      },
  };
  for (const auto& fault : faults) {
    outcome = {};
    subsystem.reset();
    target.intercept = {};
    ASSERT_TRUE(go_live(2));
    fault();
    std::vector<std::byte> data(4096);
    Request r = request(BlockOp::read, 0, 4096, data.data());
    subsystem->device(1, 1)->submit(r);
    subsystem->stop();
    EXPECT_TRUE(loop.run_until([&] { return outcome.ended.has_value(); }, seconds(4)));
    EXPECT_EQ(outcome.ended->code, 0);
    EXPECT_TRUE(r.done());
  }
}

TEST_F(Device, StopLetsWhatIsInFlightFinish) {
  ASSERT_TRUE(go_live());
  loop.pipe.latency = milliseconds(1);
  for (const auto& link : loop.links()) link->options.latency = milliseconds(50);
  std::vector<std::byte> data(4096);
  Request r = request(BlockOp::read, 0, 4096, data.data());
  subsystem->device(0, 1)->submit(r);
  subsystem->stop();
  ASSERT_TRUE(loop.run_until([&] { return outcome.ended.has_value(); }, seconds(4)));
  EXPECT_TRUE(r.done());
  EXPECT_EQ(r.error, 0);
}

TEST_F(Device, SubmittingAllocatesNothing) {
  params.queue_size = 128;
  params.nr_io_queues = 1;
  ASSERT_TRUE(go_live());
  std::vector<std::byte> data(8192);
  std::vector<Request> requests(400);
  const auto submit_all = [&] {
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const BlockOp op = i % 5 == 0   ? BlockOp::write
                         : i % 5 == 1 ? BlockOp::read
                         : i % 5 == 2 ? BlockOp::write_zeroes
                         : i % 5 == 3 ? BlockOp::deallocate
                                      : BlockOp::flush;
      requests[i] = request(op, 8192 * (i % 64), i % 7 == 6 ? 100 : 8192, data.data());
      subsystem->device(0, 1)->submit(requests[i]);
    }
  };
  submit_all();  // timers' and lists' first growth
  loop.run_for(seconds(1));
  const std::size_t before = sim::allocations();
  submit_all();
  EXPECT_EQ(sim::allocations(), before);
  loop.run_for(seconds(1));
}

}  // namespace
}  // namespace nvmf::test
