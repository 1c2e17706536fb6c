// Namespaces that come, change and go under a connection that stays.
#include <gmock/gmock.h>

#include <algorithm>

#include "host/passthrough_fixture.h"

namespace nvmf::test {
namespace {

using host::EventKind;
using host::HostEvent;
using host::IoState;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class Namespaces : public Passthrough {
 protected:
  /// The controller's notice: these have changed; none: more than it can list.
  void say_changed(std::vector<std::uint32_t> nsids, Duration most = milliseconds(100)) {
    std::vector<std::byte> page(nvme::kChangedNamespacesBytes);
    const nvme::ChangedNamespaces list{.overflow = nsids.empty(), .nsids = nsids};
    list.encode(std::span(page).first<nvme::kChangedNamespacesBytes>());
    target.intercept = [page](FakeTarget::Connection& at, ControllerCommand& c) {
      if (at.qid != 0 || c.sqe.opcode != 0x02) return false;
      if (nvme::GetLogPage::from_sqe(c.sqe).page != nvme::LogPage::changed_namespaces) return false;
      at.send(c, page);
      return true;
    };
    ASSERT_TRUE(target.send_event({.type = nvme::AsyncEventType::notice,
                                   .info = nvme::kNoticeNamespaceChanged,
                                   .log_page = 4}));
    loop.run_for(most);
  }
  int io(BlockOp op, std::uint32_t nsid, std::uint64_t lba = 0, std::size_t reactor = 0) {
    std::vector<std::byte> data(kBlock, std::byte{0x77});
    Request r;
    submit(r, op, lba, data, reactor, nsid);
    EXPECT_TRUE(wait_for([&] { return r.done(); }));
    return r.error;
  }
  std::vector<std::string> told() { return std::exchange(watcher.users_told, {}); }
  [[nodiscard]] std::size_t events(EventKind kind) const {
    return static_cast<std::size_t>(std::ranges::count(watcher.events, kind, &HostEvent::kind));
  }
  [[nodiscard]] std::size_t identified(std::uint32_t nsid) const {
    return static_cast<std::size_t>(std::ranges::count_if(target.seen, [nsid](const auto& s) {
      return s.qid == 0 && s.sqe.opcode == 0x06 && s.sqe.nsid == nsid && (s.sqe.cdw10 & 0xff) == 0;
    }));
  }
};

TEST_F(Namespaces, OneThatIsAddedIsServedOnAllReactors) {
  params.nr_io_queues = 3;
  go(3);
  EXPECT_THAT(told(), IsEmpty());
  target.add_namespace(7, 64);
  say_changed({7});
  EXPECT_THAT(told(), ElementsAre("attached 7"));
  EXPECT_EQ(events(EventKind::namespace_added), 1u);
  ASSERT_NE(host_->find(7), nullptr);
  EXPECT_EQ(host_->find(7)->info.size_bytes, 64 * kBlock);
  EXPECT_TRUE(host_->attached(7));
  EXPECT_EQ(host_->io_state(7), IoState::live);
  for (std::size_t r = 0; r < 3; ++r) EXPECT_EQ(io(BlockOp::write, 7, r, r), 0);
  EXPECT_EQ(target.namespaces[7].bytes[2 * kBlock], std::byte{0x77});
  // Also between two that there were: their devices stay theirs.
  target.namespaces[2].id.nsze = 2048;
  say_changed({2});
  EXPECT_THAT(told(), ElementsAre("changed 2"));
  EXPECT_EQ(namespace_health().size(), 3u);
}

TEST_F(Namespaces, OneBetweenTheOthersTakesNobodysPlace) {
  target.add_namespace(5, 128);
  go();
  host::BlockDevice* const before = host_->device(0, 5);
  target.add_namespace(3, 64);
  say_changed({3});
  EXPECT_EQ(host_->device(0, 5), before);
  EXPECT_EQ(host_->device(0, 3)->info().size_bytes, 64 * kBlock);
  EXPECT_EQ(io(BlockOp::write, 5, 127), 0);
  EXPECT_EQ(target.namespaces[5].bytes[127 * kBlock], std::byte{0x77});
}

TEST_F(Namespaces, OneThatIsRemovedFailsAndComesBackWithItsDevices) {
  go();
  host::BlockDevice* const device = host_->device(0, 2);
  const FakeNamespace kept = target.namespaces[2];
  target.namespaces.erase(2);
  say_changed({2});
  EXPECT_THAT(told(), testing::Contains("detached 2"));
  EXPECT_FALSE(host_->attached(2));
  EXPECT_EQ(host_->io_state(2), IoState::failing);
  EXPECT_EQ(events(EventKind::namespace_removed), 1u);
  EXPECT_FALSE(namespace_health()[1].attached);
  EXPECT_EQ(io(BlockOp::read, 2), EIO);
  EXPECT_EQ(io(BlockOp::read, 1), 0);
  say_changed({2});
  EXPECT_THAT(told(), IsEmpty()) << "told once";
  target.namespaces[2] = kept;
  say_changed({2});
  EXPECT_THAT(told(), ElementsAre("attached 2"));
  EXPECT_EQ(host_->device(0, 2), device);
  EXPECT_EQ(host_->io_state(2), IoState::live);
  EXPECT_EQ(io(BlockOp::read, 2), 0);
  EXPECT_EQ(events(EventKind::namespace_added), 1u);
}

TEST_F(Namespaces, AnotherDiskUnderTheSameIdentifierIsNotBack) {
  go();
  const FakeNamespace kept = target.namespaces[2];
  target.namespaces.erase(2);
  say_changed({2});
  told();
  target.namespaces[2] = kept;
  target.namespaces[2].descriptors.uuid = uuid(9);
  say_changed({2});
  EXPECT_THAT(told(), IsEmpty());
  EXPECT_FALSE(host_->attached(2));
  EXPECT_EQ(io(BlockOp::write, 2), EIO);
  EXPECT_EQ(writes_seen(), 0u);
  ASSERT_TRUE(host_->accept(2));
  loop.run_for(milliseconds(10));
  EXPECT_THAT(told(), ElementsAre("attached 2"));
  EXPECT_EQ(io(BlockOp::write, 2), 0);
}

TEST_F(Namespaces, WhatHasGoneIsAskedAboutOnlyWhenItIsListed) {
  go();
  const FakeNamespace kept = target.namespaces[2];
  target.namespaces.erase(2);
  say_changed({2});
  told();
  const std::size_t before = identified(2);
  say_changed({});
  ASSERT_TRUE(rescan());
  kill_target();
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  EXPECT_EQ(identified(2), before);
  EXPECT_THAT(namespace_health()[1].stopped, HasSubstr("has removed namespace 2"));
  target.namespaces[2] = kept;
  told();
  say_changed({});
  EXPECT_THAT(told(), ElementsAre("attached 2"));
  target.namespaces.erase(2);
  say_changed({2});
  target.namespaces[2] = kept;
  const auto report = rescan();
  ASSERT_TRUE(report && *report);
  EXPECT_EQ((*report)->added, (std::vector<std::uint32_t>{2}));
}

TEST_F(Namespaces, AnOverflowFindsWhatCameAndWhatWent) {
  go();
  target.add_namespace(7, 64);
  target.add_namespace(9, 64);
  target.namespaces.erase(1);
  say_changed({});
  auto all = told();
  std::ranges::sort(all);
  EXPECT_THAT(all, testing::IsSupersetOf({"attached 7", "attached 9", "detached 1"}));
  EXPECT_EQ(io(BlockOp::read, 7), 0);
  EXPECT_EQ(io(BlockOp::read, 9), 0);
}

TEST_F(Namespaces, WhatCameDuringALossIsThereAfterIt) {
  go();
  refuse(true);
  kill_target();
  ASSERT_TRUE(wait_for([&] { return watcher.lost == 1; }));
  EXPECT_THAT(told(), ElementsAre("changed 1", "changed 2"));
  EXPECT_EQ(host_->io_state(1), IoState::waiting);
  target.add_namespace(7, 64);
  loop.run_for(seconds(5));
  refuse(false);
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  loop.run_for(milliseconds(10));
  EXPECT_THAT(told(), ElementsAre("attached 7", "changed 1", "changed 2", "changed 7"));
  EXPECT_EQ(host_->io_state(7), IoState::live);
  EXPECT_EQ(io(BlockOp::write, 7), 0);
}

TEST_F(Namespaces, WhatCameDuringALossThatFailsRequestsGoesOnAfterIt) {
  params.loss.fast_io_fail = seconds(1);
  go();
  refuse(true);
  kill_target();
  loop.run_for(seconds(5));
  EXPECT_EQ(host_->io_state(1), IoState::failing);
  EXPECT_THAT(told(), ElementsAre("changed 1", "changed 2", "changed 1", "changed 2"));
  target.add_namespace(7, 64);
  refuse(false);
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  loop.run_for(milliseconds(10));
  EXPECT_EQ(io(BlockOp::write, 7), 0);
  EXPECT_EQ(io(BlockOp::write, 1), 0);
}

TEST_F(Namespaces, ANewOneIsNotWrittenToWhileAnEarlierWriteMayBeExecuted) {
  // The same disk, known by another identifier until now.
  params.cqt_unreported = seconds(20);
  go();
  hold_io();
  std::vector<std::byte> data(kBlock);
  Request lost;
  submit(lost, BlockOp::write, 0, data);
  loop.run_for(milliseconds(10));
  refuse(true);
  for (const auto& link : loop.links()) link->blackhole();
  ASSERT_TRUE(wait_for([&] { return watcher.lost == 1; }, seconds(120)));
  target.intercept = {};
  target.add_namespace(7, 64);
  refuse(false);
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }, seconds(120)));
  const Instant again = loop.now();
  EXPECT_EQ(io(BlockOp::read, 7), 0);
  EXPECT_EQ(loop.now() - again < seconds(1), true);
  EXPECT_EQ(io(BlockOp::write, 7), 0);
  EXPECT_GT(loop.now() - again, seconds(1));
  ASSERT_TRUE(wait_for([&] { return lost.done(); }, seconds(60)));
}

