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

TEST_F(Passthrough, ACrowdThatAsksForARescanDelaysNoNoticeOfTheController) {
  go();
  hold_if([](FakeTarget::Connection& at, ControllerCommand& c) {
    return at.qid == 0 && c.sqe.opcode == 0x06 && (c.sqe.cdw10 & 0xff) == 0x02;
  });
  std::list<std::optional<Result<host::RescanReport>>> reports(300);
  for (auto& report : reports) begin_rescan(report);
  loop.run_for(milliseconds(100));
  const auto refused = std::ranges::count_if(
      reports, [](const auto& r) { return r && !*r && r->error().code == EBUSY; });
  EXPECT_EQ(refused, 300 - 1 - static_cast<int>(host::kRescanWaitersMax));
  EXPECT_EQ(held.size(), 1u);
  target.namespaces[1].id.nsze = 2048;
  ASSERT_TRUE(target.send_event({nvme::AsyncEventType::notice, nvme::kNoticeNamespaceChanged,
                                 static_cast<std::uint8_t>(nvme::LogPage::changed_namespaces)}));
  loop.run_for(milliseconds(100));
  EXPECT_EQ(host_->namespaces().front()->info.size_bytes, 2048u * 512);
  kill_target();
  EXPECT_TRUE(wait_for([&] { return std::ranges::all_of(reports, [](auto& r) { return !!r; }); }));
}

TEST_F(Passthrough, ACrowdReadsTheEffectsLogOnce) {
  target.id.lpa |= nvme::kLpaEffects;
  go();
  hold_admin(0x02);
  std::vector<Passed*> all;
  for (std::size_t i = 0; i < host::kEffectsWaitersMax + 1; ++i) {
    all.push_back(&pass(admin_command(AdminOpcode::get_features)));
  }
  loop.run_for(milliseconds(100));
  EXPECT_EQ(target.count(0, 0x02), 1u);
  EXPECT_FALSE(all.back()->done());
  const Passed& more = finish(admin_command(AdminOpcode::get_features));
  EXPECT_EQ(more.code(), EBUSY) << "not sent as if the controller had no such log";
  EXPECT_THAT(more.why(), HasSubstr("was not sent"));
  ASSERT_EQ(held.size(), 1u);
  target.intercept = {};
  held.front().first->send(*held.front().second, std::vector<std::byte>(nvme::kEffectsBytes));
  held.clear();
  ASSERT_TRUE(wait_for([&] { return std::ranges::all_of(all, &Passed::done); }));
  EXPECT_EQ(target.count(0, 0x02), 1u);
  EXPECT_GT(target.count(0, 0x0a), 200u);
}

TEST_F(Passthrough, AnEffectsLogThatNeverComesDoesNotHoldUpTheEnd) {
  target.id.lpa |= nvme::kLpaEffects;
  go();
  hold_admin(0x02);
  std::vector<Passed*> all;
  for (int i = 0; i < 20; ++i) all.push_back(&pass(admin_command(AdminOpcode::get_features)));
  loop.run_for(milliseconds(100));
  const Instant begin = loop.now();
  host_->stop();
  ASSERT_TRUE(wait_for([&] { return watcher.ended.has_value(); }));
  EXPECT_LE(loop.now() - begin, milliseconds(1400)) << "later nvmf disconnect has to hurry";
  for (const Passed* p : all) EXPECT_EQ(p->code(), ENOTCONN) << p->why();
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
