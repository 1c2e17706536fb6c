// Expected documents are what Debian's nvme-cli 2.3 printed for the same records.
#include "nvme/print_discovery.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "nvme/bytes.h"
#include "nvme/json_discovery.h"

namespace nvmf::nvme {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

DiscoveryEntry tcp_entry() {
  return {.portid = 1, .trsvcid = "4420", .subnqn = "nqn.x", .traddr = "127.0.0.1"};
}

TEST(PrintDiscovery, Text) {
  DiscoveryEntry rdma = tcp_entry();
  rdma.trtype = TransportType::rdma;
  rdma.adrfam = AddressFamily::ipv6;
  rdma.subtype = SubsystemType::current_discovery;
  rdma.treq = kTreqSqFlowControlOff;
  rdma.eflags = kEflagsDuplicate | kEflagsPersistent;
  rdma.sectype = 1;
  rdma.rdma_prtype = 2;
  rdma.rdma_cms = 1;
  rdma.rdma_pkey = 0xff;
  EXPECT_EQ(print({.genctr = 5}, std::vector{tcp_entry(), rdma}),
            "\nDiscovery Log Number of Records 2, Generation counter 5\n"
            "=====Discovery Log Entry 0======\n"
            "trtype:  tcp\nadrfam:  ipv4\nsubtype: nvme subsystem\ntreq:    not specified\n"
            "portid:  1\ntrsvcid: 4420\nsubnqn:  nqn.x\ntraddr:  127.0.0.1\neflags:  none\n"
            "sectype: none\n"
            "=====Discovery Log Entry 1======\n"
            "trtype:  rdma\nadrfam:  ipv6\nsubtype: current discovery subsystem\n"
            "treq:    not specified, sq flow control disable supported\n"
            "portid:  1\ntrsvcid: 4420\nsubnqn:  nqn.x\ntraddr:  127.0.0.1\n"
            "eflags:  explicit discovery connections, duplicate discovery information\n"
            "rdma_prtype: infiniband\nrdma_qptype: connected\nrdma_cms:    rdma-cm\n"
            "rdma_pkey: 0x00ff\n");
}

TEST(PrintDiscovery, Json) {
  const auto json = nlohmann::ordered_json::parse(to_json({.genctr = 5}, std::vector{tcp_entry()}));
  EXPECT_EQ(json.dump(),
            R"({"genctr":5,"records":[{"trtype":"tcp","adrfam":"ipv4","subtype":"nvme subsystem",)"
            R"("treq":"not specified","portid":1,"trsvcid":"4420","subnqn":"nqn.x",)"
            R"("traddr":"127.0.0.1","eflags":"none","sectype":"none"}]})");
}

TEST(PrintDiscovery, HostileRecords) {
  DiscoveryEntry entry = tcp_entry();
  entry.subnqn = "\x1b[2Jnqn\xff";
  EXPECT_THAT(print({}, std::vector{entry}), HasSubstr("subnqn:  \\x1b[2Jnqn\\xff\n"));
  EXPECT_THAT(to_json({}, std::vector{entry}), Not(HasSubstr("\x1b")));
  for (std::uint32_t seed = 0; seed < 20; ++seed) {
    const auto bytes = test::random_bytes(kDiscoveryEntryBytes, seed);
    const std::vector entries = {DiscoveryEntry::decode(bytes)};
    EXPECT_THAT(print({.genctr = seed}, entries), HasSubstr("subtype: unrecognized\n"));
    EXPECT_TRUE(nlohmann::json::accept(to_json({.genctr = seed}, entries)));
  }
}

std::vector<Subsystem> some_subsystems() {
  return {{.name = "nvme-subsys2",
           .nqn = "nqn.b",
           .hostnqn = "nqn.h1",
           .hostid = "11111111-0000-0000-0000-000000000001",
           .paths = {{"nvme2", "tcp", "traddr=1.2.3.5,trsvcid=4420", "live"}}},
          {.name = "nvme-subsys3",
           .nqn = "nqn.c",
           .hostnqn = "nqn.h2",
           .hostid = "",
           .paths = {{"nvme3", "tcp", "traddr=::1,trsvcid=4420", "deleting"}}},
          {.name = "nvme-subsys0",
           .nqn = "nqn.a",
           .hostnqn = "nqn.h1",
           .hostid = "11111111-0000-0000-0000-000000000001",
           .paths = {{"nvme1", "tcp", "traddr=1.2.3.5,trsvcid=4420", "connecting"},
                     {"nvme0", "tcp", "traddr=1.2.3.4,trsvcid=4420", "live"}}}};
}

TEST(PrintSubsystems, Text) {
  EXPECT_EQ(print(some_subsystems()),
            "nvme-subsys2 - NQN=nqn.b\n\\\n"
            " +- nvme2 tcp traddr=1.2.3.5,trsvcid=4420 live\n"
            "nvme-subsys3 - NQN=nqn.c\n\\\n"
            " +- nvme3 tcp traddr=::1,trsvcid=4420 deleting\n"
            "nvme-subsys0 - NQN=nqn.a\n\\\n"
            " +- nvme1 tcp traddr=1.2.3.5,trsvcid=4420 connecting\n"
            " +- nvme0 tcp traddr=1.2.3.4,trsvcid=4420 live\n");
  EXPECT_EQ(print(std::span<const Subsystem>()), "");
}

TEST(PrintSubsystems, JsonIsGroupedByHost) {
  const auto json = nlohmann::ordered_json::parse(to_json(some_subsystems()));
  ASSERT_EQ(json.size(), 2u);
  EXPECT_EQ(json[0]["HostNQN"], "nqn.h1");
  EXPECT_EQ(json[0]["HostID"], "11111111-0000-0000-0000-000000000001");
  EXPECT_EQ(json[0]["Subsystems"].size(), 2u);
  EXPECT_EQ(json[0]["Subsystems"][1]["Paths"].size(), 2u);
  EXPECT_EQ(json[1].dump(),
            R"({"HostNQN":"nqn.h2","Subsystems":[{"Name":"nvme-subsys3","NQN":"nqn.c",)"
            R"("Paths":[{"Name":"nvme3","Transport":"tcp","Address":"traddr=::1,trsvcid=4420",)"
            R"("State":"deleting"}]}]})");
  EXPECT_EQ(nlohmann::json::parse(to_json(std::span<const Subsystem>())).dump(), "[]");
}

}  // namespace
}  // namespace nvmf::nvme
