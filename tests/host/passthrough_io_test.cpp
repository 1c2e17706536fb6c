// Passthrough and data: holds and fences, the share of the queues, and namespaces that stand still.
#include <gmock/gmock.h>

#include "host/passthrough_fixture.h"

namespace nvmf::test {
namespace {

using testing::HasSubstr;

class PassthroughIo : public Passthrough {
 protected:
  PassthroughIo() { params.nr_io_queues = 1; }
  Passed& write(std::uint64_t lba, Duration timeout = {}) {
    PassthroughCommand c = io_command(nvme::write_command(1, lba, 1));
    c.timeout = timeout;
    return pass(c, kBlock);
  }
  void hold_opcode(NvmOpcode opcode) {
    hold_if([opcode](FakeTarget::Connection& at, ControllerCommand& c) {
      return at.qid != 0 && c.sqe.opcode == static_cast<std::uint8_t>(opcode);
    });
  }
  void answer_all() {
    target.intercept = {};
    for (const auto& [at, c] : std::exchange(held, {})) at->respond(*c, {});
  }
};

TEST_F(PassthroughIo, ReadsAndWritesAsAnybody) {
  go(2);
  const Passed& w = write(3);
  ASSERT_TRUE(wait_for([&] { return w.done(); }));
  ASSERT_TRUE(w.ok()) << w.why();
  const Passed& r = finish(io_command(nvme::read_command(1, 3, 1)), kBlock);
  ASSERT_TRUE(r.ok()) << r.why();
  EXPECT_EQ(r.data, w.data);
  // A namespace that is not served is the controller's to refuse.
  const Passed& none = finish(io_command(nvme::read_command(77, 3, 1)), kBlock);
  ASSERT_TRUE(none.result->has_value());
  EXPECT_EQ((*none.result)->cqe.status.code(), nvme::StatusCode::invalid_namespace);
}

TEST_F(PassthroughIo, IsCountedByItsQueueAndNotAmongRequests) {
  go();
  ASSERT_TRUE(finish(io_command(nvme::write_command(1, 3, 1)), kBlock).ok());
  ASSERT_TRUE(finish(io_command(nvme::read_command(1, 3, 1)), kBlock).ok());
  const host::ConnectionStatistics stats = host_->statistics();
  ASSERT_EQ(stats.queues.size(), 2u);
  EXPECT_EQ(stats.queues[1].written_bytes, kBlock);
  EXPECT_EQ(stats.queues[1].read_bytes, kBlock);
  EXPECT_EQ(stats.requests.read_bytes, 0u);
  EXPECT_EQ(stats.requests.written_bytes, 0u);
  for (const host::LatencyHistogram& h : stats.requests.latencies.kinds) EXPECT_EQ(h.count(), 0u);
}

TEST_F(PassthroughIo, ALostWriteFencesItsBlocks) {
  go();
  hold_io();
  const Passed& lost = write(5);
  loop.run_for(milliseconds(10));
  target.intercept = {};
  kill_target();
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  EXPECT_EQ(lost.code(), ECONNRESET);
  EXPECT_THAT(lost.why(), HasSubstr("may have been executed"));
  std::vector<std::byte> data = sim::pattern(kBlock, 2);
  Request same, elsewhere;
  submit(same, BlockOp::write, 5, data);
  submit(elsewhere, BlockOp::write, 6, data);
  const Passed& again = write(5, seconds(1));
  loop.run_for(milliseconds(100));
  EXPECT_TRUE(elsewhere.done());
  EXPECT_FALSE(same.done());
  EXPECT_FALSE(again.done());
  ASSERT_TRUE(wait_for([&] { return again.done(); }));
  EXPECT_EQ(again.code(), EBUSY) << "unsent when its time is over";
  EXPECT_THAT(again.why(), HasSubstr("was not sent"));
  ASSERT_TRUE(wait_for([&] { return same.done(); }));
  EXPECT_EQ(same.error, 0);
  EXPECT_EQ(writes_seen(), 3u) << "the lost one was sent once";
}

TEST_F(PassthroughIo, AnUnknownCommandThatIsLostFencesTheNamespace) {
  go();
  hold_io();
  nvme::Sqe sqe;
  sqe.opcode = 0xc0;
  sqe.nsid = 1;
  const Passed& lost = pass(io_command(sqe));
  loop.run_for(milliseconds(10));
  target.intercept = {};
  kill_target();
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  EXPECT_EQ(lost.code(), ECONNRESET);
  std::vector<std::byte> data = sim::pattern(kBlock, 2);
  Request anywhere, other;
  submit(anywhere, BlockOp::write, 900, data);
  submit(other, BlockOp::write, 900, data, 0, 2);
  loop.run_for(milliseconds(100));
  EXPECT_FALSE(anywhere.done());
  EXPECT_TRUE(other.done());
  EXPECT_TRUE(wait_for([&] { return anywhere.done(); }));
}

TEST_F(PassthroughIo, ALostFormatFencesTheNamespace) {
  go();
  hold_admin(0x80);
  const Passed& lost = pass(admin_command(AdminOpcode::format_nvm, 1));
  ASSERT_TRUE(wait_for([&] { return !held.empty(); }));
  target.intercept = {};
  kill_target();
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  EXPECT_EQ(lost.code(), ECONNRESET);
  std::vector<std::byte> data = sim::pattern(kBlock, 2);
  Request anywhere, other;
  submit(anywhere, BlockOp::write, 900, data);
  submit(other, BlockOp::write, 900, data, 0, 2);
  loop.run_for(milliseconds(100));
  EXPECT_FALSE(anywhere.done());
  EXPECT_TRUE(other.done());
  EXPECT_TRUE(wait_for([&] { return anywhere.done(); }));
}

TEST_F(PassthroughIo, ALostReadFencesNothing) {
  go();
  hold_io();
  const Passed& lost = pass(io_command(nvme::read_command(1, 5, 1)), kBlock);
  loop.run_for(milliseconds(10));
  target.intercept = {};
  kill_target();
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  EXPECT_EQ(lost.code(), ECONNRESET);
  EXPECT_TRUE(namespace_health()[0].fences.empty());
}

TEST_F(PassthroughIo, WaitsForAReadModifyWriteAndItForThis) {
  go();
  hold_opcode(NvmOpcode::read);
  std::vector<std::byte> data(10, std::byte{1});
  Request unaligned;
  unaligned.op = BlockOp::write;
  unaligned.offset_bytes = 5 * kBlock + 7;
  unaligned.length_bytes = data.size();
  unaligned.data = data.data();
  host_->device(0, 1)->submit(unaligned);
  loop.run_for(milliseconds(10));
  ASSERT_EQ(held.size(), 1u);
  const Passed& w = write(5);
  loop.run_for(milliseconds(100));
  EXPECT_EQ(writes_seen(), 0u) << "it would be lost between the read and the write";
  const auto [at, c] = held.front();
  target.intercept = {};
  at->send(*c, std::vector<std::byte>(kBlock));
  ASSERT_TRUE(wait_for([&] { return w.done() && unaligned.done(); }));
  EXPECT_TRUE(w.ok());
  EXPECT_EQ(target.namespaces[1].bytes[5 * kBlock + 7], std::byte{0x5a}) << "it came later";
}

TEST_F(PassthroughIo, NeitherStarvesTheOther) {
  params.queue_size = 32;
  go();
  hold_io();
  // Passthrough takes its share and no more.
  std::vector<Passed*> stuck;
  for (int i = 0; i < 40; ++i) {
    stuck.push_back(&pass(io_command(nvme::read_command(1, 1, 1)), kBlock));
  }
  loop.run_for(milliseconds(10));
  EXPECT_EQ(target.io_commands(NvmOpcode::read).size(), 4u);
  std::vector<std::byte> data(kBlock);
  std::list<Request> requests;
  for (int i = 0; i < 100; ++i) submit(requests.emplace_back(), BlockOp::write, 9, data);
  loop.run_for(milliseconds(10));
  EXPECT_EQ(writes_seen(), 27u) << "all that the queue has left";
  // And with frontends at full depth, each that is answered followed by another one, it has its
  // turn.
  target.intercept = {};
  for (const auto& link : loop.links()) link->cut();
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  for (const Passed* p : stuck) ASSERT_TRUE(p->done());
  std::list<Request> endless;
  for (int i = 0; i < 200; ++i) submit(endless.emplace_back(), BlockOp::read, 7, data);
  const Passed& turn = pass(io_command(nvme::read_command(1, 1, 1)), kBlock);
  const auto done_while_all_go_on = [&] {
    for (Request& r : endless) {
      if (!r.done()) continue;
      r.completions = 0;
      submit(r, BlockOp::read, 7, data);
    }
    return turn.done();
  };
  ASSERT_TRUE(wait_for(done_while_all_go_on, seconds(5)));
  EXPECT_TRUE(turn.ok());
  ASSERT_TRUE(wait_for([&] {
    return std::ranges::all_of(endless, [](const Request& r) { return r.done(); }) &&
           std::ranges::all_of(requests, [](const Request& r) { return r.done(); });
  }));
}

TEST_F(PassthroughIo, AnOverdueOneIsAbortedByItsOwnTimeout) {
  go();
  hold_opcode(NvmOpcode::compare);
  PassthroughCommand c = io_command(nvme::compare_command(1, 0, 1));
  c.timeout = seconds(60);
  const Passed& patient = pass(c, kBlock);
  loop.run_for(seconds(50));
  EXPECT_EQ(target.count(0, 0x08), 0u) << "the queue's own timeout of 30 s is not its";
  loop.run_for(milliseconds(10'500));
  EXPECT_EQ(target.count(0, 0x08), 1u);
  answer_all();
  ASSERT_TRUE(wait_for([&] { return patient.done(); }, seconds(1)));
  EXPECT_TRUE(patient.ok()) << "an answer in time after all";
  hold_opcode(NvmOpcode::compare);
  c.timeout = milliseconds(20);
  const Instant begin = loop.now();
  const Passed& hasty = finish(c, kBlock);
  EXPECT_GE(loop.now() - begin, milliseconds(5020));
  EXPECT_EQ(hasty.code(), ETIMEDOUT);
  EXPECT_EQ(watcher.lost, 1);
}

TEST_F(PassthroughIo, WhatWaitsWhenTheConnectionGoesWasNotSent) {
  go();
  hold_io();
  std::vector<Passed*> all;
  for (int i = 0; i < 10; ++i) all.push_back(&write(static_cast<std::uint64_t>(i)));
  loop.run_for(milliseconds(10));
  target.intercept = {};
  kill_target();
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  loop.run_for(seconds(5));
  EXPECT_EQ(writes_seen(), 4u);
  EXPECT_EQ(all.front()->code(), ECONNRESET);
  EXPECT_EQ(all.back()->code(), ENOTCONN);
  EXPECT_THAT(all.back()->why(), HasSubstr("was not sent"));
}

TEST_F(PassthroughIo, WhatWaitsForAHoldWhenTheConnectionGoesIsNotSentByTheNextOne) {
  go();
  hold_opcode(NvmOpcode::read);
  std::vector<std::byte> data(10, std::byte{1});
  Request unaligned;
  unaligned.op = BlockOp::write;
  unaligned.offset_bytes = 5 * kBlock + 7;
  unaligned.length_bytes = data.size();
  unaligned.data = data.data();
  host_->device(0, 1)->submit(unaligned);
  loop.run_for(milliseconds(10));
  const Passed& w = write(5);
  loop.run_for(milliseconds(10));
  target.intercept = {};
  kill_target();
  ASSERT_TRUE(wait_for([&] { return unaligned.done(); }));
  loop.run_for(seconds(5));
  EXPECT_EQ(w.code(), ENOTCONN);
  EXPECT_EQ(writes_seen(), 1u);
}

TEST_F(PassthroughIo, AForcedEndWaitsForNothingThatWaits) {
  go();
  hold_opcode(NvmOpcode::read);
  std::vector<std::byte> data(10, std::byte{1});
  Request unaligned;
  unaligned.op = BlockOp::write;
  unaligned.offset_bytes = 5 * kBlock + 7;
  unaligned.length_bytes = data.size();
  unaligned.data = data.data();
  host_->device(0, 1)->submit(unaligned);
  loop.run_for(milliseconds(10));
  std::vector<Passed*> all;
  for (int i = 0; i < 20; ++i) all.push_back(&write(5));
  const Passed& format = pass(admin_command(AdminOpcode::format_nvm, 1));
  loop.run_for(milliseconds(10));
  const Instant begin = loop.now();
  host_->stop(true);
  ASSERT_TRUE(wait_for([&] { return watcher.ended.has_value(); }, host::kStopTimeMax));
  EXPECT_LE(loop.now() - begin, host::kStopTimeMax);
  EXPECT_EQ(format.code(), ENOTCONN);
  for (const Passed* p : all) EXPECT_EQ(p->code(), ENOTCONN) << p->why();
}

TEST_F(PassthroughIo, ALossWhileItsWriteIsFlushedEndsIt) {
  params.unflushed = host::Unflushed::replay;
  target.id.vwc = nvme::kVwcPresent;
  go();
  std::vector<std::byte> data = sim::pattern(kBlock, 1);
  Request w;
  submit(w, BlockOp::write, 4, data);
  ASSERT_TRUE(wait_for([&] { return w.done(); }));
  hold_opcode(NvmOpcode::flush);
  const Passed& p = write(4);
  ASSERT_TRUE(wait_for([&] { return !held.empty(); }));
  target.intercept = {};
  kill_target();
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }, seconds(5)));
  EXPECT_EQ(p.code(), ECONNRESET);
  EXPECT_THAT(p.why(), HasSubstr("older copies may come over"));
}

TEST_F(PassthroughIo, AFormatFindsNobodyAndIsLookedAtBeforeAnybodyGoesOn) {
  params.nr_io_queues = 2;
  go(2);
  hold_opcode(NvmOpcode::read);
  std::vector<std::byte> data(kBlock);
  Request read, write, other;
  submit(read, BlockOp::read, 1, data);
  loop.run_for(milliseconds(10));
  const Passed& format = pass(admin_command(AdminOpcode::format_nvm, 1));
  loop.run_for(milliseconds(100));
  EXPECT_EQ(target.count(0, 0x80), 0u) << "a read is under way";
  submit(write, BlockOp::write, 1, data, 1);
  submit(other, BlockOp::write, 1, data, 1, 2);
  loop.run_for(milliseconds(100));
  EXPECT_FALSE(write.done());
  EXPECT_TRUE(other.done()) << "another namespace goes on";
  const auto [at, c] = held.front();
  std::size_t identified = 0;
  std::size_t writes_at_format = 0;
  bool written_first = false;
  target.intercept = [&](FakeTarget::Connection& on, ControllerCommand& k) {
    if (on.qid == 0 && k.sqe.opcode == 0x80) {
      writes_at_format = writes_seen();
      target.namespaces[1].id.nsze = 512;  // smaller
      on.respond(k, {});
      return true;
    }
    if (on.qid == 0 && k.sqe.opcode == 0x06 && k.sqe.nsid == 1) ++identified;
    if (on.qid != 0 && k.sqe.nsid == 1 && identified == 0) written_first = true;
    return false;
  };
  at->send(*c, std::vector<std::byte>(kBlock));
  ASSERT_TRUE(wait_for([&] { return format.done(); }));
  EXPECT_TRUE(format.ok()) << format.why();
  EXPECT_EQ(writes_at_format, 1u) << "namespace 2's";
  EXPECT_GE(identified, 1u);
  EXPECT_FALSE(written_first);
  loop.run_for(seconds(1));
  EXPECT_FALSE(write.done()) << "it is smaller than it was: not the same disk";
  const auto health = namespace_health();
  EXPECT_THAT(health[0].stopped, HasSubstr("block"));
  const Passed& refused = finish(io_command(nvme::read_command(1, 1, 1)), kBlock);
  EXPECT_EQ(refused.code(), ESTALE);
  EXPECT_THAT(refused.why(), HasSubstr("was not sent"));
  // As it was.
  target.namespaces[1].id.nsze = 1024;
  ASSERT_TRUE(rescan());
  ASSERT_TRUE(wait_for([&] { return write.done(); }));
  EXPECT_EQ(write.error, 0);
}

TEST_F(PassthroughIo, WhatStoodStillForACommandMustStillBeTheDiskItWasMeantFor) {
  go();
  hold_opcode(NvmOpcode::read);
  std::vector<std::byte> data(kBlock);
  Request read;
  submit(read, BlockOp::read, 1, data);
  ASSERT_TRUE(wait_for([&] { return held.size() == 1; }));
  const Passed& format = pass(admin_command(AdminOpcode::format_nvm, 1));
  loop.run_for(milliseconds(100));
  target.namespaces[1].descriptors.uuid = uuid(99);
  ASSERT_TRUE(target.send_event({nvme::AsyncEventType::notice, nvme::kNoticeNamespaceChanged,
                                 static_cast<std::uint8_t>(nvme::LogPage::changed_namespaces)}));
  loop.run_for(milliseconds(100));
  const auto [at, c] = held.front();
  target.intercept = {};
  at->send(*c, std::vector<std::byte>(kBlock));
  ASSERT_TRUE(wait_for([&] { return format.done(); }));
  EXPECT_EQ(format.code(), ESTALE) << format.why();
  EXPECT_THAT(format.why(), HasSubstr("was not sent"));
  EXPECT_EQ(target.count(0, 0x80), 0u);
}

TEST_F(PassthroughIo, AFormatThatNeverEndsDoesNotHoldUpTheEnd) {
  go();
  hold_admin(0x80);
  PassthroughCommand format = admin_command(AdminOpcode::format_nvm, 1);
  format.timeout = std::chrono::hours(10);
  const Passed& p = pass(format);
  ASSERT_TRUE(wait_for([&] { return held.size() == 1; }));
  const Passed& second = pass(format);
  loop.run_for(seconds(30));
  EXPECT_FALSE(p.done());
  EXPECT_EQ(watcher.lost, 0) << "others wait, the association lives";
  const Instant begin = loop.now();
  host_->stop();
  ASSERT_TRUE(wait_for([&] { return watcher.ended.has_value(); }));
  EXPECT_LE(loop.now() - begin, milliseconds(1400)) << "later nvmf disconnect has to hurry";
  EXPECT_EQ(p.code(), ECONNRESET);
  EXPECT_EQ(second.code(), ENOTCONN);
}

TEST_F(PassthroughIo, WithNoQuietMomentInTimeItIsNotSent) {
  go();
  hold_opcode(NvmOpcode::read);
  std::vector<std::byte> data(kBlock);
  Request read, write;
  submit(read, BlockOp::read, 1, data);
  loop.run_for(milliseconds(10));
  PassthroughCommand c = admin_command(AdminOpcode::format_nvm, 1);
  c.timeout = seconds(1);
  const Passed& format = finish(c);
  EXPECT_EQ(format.code(), EBUSY);
  EXPECT_EQ(target.count(0, 0x80), 0u);
  submit(write, BlockOp::write, 1, data);
  EXPECT_TRUE(wait_for([&] { return write.done(); }, seconds(1))) << "frontends go on";
  answer_all();
  EXPECT_TRUE(wait_for([&] { return read.done(); }));
}

TEST_F(PassthroughIo, AToolsFlushIsNotTheFrontends) {
  target.id.vwc = nvme::kVwcPresent;
  go();
  std::vector<std::byte> data(kBlock);
  Request w;
  submit(w, BlockOp::write, 1, data);
  ASSERT_TRUE(wait_for([&] { return w.done(); }));
  EXPECT_EQ(namespace_health()[0].unflushed, 1u);
  EXPECT_TRUE(finish(io_command(nvme::flush_command(1))).ok());
  EXPECT_EQ(namespace_health()[0].unflushed, 1u);
  const Passed& p = write(4);
  ASSERT_TRUE(wait_for([&] { return p.done(); }));
  EXPECT_EQ(namespace_health()[0].unflushed, 2u) << "a tool's write counts";
}

TEST_F(PassthroughIo, CopiesThatAreWrittenAgainDoNotComeOverAToolsWrite) {
  params.unflushed = host::Unflushed::replay;
  target.id.vwc = nvme::kVwcPresent;
  go();
  std::vector<std::byte> data = sim::pattern(kBlock, 1);
  Request w;
  submit(w, BlockOp::write, 4, data);
  ASSERT_TRUE(wait_for([&] { return w.done(); }));
  const Passed& p = write(4);
  ASSERT_TRUE(wait_for([&] { return p.done(); }));
  EXPECT_TRUE(p.ok());
  kill_target();
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  loop.run_for(seconds(5));
  EXPECT_EQ(target.namespaces[1].bytes[4 * kBlock], std::byte{0x5a});
}

TEST_F(PassthroughIo, RescanTellsWhatIsNewAndWhatIsGone) {
  go();
  target.add_namespace(9, 64);
  target.add_namespace(10, 64).id.lbaf[0].ms = 8;
  target.namespaces.erase(2);
  const auto report = rescan();
  ASSERT_TRUE(report && *report);
  EXPECT_EQ((*report)->active, (std::vector<std::uint32_t>{1, 9, 10}));
  EXPECT_EQ((*report)->added, (std::vector<std::uint32_t>{9}));
  EXPECT_EQ((*report)->not_served, (std::vector<std::uint32_t>{10}));
  EXPECT_EQ((*report)->gone, (std::vector<std::uint32_t>{2}));
  ASSERT_EQ((*report)->stopped.size(), 1u);
  EXPECT_EQ((*report)->stopped[0].nsid, 2u);
}

TEST_F(PassthroughIo, AReadOnlyConnectionAndOneWithoutQueuesRefuse) {
  params.read_only = true;
  go();
  EXPECT_EQ(finish(io_command(nvme::write_command(1, 0, 1)), kBlock).code(), EROFS);
  EXPECT_EQ(finish(admin_command(AdminOpcode::format_nvm, 1)).code(), EROFS);
  EXPECT_TRUE(finish(io_command(nvme::read_command(1, 0, 1)), kBlock).ok());
}

TEST_F(PassthroughIo, WithoutIoQueuesThereIsAdministrationOnly) {
  params.nr_io_queues = 0;
  go();
  const Passed& p = finish(io_command(nvme::read_command(1, 0, 1)), kBlock);
  EXPECT_EQ(p.code(), EOPNOTSUPP);
  EXPECT_THAT(p.why(), HasSubstr("no I/O queues"));
  EXPECT_TRUE(finish(admin_command(AdminOpcode::format_nvm, 1)).result->has_value());
}

}  // namespace
}  // namespace nvmf::test