TEST_F(Namespaces, ReadOnlyBothWays) {
  go();
  target.namespaces[1].id.nsattr = nvme::kNsattrWriteProtected;
  say_changed({1});
  EXPECT_THAT(told(), ElementsAre("changed 1"));
  EXPECT_TRUE(host_->find(1)->info.read_only);
  EXPECT_TRUE(host_->device(0, 1)->info().read_only);
  EXPECT_EQ(io(BlockOp::write, 1), EPERM);
  target.namespaces[1].id.nsattr = 0;
  say_changed({1});
  EXPECT_THAT(told(), ElementsAre("changed 1"));
  EXPECT_EQ(io(BlockOp::write, 1), 0);
  say_changed({1});
  EXPECT_THAT(told(), IsEmpty());
}

TEST_F(Namespaces, ReadOnlyConnectionsServeNewOnesReadOnly) {
  params.read_only = true;
  go();
  target.add_namespace(7, 64);
  say_changed({7});
  EXPECT_TRUE(host_->find(7)->info.read_only);
  EXPECT_EQ(io(BlockOp::write, 7), EPERM);
}

TEST_F(Namespaces, WhoAskedForOneGetsNoOther) {
  params.namespace_selector = std::uint32_t{2};
  go();
  target.add_namespace(7, 64);
  say_changed({7});
  say_changed({});
  ASSERT_TRUE(rescan());
  EXPECT_THAT(told(), IsEmpty());
  EXPECT_EQ(host_->find(7), nullptr);
  EXPECT_EQ(identified(7), 0u);
  EXPECT_EQ(events(EventKind::namespaces_not_served), 0u);
}

