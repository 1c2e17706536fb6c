// The discovery subsystem.
#include <set>

#include "controller/test_host.h"

namespace nvmf::controller {
namespace {

using nvme::LogPage;
using nvme::StatusCode;

const std::string kPrivateNqn = "nqn.2026-01.org.example:private";

class DiscoveryTest : public ControllerTest {
 protected:
  void begin(const std::string& address, std::size_t more = 0) {
    TargetConfig config = one_subsystem({memory(1 << 20)});
    config.subsystems.push_back({kPrivateNqn, {memory(1 << 20)}, {kHostNqn}, {}});
    for (std::size_t i = 0; i < more; ++i) {
      config.subsystems.push_back({"nqn.2026-01.org.example:" + std::to_string(i), {}, {}, {}});
    }
    start(std::move(config), address);
  }
  TestHost& discover(const std::string& hostnqn = kHostNqn, std::uint32_t kato_ms = 0) {
    TestHost& h =
        host({.subnqn = std::string(nvme::kDiscoveryNqn), .hostnqn = hostnqn, .kato_ms = kato_ms});
    h.bring_up();
    return h;
  }
  static nvme::DiscoveryHeader header(TestHost& h) {
    return nvme::DiscoveryHeader::decode(h.log(LogPage::discovery, 1024).data);
  }
  /// As nvme-cli reads it: the header, then the records in pieces.
  static std::vector<nvme::DiscoveryEntry> records(TestHost& h, std::uint64_t piece = 1024) {
    const std::uint64_t end = 1024 + header(h).numrec * 1024;
    Bytes bytes;
    for (std::uint64_t at = 1024; at < end; at += piece) {
      const Answer answer = h.log(LogPage::discovery, std::min(piece, end - at), at);
      EXPECT_TRUE(answer.ok());
      bytes.insert(bytes.end(), answer.data.begin(), answer.data.end());
    }
    std::vector<nvme::DiscoveryEntry> entries;
    for (std::size_t at = 0; at < bytes.size(); at += 1024) {
      entries.push_back(nvme::DiscoveryEntry::decode(std::span(bytes).subspan(at, 1024)));
    }
    return entries;
  }
};

TEST_F(DiscoveryTest, ListsWhatTheHostMayUse) {
  begin("127.0.0.1");
  TestHost& h = discover();
  const auto all = records(h);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].subnqn, kSubsystemNqn);
  EXPECT_EQ(all[1].subnqn, kPrivateNqn);
  EXPECT_EQ(all[0].traddr, "127.0.0.1");
  EXPECT_EQ(all[0].trsvcid, "4420");
  EXPECT_EQ(all[0].trtype, nvme::TransportType::tcp);
  EXPECT_EQ(all[0].adrfam, nvme::AddressFamily::ipv4);
  EXPECT_EQ(all[0].subtype, nvme::SubsystemType::nvme);
  EXPECT_EQ(all[0].cntlid, nvme::kCntlidDynamic);
  const auto few = records(discover("nqn.2026-01.org.example:stranger"));
  ASSERT_EQ(few.size(), 1u);
  EXPECT_EQ(few[0].subnqn, kSubsystemNqn);
}

TEST_F(DiscoveryTest, NamesTheAddressThatWasReached) {
  begin("0.0.0.0");
  at.host = "192.0.2.7";
  EXPECT_EQ(records(discover())[0].traddr, "192.0.2.7");
}

TEST_F(DiscoveryTest, SpeaksIpv6) {
  begin("::1");
  at.host = "::1";
  const auto all = records(discover());
  EXPECT_EQ(all[0].traddr, "::1");
  EXPECT_EQ(all[0].adrfam, nvme::AddressFamily::ipv6);
}

TEST_F(DiscoveryTest, GivesALongLogInAnyPieces) {
  begin("127.0.0.1", 600);
  TestHost& h = discover();
  const auto by_one = records(h, 1024);
  ASSERT_EQ(by_one.size(), 602u);
  EXPECT_EQ(records(h, 4096), by_one);
  EXPECT_EQ(records(h, 1000), by_one);
  EXPECT_EQ(records(h, 512 * 1024), by_one);
  EXPECT_EQ(by_one[601].subnqn, "nqn.2026-01.org.example:599");
}

