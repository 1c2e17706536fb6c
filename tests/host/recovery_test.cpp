// What happens when an association is lost: retries, the fence, deadlines, identity.
#include <gmock/gmock.h>

#include "host/recovery_fixture.h"

namespace nvmf::test {
namespace {

using std::chrono::microseconds;
using testing::HasSubstr;

TEST_F(Recovery, ComesBackWhenTheTargetWasRestartedWithNothingInFlight) {
  go(2);
  EXPECT_EQ(host_->health().state, ConnectionState::live);
  kill_target();
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  EXPECT_EQ(watcher.lost, 1);
  EXPECT_EQ(host_->health().state, ConnectionState::live);
  EXPECT_EQ(host_->health().losses, 1u);
  EXPECT_EQ(host_->still_executing_for(), Duration{});
  std::vector<std::byte> data = sim::pattern(kBlock, 1);
  Request w;
  submit(w, BlockOp::write, 0, data);
  EXPECT_TRUE(wait_for([&] { return w.done(); }, milliseconds(1)));
  EXPECT_EQ(w.error, 0);
}

TEST_F(Recovery, ReadsGoOnAtOnceAndWritesWhenTheFenceIsLifted) {
  go();
  hold_io();
  std::vector<std::byte> data = sim::pattern(kBlock, 1);
  std::vector<std::byte> other = sim::pattern(kBlock, 2);
  std::vector<std::byte> in(kBlock);
  Request write, read;
  submit(write, BlockOp::write, 5, data);
  submit(read, BlockOp::read, 5, in);
  loop.run_for(milliseconds(10));
  target.intercept = {};
  kill_target();
  const Instant lost = loop.now();
  ASSERT_TRUE(wait_for([&] { return read.done(); }, milliseconds(500)));
  EXPECT_EQ(read.error, 0);
  EXPECT_FALSE(write.done());
  // Another block's write passes, one of the same does not.
  Request elsewhere, same;
  submit(elsewhere, BlockOp::write, 6, other);
  submit(same, BlockOp::write, 5, other);
  loop.run_for(milliseconds(100));
  EXPECT_TRUE(elsewhere.done());
  EXPECT_FALSE(same.done());
  const auto health = namespace_health();
  ASSERT_EQ(health[0].fences.size(), 1u);
  EXPECT_EQ(health[0].fences[0].offset_bytes, 5 * kBlock);
  EXPECT_EQ(health[0].fences[0].length_bytes, kBlock);
  EXPECT_EQ(health[0].waiting, 2u);
  ASSERT_TRUE(wait_for([&] { return write.done() && same.done(); }));
  EXPECT_EQ(write.error, 0);
  EXPECT_EQ(same.error, 0);
  // FIN came: CQT, which the controller does not report.
  EXPECT_GE(loop.now() - lost, seconds(2));
  EXPECT_LE(loop.now() - lost, milliseconds(2200));
  EXPECT_TRUE(namespace_health()[0].fences.empty());
  EXPECT_EQ(std::vector<std::byte>(target.namespaces[1].bytes.begin() + 5 * kBlock,
                                   target.namespaces[1].bytes.begin() + 6 * kBlock),
            other)
      << "the write that came later lands later";
}

TEST_F(Recovery, AFenceOutlivesTheErrorOfItsWrite) {
  params.loss.fast_io_fail = milliseconds(1500);
  go(2);
  hold_io();
  std::vector<std::byte> old_data = sim::pattern(kBlock, 1);
  std::vector<std::byte> new_data = sim::pattern(kBlock, 2);
  Request write;
  submit(write, BlockOp::write, 5, old_data);
  loop.run_for(milliseconds(10));
  target.intercept = {};
  kill_target();
  const Instant lost = loop.now();
  ASSERT_TRUE(wait_for([&] { return write.done(); }));
  EXPECT_EQ(write.error, EIO);
  EXPECT_GE(loop.now() - lost, milliseconds(1500));
  EXPECT_LE(loop.now() - lost, milliseconds(1600));
  // On another reactor, too.
  Request rewrite;
  submit(rewrite, BlockOp::write, 5, new_data, 1);
  loop.run_for(milliseconds(300));
  EXPECT_FALSE(rewrite.done());
  ASSERT_TRUE(wait_for([&] { return rewrite.done(); }));
  EXPECT_EQ(rewrite.error, 0);
  EXPECT_GE(loop.now() - lost, seconds(2));
}

TEST_F(Recovery, WithoutAFenceAWriteIsDoneAgainAtOnce) {
  params.fence = false;
  go();
  hold_io();
  std::vector<std::byte> data = sim::pattern(kBlock, 1);
  Request write;
  submit(write, BlockOp::write, 5, data);
  loop.run_for(milliseconds(10));
  target.intercept = {};
  kill_target();
  ASSERT_TRUE(wait_for([&] { return write.done(); }, milliseconds(500)));
  EXPECT_EQ(write.error, 0);
}

TEST_F(Recovery, OneQueueClosedDisablesTheControllerAndFencesNothing) {
  target.id.cqt = 1000;
  go(2);
  hold_io();
  std::vector<std::byte> data = sim::pattern(kBlock, 1);
  Request write;
  submit(write, BlockOp::write, 5, data);
  loop.run_for(milliseconds(10));
  target.intercept = {};
  target.connection(1)->qpair.end(Error{"cut", 0});
  const Instant lost = loop.now();
  ASSERT_TRUE(wait_for([&] { return write.done(); }));
  EXPECT_EQ(write.error, 0);
  EXPECT_LE(loop.now() - lost, milliseconds(500));
  EXPECT_TRUE(wait_for([&] { return watcher.again == 1; }, milliseconds(10)));
}

TEST_F(Recovery, ResetWaitsForAnswersAndRefusalsAreNoErrors) {
  go(2);
  // The first write is answered late, the others are refused, as by a controller being disabled.
  ControllerCommand* held = nullptr;
  FakeTarget::Connection* queue = nullptr;
  int refused = 0;
  bool fresh = false;  // the next association has begun
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    const bool connect = c.sqe.is_fabrics() && c.sqe.fabrics_type() == nvme::FabricsType::connect;
    if (connect) fresh = true;
    if (at.qid == 0 || c.sqe.is_fabrics() || fresh) return false;
    if (held == nullptr) {
      held = &c;
      queue = &at;
      return true;
    }
    loop.post([&at, &c, &refused] {
      ++refused;
      nvme::Status status = nvme::StatusCode::command_sequence_error;
      status.dnr = true;
      at.respond(c, status);
    });
    return true;
  };
  std::vector<std::byte> data = sim::pattern(kBlock, 1);
  std::vector<std::unique_ptr<Request>> requests;
  for (std::size_t i = 0; i < 10; ++i) {
    requests.push_back(std::make_unique<Request>());
    for (const auto& link : loop.links()) link->options.latency = milliseconds(1);
    submit(*requests.back(), BlockOp::write, i, data, i % 2);
  }
  loop.run_for(microseconds(1500));
  ASSERT_TRUE(host_->reset().has_value());
  loop.run_for(milliseconds(200));
  EXPECT_GT(refused, 0);
  EXPECT_EQ(watcher.again, 0) << "an answer is waited for";
  queue->respond(*held, nvme::Status{});
  const Instant answered = loop.now();
  ASSERT_TRUE(wait_for(
      [&] { return std::ranges::all_of(requests, [](const auto& r) { return r->done(); }); }));
  EXPECT_LE(loop.now() - answered, milliseconds(200)) << "nothing was fenced";
  for (const auto& r : requests) EXPECT_EQ(r->error, 0);
}

TEST_F(Recovery, NoPatienceIsNoneForRequestsThatNothingHappenedTo) {
  params.loss.fast_io_fail = Duration{};
  params.loss.ctrl_loss = Duration{};
  go(2);
  std::vector<std::byte> piece = sim::pattern(100, 1);
  for (std::size_t i = 0; i < 20; ++i) {
    Request w;
    w.op = BlockOp::write;
    w.offset_bytes = 10 + 50 * i;
    w.length_bytes = piece.size();
    w.data = piece.data();
    host_->device(i % 2, 1)->submit(w);
    ASSERT_TRUE(wait_for([&] { return w.done(); }));
    EXPECT_EQ(w.error, 0);
  }
}

TEST_F(Recovery, WhatWaitsForAQueueGoesRoundTheFence) {
  go();
  hold_io();
  std::vector<std::byte> old_data = sim::pattern(kBlock, 1);
  std::vector<std::byte> new_data = sim::pattern(kBlock, 2);
  std::vector<std::unique_ptr<Request>> filling;
  Request lost, unsent;
  submit(lost, BlockOp::write, 5, old_data);
  for (std::size_t i = 0; i < 100; ++i) {  // more than the queues take
    filling.push_back(std::make_unique<Request>());
    submit(*filling.back(), BlockOp::write, 100 + i, old_data);
  }
  submit(unsent, BlockOp::write, 5, new_data);
  loop.run_for(milliseconds(10));
  target.intercept = {};
  kill_target();
  const Instant begin = loop.now();
  ASSERT_TRUE(wait_for([&] { return unsent.done(); }));
  EXPECT_EQ(unsent.error, 0);
  EXPECT_GE(loop.now() - begin, seconds(2)) << "it was sent into the fence";
  ASSERT_TRUE(wait_for([&] { return lost.done(); }));
  ASSERT_TRUE(wait_for(
      [&] { return std::ranges::all_of(filling, [](const auto& r) { return r->done(); }); }));
}

// Found by the simulator: who was abandoned, held back for a fence, and then failed, left the fence
// of its own behind for ever.
TEST_F(Recovery, WhoIsAbandonedAndHeldBackLeavesNothingBehind) {
  params.loss.fast_io_fail = milliseconds(500);
  go();
  hold_io();
  std::vector<std::byte> data = sim::pattern(kBlock, 1);
  std::vector<std::unique_ptr<Request>> filling;
  Request lost, unsent, later;
  submit(lost, BlockOp::write, 5, data);
  for (std::size_t i = 0; i < 100; ++i) {
    filling.push_back(std::make_unique<Request>());
    submit(*filling.back(), BlockOp::write, 100 + i, data);
  }
  submit(unsent, BlockOp::write, 5, data);
  loop.run_for(milliseconds(10));
  target.intercept = {};
  host_->device(0, 1)->abandon(unsent);
  kill_target();
  ASSERT_TRUE(wait_for([&] { return unsent.done() && lost.done(); }));
  loop.run_for(seconds(3));
  submit(later, BlockOp::write, 5, data);
  ASSERT_TRUE(wait_for([&] { return later.done(); }, milliseconds(100)));
  EXPECT_EQ(later.error, 0);
  ASSERT_TRUE(wait_for(
      [&] { return std::ranges::all_of(filling, [](const auto& r) { return r->done(); }); }));
}

TEST_F(Recovery, SilenceIsWaitedForByKeepAliveTimes) {
  params.keep_alive_ms = 1000;
  go();
  hold_io();
  std::vector<std::byte> data = sim::pattern(kBlock, 1);
  Request write;
  submit(write, BlockOp::write, 5, data);
  loop.run_for(milliseconds(10));
  for (const auto& link : loop.links()) link->blackhole();
  const Instant silent = loop.now();
  target.intercept = {};
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  EXPECT_LE(loop.now() - silent, seconds(3));
  EXPECT_THAT(watcher.why, HasSubstr("Keep Alive"));
  EXPECT_FALSE(write.done());
  ASSERT_TRUE(wait_for([&] { return write.done(); }));
  EXPECT_EQ(write.error, 0);
  // 2 × KATT after the last Keep Alive, which was sent within half a KATT, and CQT.
  EXPECT_GE(loop.now() - silent, seconds(4));
  EXPECT_LE(loop.now() - silent, milliseconds(4700));
}

TEST_F(Recovery, AFlushThatWasLostIsSentAgain) {
  go();
  hold_io();
  Request flush;
  flush.op = BlockOp::flush;
  host_->device(0, 1)->submit(flush);
  loop.run_for(milliseconds(10));
  target.intercept = {};
  kill_target();
  ASSERT_TRUE(wait_for([&] { return flush.done(); }, milliseconds(500)));
  EXPECT_EQ(flush.error, 0);
  EXPECT_EQ(target.io_commands(nvme::NvmOpcode::flush).size(), 2u);
}

TEST_F(Recovery, FastIoFailEndsWhatWaitsAndWhatComesUntilItIsBack) {
  params.loss.fast_io_fail = seconds(3);
  go();
  refuse(true);
  kill_target();
  const Instant lost = loop.now();
  std::vector<std::byte> data = sim::pattern(kBlock, 1);
  Request waits;
  submit(waits, BlockOp::write, 1, data);
  ASSERT_TRUE(wait_for([&] { return waits.done(); }));
  EXPECT_EQ(waits.error, EIO);
  EXPECT_GE(loop.now() - lost, seconds(3));
  EXPECT_LE(loop.now() - lost, milliseconds(3200));
  EXPECT_EQ(host_->health().state, ConnectionState::failing);
  Request comes;
  submit(comes, BlockOp::write, 1, data);
  ASSERT_TRUE(wait_for([&] { return comes.done(); }, milliseconds(1)));
  EXPECT_EQ(comes.error, EIO);
  refuse(false);
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  loop.run_for(milliseconds(1));
  Request after;
  submit(after, BlockOp::write, 1, data);
  ASSERT_TRUE(wait_for([&] { return after.done(); }, milliseconds(10)));
  EXPECT_EQ(after.error, 0);
}

TEST_F(Recovery, ControllerLossEndsItWithAReason) {
  params.loss.ctrl_loss = seconds(5);
  go();
  refuse(true);
  kill_target();
  const Instant lost = loop.now();
  std::vector<std::byte> data = sim::pattern(kBlock, 1);
  Request waits;
  submit(waits, BlockOp::write, 1, data);
  loop.run_for(seconds(1));
  const host::Health health = host_->health();
  EXPECT_EQ(health.state, ConnectionState::lost);
  EXPECT_GT(health.attempts, 3u);
  EXPECT_THAT(health.last_attempt, HasSubstr("refused"));
  ASSERT_TRUE(health.gone_in.has_value());
  EXPECT_LE(*health.gone_in, seconds(4));
  EXPECT_FALSE(health.io_fails_in.has_value());
  ASSERT_TRUE(wait_for([&] { return watcher.ended.has_value(); }));
  EXPECT_GE(loop.now() - lost, seconds(5));
  EXPECT_LE(loop.now() - lost, milliseconds(5200));
  EXPECT_NE(watcher.ended->code, 0);
  EXPECT_THAT(watcher.ended->message, HasSubstr("--ctrl-loss-tmo"));
  EXPECT_EQ(waits.error, EIO);
}

TEST_F(Recovery, NeverListeningAgainIsTriedFirstFastThenSlowly) {
  go();
  std::vector<Instant> attempts;
  loop.on_connect = [&](const transport::Endpoint&) {
    attempts.push_back(loop.now());
    return sim::ConnectFate{sim::ConnectFate::Kind::refuse, {}};
  };
  kill_target();
  const Instant lost = loop.now();
  loop.run_for(seconds(60));
  ASSERT_GT(attempts.size(), 10u);
  EXPECT_LE(attempts.front() - lost, milliseconds(100));
  for (std::size_t i = 1; i < attempts.size() && attempts[i] - lost < seconds(9); ++i) {
    EXPECT_LE(attempts[i] - attempts[i - 1], milliseconds(110));
  }
  EXPECT_GE(attempts.back() - attempts[attempts.size() - 2], seconds(4));
}

TEST_F(Recovery, PolicyCanBeChangedWhileItIsLost) {
  go();
  refuse(true);
  kill_target();
  loop.run_for(seconds(20));
  ASSERT_FALSE(watcher.ended);
  host::LossPolicy policy = host_->health().policy;
  policy.ctrl_loss = seconds(30);
  EXPECT_TRUE(host_->set_policy(policy).has_value());
  loop.run_for(seconds(9));
  EXPECT_FALSE(watcher.ended);
  loop.run_for(seconds(2));
  EXPECT_TRUE(watcher.ended.has_value());
  policy.reconnect_delay = Duration{};
  EXPECT_FALSE(host_->set_policy(policy).has_value());
}

TEST_F(Recovery, ADifferentDiskUnderTheSameNsidIsNeverUsed) {
  go();
  hold_io();
  std::vector<std::byte> data = sim::pattern(kBlock, 1);
  Request write;
  submit(write, BlockOp::write, 5, data);
  loop.run_for(milliseconds(10));
  target.intercept = {};
  target.namespaces[1].descriptors.uuid = uuid(9);
  kill_target();
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  loop.run_for(seconds(10));
  EXPECT_FALSE(write.done());
  EXPECT_EQ(writes_seen(), 1u) << "the one that was lost";
  const auto health = namespace_health();
  EXPECT_THAT(health[0].stopped, HasSubstr("nvmf accept nvmf0n1"));
  EXPECT_TRUE(health[0].acceptable);
  EXPECT_TRUE(health[1].stopped.empty());
  // The other one goes on.
  Request elsewhere;
  submit(elsewhere, BlockOp::write, 5, data, 0, 2);
  ASSERT_TRUE(wait_for([&] { return elsewhere.done(); }, milliseconds(10)));
  EXPECT_EQ(elsewhere.error, 0);
  EXPECT_FALSE(host_->accept(2).has_value());
  ASSERT_TRUE(host_->accept(1).has_value());
  ASSERT_TRUE(wait_for([&] { return write.done(); }, milliseconds(100)));
  EXPECT_EQ(write.error, 0);
}

TEST_F(Recovery, ADifferentDiskFailsItsRequestsAfterTheirTime) {
  params.loss.fast_io_fail = seconds(3);
  go();
  target.namespaces[1].descriptors.uuid = uuid(9);
  kill_target();
  const Instant lost = loop.now();
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  std::vector<std::byte> data(kBlock);
  Request read;
  submit(read, BlockOp::read, 5, data);
  ASSERT_TRUE(wait_for([&] { return read.done(); }));
  EXPECT_EQ(read.error, EIO);
  EXPECT_LE(loop.now() - lost, milliseconds(3200));
  // It comes back: no need to accept anything.
  target.namespaces[1].descriptors.uuid = uuid(1);
  ASSERT_TRUE(host_->reset().has_value());
  ASSERT_TRUE(wait_for([&] { return watcher.again == 2; }));
  loop.run_for(milliseconds(1));
  Request again;
  submit(again, BlockOp::read, 5, data);
  ASSERT_TRUE(wait_for([&] { return again.done(); }, milliseconds(10)));
  EXPECT_EQ(again.error, 0);
}

TEST_F(Recovery, ResetLosesNoRequest) {
  go(2);
  std::vector<std::vector<std::byte>> data;
  std::vector<std::unique_ptr<Request>> requests;
  for (std::size_t round = 0; round < 20; ++round) {
    for (std::size_t i = 0; i < 10; ++i) {
      data.push_back(sim::pattern(kBlock, round * 10 + i));
      requests.push_back(std::make_unique<Request>());
      submit(*requests.back(), BlockOp::write, round * 10 + i, data.back(), i % 2);
    }
    if (round % 5 == 0) ASSERT_TRUE(host_->reset().has_value());
    ASSERT_TRUE(wait_for([&] { return host_->live() && requests.back()->done(); }));
  }
  ASSERT_TRUE(wait_for(
      [&] { return std::ranges::all_of(requests, [](const auto& r) { return r->done(); }); }));
  for (const auto& r : requests) EXPECT_EQ(r->error, 0);
  for (std::size_t i = 0; i < data.size(); ++i) {
    EXPECT_TRUE(std::ranges::equal(
        data[i], std::span(target.namespaces[1].bytes).subspan(i * kBlock, kBlock)));
  }
  EXPECT_EQ(watcher.again, 4);
}

TEST_F(Recovery, FewerAndMoreQueuesAfterAReconnect) {
  params.nr_io_queues = 3;
  go(3);
  ASSERT_EQ(host_->reactors(), 3u);
  for (const std::uint32_t granted : {1u, 2u, 3u, 64u, 1u}) {
    SCOPED_TRACE(granted);
    target.queues_granted = granted;
    const int before = watcher.again;
    hold_io();
    std::vector<std::vector<std::byte>> data;
    std::vector<std::unique_ptr<Request>> requests;
    for (std::size_t i = 0; i < 300; ++i) {
      data.push_back(sim::pattern(kBlock, i + granted));
      requests.push_back(std::make_unique<Request>());
      submit(*requests.back(), BlockOp::write, i, data.back(), i % 3);
    }
    loop.run_for(milliseconds(10));
    target.intercept = {};
    kill_target();
    ASSERT_TRUE(wait_for([&] { return watcher.again == before + 1; }));
    EXPECT_EQ(host_->statistics().live_io_queues(), std::min(granted, 3u));
    ASSERT_TRUE(wait_for(
        [&] { return std::ranges::all_of(requests, [](const auto& r) { return r->done(); }); }));
    for (std::size_t i = 0; i < data.size(); ++i) {
      EXPECT_EQ(requests[i]->error, 0);
      EXPECT_TRUE(std::ranges::equal(
          data[i], std::span(target.namespaces[1].bytes).subspan(i * kBlock, kBlock)));
    }
  }
}

TEST_F(Recovery, WhatIsRefusedForAMomentIsTriedAgain) {
  go();
  int refusals = 0;
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    if (at.qid == 0 || c.sqe.is_fabrics() || refusals == 4) return false;
    ++refusals;
    at.respond(c, nvme::StatusCode::namespace_not_ready);
    return true;
  };
  std::vector<std::byte> data = sim::pattern(kBlock, 1);
  Request write;
  submit(write, BlockOp::write, 5, data);
  ASSERT_TRUE(wait_for([&] { return write.done(); }));
  EXPECT_EQ(write.error, 0);
  EXPECT_EQ(refusals, 4);
}

