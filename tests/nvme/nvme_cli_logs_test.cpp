// Log pages: our text and JSON against Debian's nvme-cli itself.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "nvme/bytes.h"
#include "nvme/json_logs.h"
#include "nvme/log_pages.h"
#include "nvme/nvme_cli.h"
#include "nvme/print_logs.h"

namespace nvmf::nvme {
namespace {

using test::Bytes;
using test::random_bytes;

constexpr std::uint32_t kSeeds = 10;
constexpr std::uint32_t kAll = 0xffffffff;

class NvmeCliLogs : public test::NvmeCli {
 protected:
  /// Identify Controller for the verbs that look at it before they fetch their log.
  std::string identify(const Bytes& id) const {
    return "NVMF_SHIM_DATA_06=" + file("identify", id.span());
  }
};

/// Random bytes, but every third 0: zeroes have forms of their own.
std::vector<std::byte> sparse_bytes(std::size_t size, std::uint32_t seed) {
  auto bytes = random_bytes(size, seed);
  for (std::size_t i = 0; i < size; i += 3) bytes[i] = std::byte{0};
  return seed % 2 == 0 ? bytes : random_bytes(size, seed);
}

TEST_F(NvmeCliLogs, SmartLogReadsTheSame) {
  for (std::uint32_t seed = 0; seed < kSeeds; ++seed) {
    auto bytes = sparse_bytes(kSmartBytes, seed);
    // Counters of every size, so that every suffix of the units is seen.
    for (std::size_t at = 32 + seed; at < 48; ++at) bytes[at] = std::byte{0};
    for (std::size_t at = 48 + seed / 3; at < 64; ++at) bytes[at] = std::byte{0};
    const auto log = SmartLog::decode(bytes);
    EXPECT_EQ(print(log, "null", kAll), show("smart-log /dev/null", bytes)) << seed;
    EXPECT_EQ(print(log, "null", 5, Detail::human), show("smart-log /dev/null -n 5 -H", bytes));
    EXPECT_EQ(normalized(to_json(log)), normalized(show("smart-log /dev/null -o json", bytes)));
    EXPECT_EQ(normalized(to_json(log, Detail::human)),
              normalized(show("smart-log /dev/null -o json -H", bytes)));
  }
}

TEST_F(NvmeCliLogs, ErrorLogReadsTheSame) {
  const Bytes id = Bytes(4096).put(262, {15});  // ELPE: sixteen entries
  for (std::uint32_t seed = 0; seed < kSeeds; ++seed) {
    auto bytes = sparse_bytes(16 * kErrorEntryBytes, seed);
    for (int i = 0; i < 5; ++i) bytes[64 * i + 29] = std::byte(i == 4 ? 254 : i);  // TRTYPE
    std::vector<ErrorEntry> log;
    for (std::size_t i = 0; i < 16; ++i) {
      log.push_back(ErrorEntry::decode(std::span(bytes).subspan(i * kErrorEntryBytes)));
    }
    EXPECT_EQ(print(log, "null"), show("error-log /dev/null", bytes, identify(id))) << seed;
    EXPECT_EQ(normalized(to_json(log)),
              normalized(show("error-log /dev/null -o json", bytes, identify(id))));
  }
}

// All 2048 codes, of which the error log shows 256 at a time.
TEST_F(NvmeCliLogs, EveryStatusHasItsWords) {
  const Bytes id = Bytes(4096).put(262, {255});
  for (unsigned sct = 0; sct < 8; ++sct) {
    std::vector<ErrorEntry> log(256);
    std::vector<std::byte> bytes(log.size() * kErrorEntryBytes);
    for (unsigned sc = 0; sc < 256; ++sc) {
      log[sc].status_field = static_cast<std::uint16_t>((sct << 8 | sc) << 1);
      log[sc].encode(std::span(bytes).subspan(sc * kErrorEntryBytes).first<kErrorEntryBytes>());
    }
    EXPECT_EQ(print(log, "null"), show("error-log /dev/null -e 256", bytes, identify(id))) << sct;
  }
}

TEST_F(NvmeCliLogs, FirmwareSlotsReadTheSame) {
  for (std::uint32_t seed = 0; seed < kSeeds; ++seed) {
    auto bytes = sparse_bytes(kFirmwareSlotBytes, seed);
    for (std::size_t i = 0; i < 4; ++i) bytes[8 + i] = static_cast<std::byte>("1.0 "[i]);
    const auto log = FirmwareSlots::decode(bytes);
    EXPECT_EQ(print(log, "null"), show("fw-log /dev/null", bytes)) << seed;
    EXPECT_EQ(normalized(to_json(log, "null")),
              normalized(show("fw-log /dev/null -o json", bytes)));
  }
}

TEST_F(NvmeCliLogs, EffectsReadTheSame) {
  for (std::uint32_t seed = 0; seed < kSeeds; ++seed) {
    auto bytes = sparse_bytes(kEffectsBytes, seed);
    if (seed == 4) bytes = std::vector<std::byte>(kEffectsBytes, std::byte{0xff});
    if (seed == 6) bytes = std::vector<std::byte>(kEffectsBytes);
    const auto log = EffectsLog::decode(bytes);
    EXPECT_EQ(print(log), show("effects-log /dev/null --csi=0", bytes)) << seed;
    EXPECT_EQ(print(log, Csi::zoned, Detail::human),
              show("effects-log /dev/null --csi=2 -H", bytes));
    EXPECT_EQ(print(log, Csi::key_value), show("effects-log /dev/null --csi=1", bytes));
    EXPECT_EQ(normalized(to_json(log)),
              normalized(show("effects-log /dev/null --csi=0 -o json", bytes)));
  }
}

TEST_F(NvmeCliLogs, ChangedNamespacesReadTheSame) {
  for (std::uint32_t seed = 0; seed < kSeeds; ++seed) {
    auto bytes = random_bytes(kChangedNamespacesBytes, seed);
    for (std::size_t at = seed * 400; seed != 9 && at < bytes.size(); ++at) bytes[at] = {};
    const auto log = ChangedNamespaces::decode(bytes);
    EXPECT_EQ(print(log), show("changed-ns-list-log /dev/null", bytes)) << seed;
    EXPECT_EQ(normalized(to_json(log, "null")),
              normalized(show("changed-ns-list-log /dev/null -o json", bytes)));
  }
  const std::vector<std::byte> overflow(kChangedNamespacesBytes, std::byte{0xff});
  const auto log = ChangedNamespaces::decode(overflow);
  EXPECT_EQ(print(log), show("changed-ns-list-log /dev/null", overflow));
  // Here nvme-cli prints nothing, which no reader of JSON takes for an answer.
  EXPECT_EQ(show("changed-ns-list-log /dev/null -o json", overflow), "");
  EXPECT_EQ(nlohmann::json::parse(to_json(log, "null"))["overflow"], true);
}

TEST_F(NvmeCliLogs, AnaReadsTheSame) {
  // NANAGRPID and ANAGRPMAX 8, MNAN and NN 64: how much nvme-cli reads.
  const Bytes id =
      Bytes(4096).put(344, {8}).put(348, {8}).put(516, {64}).put(540, {64}).put(343, {0});
  for (std::uint32_t seed = 0; seed < kSeeds; ++seed) {
    std::mt19937_64 random(seed);
    AnaLog log{.change_count = random(), .groups = {}};
    for (std::uint32_t i = 0; i < seed % 9; ++i) {
      // Bits 7:4 of the state are reserved: nvme-cli looks at them, we do not.
      log.groups.push_back({.group_id = static_cast<std::uint32_t>(random()),
                            .change_count = random(),
                            .state = static_cast<AnaState>(random() % 16),
                            .nsids = {}});
      for (std::uint32_t n = 0; n < i; ++n) {
        log.groups.back().nsids.push_back(static_cast<std::uint32_t>(random()));
      }
    }
    auto bytes = log.encode();
    bytes.resize(8192);
    EXPECT_EQ(print(log, "null"), show("ana-log /dev/null", bytes, identify(id))) << seed;
    EXPECT_EQ(normalized(to_json(log, "null")),
              normalized(show("ana-log /dev/null -o json", bytes, identify(id))));
  }
}

TEST_F(NvmeCliLogs, SelfTestReadsTheSame) {
  for (std::uint32_t seed = 0; seed < 2 * kSeeds; ++seed) {
    const auto bytes = sparse_bytes(kSelfTestBytes, seed);
    const auto log = SelfTestLog::decode(bytes);
    EXPECT_EQ(print(log, "null"), show("self-test-log /dev/null", bytes)) << seed;
    EXPECT_EQ(print(log, "null", 7, Detail::human), show("self-test-log /dev/null -v -e 7", bytes));
    EXPECT_EQ(normalized(to_json(log)), normalized(show("self-test-log /dev/null -o json", bytes)));
    EXPECT_EQ(normalized(to_json(log, 2)),
              normalized(show("self-test-log /dev/null -o json -e 2", bytes)));
  }
}

TEST_F(NvmeCliLogs, SupportedLogPagesReadTheSame) {
  for (std::uint32_t seed = 0; seed < kSeeds; ++seed) {
    const auto bytes = sparse_bytes(kSupportedLogPagesBytes, seed);
    const auto log = SupportedLogPages::decode(bytes);
    EXPECT_EQ(print(log, "null"), show("supported-log-pages /dev/null", bytes)) << seed;
    EXPECT_EQ(print(log, "null", Detail::human), show("supported-log-pages /dev/null -v", bytes));
  }
  // nvme-cli aborts on any page in JSON; an empty log is all that can be compared.
  const std::vector<std::byte> none(kSupportedLogPagesBytes);
  EXPECT_EQ(normalized(to_json(SupportedLogPages::decode(none))),
            normalized(show("supported-log-pages /dev/null -o json", none)));
  SupportedLogPages some;
  some.lids[0] = 1;
  some.lids[0x70] = 3;
  EXPECT_EQ(nlohmann::ordered_json::parse(to_json(some)).dump(),
            R"({"supported_logs":[{"lid_0x0 ":1},{"lid_0x70 ":3}]})");
}

TEST_F(NvmeCliLogs, BytesOfALogReadTheSame) {
  const auto bytes = random_bytes(8192, 1);
  for (const std::size_t size : {16u, 32u, 512u, 4096u, 8192u}) {
    EXPECT_EQ(print_log_bytes("null", 0x70, kAll, std::span(bytes).first(size)),
              show("get-log /dev/null -i 0x70 -l " + std::to_string(size), bytes));
  }
  // Lines that end early: nvme-cli adds a character that is left over from an earlier line or was
  // never written, so ours is compared up to its closing quote.
  for (const std::size_t size : {4u, 12u, 20u, 40u, 508u}) {
    std::string ours = print_log_bytes("null", 2, 3, std::span(bytes).first(size));
    const auto theirs = show("get-log /dev/null -i 2 -n 3 -l " + std::to_string(size), bytes);
    ASSERT_TRUE(ours.ends_with("\"\n"));
    ours.resize(ours.size() - 2);
    EXPECT_TRUE(theirs.starts_with(ours)) << ours << theirs;
    EXPECT_LE(theirs.size(), ours.size() + 3);
  }
}

// A device is called what its user called it, but its name must not steer a terminal.
TEST(PrintLogs, DeviceNamesAreMadeFit) {
  EXPECT_TRUE(
      print(FirmwareSlots{}, "a\x1b[2J").starts_with("Firmware Log for device:a\\x1b[2J\n"));
  EXPECT_FALSE(nlohmann::json::parse(to_json(FirmwareSlots{}, "a\xff")).empty());
}

}  // namespace
}  // namespace nvmf::nvme
