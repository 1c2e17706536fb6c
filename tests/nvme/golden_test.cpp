// Recorded log pages, features and properties, as nvme-cli 2.3 printed them.
#include "nvme/golden.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <string>
#include <vector>

#include "nvme/endian.h"
#include "nvme/features.h"
#include "nvme/json_logs.h"
#include "nvme/log_pages.h"
#include "nvme/print_logs.h"
#include "nvme/print_registers.h"

namespace nvmf::nvme {
namespace {

using test::expect_golden;
using test::golden_bytes;

constexpr std::string_view kDevice = "null";  // what it was called when it was recorded

TEST(Golden, SmartLog) {
  const auto log = SmartLog::decode(golden_bytes("smart-log"));
  expect_golden("smart-log", {.brief = print(log, kDevice, 0xffffffff),
                              .human = print(log, kDevice, 0xffffffff, Detail::human),
                              .json = to_json(log)});
}

TEST(Golden, ErrorLog) {
  const auto bytes = golden_bytes("error-log");
  std::vector<ErrorEntry> log;
  for (std::size_t at = 0; at + kErrorEntryBytes <= bytes.size(); at += kErrorEntryBytes) {
    log.push_back(ErrorEntry::decode(std::span(bytes).subspan(at)));
  }
  expect_golden("error-log", {.brief = print(log, kDevice), .human = {}, .json = to_json(log)});
}

TEST(Golden, FirmwareLog) {
  const auto log = FirmwareSlots::decode(golden_bytes("fw-log"));
  expect_golden("fw-log",
                {.brief = print(log, kDevice), .human = {}, .json = to_json(log, kDevice)});
}

TEST(Golden, EffectsLog) {
  const auto log = EffectsLog::decode(golden_bytes("effects-log"));
  expect_golden(
      "effects-log",
      {.brief = print(log), .human = print(log, Csi::nvm, Detail::human), .json = to_json(log)});
}

TEST(Golden, ChangedNamespaces) {
  const auto log = ChangedNamespaces::decode(golden_bytes("changed-ns-list-log"));
  expect_golden("changed-ns-list-log",
                {.brief = print(log), .human = {}, .json = to_json(log, kDevice)});
  const auto overflow = ChangedNamespaces::decode(golden_bytes("changed-ns-list-overflow"));
  expect_golden("changed-ns-list-overflow", {.brief = print(overflow), .human = {}, .json = {}});
}

TEST(Golden, AnaLog) {
  const auto log = AnaLog::decode(golden_bytes("ana-log"));
  ASSERT_TRUE(log.has_value()) << log.error().message;
  expect_golden("ana-log",
                {.brief = print(*log, kDevice), .human = {}, .json = to_json(*log, kDevice)});
}

TEST(Golden, SelfTestLog) {
  const auto log = SelfTestLog::decode(golden_bytes("self-test-log"));
  expect_golden("self-test-log", {.brief = print(log, kDevice),
                                  .human = print(log, kDevice, kSelfTestResults, Detail::human),
                                  .json = to_json(log)});
}

// nvme-cli aborts on its JSON: that file is what it was meant to be.
TEST(Golden, SupportedLogPages) {
  const auto log = SupportedLogPages::decode(golden_bytes("supported-log-pages"));
  expect_golden("supported-log-pages", {.brief = print(log, kDevice),
                                        .human = print(log, kDevice, Detail::human),
                                        .json = to_json(log)});
}

TEST(Golden, BytesOfALog) {
  const auto bytes = golden_bytes("get-log");
  expect_golden("get-log",
                {.brief = print_log_bytes(kDevice, 0xc0, 1, bytes), .human = {}, .json = {}});
}

TEST(Golden, Features) {
  setenv("TZ", "UTC", 1);
  struct Recorded {
    std::uint8_t feature;
    std::uint32_t result;
  };
  constexpr Recorded kWithData[] = {{0x03, 1}, {0x0c, 1}, {0x0d, 1}, {0x0e, 0},
                                    {0x13, 1}, {0x16, 0}, {0x7e, 0}};
  for (const auto& [feature, result] : kWithData) {
    const std::string name = fmt::format("feature-{:02x}", feature);
    const auto data = golden_bytes(name);
    EXPECT_EQ(data.size(), feature_data_bytes(feature));
    const FeatureAnswer answer{.feature = feature, .result = result, .data = data};
    expect_golden(name,
                  {.brief = print(answer), .human = print(answer, Detail::human), .json = {}});
  }
  // Of the others the result is what was recorded.
  for (const std::uint8_t feature : std::to_array<std::uint8_t>(
           {0x01, 0x02, 0x04, 0x05, 0x06, 0x07, 0x08, 0x0b, 0x0f, 0x10, 0x14, 0x19, 0x82, 0x84})) {
    const std::string name = fmt::format("feature-{:02x}", feature);
    const FeatureAnswer answer{
        .feature = feature, .result = load_le32(golden_bytes(name).data()), .data = {}};
    expect_golden(name,
                  {.brief = print(answer), .human = print(answer, Detail::human), .json = {}});
  }
}

// Those a controller of the kernel's target has, as Property Get answered.
TEST(Golden, Registers) {
  const auto space = golden_bytes("show-regs");
  const Registers registers{.cap = load_le64(space.data()),
                            .vs = load_le32(space.data() + 0x08),
                            .cc = load_le32(space.data() + 0x14),
                            .csts = load_le32(space.data() + 0x1c)};
  expect_golden("show-regs", {.brief = print(registers),
                              .human = print(registers, Detail::human),
                              .json = to_json(registers)});
}

}  // namespace
}  // namespace nvmf::nvme
