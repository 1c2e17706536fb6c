// A live association: keep-alive, asynchronous events, administration beside I/O.

#include <gmock/gmock.h>

#include "host/fixture.h"

namespace nvmf::test {
namespace {

using nvme::AdminOpcode;
using nvme::StatusCode;
using testing::Contains;
using testing::HasSubstr;
using transport::ControllerCommand;
using transport::DataDirection;

class Live : public HostTest {
 protected:
  Live() { target.add_namespace(1, 2048); }
  std::size_t keep_alives() const {
    return target.count(0, static_cast<std::uint8_t>(AdminOpcode::keep_alive));
  }
  std::size_t keep_alives_in(Duration d) {
    const std::size_t before = keep_alives();
    loop.run_for(d);
    return keep_alives() - before;
  }
  void read_block() {
    std::vector<std::byte> data(512);
    Request r;
    r.length_bytes = 512;
    r.data = data.data();
    EXPECT_EQ(run(r), 0);
  }
  static bool is(const FakeTarget::Connection& at, const ControllerCommand& c, AdminOpcode op) {
    return at.qid == 0 && !c.sqe.is_fabrics() && c.sqe.opcode == static_cast<std::uint8_t>(op);
  }
};

TEST_F(Live, KeepAliveEveryHalfTimeout) {
  ASSERT_TRUE(go_live());
  EXPECT_EQ(keep_alives_in(seconds(25)), 10u);
  EXPECT_EQ(outcome.ended, std::nullopt);
}

TEST_F(Live, KeepAliveFollowsTheControllersOwnTimeout) {
  target.kato_reported_ms = 2000;
  ASSERT_TRUE(go_live());
  EXPECT_EQ(subsystem->info()->katt_ms, 2000u);
  EXPECT_EQ(keep_alives_in(seconds(10)), 10u);
}

TEST_F(Live, TrafficIsNoSubstituteWithoutTbkas) {
  ASSERT_TRUE(go_live());
  const std::size_t before = keep_alives();
  for (int i = 0; i < 20; ++i) {
    read_block();
    loop.run_for(seconds(1));
  }
  EXPECT_GE(keep_alives() - before, 7u);
}

TEST_F(Live, TrafficTakesTheKeepAlivesPlaceWithTbkas) {
  target.id.ctratt = nvme::kCtrattTbkas;
  ASSERT_TRUE(go_live());
  loop.run_for(seconds(3));
  const std::size_t before = keep_alives();
  for (int i = 0; i < 40; ++i) {
    read_block();
    loop.run_for(milliseconds(500));
  }
  EXPECT_EQ(keep_alives() - before, 0u);
  EXPECT_EQ(keep_alives_in(seconds(20)), 15u) << "every quarter of 5 s when idle, after the first";
}

TEST_F(Live, KeepAliveOffIsOff) {
  params.keep_alive_ms = 0;
  target.id.kas = 0;
  ASSERT_TRUE(go_live());
  EXPECT_EQ(keep_alives_in(seconds(60)), 0u);
}

TEST_F(Live, KeepAliveRunsDuringALongBringUp) {
  // The I/O queues answer late; the controller must not give us up meanwhile.
  target.ready_delay = seconds(4);
  std::vector<ControllerCommand*> late;
  bool slow = true;
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    if (!slow || at.qid != 1 || !c.sqe.is_fabrics()) return false;
    late.push_back(&c);
    return true;
  };
  start();
  loop.run_for(seconds(12));
  EXPECT_GE(keep_alives(), 3u);
  slow = false;
}

TEST_F(Live, BlackHoleIsFoundByKeepAlive) {
  params.loss.ctrl_loss = Duration{};
  ASSERT_TRUE(go_live());
  for (const auto& link : loop.links()) link->blackhole();
  const Instant begin = loop.now();
  ASSERT_TRUE(loop.run_until([&] { return outcome.ended.has_value(); }, seconds(20)));
  EXPECT_LE(loop.now() - begin, seconds(8));
  EXPECT_THAT(outcome.ended->message, HasSubstr("did not answer a Keep Alive within 5000 ms"));
}

TEST_F(Live, ChangedNamespacesAreReadAndReported) {
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    if (!is(at, c, AdminOpcode::get_log_page)) return false;
    std::vector<std::byte> page(nvme::kChangedNamespacesBytes);
    nvme::ChangedNamespaces{.overflow = false, .nsids = {1, 77}}.encode(
        std::span(page).first<nvme::kChangedNamespacesBytes>());
    at.send(c, page);
    return true;
  };
  ASSERT_TRUE(go_live());
  ASSERT_TRUE(target.send_event({.type = nvme::AsyncEventType::notice,
                                 .info = nvme::kNoticeNamespaceChanged,
                                 .log_page = 0x04}));
  loop.run_for(seconds(1));
  EXPECT_EQ(subsystem->statistics().async_events, 1u);
  EXPECT_THAT(logged(), Contains(HasSubstr("namespaces changed: 1, 77")));
  EXPECT_EQ(target.connection(0)->event_requests.size(), 4u) << "the slot was not put up again";
}

