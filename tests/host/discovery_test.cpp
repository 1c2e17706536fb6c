// Discovery logs as controllers tell them, honest and not; and the way through referrals.

#include "host/discovery.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "host/fixture.h"
#include "nvme/address.h"

namespace nvmf::test {
namespace {

using host::DiscoveryLog;
using host::DiscoveryPlace;
using host::DiscoveryWalk;
using nvme::AdminOpcode;
using nvme::DiscoveryEntry;
using nvme::StatusCode;
using nvme::SubsystemType;
using nvme::TransportType;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using transport::ControllerCommand;

DiscoveryEntry entry(std::string subnqn, std::string traddr = "10.0.0.9",
                     std::string trsvcid = "4420") {
  DiscoveryEntry e;
  e.subnqn = std::move(subnqn);
  e.traddr = std::move(traddr);
  e.trsvcid = std::move(trsvcid);
  return e;
}

DiscoveryEntry referral(std::string traddr, std::string trsvcid = "8009") {
  DiscoveryEntry e = entry(std::string(nvme::kDiscoveryNqn), std::move(traddr), std::move(trsvcid));
  e.subtype = SubsystemType::referral;
  return e;
}

std::vector<std::byte> page_of(const std::vector<DiscoveryEntry>& entries,
                               std::uint64_t genctr = 1) {
  std::vector<std::byte> page(nvme::kDiscoveryHeaderBytes +
                              entries.size() * nvme::kDiscoveryEntryBytes);
  const nvme::DiscoveryHeader header{.genctr = genctr, .numrec = entries.size(), .recfmt = 0};
  header.encode(std::span(page).first<nvme::kDiscoveryHeaderBytes>());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    entries[i].encode(std::span(page)
                          .subspan(nvme::kDiscoveryHeaderBytes + i * nvme::kDiscoveryEntryBytes)
                          .first<nvme::kDiscoveryEntryBytes>());
  }
  return page;
}

std::vector<std::byte> page_of(std::size_t count, std::uint64_t genctr = 1) {
  std::vector<DiscoveryEntry> entries;
  for (std::size_t i = 0; i < count; ++i) {
    entries.push_back(entry(fmt::format("nqn.2024-01.org.example:disk{}", i)));
  }
  return page_of(entries, genctr);
}

class Discovery : public HostTest {
 protected:
  Discovery() {
    params.subnqn = nvme::kDiscoveryNqn;
    params.nr_io_queues = 0;
    params.keep_alive_ms = 0;
    target.id.cntrltype = nvme::ControllerType::discovery;
    target.intercept = [this](FakeTarget::Connection& at, ControllerCommand& c) {
      if (at.qid != 0 || c.sqe.is_fabrics() ||
          c.sqe.opcode != static_cast<std::uint8_t>(AdminOpcode::get_log_page)) {
        return false;
      }
      const auto get = nvme::GetLogPage::from_sqe(c.sqe);
      if (get.page != nvme::LogPage::discovery) return false;
      gets.push_back(get);
      if (before_get) before_get(get);
      if (get.offset_bytes > page.size() || page.size() - get.offset_bytes < get.length_bytes) {
        at.respond(c, StatusCode::invalid_field);
        return true;
      }
      const auto from = page.begin() + static_cast<std::ptrdiff_t>(get.offset_bytes);
      at.send(c, {from, from + static_cast<std::ptrdiff_t>(get.length_bytes)});
      return true;
    };
  }

  static host::Task<void> run_fetch(host::ConnectParams params, transport::Loop& loop,
                                    std::optional<Result<DiscoveryLog>>& result) {
    host::DiscoveryVisit visit(std::move(params), loop);
    result = co_await visit.run();
  }
  Result<DiscoveryLog> fetch(Duration most = seconds(100)) {
    std::optional<Result<DiscoveryLog>> result;
    host::spawn(run_fetch(params, loop, result));
    EXPECT_TRUE(loop.run_until([&] { return result.has_value(); }, most));
    loop.run_for(seconds(2));
    EXPECT_TRUE(loop.links().empty()) << "a connection is left";
    return result ? std::move(*result) : fail("it did not end");
  }
  std::string failed(Duration most = seconds(100)) {
    const auto log = fetch(most);
    return log ? "it was read" : log.error().message;
  }