TEST_F(Recovery, AnOverdueCommandIsAbortedFirst) {
  go();
  ControllerCommand* held = nullptr;
  FakeTarget::Connection* queue = nullptr;
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    if (at.qid == 0) {
      if (c.sqe.opcode != static_cast<std::uint8_t>(nvme::AdminOpcode::abort)) return false;
      EXPECT_EQ(c.sqe.cdw10, 1u | (std::uint32_t{held->sqe.cid} << 16));
      queue->respond(*std::exchange(held, nullptr), nvme::StatusCode::abort_requested);
      at.respond(c, nvme::Status{}, 0);
      return true;
    }
    if (c.sqe.is_fabrics() || queue != nullptr) return false;
    held = &c;
    queue = &at;
    return true;
  };
  std::vector<std::byte> data = sim::pattern(kBlock, 1);
  Request write;
  const Instant begin = loop.now();
  submit(write, BlockOp::write, 5, data);
  ASSERT_TRUE(wait_for([&] { return write.done(); }));
  EXPECT_EQ(write.error, 0) << testing::PrintToString(logged());
  EXPECT_GE(loop.now() - begin, seconds(30));
  EXPECT_EQ(watcher.lost, 0) << "the association lives on";
}

TEST_F(Recovery, HeldWritesOfAProcessBefore) {
  params.hold_writes = seconds(7);
  go(2);
  const Instant live = loop.now();
  std::vector<std::byte> data = sim::pattern(kBlock, 1);
  std::vector<std::byte> in(kBlock);
  Request write, read;
  submit(write, BlockOp::write, 5, data, 1);
  submit(read, BlockOp::read, 5, in, 1);
  ASSERT_TRUE(wait_for([&] { return read.done(); }, milliseconds(10)));
  EXPECT_EQ(read.error, 0);
  ASSERT_TRUE(wait_for([&] { return write.done(); }));
  EXPECT_EQ(write.error, 0);
  EXPECT_GE(loop.now() - live, seconds(7));
}

