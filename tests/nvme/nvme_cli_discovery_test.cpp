// Discovery logs and subsystems, printed by us and by Debian's nvme-cli, which finds its
// controllers in a tree of files that stands for /sys.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>

#include "nvme/bytes.h"
#include "nvme/json_discovery.h"
#include "nvme/nvme_cli.h"
#include "nvme/print_discovery.h"

namespace nvmf::nvme {
namespace {

constexpr const char* kHostNqn =
    "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-0000-0000-000000000001";
constexpr const char* kHostId = "00000000-0000-0000-0000-000000000001";

class NvmeCliDiscovery : public test::NvmeCli {
 protected:
  void SetUp() override {
    NvmeCli::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    root_ = std::filesystem::path(file("x", {})).parent_path() / "root";
    std::filesystem::create_directories(root_ / "sys/block");
  }

  static void attribute(const std::filesystem::path& folder, const char* name,
                        const std::string& value) {
    std::ofstream(folder / name) << value << "\n";
  }

  void add_path(const Subsystem& subsystem, const SubsystemPath& path) const {
    const auto controller = root_ / "sys/class/nvme" / path.name;
    const auto folder = root_ / "sys/class/nvme-subsystem" / subsystem.name;
    std::filesystem::create_directories(controller);
    std::filesystem::create_directories(folder / path.name);
    attribute(controller, "hostnqn", subsystem.hostnqn);
    if (!subsystem.hostid.empty()) attribute(controller, "hostid", subsystem.hostid);
    attribute(controller, "transport", path.transport);
    attribute(controller, "address", path.address);
    attribute(controller, "state", path.state);
    for (const auto& place : {controller, folder}) {
      attribute(place, "subsysnqn", subsystem.nqn);
      attribute(place, "model", "Linux");
      attribute(place, "serial", "1");
      attribute(place, "firmware_rev", "1");
    }
    attribute(folder, "subsystype", subsystem.nqn.contains("discovery") ? "discovery" : "nvm");
  }

  std::string shim_root() const { return "NVMF_SHIM_ROOT=" + root_.string(); }

  std::string discover(const std::vector<std::byte>& log, const std::string& options) const {
    return show(std::string("discover -t tcp -a 127.0.0.1 -s 8009 --device=nvme7 --hostnqn=") +
                    kHostNqn + " --hostid=" + kHostId + " " + options,
                log, shim_root());
  }

  std::filesystem::path root_;
};

std::vector<std::byte> page(const DiscoveryHeader& header,
                            const std::vector<DiscoveryEntry>& entries) {
  auto log = test::encoded<kDiscoveryHeaderBytes>(header);
  for (const DiscoveryEntry& entry : entries) {
    const auto bytes = test::encoded<kDiscoveryEntryBytes>(entry);
    log.insert(log.end(), bytes.begin(), bytes.end());
  }
  log.resize(log.size() + 4096);  // nvme-cli reads whole pages
  return log;
}

TEST_F(NvmeCliDiscovery, EveryWordOfARecord) {
  add_path({.name = "nvme-subsys7",
            .nqn = "nqn.2014-08.org.nvmexpress.discovery",
            .hostnqn = kHostNqn,
            .hostid = kHostId,
            .paths = {}},
           {"nvme7", "tcp", "traddr=127.0.0.1,trsvcid=8009", "live"});
  std::vector<DiscoveryEntry> entries;
  for (unsigned value = 0; value < 256; ++value) {
    const auto byte = static_cast<std::uint8_t>(value);
    const auto text = std::to_string(value);
    DiscoveryEntry entry{.trtype = static_cast<TransportType>(byte),
                         .adrfam = static_cast<AddressFamily>(byte),
                         .subtype = static_cast<SubsystemType>(byte),
                         .treq = byte,
                         .portid = static_cast<std::uint16_t>(value * 257),
                         .eflags = byte,
                         .trsvcid = text,
                         .subnqn = "nqn.2014-08.org.example:" + text,
                         .traddr = "192.0.2." + text,
                         .sectype = byte,
                         .rdma_prtype = byte,
                         .rdma_cms = byte,
                         .rdma_pkey = static_cast<std::uint16_t>(value * 3)};
    entries.push_back(entry);
    entry.trtype = TransportType::tcp;
    entries.push_back(entry);
    entry.trtype = TransportType::rdma;
    entry.traddr.clear();
    entries.push_back(entry);
  }
  const DiscoveryHeader header{.genctr = 0xfedcba9876543210, .numrec = entries.size()};
  const auto log = page(header, entries);
  EXPECT_EQ(print(header, entries), discover(log, ""));
  EXPECT_EQ(normalized(to_json(header, entries)), normalized(discover(log, "-o json")));

  const auto empty = page({}, {});
  EXPECT_EQ(print({}, std::vector<DiscoveryEntry>()), discover(empty, ""));
  EXPECT_EQ(normalized(to_json({}, std::vector<DiscoveryEntry>())),
            normalized(discover(empty, "-o json")));
}

TEST_F(NvmeCliDiscovery, Subsystems) {
  // In the order in which nvme-cli shows them: the last it found first.
  const std::vector<Subsystem> subsystems = {
      {.name = "nvme-subsys3",
       .nqn = "nqn.c",
       .hostnqn = "nqn.h2",
       .hostid = "",
       .paths = {{"nvme3", "tcp", "traddr=::1,trsvcid=4420", "resetting"}}},
      {.name = "nvme-subsys2",
       .nqn = "nqn.b",
       .hostnqn = kHostNqn,
       .hostid = kHostId,
       .paths = {{"nvme2", "tcp", "traddr=1.2.3.5,trsvcid=4420,src_addr=1.1.1.1", "live"}}},
      {.name = "nvme-subsys0",
       .nqn = "nqn.a",
       .hostnqn = kHostNqn,
       .hostid = kHostId,
       .paths = {{"nvme1", "tcp", "traddr=1.2.3.5,trsvcid=4420", "connecting"},
                 {"nvme0", "tcp", "traddr=1.2.3.4,trsvcid=4420", "live"}}}};
  std::filesystem::create_directories(root_ / "sys/class/nvme");
  std::filesystem::create_directories(root_ / "sys/class/nvme-subsystem");
  EXPECT_EQ(normalized(to_json(std::span<const Subsystem>())),
            normalized(show("list-subsys -o json", {}, shim_root())));
  for (const Subsystem& subsystem : subsystems) {
    for (const SubsystemPath& path : subsystem.paths) add_path(subsystem, path);
  }
  EXPECT_EQ(print(subsystems), show("list-subsys", {}, shim_root()));
  EXPECT_EQ(normalized(to_json(subsystems)),
            normalized(show("list-subsys -o json", {}, shim_root())));
}

}  // namespace
}  // namespace nvmf::nvme
