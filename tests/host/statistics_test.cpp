// What a connection says it has done is what it has done, over losses and reconnects, too.
#include "host/statistics.h"

#include <gtest/gtest.h>

#include "host/recovery_fixture.h"

namespace nvmf::test {
namespace {

using host::LatencyKind;

class Statistics : public Recovery {
 protected:
  int run(BlockOp op, std::vector<std::byte>& data, std::size_t reactor = 0) {
    Request r;
    submit(r, op, 5, data, reactor);
    EXPECT_TRUE(wait_for([&] { return r.done(); }));
    return r.error;
  }
  std::vector<std::byte> block_ = sim::pattern(kBlock, 1);
};

TEST_F(Statistics, CountCommandsBytesAndLatencyPerQueueAndKind) {
  params.nr_io_queues = 2;
  go(2);
  std::vector<std::byte> nothing;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(run(BlockOp::write, block_), 0);
  EXPECT_EQ(run(BlockOp::read, block_, 1), 0);
  EXPECT_EQ(run(BlockOp::flush, nothing), 0);
  const host::ConnectionStatistics s = host_->statistics();
  EXPECT_EQ(s.subnqn, params.subnqn);
  EXPECT_EQ(s.state, ConnectionState::live);
  EXPECT_EQ(s.live_io_queues(), 2u);
  ASSERT_EQ(s.queues.size(), 3u);
  const host::QueueStatistics& admin = s.queues[0];
  EXPECT_EQ(admin.qid, 0u);
  EXPECT_GT(admin.commands, 3u);
  EXPECT_GE(admin.read_bytes, 4096u) << "of Identify";
  EXPECT_EQ(admin.latencies[LatencyKind::other].count(), admin.commands);
  const host::QueueStatistics& first = s.queues[1];
  EXPECT_TRUE(first.live);
  EXPECT_EQ(first.commands, 4u);
  EXPECT_EQ(first.written_bytes, 3 * kBlock);
  EXPECT_EQ(first.read_bytes, 0u);
  EXPECT_EQ(first.latencies[LatencyKind::write].count(), 3u);
  EXPECT_EQ(first.latencies[LatencyKind::flush].count(), 1u);
  const host::QueueStatistics& second = s.queues[2];
  EXPECT_EQ(second.reactor, 1u);
  EXPECT_EQ(second.commands, 1u);
  EXPECT_EQ(second.read_bytes, kBlock);
  EXPECT_EQ(second.latencies[LatencyKind::read].count(), 1u);
  EXPECT_EQ(s.requests.read_bytes, kBlock);
  EXPECT_EQ(s.requests.written_bytes, 3 * kBlock);
  EXPECT_EQ(s.requests.errors, 0u);
  EXPECT_EQ(s.requests.latencies[LatencyKind::write].count(), 3u);
}

TEST_F(Statistics, SurviveALossAndShowWhatRequestsWaited) {
  go();
  EXPECT_EQ(run(BlockOp::write, block_), 0);
  const host::ConnectionStatistics before = host_->statistics();
  hold_io();
  Request write;
  submit(write, BlockOp::write, 5, block_);
  loop.run_for(milliseconds(10));
  target.intercept = {};
  kill_target();
  ASSERT_TRUE(wait_for([&] { return watcher.lost == 1; }));
  const host::ConnectionStatistics during = host_->statistics();
  EXPECT_EQ(during.queues[1].commands, before.queues[1].commands + 1);
  EXPECT_FALSE(during.queues[1].live);
  EXPECT_EQ(during.losses, 1u);
  ASSERT_TRUE(wait_for([&] { return write.done(); }));
  EXPECT_EQ(write.error, 0);
  const host::ConnectionStatistics after = host_->statistics();
  EXPECT_EQ(after.reconnects, 1u);
  EXPECT_EQ(after.losses, 1u);
  EXPECT_TRUE(after.queues[1].live);
  EXPECT_EQ(after.queues[1].commands, before.queues[1].commands + 2);
  EXPECT_EQ(after.queues[1].errors, 1u) << "one was never answered";
  EXPECT_EQ(after.queues[1].retries, 1u);
  EXPECT_EQ(after.queues[1].latencies[LatencyKind::write].count(), 2u);
  EXPECT_GT(after.queues[0].commands, before.queues[0].commands);
  // The command took no time worth mentioning; the request waited for the fence.
  EXPECT_LT(after.queues[1].latencies[LatencyKind::write].max_ns, 100'000'000u);
  EXPECT_GE(after.requests.latencies[LatencyKind::write].max_ns, 2'000'000'000u);
  EXPECT_EQ(after.requests.errors, 0u);
}

TEST_F(Statistics, FailedAttemptsAndRequestsCount) {
  params.loss.fast_io_fail = seconds(5);
  go();
  refuse(true);
  kill_target();
  EXPECT_EQ(run(BlockOp::read, block_), EIO);
  const host::ConnectionStatistics s = host_->statistics();
  EXPECT_GE(s.failed_attempts, 1u);
  EXPECT_EQ(s.reconnects, 0u);
  EXPECT_EQ(s.requests.errors, 1u);
  EXPECT_EQ(s.requests.read_bytes, 0u);
}

TEST_F(Statistics, TimeoutsAbortsKeepAlivesAndRefusals) {
  go();
  ControllerCommand* held = nullptr;
  FakeTarget::Connection* queue = nullptr;
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    if (at.qid == 0) {
      if (c.sqe.opcode != static_cast<std::uint8_t>(nvme::AdminOpcode::abort)) return false;
      queue->respond(*std::exchange(held, nullptr), nvme::StatusCode::abort_requested);
      at.respond(c, nvme::Status{}, 0);
      return true;
    }
    if (c.sqe.is_fabrics() || queue != nullptr) return false;
    held = &c;
    queue = &at;
    return true;
  };
  EXPECT_EQ(run(BlockOp::write, block_), 0);
  const host::ConnectionStatistics s = host_->statistics();
  EXPECT_EQ(s.aborts, 1u);
  EXPECT_EQ(s.queues[1].timeouts, 1u);
  EXPECT_EQ(s.queues[1].errors, 1u);
  EXPECT_EQ(s.queues[1].retries, 1u);
  EXPECT_GE(s.keep_alives, 5u);
  EXPECT_GE(s.age, seconds(30));
}

TEST_F(Statistics, ALentQueuesRetriesAreTheLenders) {
  params.nr_io_queues = 2;
  go(2);
  target.queues_granted = 1;
  kill_target();
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  int refusals = 0;
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    if (at.qid == 0 || c.sqe.is_fabrics() || refusals == 2) return false;
    ++refusals;
    at.respond(c, nvme::StatusCode::namespace_not_ready);
    return true;
  };
  EXPECT_EQ(run(BlockOp::write, block_, 1), 0);
  const host::ConnectionStatistics s = host_->statistics();
  ASSERT_EQ(s.queues.size(), 3u);
  EXPECT_FALSE(s.queues[2].live);
  EXPECT_EQ(s.queues[1].commands, 3u);
  EXPECT_EQ(s.queues[1].retries, 2u);
  EXPECT_EQ(s.queues[1].errors, 2u);
}

}  // namespace
}  // namespace nvmf::test
