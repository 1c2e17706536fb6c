// Events of each kind: acted on, counted, told.
#include <gmock/gmock.h>

#include <algorithm>

#include "host/passthrough_fixture.h"

namespace nvmf::test {
namespace {

using host::EventKind;
using host::HostEvent;
using nvme::AsyncEvent;
using nvme::AsyncEventType;
using testing::ElementsAre;
using testing::HasSubstr;

class Events : public Passthrough {
 protected:
  Events() { target.id.oaes |= nvme::kOaesAnaChange | nvme::kOaesFirmwareActivation; }
  /// What a page says.
  void page_is(nvme::LogPage page, std::vector<std::byte> bytes) {
    target.intercept = [page, bytes](FakeTarget::Connection& at, ControllerCommand& c) {
      if (at.qid != 0 || c.sqe.opcode != 0x02) return false;
      if (nvme::GetLogPage::from_sqe(c.sqe).page != page) return false;
      at.send(c, bytes);
      return true;
    };
  }
  /// Sends it and waits until it was told.
  const HostEvent& event(AsyncEventType type, std::uint8_t info, nvme::LogPage page) {
    const std::size_t before = watcher.events.size();
    EXPECT_TRUE(target.send_event({type, info, static_cast<std::uint8_t>(page)}));
    // What was done about it is told before it.
    EXPECT_TRUE(wait_for(
        [&] { return watcher.events.size() > before && watcher.events.back().dw0.has_value(); }));
    return watcher.events.back();
  }
  [[nodiscard]] std::uint64_t count(EventKind kind) const {
    return host_->event_counts()[static_cast<std::size_t>(kind)];
  }
  [[nodiscard]] const HostEvent* last(EventKind kind) const {
    const HostEvent* found = nullptr;
    for (const HostEvent& e : watcher.events) {
      if (e.kind == kind) found = &e;
    }
    return found;
  }
  template <std::size_t kBytes, class Page>
  static std::vector<std::byte> encoded(const Page& page) {
    std::vector<std::byte> bytes(kBytes);
    page.encode(std::span(bytes).first<kBytes>());
    return bytes;
  }
};

TEST_F(Events, NamespacesChanged) {
  go();
  target.namespaces[1].id.nsze = 2048;
  page_is(nvme::LogPage::changed_namespaces,
          encoded<nvme::kChangedNamespacesBytes>(nvme::ChangedNamespaces{.nsids = {1}}));
  const HostEvent& e = event(AsyncEventType::notice, nvme::kNoticeNamespaceChanged,
                             nvme::LogPage::changed_namespaces);
  EXPECT_EQ(e.kind, EventKind::namespaces_changed);
  EXPECT_THAT(e.nsids, ElementsAre(1u));
  EXPECT_FALSE(e.overflow);
  ASSERT_TRUE(e.dw0);
  EXPECT_EQ(*e.dw0, 0x00040002u);
  const HostEvent* resized = last(EventKind::namespace_resized);
  ASSERT_NE(resized, nullptr) << "acted on before it is told";
  EXPECT_EQ(resized->size_bytes_before, 1024 * kBlock);
  EXPECT_EQ(resized->size_bytes, 2048 * kBlock);
  EXPECT_EQ(count(EventKind::namespaces_changed), 1u);
  EXPECT_EQ(count(EventKind::namespace_resized), 1u);
}

TEST_F(Events, MoreChangedThanCanBeListed) {
  go();
  target.namespaces[2].id.nsze = 4096;
  page_is(nvme::LogPage::changed_namespaces,
          encoded<nvme::kChangedNamespacesBytes>(nvme::ChangedNamespaces{.overflow = true}));
  const HostEvent& e = event(AsyncEventType::notice, nvme::kNoticeNamespaceChanged,
                             nvme::LogPage::changed_namespaces);
  EXPECT_TRUE(e.overflow);
  EXPECT_TRUE(e.nsids.empty());
  EXPECT_EQ(count(EventKind::namespace_resized), 1u) << "all were looked at";
}

TEST_F(Events, SmartWithItsCriticalWarning) {
  go();
  EXPECT_TRUE(std::ranges::any_of(target.seen, [](const SeenCommand& s) {
    return s.qid == 0 && s.sqe.opcode == 0x09 && (s.sqe.cdw10 & 0xff) == 0x0b &&
           s.sqe.cdw11 == (0x1f | nvme::kOaesNamespaceAttributes | nvme::kOaesAnaChange |
                           nvme::kOaesFirmwareActivation);
  })) << "asked for";
  nvme::SmartLog smart;
  smart.critical_warning = 2;
  page_is(nvme::LogPage::smart, encoded<nvme::kSmartBytes>(smart));
  const HostEvent& e = event(AsyncEventType::smart, 1, nvme::LogPage::smart);
  EXPECT_EQ(e.kind, EventKind::smart);
  ASSERT_TRUE(e.smart);
  EXPECT_EQ(e.smart->critical_warning, 2);
}

TEST_F(Events, WarningsThatATargetDoesNotKnowCostNoOtherEvent) {
  std::vector<std::uint32_t> asked;
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    if (at.qid != 0 || c.sqe.opcode != 0x09 || (c.sqe.cdw10 & 0xff) != 0x0b) return false;
    asked.push_back(c.sqe.cdw11);
    at.respond(c, (c.sqe.cdw11 & 0xff) != 0 ? nvme::Status(nvme::StatusCode::invalid_field)
                                            : nvme::Status());
    return true;
  };
  go();
  ASSERT_EQ(asked.size(), 2u);
  EXPECT_EQ(asked[1], asked[0] & ~0xffu);
  EXPECT_EQ(host_->info()->events_configured, asked[1]);
}

TEST_F(Events, ErrorsThatAreNew) {
  target.id.elpe = 3;
  go();
  const auto log = [](std::vector<std::uint64_t> counts) {
    std::vector<std::byte> bytes;
    for (const std::uint64_t n : counts) {
      const auto one = encoded<nvme::kErrorEntryBytes>(nvme::ErrorEntry{.error_count = n});
      bytes.insert(bytes.end(), one.begin(), one.end());
    }
    return bytes;
  };
  page_is(nvme::LogPage::error_information, log({7, 6, 5, 4}));
  const HostEvent first = event(AsyncEventType::error, 3, nvme::LogPage::error_information);
  EXPECT_EQ(first.kind, EventKind::error);
  ASSERT_EQ(first.errors.size(), 1u);
  EXPECT_EQ(first.errors[0].error_count, 7u);
  loop.run_for(seconds(1));
  page_is(nvme::LogPage::error_information, log({9, 8, 7, 6}));
  const HostEvent second = event(AsyncEventType::error, 3, nvme::LogPage::error_information);
  ASSERT_EQ(second.errors.size(), 2u);
  EXPECT_EQ(second.errors[0].error_count, 9u);
  EXPECT_EQ(second.errors[1].error_count, 8u);
}

TEST_F(Events, FirmwareAnaAndDiscovery) {
  target.id.nanagrpid = 2;
  go();
  nvme::FirmwareSlots slots;
  slots.afi = 1;
  slots.frs[0] = "1.2";
  page_is(nvme::LogPage::firmware_slot, encoded<nvme::kFirmwareSlotBytes>(slots));
  const HostEvent firmware =
      event(AsyncEventType::notice, nvme::kNoticeFirmwareActivation, nvme::LogPage::firmware_slot);
  EXPECT_EQ(firmware.kind, EventKind::firmware_activation);
  ASSERT_TRUE(firmware.firmware);
  EXPECT_EQ(firmware.firmware->frs[0], "1.2");
  loop.run_for(seconds(1));
  nvme::AnaLog ana;
  ana.groups = {{.group_id = 1, .state = nvme::AnaState::inaccessible}};
  page_is(nvme::LogPage::ana, ana.encode());
  const HostEvent changed =
      event(AsyncEventType::notice, nvme::kNoticeAnaChange, nvme::LogPage::ana);
  EXPECT_EQ(changed.kind, EventKind::ana_changed);
  ASSERT_TRUE(changed.ana);
  ASSERT_EQ(changed.ana->groups.size(), 1u);
  EXPECT_EQ(changed.ana->groups[0].state, nvme::AnaState::inaccessible);
  loop.run_for(seconds(1));
  page_is(nvme::LogPage::discovery,
          encoded<nvme::kDiscoveryHeaderBytes>(nvme::DiscoveryHeader{.genctr = 12}));
  const HostEvent discovery =
      event(AsyncEventType::notice, nvme::kNoticeDiscoveryChange, nvme::LogPage::discovery);
  EXPECT_EQ(discovery.kind, EventKind::discovery_changed);
  EXPECT_EQ(discovery.generation, 12u);
  EXPECT_EQ(count(EventKind::firmware_activation) + count(EventKind::ana_changed) +
                count(EventKind::discovery_changed),
            3u);
}

TEST_F(Events, WhatNobodyKnowsIsToldAsItCame) {
  go();
  const HostEvent& e = event(AsyncEventType::vendor, 0x42, static_cast<nvme::LogPage>(0xc7));
  EXPECT_EQ(e.kind, EventKind::other);
  EXPECT_EQ(e.dw0, 0x00c74207u);
}

TEST_F(Events, APageThatIsRefusedIsAnEventAllTheSameAndTheSlotStays) {
  go();
  target.intercept = [](FakeTarget::Connection& at, ControllerCommand& c) {
    if (at.qid != 0 || c.sqe.opcode != 0x02) return false;
    at.respond(c, nvme::StatusCode::invalid_field);
    return true;
  };
  for (int i = 0; i < 10; ++i) {
    const HostEvent e = event(AsyncEventType::smart, 1, nvme::LogPage::smart);
    EXPECT_FALSE(e.smart);
    loop.run_for(seconds(1));
  }
  EXPECT_EQ(count(EventKind::smart), 10u);
}

TEST_F(Events, AStormOfThemLeavesRoomInTheLogAndTheAssociationGoesOn) {
  go();
  hold_if([](FakeTarget::Connection& at, ControllerCommand& c) {
    // Of two slots one has a page that never comes.
    return at.qid == 0 && c.sqe.opcode == 0x02 &&
           nvme::GetLogPage::from_sqe(c.sqe).page == nvme::LogPage::error_information;
  });
  ASSERT_TRUE(target.send_event({AsyncEventType::error, 0, 1}));
  logged().clear();
  const Instant end = loop.now() + seconds(8);
  std::size_t sent = 0;
  while (loop.now() < end) {
    if (target.send_event({AsyncEventType::smart, 1, 2})) ++sent;
    loop.run_for(milliseconds(1));
  }
  EXPECT_GT(sent, 100u);
  EXPECT_GE(count(EventKind::smart) + 1, sent);
  EXPECT_LE(sent, 8u * host::kAsyncEventSlotsMax * 100);
  EXPECT_LE(logged().size(), 20u);
  EXPECT_EQ(watcher.lost, 0);
  loop.run_for(seconds(10));
  ASSERT_TRUE(target.send_event({AsyncEventType::smart, 1, 2}));
  loop.run_for(milliseconds(100));
  EXPECT_THAT(logged().back(), HasSubstr(" more before)"));
}

TEST_F(Events, LossAttemptsReturnAndNamespacesThatStop) {
  go();
  refuse(true);
  kill_target();
  ASSERT_TRUE(wait_for([&] { return watcher.lost == 1; }));
  loop.run_for(seconds(20));
  EXPECT_EQ(count(EventKind::connection_lost), 1u);
  EXPECT_EQ(count(EventKind::attempt_failed), 1u) << "the same sentence is told once";
  EXPECT_FALSE(last(EventKind::connection_lost)->message.empty());
  EXPECT_FALSE(last(EventKind::connection_lost)->dw0);
  const auto known = target.namespaces[1].descriptors.uuid;
  target.namespaces[1].descriptors.uuid = uuid(99);
  refuse(false);
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }));
  EXPECT_EQ(count(EventKind::connection_live), 1u);
  ASSERT_EQ(count(EventKind::namespace_stopped), 1u);
  EXPECT_THAT(last(EventKind::namespace_stopped)->nsids, ElementsAre(1u));
  EXPECT_THAT(last(EventKind::namespace_stopped)->message, HasSubstr("accept"));
  target.namespaces[1].descriptors.uuid = known;
  ASSERT_TRUE(rescan());
  EXPECT_EQ(count(EventKind::namespace_resumed), 1u);
}

TEST_F(Events, NamespacesThatAreNotServedAreToldOnce) {
  go();
  target.add_namespace(9, 64).id.lbaf[0].ms = 8;
  ASSERT_TRUE(rescan());
  ASSERT_TRUE(rescan());
  EXPECT_EQ(count(EventKind::namespaces_not_served), 1u);
  EXPECT_THAT(last(EventKind::namespaces_not_served)->nsids, ElementsAre(9u));
}

}  // namespace
}  // namespace nvmf::test
