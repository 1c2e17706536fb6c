// Passthrough: slots of its own, refusals, timeouts, and what it may tell of a loss.
#include <gmock/gmock.h>

#include "host/passthrough_fixture.h"

namespace nvmf::test {
namespace {

using testing::HasSubstr;

TEST_F(Passthrough, AnAdminCommandIsAnsweredWithItsData) {
  go();
  const Passed& p = identify();
  ASSERT_TRUE(wait_for([&] { return p.done(); }));
  ASSERT_TRUE(p.ok()) << p.why();
  EXPECT_EQ(nvme::IdentifyController::decode(p.data).sn, "FAKE");
  EXPECT_EQ((*p.result)->received_bytes, nvme::kIdentifyBytes);
  EXPECT_EQ(host_->statistics().passthrough_commands, 1u);
}

TEST_F(Passthrough, AStatusIsAnOutcome) {
  go();
  const Passed& p = finish(admin_command(AdminOpcode::get_features));
  ASSERT_TRUE(p.result->has_value());
  EXPECT_EQ((*p.result)->cqe.status.code(), nvme::StatusCode::invalid_field);
}

TEST_F(Passthrough, StuckOnesDelayNeitherKeepAliveNorRescan) {
  go();
  hold_admin(0x0a);
  std::vector<Passed*> all;
  for (int i = 0; i < 27; ++i) all.push_back(&pass(admin_command(AdminOpcode::get_features)));
  loop.run_for(milliseconds(100));
  EXPECT_EQ(held.size(), 13u) << "half of the 26 that are not kept for events and Keep Alive";
  const std::size_t before = target.count(0, 0x18);
  loop.run_for(seconds(10));
  EXPECT_GE(target.count(0, 0x18) - before, 4u);
  const auto report = rescan(milliseconds(100));
  ASSERT_TRUE(report && *report);
  EXPECT_EQ((*report)->active, (std::vector<std::uint32_t>{1, 2}));
  EXPECT_EQ(watcher.lost, 0);
  // Answered one after the other, all get their turn.
  while (!held.empty()) {
    const auto [at, command] = held.back();
    held.pop_back();
    at->respond(*command, {});
    loop.run_for(milliseconds(10));
  }
  for (const Passed* p : all) EXPECT_TRUE(p->ok());
}

TEST_F(Passthrough, TooManyThatWaitAreRefused) {
  go();
  hold_admin(0x0a);
  std::vector<Passed*> all;
  for (int i = 0; i < 13 + 256; ++i) all.push_back(&pass(admin_command(AdminOpcode::get_features)));
  loop.run_for(milliseconds(100));
  EXPECT_FALSE(all.back()->done());
  const Passed& last = finish(admin_command(AdminOpcode::get_features));
  EXPECT_EQ(last.code(), EBUSY);
  EXPECT_THAT(last.why(), HasSubstr("256 commands wait"));
}

TEST_F(Passthrough, AnOverdueCommandIsAbortedAndItsAnswerCounts) {
  go();
  hold_if([&](FakeTarget::Connection& at, ControllerCommand& c) {
    if (at.qid == 0 && c.sqe.opcode == 0x08) {
      const auto abort = nvme::AbortCommand::from_sqe(c.sqe);
      for (const Held& h : held) {
        if (h.second->sqe.cid == abort.cid) {
          h.first->respond(*h.second, nvme::StatusCode::abort_requested);
        }
      }
    }
    return at.qid == 0 && c.sqe.opcode == 0x0a;
  });
  PassthroughCommand c = admin_command(AdminOpcode::get_features);
  c.timeout = seconds(2);
  const Instant begin = loop.now();
  const Passed& p = finish(c);
  EXPECT_GE(loop.now() - begin, seconds(2));
  EXPECT_LE(loop.now() - begin, milliseconds(2100));
  ASSERT_TRUE(p.result->has_value()) << p.why();
  EXPECT_EQ((*p.result)->cqe.status.code(), nvme::StatusCode::abort_requested);
  EXPECT_EQ(watcher.lost, 0);
}

TEST_F(Passthrough, WithoutAnAnswerToTheAbortTheAssociationIsGivenUp) {
  go();
  hold_admin(0x0a);
  PassthroughCommand c = admin_command(AdminOpcode::get_features);
  c.timeout = milliseconds(50);
  const Instant begin = loop.now();
  const Passed& p = finish(c);
  target.intercept = {};
  EXPECT_GE(loop.now() - begin, milliseconds(5050)) << "a short timeout is no reason to hurry";
  EXPECT_EQ(p.code(), ETIMEDOUT);
  EXPECT_THAT(p.why(), HasSubstr("may have been executed"));
  EXPECT_EQ(target.count(0, 0x08), 1u);
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  EXPECT_THAT(watcher.why, HasSubstr("nor when it was told to abort it"));
}

TEST_F(Passthrough, WhatWaitedForASlotWhenTheConnectionWentWasNotSent) {
  go();
  hold_admin(0x0a);
  std::vector<Passed*> all;
  for (int i = 0; i < 14; ++i) all.push_back(&pass(admin_command(AdminOpcode::get_features)));
  loop.run_for(milliseconds(10));
  target.intercept = {};
  kill_target();
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  EXPECT_EQ(all.front()->code(), ECONNRESET);
  EXPECT_THAT(all.front()->why(), HasSubstr("may have been executed"));
  EXPECT_EQ(all.back()->code(), ENOTCONN);
  EXPECT_THAT(all.back()->why(), HasSubstr("was not sent"));
  const auto sent = std::ranges::count_if(target.seen, [](const SeenCommand& s) {
    return s.qid == 0 && s.sqe.opcode == 0x0a && s.sqe.cdw10 == 0;
  });
  EXPECT_EQ(sent, 13) << "nothing is sent twice";
}

TEST_F(Passthrough, WhileTheConnectionIsLostNothingIsSent) {
  go();
  refuse(true);
  kill_target();
  ASSERT_TRUE(wait_for([&] { return watcher.lost == 1; }));
  const Passed& p = finish(admin_command(AdminOpcode::get_features));
  EXPECT_EQ(p.code(), ENOTCONN);
  EXPECT_THAT(p.why(), HasSubstr("nothing was sent"));
}

}  // namespace
}  // namespace nvmf::test