TEST_F(Namespaces, WhoAskedByUuidGetsWhatHasIt) {
  params.namespace_selector.emplace<2>(uuid(2));
  go();
  EXPECT_EQ(host_->namespaces().size(), 1u);
  target.add_namespace(7, 64);
  say_changed({7});
  EXPECT_EQ(host_->find(7), nullptr);
  target.add_namespace(8, 1024).descriptors.uuid = uuid(2);
  target.namespaces.erase(2);
  say_changed({2, 8});
  EXPECT_THAT(told(), testing::IsSupersetOf({"detached 2", "attached 8"}));
}

TEST_F(Namespaces, WhatCannotBeServedIsToldOnce) {
  go();
  target.add_namespace(7, 64).id.lbaf[0].ms = 8;
  say_changed({7});
  say_changed({});
  EXPECT_THAT(told(), IsEmpty());
  EXPECT_EQ(events(EventKind::namespaces_not_served), 1u);
  // Another's notice does not have it looked at again; its own does.
  const std::size_t before = identified(7);
  target.add_namespace(8, 64);
  say_changed({8});
  EXPECT_EQ(identified(7), before);
  target.namespaces[7].id.lbaf[0].ms = 0;
  say_changed({7});
  EXPECT_THAT(told(), ElementsAre("attached 8", "attached 7"));
}

TEST_F(Namespaces, ManyNoticesAtOnceServeEachOnce) {
  target.id.aerl = 3;
  go(2);
  for (std::uint32_t nsid = 10; nsid < 30; ++nsid) target.add_namespace(nsid, 64);
  loop.run_for(milliseconds(10));
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(target.send_event({.type = nvme::AsyncEventType::notice,
                                   .info = nvme::kNoticeNamespaceChanged,
                                   .log_page = 4}));
  }
  const auto report = rescan();
  ASSERT_TRUE(report && *report) << (*report).error().message;
  loop.run_for(seconds(1));
  EXPECT_EQ(host_->namespaces().size(), 22u);
  auto all = told();
  EXPECT_EQ(all.size(), 20u);
  std::ranges::sort(all);
  EXPECT_TRUE(std::ranges::unique(all).empty());
}

