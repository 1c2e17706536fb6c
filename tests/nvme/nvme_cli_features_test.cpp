// Features and properties: our text against Debian's nvme-cli itself.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "nvme/bytes.h"
#include "nvme/features.h"
#include "nvme/nvme_cli.h"

namespace nvmf::nvme {
namespace {

using test::Bytes;
using test::random_bytes;

std::string with_result(std::uint32_t result) {
  return fmt::format("NVMF_SHIM_RESULT={:#x}", result);
}

class NvmeCliFeatures : public test::NvmeCli {};

/// Data that nvme-cli shows without looking beyond what it was given.
std::vector<std::byte> data_for(unsigned feature, std::uint32_t seed) {
  auto bytes = random_bytes(4096, seed);
  const std::size_t size = feature_data_bytes(static_cast<std::uint8_t>(feature));
  if (feature >= 0x7d && feature <= 0x7f) {
    // Elements with a text that ends: nvme-cli's ends with whatever follows it otherwise.
    Bytes metadata(4096);
    metadata.put(0, {static_cast<int>(seed % 20), 0});
    for (std::size_t i = 0; i < seed % 20; ++i) {
      metadata.put(2 + 20 * i,
                   {static_cast<int>(i + seed / 20), static_cast<int>(seed & 3), 16, 0});
      metadata.text(6 + 20 * i, 12, "some words", '\0');
    }
    bytes = metadata.vector();
  }
  bytes.resize(std::max<std::size_t>(size, 1));
  return bytes;
}

// Those that have a name, their neighbours, and the last.
std::vector<std::uint8_t> features_to_compare() {
  std::vector<std::uint8_t> features;
  for (unsigned feature = 0x01; feature < 0x21; ++feature) {
    features.push_back(static_cast<std::uint8_t>(feature));
  }
  for (unsigned feature = 0x7c; feature < 0x86; ++feature) {
    features.push_back(static_cast<std::uint8_t>(feature));
  }
  features.push_back(0xff);
  return features;
}

TEST_F(NvmeCliFeatures, EveryFeatureReadsTheSame) {
  for (const std::uint8_t feature : features_to_compare()) {
    for (std::uint32_t seed = 0; seed < 3; ++seed) {
      std::mt19937 random(feature * 100u + seed);
      const auto data = data_for(feature, static_cast<std::uint32_t>(random()));
      const std::size_t size = feature_data_bytes(feature);
      auto result = static_cast<std::uint32_t>(random());
      if (seed == 0) result = 0;
      if (seed == 1) result &= 7;
      if (feature == 0x1e) result %= 256;  // more would be read beyond the data
      const FeatureAnswer answer{
          .feature = feature, .result = result, .data = std::span(data).first(size)};
      const std::string command = fmt::format("get-feature /dev/null -f {:#x} ", feature);
      const std::string environment = with_result(result);
      EXPECT_EQ(print(answer, Detail::human), show(command + "-H", data, environment)) << command;
      // The text of a short last line has a character of nvme-cli's own: BytesOfALogReadTheSame.
      if (size % 16 != 0) continue;
      EXPECT_EQ(print(answer), show(command, data, environment)) << command;
    }
  }
}

TEST_F(NvmeCliFeatures, EverySelectionReadsTheSame) {
  const std::vector<std::byte> none(1);
  for (const int select : {0, 1, 2, 3, 4, 7}) {
    for (const std::uint32_t result : {0u, 1u, 2u, 4u, 7u, 0xfffffff8u}) {
      const FeatureAnswer answer{
          .feature = 7, .select = static_cast<std::uint8_t>(select), .result = result, .data = {}};
      EXPECT_EQ(print(answer), show(fmt::format("get-feature /dev/null -f 7 -s {}", select), none,
                                    with_result(result)));
    }
  }
  // Supported capabilities are asked for without data, and not explained further.
  EXPECT_EQ(
      print(FeatureAnswer{.feature = 0x0c, .select = 3, .result = 5, .data = {}}, Detail::human),
      show("get-feature /dev/null -f 0xc -s 3 -H", none, with_result(5)));
}

TEST_F(NvmeCliFeatures, DataAreAsLongAsThere) {
  const std::vector<std::byte> data(4096);
  for (const std::uint8_t feature : features_to_compare()) {
    const auto raw = show(fmt::format("get-feature /dev/null -f {:#x} -b", feature), data);
    const std::size_t size = feature_data_bytes(feature);
    // Without data, its line is printed instead.
    EXPECT_EQ(size, raw.starts_with("get-feature") ? 0 : raw.size()) << feature;
  }
  EXPECT_EQ(show("get-feature /dev/null -f 0x81 -c 1 -b", data).size(),
            feature_data_bytes(0x81, 1));
}

TEST_F(NvmeCliFeatures, SettingsReadTheSame) {
  const auto data = random_bytes(4096, 1);
  const std::string path = file("sent", data);
  const auto compare = [&](const FeatureSetting& setting) {
    std::string command = fmt::format("set-feature /dev/null -f {:#x} -v {:#x} -c {:#x}",
                                      setting.feature, setting.value, setting.cdw12);
    if (setting.save) command += " -s";
    if (!setting.data.empty()) command += " -d " + path;
    EXPECT_EQ(print(setting), show(command, data, with_result(setting.result))) << command;
  };
  compare({.feature = 2, .data = {}});
  compare({.feature = 7, .value = 0x10001, .cdw12 = 0xffffffff, .save = true, .data = {}});
  compare({.feature = 0x0f, .value = 0x123456789abc, .data = {}});
  compare({.feature = 0x15, .value = 5, .result = 0x70003, .data = {}});
  compare({.feature = 0xc7, .value = 5, .data = {}});
  compare({.feature = 0x16, .data = std::span(data).first(512)});
  compare({.feature = 0x0c, .value = 1, .data = std::span(data).first(256)});
  compare({.feature = 0x03, .value = 0, .result = 0, .data = data});
  compare({.feature = 0x03, .value = 3, .result = 3, .data = data});
}

// Where nvme-cli goes on reading behind what it was given, ours stops.
TEST(Features, DataThatEndEarlyAreSafe) {
  const auto bytes = random_bytes(4096, 3);
  for (unsigned feature = 0; feature < 256; ++feature) {
    for (std::size_t size = 0; size < 600; size += 1 + size / 20) {
      const auto text = print(FeatureAnswer{.feature = static_cast<std::uint8_t>(feature),
                                            .result = 0xffffffff,
                                            .data = std::span(bytes).first(size)},
                              Detail::human);
      EXPECT_TRUE(text.starts_with("get-feature:"));
    }
  }
  EXPECT_EQ(print(FeatureAnswer{.feature = 0x0e, .data = std::span(bytes).first(1)}, Detail::human),
            print(FeatureAnswer{.feature = 0x0e, .data = std::span(bytes).first(1)}));
}

TEST(Features, TextOfAHostIsMadeFit) {
  const Bytes data = Bytes(64).put(0, {1, 0, 1, 0, 5, 0}).text(6, 5, "a\x1b[2J", '\0');
  EXPECT_TRUE(print(FeatureAnswer{.feature = 0x7e, .data = data.span()}, Detail::human)
                  .ends_with("Value    : a\\x1b[2J\n"));
}

}  // namespace
}  // namespace nvmf::nvme