TEST_F(Recovery, StopEndsItInEveryState) {
  enum class When { live, hung, black, lost, lost_silent };
  for (const When when : {When::live, When::hung, When::black, When::lost, When::lost_silent}) {
    for (const bool force : {false, true}) {
      SCOPED_TRACE(static_cast<int>(when));
      watcher = {};
      host_.reset();
      target.intercept = {};
      refuse(false);
      go(2);
      std::vector<std::byte> data = sim::pattern(kBlock, 1);
      Request write;
      if (when == When::hung) {
        target.intercept = [](FakeTarget::Connection&, ControllerCommand&) { return true; };
      }
      if (when == When::black) {
        for (const auto& link : loop.links()) link->blackhole();
      }
      if (when == When::lost || when == When::lost_silent) {
        loop.on_connect = [&](const transport::Endpoint&) {
          return sim::ConnectFate{
              when == When::lost ? sim::ConnectFate::Kind::refuse : sim::ConnectFate::Kind::ignore,
              {}};
        };
        kill_target();
      }
      submit(write, BlockOp::write, 5, data);
      loop.run_for(milliseconds(300));
      const Instant begin = loop.now();
      host_->stop(force);
      ASSERT_TRUE(wait_for([&] { return watcher.ended.has_value(); }));
      EXPECT_LE(loop.now() - begin, host::kStopTimeMax);
      EXPECT_EQ(watcher.ended->code, 0);
      EXPECT_EQ(write.completions, 1);
      if (when == When::hung) {
        // It was received, and nobody knows what became of it.
        ASSERT_TRUE(host_->still_executing_for().has_value());
        EXPECT_GT(*host_->still_executing_for(), seconds(5));
      }
      loop.run_for(seconds(1));
    }
  }
}

