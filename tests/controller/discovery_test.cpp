// The discovery subsystem.
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

}  // namespace
}  // namespace nvmf::controller