  std::vector<std::byte> page;
  std::vector<nvme::GetLogPage> gets;
  std::function<void(const nvme::GetLogPage&)> before_get;
};

TEST_F(Discovery, EmptyLog) {
  page = page_of(0, 7);
  const auto log = fetch();
  ASSERT_TRUE(log) << log.error().message;
  EXPECT_EQ(log->header.genctr, 7u);
  EXPECT_THAT(log->entries, IsEmpty());
  EXPECT_EQ(log->bytes, page);
}

TEST_F(Discovery, AThousandRecordsInPieces) {
  page = page_of(1000);
  target.id.mdts = 3;  // 32 KiB
  const auto log = fetch();
  ASSERT_TRUE(log) << log.error().message;
  EXPECT_THAT(log->entries, SizeIs(1000));
  EXPECT_EQ(log->entries[999].subnqn, "nqn.2024-01.org.example:disk999");
  EXPECT_EQ(log->bytes, page);
  EXPECT_GE(gets.size(), 1000u / 32);
  for (const auto& get : gets) EXPECT_LE(get.length_bytes, 32u * 1024);
  // The event is cleared once, by the last of all: whatever changes before is noticed.
  for (const auto& get : gets) EXPECT_EQ(get.retain_event, &get != &gets.back());
}

TEST_F(Discovery, SixteenThousandRecords) {
  page = page_of(16'384);
  const auto log = fetch();
  ASSERT_TRUE(log) << log.error().message;
  EXPECT_THAT(log->entries, SizeIs(16'384));
}

TEST_F(Discovery, ReadsAgainWhenItChangedMeanwhile) {
  page = page_of(200, 1);
  before_get = [this](const nvme::GetLogPage& get) {
    if (get.offset_bytes > 100'000 && gets.size() < 5) page = page_of(300, 2);
  };
  const auto log = fetch();
  ASSERT_TRUE(log) << log.error().message;
  EXPECT_EQ(log->header.genctr, 2u);
  EXPECT_THAT(log->entries, SizeIs(300));
  EXPECT_EQ(log->bytes, page);
}

TEST_F(Discovery, ReadsAgainWhenItBecameShorterMeanwhile) {
  page = page_of(200, 1);
  before_get = [this](const nvme::GetLogPage& get) {
    if (get.offset_bytes > 100'000) page = page_of(3, 2);
  };
  const auto log = fetch();
  ASSERT_TRUE(log) << log.error().message;
  EXPECT_THAT(log->entries, SizeIs(3));
}

TEST_F(Discovery, GivesUpOnALogThatNeverStops) {
  std::uint64_t generation = 0;
  before_get = [&](const nvme::GetLogPage&) { page = page_of(2, ++generation); };
  EXPECT_THAT(failed(), AllOf(HasSubstr("10 times in a row"), HasSubstr("10.0.0.1:4420")));
  EXPECT_EQ(gets.size(), 30u) << "header, records, header";
}

TEST_F(Discovery, NumrecLies) {
  const auto claim = [this](std::uint64_t numrec) {
    page = page_of(2);
    nvme::DiscoveryHeader{.genctr = 1, .numrec = numrec, .recfmt = 0}.encode(
        std::span(page).first<nvme::kDiscoveryHeaderBytes>());
  };
  claim(5);
  EXPECT_THAT(failed(), HasSubstr("shorter than the 5 records"));
  claim(host::kDiscoveryRecordsMax);
  EXPECT_THAT(failed(), HasSubstr("shorter than the 65536 records"));
  for (const std::uint64_t huge :
       {host::kDiscoveryRecordsMax + 1, std::uint64_t{1} << 54, ~std::uint64_t{0}}) {
    claim(huge);
    EXPECT_THAT(failed(), HasSubstr(fmt::format("has {} records, and at most 65536", huge)));
  }
}

TEST_F(Discovery, OtherFormatsAreRefused) {
  page = page_of(1);
  nvme::DiscoveryHeader{.genctr = 1, .numrec = 1, .recfmt = 9}.encode(
      std::span(page).first<nvme::kDiscoveryHeaderBytes>());
  EXPECT_THAT(failed(), HasSubstr("record format 9"));
}

TEST_F(Discovery, ARefusedLogIsAnError) {
  page.clear();
  EXPECT_THAT(failed(), AllOf(HasSubstr("refused to show its log"), HasSubstr("Invalid Field")));
}

TEST_F(Discovery, SlowAnswersEndInTime) {
  page = page_of(16'384);
  // Each piece comes after 5 s of virtual time: the loop's delay stands for a slow controller.
  std::vector<std::unique_ptr<transport::Timer>> timers;
  const auto quick = std::move(target.intercept);
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    if (at.qid != 0 || c.sqe.is_fabrics() ||
        c.sqe.opcode != static_cast<std::uint8_t>(AdminOpcode::get_log_page)) {
      return false;
    }
    timers.push_back(std::make_unique<transport::Timer>(
        loop.timers(), [&] { static_cast<void>(at.ended || quick(at, c)); }));
    timers.back()->arm(loop.now() + seconds(5));
    return true;
  };
  EXPECT_THAT(failed(seconds(80)), HasSubstr("took longer than 60 s"));
  target.intercept = nullptr;
}

TEST_F(Discovery, ControllersWithNamespacesAreNotAsked) {
  page = page_of(1);
  target.id.cntrltype = nvme::ControllerType::io;
  EXPECT_THAT(failed(), AllOf(HasSubstr("not a discovery controller"), HasSubstr("10.0.0.1:4420")));
  EXPECT_THAT(gets, IsEmpty());
  target.id.cntrltype = nvme::ControllerType::not_reported;
  EXPECT_TRUE(fetch());
}

TEST_F(Discovery, NobodyThere) {
  params.port = 1;
  EXPECT_THAT(failed(), HasSubstr("10.0.0.1:1"));
}

TEST_F(Discovery, KeepsAliveAConnectionThatStays) {
  page = page_of(1);
  params.keep_alive_ms = host::kDiscoveryKeepAliveMs;
  ASSERT_TRUE(go_live());
  loop.run_for(seconds(90));
  EXPECT_EQ(target.count(0, static_cast<std::uint8_t>(AdminOpcode::keep_alive)), 6u);
  EXPECT_EQ(outcome.ended, std::nullopt);
}

TEST_F(Discovery, AConnectionThatStaysComesBackAfterALoss) {
  page = page_of(3);
  params.keep_alive_ms = host::kDiscoveryKeepAliveMs;
  params.loss.ctrl_loss.reset();
  ASSERT_TRUE(go_live());
  for (int i = 1; i <= 3; ++i) {
    target.connection(0)->qpair.end(Error{"cut", 0});
    ASSERT_TRUE(
        loop.run_until([&] { return outcome.live_again == i || outcome.ended; }, seconds(60)))
        << i;
  }
  EXPECT_EQ(outcome.ended, std::nullopt);
  EXPECT_NE(subsystem->info(), nullptr);
}

TEST_F(Discovery, AVisitThatIsCalledOffEnds) {
  target.becomes_ready = false;
  std::optional<Result<DiscoveryLog>> result;
  host::DiscoveryVisit visit(params, loop);
  host::spawn([](host::DiscoveryVisit& v, auto& out) -> host::Task<void> {
    out = co_await v.run();
  }(visit, result));
  loop.run_for(milliseconds(200));
  EXPECT_FALSE(result);
  visit.stop();
  EXPECT_TRUE(loop.run_until([&] { return result.has_value(); }, seconds(2)));
  loop.run_for(seconds(1));
  EXPECT_FALSE(*result);
}

// Records.

std::string verdict(const DiscoveryEntry& e) {
  const auto checked = host::check_discovery_entry(e);
  return checked ? "" : checked.error().message;
}

TEST(DiscoveryRecords, HostileOnesAreLeftOut) {
  const std::string good = "nqn.2024-01.org.example:disk";
  EXPECT_EQ(verdict(entry(good)), "");
  EXPECT_EQ(verdict(entry(good, "fe80::1%eth0")), "");
  EXPECT_EQ(verdict(entry(good, "target.example.org")), "");
  EXPECT_THAT(verdict(entry("")), HasSubstr("NQN"));
  EXPECT_THAT(verdict(entry("nqn.2024-01.org.example:\x1b[2Jdisk")), HasSubstr("\\x1b[2Jdisk"));
  EXPECT_THAT(verdict(entry(std::string(250, 'n'))), HasSubstr("NQN"));
  for (const char* bad : {"", "--run=reboot", "10.0.0.1 -D", "$(reboot)", "a;b", "\x07"}) {
    EXPECT_THAT(verdict(entry(good, bad)), HasSubstr("address")) << bad;
  }
  for (const char* bad : {"", "0", "65536", "-1", "4420x", "none", "99999999999999999999"}) {
    EXPECT_THAT(verdict(entry(good, "10.0.0.1", bad)), HasSubstr("port")) << bad;
  }
  DiscoveryEntry e = entry(good);
  e.subtype = static_cast<SubsystemType>(0);
  EXPECT_THAT(verdict(e), HasSubstr("subsystem type 0"));
  // Others' addresses are theirs, but they are shown, too.
  e = entry(good, "nn-0x1000:pn-0x2000", "none");
  e.trtype = TransportType::fibre_channel;
  EXPECT_EQ(verdict(e), "");
  e.traddr = "\x1b]0;title\x07";
  EXPECT_THAT(verdict(e), HasSubstr("address"));
}

TEST(DiscoveryRecords, ALogOfAnyBytesDecodes) {
  std::vector<std::byte> bytes = page_of(100);
  for (std::size_t i = nvme::kDiscoveryHeaderBytes; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(i * 131 >> 3);
  }
  const auto log = host::decode_discovery_log(std::move(bytes));
  ASSERT_TRUE(log);
  EXPECT_THAT(log->entries, IsEmpty());
  EXPECT_EQ(log->refused_count, 100u);
  EXPECT_THAT(log->refused, SizeIs(host::kDiscoveryRefusedToldMax));
  EXPECT_THAT(log->refused[0], HasSubstr("record 0 of 100"));
  for (const std::size_t size : {0u, 1u, 1023u, 2047u, 4096u}) {
    std::vector<std::byte> other = page_of(2);
    other.resize(size);
    EXPECT_FALSE(host::decode_discovery_log(std::move(other))) << size;
  }
}

// Referrals.

/// Goes through a network of discovery controllers by their addresses; those missing are dead.
struct Network {
  std::map<std::string, std::vector<DiscoveryEntry>> logs;
  std::vector<std::string> asked;
  std::vector<std::string> found;
  std::vector<std::string> notes;

  void walk(const std::string& traddr, std::uint16_t port = 8009) {
    DiscoveryWalk walk({traddr, port, std::string(nvme::kDiscoveryNqn)});
    while (const auto next = walk.next()) {
      asked.push_back(next->at.traddr);
      const auto log = logs.find(next->at.traddr);
      if (log == logs.end()) continue;
      const auto decoded = host::decode_discovery_log(page_of(log->second));
      ASSERT_TRUE(decoded);
      walk.take(*next, *decoded);
    }
    for (const auto& f : walk.found()) found.push_back(f.at.to_string());
    notes = walk.take_notes();
  }
};

TEST(Referrals, CirclesEnd) {
  Network net;
  net.logs["10.0.0.1"] = {referral("10.0.0.2"), entry("nqn.a"), referral("10.0.0.1")};
  net.logs["10.0.0.2"] = {referral("10.0.0.1"), entry("nqn.b"), entry("nqn.a")};
  net.walk("10.0.0.1");
  EXPECT_THAT(net.asked, ElementsAre("10.0.0.1", "10.0.0.2"));
  EXPECT_THAT(net.found, ElementsAre("nqn.a at 10.0.0.9:4420", "nqn.b at 10.0.0.9:4420"));
  EXPECT_THAT(net.notes, IsEmpty());
}

TEST(Referrals, BreadthFirstAndOtherSpellings) {
  Network net;
  net.logs["::1"] = {referral("0:0:0::2"), referral("::3"), entry("nqn.a", "0:0::0.1.2.3"),
                     entry("nqn.a", "::1:203")};
  net.logs["::2"] = {referral("::4"), referral("::3")};
  net.logs["::3"] = {referral("0::1")};
  net.walk("0:0:0:0:0:0:0:1");
  EXPECT_THAT(net.asked, ElementsAre("::1", "::2", "::3", "::4"));
  EXPECT_THAT(net.found, SizeIs(1));
}

TEST(Referrals, EndlessChainsEnd) {
  Network net;
  for (int i = 0; i < 300; ++i) {
    net.logs[fmt::format("10.0.{}.1", i)] = {referral(fmt::format("10.0.{}.1", i + 1))};
  }
  net.walk("10.0.0.1");
  EXPECT_THAT(net.asked, SizeIs(host::kReferralDepthMax + 1));
  EXPECT_THAT(net.notes, ElementsAre(HasSubstr("which is not asked")));
  Network wide;
  for (int i = 1; i < 200; ++i) {
    wide.logs["10.0.0.1"].push_back(referral(fmt::format("10.0.0.{}", i)));
  }
  wide.walk("10.0.0.1");
  EXPECT_THAT(wide.asked, SizeIs(host::kReferralsMax));
  EXPECT_THAT(wide.notes, ElementsAre(HasSubstr("which is not asked"))) << "told once";
}

TEST(Referrals, AnyAddressIsTheOneThatWorked) {
  Network net;
  net.logs["10.0.0.1"] = {entry("nqn.a", "0.0.0.0"), entry("nqn.b", "::"), referral("::", "9000")};
  net.walk("10.0.0.1");
  EXPECT_THAT(net.found, ElementsAre("nqn.a at 10.0.0.1:4420", "nqn.b at 10.0.0.1:4420"));
  EXPECT_THAT(net.asked, ElementsAre("10.0.0.1", "10.0.0.1"));
}

TEST(Referrals, WhatCannotBeUsedIsNoted) {
  Network net;
  DiscoveryEntry rdma = entry("nqn.rdma");
  rdma.trtype = TransportType::rdma;
  DiscoveryEntry tls = entry("nqn.tls");
  tls.treq = nvme::kTreqSecureRequired;
  DiscoveryEntry own = entry(std::string(nvme::kDiscoveryNqn), "10.0.0.1", "8009");
  own.subtype = SubsystemType::current_discovery;
  net.logs["10.0.0.1"] = {rdma, tls, own, entry("nqn.bad", "a b"), entry("nqn.ok")};
  net.walk("10.0.0.1");
  EXPECT_THAT(net.found, ElementsAre("nqn.ok at 10.0.0.9:4420"));
  EXPECT_THAT(net.notes, ElementsAre(HasSubstr("record 3 of 5"), HasSubstr("only TCP"),
                                     HasSubstr("requires TLS")));
}

TEST(Referrals, PersistenceIsKept) {
  DiscoveryEntry stays = referral("10.0.0.2");
  stays.eflags = nvme::kEflagsPersistent;
  DiscoveryWalk walk({"10.0.0.1", 8009, std::string(nvme::kDiscoveryNqn)});
  const auto first = walk.next();
  walk.take(*first, *host::decode_discovery_log(page_of({stays, referral("10.0.0.3")})));
  EXPECT_TRUE(walk.next()->persistent);
  EXPECT_FALSE(walk.next()->persistent);
  EXPECT_EQ(walk.next(), std::nullopt);
}

}  // namespace
}  // namespace nvmf::test
