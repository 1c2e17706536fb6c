// What happens to the disk behind a lost association, and under a live one: a volatile write cache
// that forgets, namespaces that change.
#include <gmock/gmock.h>

#include "host/recovery_fixture.h"

namespace nvmf::test {
namespace {

using testing::HasSubstr;

// ---- the volatile write cache ----

class Unflushed : public Recovery {
 protected:
  Unflushed() { target.id.vwc = 1; }
  int flush_now(std::size_t reactor = 0) {
    Request flush;
    flush.op = BlockOp::flush;
    host_->device(reactor, 1)->submit(flush);
    EXPECT_TRUE(wait_for([&] { return flush.done(); }));
    return flush.error;
  }
  int write_now(std::uint64_t offset, std::vector<std::byte>& data, std::size_t reactor = 0) {
    Request w;
    w.op = BlockOp::write;
    w.offset_bytes = offset;
    w.length_bytes = data.size();
    w.data = data.data();
    host_->device(reactor, 1)->submit(w);
    EXPECT_TRUE(wait_for([&] { return w.done(); }));
    return w.error;
  }
  /// What was not flushed is lost.
  void lose_power(const std::vector<std::byte>& disk) {
    const int before = watcher.again;
    kill_target();
    target.namespaces[1].bytes = disk;
    ASSERT_TRUE(wait_for([&] { return watcher.again == before + 1; }));
  }
  std::vector<std::byte>& disk() { return target.namespaces[1].bytes; }
};

TEST_F(Unflushed, TrustCountsAndSaysHowMany) {
  go();
  std::vector<std::byte> data = sim::pattern(kBlock, 1);
  EXPECT_EQ(write_now(0, data), 0);
  EXPECT_EQ(write_now(kBlock, data), 0);
  EXPECT_EQ(namespace_health()[0].unflushed, 2u);
  lose_power(disk());
  EXPECT_THAT(logged(), testing::Contains(HasSubstr("2 writes were answered and not yet flushed")));
  EXPECT_EQ(flush_now(), 0);
  EXPECT_EQ(namespace_health()[0].unflushed, 0u);
}

TEST_F(Unflushed, FailSaysItOnceOnTheNextFlush) {
  params.unflushed = host::Unflushed::fail;
  go();
  std::vector<std::byte> data = sim::pattern(kBlock, 1);
  EXPECT_EQ(write_now(0, data), 0);
  EXPECT_EQ(flush_now(), 0);
  lose_power(disk());
  EXPECT_EQ(flush_now(), 0) << "everything had been flushed";
  EXPECT_EQ(write_now(0, data), 0);
  lose_power(disk());
  EXPECT_EQ(flush_now(), EIO);
  EXPECT_EQ(flush_now(), 0);
}

TEST_F(Unflushed, ReplayWritesItAgainBeforeAnythingElse) {
  params.unflushed = host::Unflushed::replay;
  go(2);
  std::vector<std::byte> block = sim::pattern(kBlock, 1);
  std::vector<std::byte> piece = sim::pattern(100, 2);
  std::vector<std::byte> newer = sim::pattern(2 * kBlock, 3);
  EXPECT_EQ(write_now(0, block), 0);
  EXPECT_EQ(flush_now(), 0);
  const std::vector<std::byte> flushed = disk();
  EXPECT_EQ(write_now(10 * kBlock, block, 0), 0);
  EXPECT_EQ(write_now(10 * kBlock + 7, piece, 1), 0);
  EXPECT_EQ(write_now(9 * kBlock, newer, 1), 0);
  EXPECT_EQ(write_now(9 * kBlock + 50, piece, 0), 0);
  const std::vector<std::byte> wanted = disk();
  ASSERT_NE(wanted, flushed);
  std::vector<std::byte> in(kBlock);
  Request read;
  hold_io();
  submit(read, BlockOp::read, 10, in);
  loop.run_for(milliseconds(1));
  target.intercept = {};
  lose_power(flushed);
  ASSERT_TRUE(wait_for([&] { return read.done(); }));
  EXPECT_TRUE(std::ranges::equal(in, std::span(wanted).subspan(10 * kBlock, kBlock)))
      << "a read from the past";
  EXPECT_EQ(disk(), wanted);
  EXPECT_EQ(namespace_health()[0].unflushed, 0u);
  EXPECT_EQ(flush_now(), 0);
  lose_power(disk());
  EXPECT_EQ(disk(), wanted);
}

// Found by the simulator: an older copy was written over a newer write, durable or copied, too.
TEST_F(Unflushed, ReplayNeverWritesAnOlderCopyOverANewerWrite) {
  params.unflushed = host::Unflushed::replay;
  go(2);
  std::vector<std::byte> old_data = sim::pattern(4 * kBlock, 1);
  std::vector<std::byte> newer = sim::pattern(kBlock, 2);
  std::vector<std::byte> durable = sim::pattern(kBlock, 3);
  EXPECT_EQ(write_now(8 * kBlock, old_data, 0), 0);
  EXPECT_EQ(write_now(9 * kBlock + 20, newer, 1), 0);
  Request fua;
  fua.fua = true;
  submit(fua, BlockOp::write, 11, durable, 1);
  ASSERT_TRUE(wait_for([&] { return fua.done(); }));
  const std::vector<std::byte> wanted = disk();
  const std::size_t before = target.io_commands(nvme::NvmOpcode::write).size();
  lose_power(disk());  // nothing is lost: whatever is written again shows
  std::vector<std::byte> in(4 * kBlock);
  Request read;
  submit(read, BlockOp::read, 8, in);
  ASSERT_TRUE(wait_for([&] { return read.done(); }));
  EXPECT_EQ(disk(), wanted);
  const auto writes = target.io_commands(nvme::NvmOpcode::write);
  EXPECT_GT(writes.size(), before);
  for (std::size_t i = before; i < writes.size(); ++i) {
    const std::uint64_t first = writes[i].sqe.cdw10;
    const std::uint64_t end = first + (writes[i].sqe.cdw12 & 0xffff) + 1;
    EXPECT_TRUE(end <= 11 || first > 11) << "the durable block was written again";
  }
}

TEST_F(Unflushed, ReplayFlushesByItselfWhenItsMemoryIsFull) {
  params.unflushed = host::Unflushed::replay;
  params.replay_bytes_max = 1024 * 1024;
  go();
  std::vector<std::byte> piece = sim::pattern(16 * 1024, 1);
  for (std::uint64_t i = 0; i < 200; ++i) ASSERT_EQ(write_now(i * kBlock, piece), 0);
  const std::size_t flushes = target.io_commands(nvme::NvmOpcode::flush).size();
  EXPECT_GE(flushes, 2u);
  EXPECT_LE(flushes, 20u);
  EXPECT_LE(namespace_health()[0].unflushed, 64u);
}

TEST_F(Unflushed, ReplayBeginsAgainWhenItIsLostItself) {
  params.unflushed = host::Unflushed::replay;
  params.cqt_unreported = milliseconds(100);
  go();
  std::vector<std::byte> block = sim::pattern(kBlock, 1);
  for (std::uint64_t i = 0; i < 20; ++i) ASSERT_EQ(write_now(i * kBlock, block), 0);
  const std::vector<std::byte> wanted = disk();
  std::vector<std::byte> nothing(wanted.size());
  int seen = 0;
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    return at.qid != 0 && !c.sqe.is_fabrics() && ++seen > 10;
  };
  lose_power(nothing);
  loop.run_for(milliseconds(20));
  EXPECT_GT(seen, 10);
  target.intercept = {};
  lose_power(nothing);
  Request read;
  std::vector<std::byte> in(kBlock);
  submit(read, BlockOp::read, 0, in);
  ASSERT_TRUE(wait_for([&] { return read.done(); }));
  EXPECT_EQ(in, block);
  EXPECT_EQ(disk(), wanted);
}

// ---- namespaces that change ----

class Changing : public Recovery {
 protected:
  void say_changed() {
    ASSERT_TRUE(target.send_event({.type = nvme::AsyncEventType::notice,
                                   .info = nvme::kNoticeNamespaceChanged,
                                   .log_page = 4}));
    loop.run_for(milliseconds(100));
  }
  int read_now() {
    std::vector<std::byte> in(kBlock);
    Request read;
    submit(read, BlockOp::read, 0, in);
    EXPECT_TRUE(wait_for([&] { return read.done(); }));
    return read.error;
  }
};

TEST_F(Changing, ANamespaceThatIsRemovedFailsAtOnceAndComesBack) {
  go();
  const FakeNamespace kept = target.namespaces[1];
  target.namespaces.erase(1);
  say_changed();
  EXPECT_THAT(namespace_health()[0].stopped, HasSubstr("removed namespace 1"));
  const Instant begin = loop.now();
  EXPECT_EQ(read_now(), EIO);
  EXPECT_LE(loop.now() - begin, milliseconds(1));
  target.namespaces[1] = kept;
  say_changed();
  EXPECT_EQ(namespace_health()[0].stopped, "");
  EXPECT_EQ(read_now(), 0);
}

TEST_F(Changing, ANamespaceThatBecomesAnotherStops) {
  params.loss.fast_io_fail = seconds(2);
  go();
  target.namespaces[1].descriptors.uuid = uuid(5);
  say_changed();
  EXPECT_TRUE(namespace_health()[0].acceptable);
  EXPECT_EQ(read_now(), EIO);
  EXPECT_TRUE(target.io_commands(nvme::NvmOpcode::read).empty());
  target.namespaces[1].descriptors.uuid = uuid(1);
  say_changed();
  EXPECT_EQ(read_now(), 0);
}

TEST_F(Changing, MoreCapacityIsUsed) {
  go();
  auto& ns = target.namespaces[1];
  ns.id.nsze = ns.id.ncap = 2048;
  ns.bytes.resize(2048 * kBlock);
  say_changed();
  EXPECT_EQ(host_->device(0, 1)->info().size_bytes, 2048 * kBlock);
  ns.id.nsze = ns.id.ncap = 512;
  say_changed();
  EXPECT_THAT(namespace_health()[0].stopped, HasSubstr("nvmf accept"));
}

}  // namespace
}  // namespace nvmf::test
