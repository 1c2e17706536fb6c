// Recorded structures (tests/nvme/golden/NAME.bin) and what nvme-cli 2.3 printed of them: NAME.txt,
// NAME.human.txt for its -H or --verbose, NAME.json. They say something where it is not installed.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace nvmf::test {

/// The bytes of a file of the folder; nothing if there is none of that name.
inline std::optional<std::string> golden_file(const std::string& name) {
  std::ifstream in(NVMF_GOLDEN "/" + name, std::ios::binary);
  if (!in) return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(in), {});
}

inline std::vector<std::byte> golden_bytes(const std::string& name) {
  const auto file = golden_file(name + ".bin");
  EXPECT_TRUE(file.has_value()) << name;
  std::vector<std::byte> bytes;
  for (const char c : file.value_or("")) bytes.push_back(static_cast<std::byte>(c));
  return bytes;
}

/// What we print of a structure; empty where nvme-cli has no such form.
struct Printed {
  std::string brief;
  std::string human;
  std::string json;
};

/// Compares with the files of that name; at least one must be there. JSON without its white space.
inline void expect_golden(const std::string& name, const Printed& printed) {
  const auto brief = golden_file(name + ".txt");
  const auto human = golden_file(name + ".human.txt");
  const auto json = golden_file(name + ".json");
  EXPECT_TRUE(brief || human || json) << name << " has nothing to compare with";
  if (brief) EXPECT_EQ(printed.brief, *brief) << name;
  if (human) EXPECT_EQ(printed.human, *human) << name;
  if (json) {
    using Json = nlohmann::ordered_json;
    EXPECT_EQ(Json::parse(printed.json, nullptr, false).dump(1),
              Json::parse(*json, nullptr, false).dump(1))
        << name;
  }
}

}  // namespace nvmf::test