TEST_F(DiscoveryTest, CountsGenerationsAndTells) {
  begin("127.0.0.1");
  TestHost& h = discover(kHostNqn, 60'000);
  const auto before = header(h);
  EXPECT_EQ(header(h), before);
  ASSERT_TRUE(h.admin().send(nvme::set_async_events(nvme::kOaesDiscoveryChange)).ok());
  auto request = h.admin().start(nvme::async_event_request());
  loop.run_until_idle();
  ASSERT_TRUE(target->listen({"127.0.0.1", 8009, ""}));
  const Answer told = h.admin().wait(*request);
  ASSERT_TRUE(told.ok());
  const auto event = nvme::AsyncEvent::decode(told.dw0());
  EXPECT_EQ(event.info, nvme::kNoticeDiscoveryChange);
  EXPECT_EQ(event.log_page, 0x70);
  EXPECT_NE(header(h).genctr, before.genctr);
}

TEST_F(DiscoveryTest, HasWhatADiscoveryControllerHas) {
  begin("127.0.0.1");
  TestHost& h = discover();
  const auto id = h.identify_controller();
  EXPECT_EQ(id.cntrltype, nvme::ControllerType::discovery);
  EXPECT_EQ(id.subnqn, nvme::kDiscoveryNqn);
  EXPECT_EQ(id.cntlid, h.cntlid());
  EXPECT_NE(id.maxcmd, 0);
  EXPECT_EQ(h.identify(nvme::Cns::active_namespaces).code(), code_of(StatusCode::invalid_field));
  EXPECT_EQ(h.log(LogPage::smart, 512).code(), code_of(StatusCode::invalid_field));
  EXPECT_EQ(h.admin().send(nvme::set_queue_count(1)).code(), code_of(StatusCode::invalid_field));
  EXPECT_TRUE(h.admin().send(nvme::keep_alive()).ok());
  const Answer io = h.connect_io(1);
  EXPECT_EQ(io.code(), code_of(StatusCode::connect_invalid_parameters));
  EXPECT_EQ(nvme::ConnectInvalidParameter::decode(io.result).offset, nvme::kConnectSqeQid);
}

TEST_F(DiscoveryTest, EndsIdleControllers) {
  begin("127.0.0.1");
  TestHost& idle = discover();
  TestHost& persistent = discover(kHostNqn, 400'000);
  loop.run_for(2 * kDiscoveryIdleTimeout + 1s);
  EXPECT_TRUE(idle.admin().ended());
  EXPECT_FALSE(persistent.admin().ended());
}

// ---- changes while it runs

class DiscoveryChangesTest : public DiscoveryTest {
 protected:
  void SetUp() override {
    begin("127.0.0.1");
    h = &discover(kHostNqn, 60'000);
    stranger = &discover(kStrangerNqn, 60'000);
  }
  /// A request for an event of a host that wants to be told.
  std::shared_ptr<Pending> ask(TestHost& who) {
    EXPECT_TRUE(who.admin().send(nvme::set_async_events(nvme::kOaesDiscoveryChange)).ok());
    auto request = who.admin().start(nvme::async_event_request());
    loop.run_until_idle();
    return request;
  }
  void told(TestHost& who, const Pending& request) {
    const Answer answer = who.admin().wait(request, 1s);
    ASSERT_TRUE(answer.ok());
    EXPECT_EQ(nvme::AsyncEvent::decode(answer.dw0()),
              (nvme::AsyncEvent{nvme::AsyncEventType::notice, nvme::kNoticeDiscoveryChange, 0x70}));
  }
  bool silent(const Pending& request) {
    loop.run_for(1s);
    return !request.done;
  }
  static std::set<std::string> names(TestHost& who) {
    std::set<std::string> all;
    for (const auto& entry : records(who)) all.insert(entry.subnqn);
    return all;
  }

  static constexpr const char* kStrangerNqn = "nqn.2026-01.org.example:stranger";
  static constexpr const char* kMoreNqn = "nqn.2026-01.org.example:more";
  TestHost* h = nullptr;
  TestHost* stranger = nullptr;
};

TEST_F(DiscoveryChangesTest, TellsTheHostsThatSeeThem) {
  auto mine = ask(*h);
  auto theirs = ask(*stranger);
  const auto before = header(*h).genctr;
  ASSERT_TRUE(target->add_subsystem({kMoreNqn, {memory(1 << 20)}, {kHostNqn}, {}}));
  told(*h, *mine);
  EXPECT_TRUE(silent(*theirs));
  EXPECT_GT(header(*h).genctr, before);
  EXPECT_TRUE(names(*h).contains(kMoreNqn));
  EXPECT_FALSE(names(*stranger).contains(kMoreNqn));

  mine = ask(*h);
  ASSERT_TRUE(target->allow_host(kMoreNqn, kStrangerNqn));
  told(*stranger, *theirs);
  EXPECT_TRUE(silent(*mine));
  EXPECT_TRUE(names(*stranger).contains(kMoreNqn));

  theirs = ask(*stranger);
  ASSERT_TRUE(target->remove_subsystem(kMoreNqn));
  told(*h, *mine);
  told(*stranger, *theirs);
  EXPECT_FALSE(names(*h).contains(kMoreNqn));
}

TEST_F(DiscoveryChangesTest, AreSilentUntilTheLogHasBeenRead) {
  auto request = ask(*h);
  ASSERT_TRUE(target->add_referral({"192.0.2.1", 8009}));
  told(*h, *request);
  request = ask(*h);
  ASSERT_TRUE(target->add_referral({"192.0.2.2", 8009}));
  EXPECT_TRUE(h->log(LogPage::discovery, 1024, 0, /*retain=*/true).ok());
  ASSERT_TRUE(target->add_referral({"192.0.2.3", 8009}));
  EXPECT_TRUE(silent(*request));
  EXPECT_TRUE(h->log(LogPage::discovery, 1024).ok());
  EXPECT_TRUE(silent(*request));
  ASSERT_TRUE(target->add_referral({"192.0.2.4", 8009}));
  told(*h, *request);
}

TEST_F(DiscoveryChangesTest, OfNamespacesAreNone) {
  auto request = ask(*h);
  const auto before = header(*h);
  ASSERT_TRUE(target->add_namespace(kSubsystemNqn, memory(1 << 20)));
  ASSERT_TRUE(target->resize_namespace(kSubsystemNqn, 1, 2 << 20));
  ASSERT_TRUE(target->remove_namespace(kSubsystemNqn, 2));
  EXPECT_TRUE(silent(*request));
  EXPECT_EQ(header(*h), before);
}

TEST_F(DiscoveryChangesTest, ReferHosts) {
  ASSERT_TRUE(target->add_referral({"192.0.2.1", 8009}));
  ASSERT_TRUE(target->add_referral({"2001:db8::1", 4420}));
  EXPECT_FALSE(target->add_referral({"192.0.2.1", 8009}));
  auto all = records(*h);
  std::erase_if(all,
                [](const auto& entry) { return entry.subtype != nvme::SubsystemType::referral; });
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].subnqn, nvme::kDiscoveryNqn);
  EXPECT_EQ(all[0].traddr, "192.0.2.1");
  EXPECT_EQ(all[0].trsvcid, "8009");
  EXPECT_EQ(all[0].adrfam, nvme::AddressFamily::ipv4);
  EXPECT_EQ(all[0].cntlid, nvme::kCntlidDynamic);
  EXPECT_EQ(all[1].traddr, "2001:db8::1");
  EXPECT_EQ(all[1].adrfam, nvme::AddressFamily::ipv6);
  EXPECT_NE(all[0].portid, all[1].portid);
  const auto before = header(*h);
  ASSERT_TRUE(target->remove_referral({"192.0.2.1", 8009}));
  EXPECT_FALSE(target->remove_referral({"192.0.2.1", 8009}));
  EXPECT_EQ(header(*h).numrec, before.numrec - 1);
  EXPECT_GT(header(*h).genctr, before.genctr);
  for (std::size_t i = 1; i < kReferralsMax; ++i) {
    ASSERT_TRUE(target->add_referral({"192.0.2.9", static_cast<std::uint16_t>(i)}));
  }
  EXPECT_FALSE(target->add_referral({"192.0.2.9", 9999}));
}

TEST_F(DiscoveryChangesTest, RemoveASubsystemUnderItsHosts) {
  ASSERT_TRUE(target->add_subsystem({kMoreNqn, {memory(1 << 20)}, {}, {}}));
  EXPECT_FALSE(target->add_subsystem({kMoreNqn, {}, {}, {}}));
  EXPECT_FALSE(target->add_subsystem({std::string(nvme::kDiscoveryNqn), {}, {}, {}}));
  TestHost& user = host({.subnqn = kMoreNqn});
  user.bring_up_io();
  target->faults().delay({.scope = {}, .opcode = {}, .before = 100ms, .after = {}, .count = {}});
  auto write = user.io().start(nvme::write_command(1, 0, 8), random_bytes(4096, 1));
  loop.run_for(10ms);
  ASSERT_TRUE(target->remove_subsystem(kMoreNqn));
  EXPECT_FALSE(target->remove_subsystem(kMoreNqn));
  // The same name again, while the old one is on its way out.
  ASSERT_TRUE(target->add_subsystem({kMoreNqn, {memory(2 << 20)}, {}, {}}));
  EXPECT_FALSE(user.io().wait(*write).answered());
  EXPECT_TRUE(user.admin().ended());
  TestHost& next = host({.subnqn = kMoreNqn, .hostid = host_id(2)});
  next.bring_up_io();
  EXPECT_EQ(
      nvme::IdentifyNamespace::decode(next.identify(nvme::Cns::identify_namespace, 1).data).nsze,
      4096u);
}

TEST_F(DiscoveryChangesTest, EndAHostThatIsNotAllowedAnyMore) {
  TestHost& user = host({.subnqn = kPrivateNqn});
  user.bring_up();
  ASSERT_TRUE(target->disallow_host(kPrivateNqn, kHostNqn));
  loop.run_for(1s);
  EXPECT_TRUE(user.admin().ended());
  EXPECT_FALSE(h->admin().ended());
  // It was the last one: nobody may, not everybody.
  EXPECT_EQ(host({.subnqn = kPrivateNqn}).connect_admin().code(),
            code_of(StatusCode::connect_invalid_host));
  EXPECT_FALSE(names(*h).contains(kPrivateNqn));
  EXPECT_FALSE(target->disallow_host(kPrivateNqn, kHostNqn));
  ASSERT_TRUE(target->allow_host(kPrivateNqn, kHostNqn));
  EXPECT_FALSE(target->allow_host(kPrivateNqn, kHostNqn));
  EXPECT_TRUE(names(*h).contains(kPrivateNqn));
  // Every host may use this one.
  EXPECT_FALSE(target->disallow_host(kSubsystemNqn, kHostNqn));
  EXPECT_FALSE(target->allow_host(kSubsystemNqn, kHostNqn));
}

TEST(ReferralTest, IsAnAddressInNumbers) {
  EXPECT_EQ(parse_referral("tcp://192.0.2.1:4420").value(), (nvme::HostPort{"192.0.2.1", 4420}));
  EXPECT_EQ(parse_referral("192.0.2.1").value(), (nvme::HostPort{"192.0.2.1", 8009}));
  EXPECT_EQ(parse_referral("tcp://[2001:db8::1]:1").value(), (nvme::HostPort{"2001:db8::1", 1}));
  EXPECT_EQ(parse_referral("localhost:1").value().host, "127.0.0.1");
  for (const char* bad : {"", "tcp://", "rdma://192.0.2.1:1", "tcp://host:1", "192.0.2.256:1",
                          "192.0.2:1", "1.2.3.4.5:1", "192.0.2.1:0", "[zz::1]:1", "1..2.3:1"}) {
    EXPECT_FALSE(parse_referral(bad)) << bad;
  }
}

}  // namespace
}  // namespace nvmf::controller