TEST_F(Live, EventSlotIsKeptWhenTheLogCannotBeRead) {
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    if (!is(at, c, AdminOpcode::get_log_page)) return false;
    at.respond(c, StatusCode::internal_error);
    return true;
  };
  ASSERT_TRUE(go_live());
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(target.send_event({.type = nvme::AsyncEventType::smart, .log_page = 0x02}));
    loop.run_for(milliseconds(100));
  }
  EXPECT_EQ(subsystem->statistics().async_events, 10u);
  EXPECT_EQ(target.connection(0)->event_requests.size(), 4u);
  EXPECT_EQ(outcome.ended, std::nullopt);
}

TEST_F(Live, EndlessEventsDoNotSpin) {
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    if (!is(at, c, AdminOpcode::async_event_request)) return false;
    at.respond(c, {}, nvme::AsyncEvent{.type = nvme::AsyncEventType::vendor}.encode());
    return true;
  };
  ASSERT_TRUE(go_live());
  loop.run_for(seconds(1));
  EXPECT_LE(subsystem->statistics().async_events, 500u);
}

TEST_F(Live, RefusedEventRequestIsNotRepeated) {
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    if (!is(at, c, AdminOpcode::async_event_request)) return false;
    at.respond(c, {StatusCode::aer_limit_exceeded, true});
    return true;
  };
  ASSERT_TRUE(go_live());
  loop.run_for(seconds(5));
  EXPECT_EQ(target.count(0, 0x0c), 4u);
}

// Coroutines that are lambdas capture nothing: see task.h.
host::Task<void> read_log(host::RemoteSubsystem& s, std::vector<std::byte>& out, int& done,
                          int& failed) {
  auto r = co_await s.log_page({.page = nvme::LogPage::discovery}, out);
  ++(r && r->cqe.status.ok() ? done : failed);
}

TEST_F(Live, AdminCommandsWaitForSlotsAndKeepAliveDoesNot) {
  ASSERT_TRUE(go_live());
  std::vector<std::pair<FakeTarget::Connection*, ControllerCommand*>> held;
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    if (!is(at, c, AdminOpcode::get_log_page)) return false;
    held.emplace_back(&at, &c);
    return true;
  };
  int done = 0;
  int failed = 0;
  std::vector<std::vector<std::byte>> pages(100, std::vector<std::byte>(4096));
  for (auto& page : pages) host::spawn(read_log(*subsystem, page, done, failed));
  EXPECT_EQ(keep_alives_in(seconds(20)), 8u);
  EXPECT_EQ(held.size(), 13u) << "31 slots, 4 for events, 1 for Keep Alive, 13 for passthrough";
  while (!held.empty()) {
    const auto [at, command] = held.back();
    held.pop_back();
    at->send(*command, std::vector<std::byte>(4096));
    loop.run_for(milliseconds(10));
  }
  EXPECT_EQ(done, 100);
}

TEST_F(Live, AdminCommandsEndWithTheConnection) {
  params.loss.ctrl_loss = Duration{};
  ASSERT_TRUE(go_live());
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    return is(at, c, AdminOpcode::get_log_page);
  };
  int done = 0;
  int failed = 0;
  std::vector<std::vector<std::byte>> pages(100, std::vector<std::byte>(4096));
  for (auto& page : pages) host::spawn(read_log(*subsystem, page, done, failed));
  loop.run_for(seconds(1));
  target.connection(1)->qpair.end(Error{"cut", 0});
  ASSERT_TRUE(loop.run_until([&] { return outcome.ended.has_value(); }, seconds(5)));
  EXPECT_EQ(failed, 100);
}

TEST_F(Live, UnansweredAdminCommandEndsTheConnection) {
  params.loss.ctrl_loss = Duration{};
  ASSERT_TRUE(go_live());
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    return is(at, c, AdminOpcode::get_log_page);
  };
  int done = 0;
  int failed = 0;
  std::vector<std::byte> page(4096);
  host::spawn(read_log(*subsystem, page, done, failed));
  ASSERT_TRUE(loop.run_until([&] { return outcome.ended.has_value(); }, seconds(70)));
  EXPECT_EQ(failed, 1);
  EXPECT_THAT(outcome.ended->message,
              HasSubstr("did not answer the command Get Log Page within 60 s"));
}

TEST_F(Live, LogPagesLongerThanMdtsComeInPieces) {
  target.id.mdts = 1;  // 8 KiB
  ASSERT_TRUE(go_live());
  std::vector<std::byte> out(20'000);
  int done = 0;
  int failed = 0;
  host::spawn(read_log(*subsystem, out, done, failed));
  loop.run_for(seconds(1));
  EXPECT_EQ(done, 1);
  std::vector<std::tuple<std::uint64_t, std::uint64_t, bool>> pieces;
  for (const SeenCommand& s : target.seen) {
    if (s.qid != 0 || s.sqe.is_fabrics() || s.sqe.opcode != 0x02) continue;
    const auto log = nvme::GetLogPage::from_sqe(s.sqe);
    pieces.emplace_back(log.offset_bytes, log.length_bytes, log.retain_event);
  }
  using P = std::tuple<std::uint64_t, std::uint64_t, bool>;
  EXPECT_THAT(pieces,
              testing::ElementsAre(P{0, 8192, true}, P{8192, 8192, true}, P{16384, 3616, false}));
}

TEST_F(Live, NotConnectedIsAnAnswerToo) {
  start();
  std::vector<std::byte> page(4096);
  int done = 0;
  int failed = 0;
  host::spawn(read_log(*subsystem, page, done, failed));
  EXPECT_EQ(failed, 1);
}

}  // namespace
}  // namespace nvmf::test