TEST_F(Recovery, APeerThatIsGoneWithoutAWordIsFound) {
  params.keep_alive_ms = 1000;
  go(2);
  // Half-open: the target's machine lost its power, nothing was in flight.
  for (const auto& link : loop.links()) link->vanish(sim::Side::server);
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  EXPECT_EQ(host_->still_executing_for(), Duration{});
}

TEST_F(Recovery, FinIsALossToo) {
  go(2);
  hold_io();
  std::vector<std::byte> data = sim::pattern(kBlock, 1);
  Request write;
  submit(write, BlockOp::write, 5, data);
  loop.run_for(milliseconds(10));
  target.intercept = {};
  const Instant lost = loop.now();
  for (std::uint16_t qid = 0; qid <= 2; ++qid) target.connection(qid)->qpair.finish();
  ASSERT_TRUE(wait_for([&] { return write.done(); }));
  EXPECT_EQ(write.error, 0);
  EXPECT_GE(loop.now() - lost, seconds(2)) << "CQT";
  EXPECT_LE(loop.now() - lost, milliseconds(2300));
}

TEST_F(Recovery, WhoTakesUsAndDropsUsIsNotTriedWithoutPause) {
  go();
  int accepted = 0;
  loop.on_link = [&](const std::shared_ptr<sim::Link>& link) {
    ++accepted;
    loop.post([link] { link->cut(); });
  };
  kill_target();
  loop.run_for(seconds(60));
  EXPECT_GE(accepted, 8);
  EXPECT_LE(accepted, 40);
  loop.on_link = {};
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
}