TEST_F(Namespaces, LostWhileItIsLookedAt) {
  go(2);
  target.add_namespace(7, 64);
  hold_if([](FakeTarget::Connection& at, ControllerCommand& c) {
    return at.qid == 0 && c.sqe.opcode == 0x06 && c.sqe.nsid == 7;
  });
  ASSERT_TRUE(target.send_event({.type = nvme::AsyncEventType::notice,
                                 .info = nvme::kNoticeNamespaceChanged,
                                 .log_page = 4}));
  ASSERT_TRUE(wait_for([&] { return !held.empty(); }));
  target.intercept = {};
  kill_target();
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  loop.run_for(milliseconds(10));
  EXPECT_THAT(told(), testing::Contains("attached 7"));
  EXPECT_EQ(io(BlockOp::write, 7), 0);
}

TEST_F(Namespaces, StoppedWhileItIsLookedAt) {
  go(2);
  target.add_namespace(7, 64);
  hold_if([](FakeTarget::Connection& at, ControllerCommand& c) {
    return at.qid == 0 && c.sqe.opcode == 0x06 && c.sqe.nsid == 7;
  });
  ASSERT_TRUE(target.send_event({.type = nvme::AsyncEventType::notice,
                                 .info = nvme::kNoticeNamespaceChanged,
                                 .log_page = 4}));
  ASSERT_TRUE(wait_for([&] { return !held.empty(); }));
  host_->stop();
  ASSERT_TRUE(wait_for([&] { return watcher.ended.has_value(); }, host::kStopTimeMax));
  EXPECT_THAT(told(), IsEmpty());
}

TEST_F(Namespaces, CopiesAreKeptForNewOnesToo) {
  params.unflushed = host::Unflushed::replay;
  target.id.vwc = nvme::kVwcPresent;
  go(2);
  target.add_namespace(7, 64);
  say_changed({7});
  target.intercept = {};
  EXPECT_EQ(io(BlockOp::write, 7, 3, 1), 0);
  const std::vector<std::byte> wanted = target.namespaces[7].bytes;
  kill_target();
  std::ranges::fill(target.namespaces[7].bytes, std::byte{0});
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  EXPECT_EQ(io(BlockOp::read, 7), 0);
  EXPECT_EQ(target.namespaces[7].bytes, wanted);
}

TEST_F(Namespaces, CopiesAreWrittenAgainAfterItHadGoneAndCome) {
  params.unflushed = host::Unflushed::replay;
  target.id.vwc = nvme::kVwcPresent;
  go(2);
  const auto kept = target.namespaces[1];
  target.namespaces.erase(1);
  say_changed({1});
  target.namespaces[1] = kept;
  say_changed({1});
  target.intercept = {};
  EXPECT_EQ(io(BlockOp::write, 1, 3, 1), 0);
  const std::vector<std::byte> wanted = target.namespaces[1].bytes;
  kill_target();
  std::ranges::fill(target.namespaces[1].bytes, std::byte{0});
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  EXPECT_EQ(io(BlockOp::read, 1), 0);
  EXPECT_EQ(target.namespaces[1].bytes, wanted);
}

// A controller that has a new identifier for every notice makes us keep so many, and no more.
TEST_F(Namespaces, RotatingIdentifiersIsBounded) {
  go();
  constexpr std::uint32_t kFirst = 100;
  const auto rounds = static_cast<std::uint32_t>(host::kNamespacesKeptMax + 300);
  for (std::uint32_t i = 0; i < rounds; ++i) {
    target.namespaces.erase(kFirst + i - 1);
    target.add_namespace(kFirst + i, 8);
    say_changed(i == 0 ? std::vector{kFirst} : std::vector{kFirst + i - 1, kFirst + i},
                milliseconds(11));
    ASSERT_EQ(watcher.lost, 0);
    target.seen.clear();
  }
  EXPECT_EQ(host_->namespaces().size(), host::kNamespacesKeptMax);
  EXPECT_EQ(host_->find(kFirst + rounds - 1), nullptr);
  EXPECT_TRUE(host_->find(kFirst + 1000));
  EXPECT_EQ(io(BlockOp::write, 1), 0) << "what it is used for goes on";
  EXPECT_EQ(events(EventKind::namespaces_not_served), 302u);
  const auto refused =
      std::ranges::find(watcher.events, EventKind::namespaces_not_served, &HostEvent::kind);
  ASSERT_NE(refused, watcher.events.end());
  EXPECT_THAT(refused->message, HasSubstr("takes no more"));
  // 44 s: what comes and goes, and what the controller says of it.
  EXPECT_LE(logged().size(), 6 * (host::kNamespaceSentences + 20));
  // One that it has had is served when it is back, also now.
  told();
  target.add_namespace(kFirst + 5, 8);
  say_changed({kFirst + 5});
  EXPECT_THAT(told(), ElementsAre("attached " + std::to_string(kFirst + 5)));
}

}  // namespace
}  // namespace nvmf::test