TEST_F(Recovery, AControllerThatIsNotReadyYetIsTriedAgain) {
  go();
  target.becomes_ready = false;
  kill_target();
  loop.run_for(seconds(20));
  EXPECT_EQ(watcher.again, 0);
  EXPECT_THAT(host_->health().last_attempt, HasSubstr("CSTS.RDY"));
  target.becomes_ready = true;
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
}

TEST_F(Recovery, RefusalsWithDnrAreTriedAgainAfterALoss) {
  go();
  int refusals = 0;
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    if (!c.sqe.is_fabrics() || c.sqe.fabrics_type() != nvme::FabricsType::connect) return false;
    if (refusals == 3) return false;
    ++refusals;
    nvme::Status status = nvme::StatusCode::connect_invalid_parameters;
    status.dnr = true;
    at.respond(c, status);
    return true;
  };
  kill_target();
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  EXPECT_EQ(refusals, 3);
}

TEST_F(Recovery, SeveralLossesKeepTheLongestFence) {
  params.keep_alive_ms = 1000;
  go();
  std::vector<std::byte> data = sim::pattern(kBlock, 1);
  Request first, second;
  // The first is lost in silence, the second, elsewhere, by RST soon afterwards.
  hold_io();
  submit(first, BlockOp::write, 5, data);
  loop.run_for(milliseconds(10));
  for (const auto& link : loop.links()) link->blackhole();
  const Instant silent = loop.now();
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  submit(second, BlockOp::write, 7, data);
  loop.run_for(milliseconds(10));
  target.intercept = {};
  kill_target();
  ASSERT_TRUE(wait_for([&] { return watcher.again == 2; }));
  ASSERT_TRUE(wait_for([&] { return first.done(); }));
  EXPECT_GE(loop.now() - silent, seconds(4));
  ASSERT_TRUE(wait_for([&] { return second.done(); }));
  EXPECT_EQ(first.error, 0);
  EXPECT_EQ(second.error, 0);
}

}  // namespace
}  // namespace nvmf::test
