#include "nvme/print.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "nvme/bytes.h"
#include "nvme/json.h"

namespace nvmf::nvme {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

IdentifyController some_controller() {
  IdentifyController id;
  id.vid = 0x1234;
  id.sn = "SN1";
  id.subnqn = "nqn.2024-01.org.example:disk";
  id.oaes = kOaesDiscoveryChange;
  id.tnvmcap = {.low = 0, .high = 1};
  id.psd[0].mp = 1234;
  return id;
}

TEST(Print, Controller) {
  const std::string text = print(some_controller());
  EXPECT_THAT(text, StartsWith("NVME Identify Controller:\nvid       : 0x1234\nssvid     : 0\n"
                               "sn        : SN1                 \n"));
  EXPECT_THAT(text, HasSubstr("\ntnvmcap   : 18446744073709551616\n"));
  EXPECT_THAT(text, HasSubstr("\nps      0 : mp:12.34W operational enlat:0 exlat:0 rrt:0 rrl:0\n"));
}

TEST(Print, HostileTextDoesNotReachTheTerminal) {
  IdentifyController id = some_controller();
  id.mn = "\x1b[2Jmodel\xff";
  EXPECT_THAT(print(id), HasSubstr("\\x1b[2Jmodel\\xff"));
  EXPECT_THAT(to_json(id), Not(HasSubstr("\x1b")));
  EXPECT_TRUE(nlohmann::json::accept(to_json(id)));
}

TEST(Print, AnyBytesCanBeShown) {
  for (std::uint32_t seed = 0; seed < 20; ++seed) {
    const auto bytes = test::random_bytes(4096, seed);
    EXPECT_FALSE(print(IdentifyController::decode(bytes)).empty());
    EXPECT_FALSE(print(IdentifyNamespace::decode(bytes), 1).empty());
    EXPECT_TRUE(nlohmann::json::accept(to_json(IdentifyController::decode(bytes))));
    EXPECT_TRUE(nlohmann::json::accept(to_json(IdentifyNamespace::decode(bytes))));
  }
}

TEST(Json, ValuesAreThoseOfNvmeCli) {
  const auto json = nlohmann::json::parse(to_json(some_controller()));
  EXPECT_EQ(json["vid"], 0x1234);
  EXPECT_EQ(json["sn"], "SN1                 ");
  EXPECT_EQ(json["oaes"], -2147483648LL);  // a signed int, as 2.3 has it
  EXPECT_EQ(json["tnvmcap"], "18446744073709551616");
  EXPECT_EQ(json["psds"].size(), 1u);
  EXPECT_EQ(json["psds"][0]["max_power"], 1234);
}

TEST(Json, Namespace) {
  IdentifyNamespace id;
  id.nsze = 0xffffffffffffffff;
  id.nlbaf = 1;
  id.lbaf[1].lbads = 12;
  const auto json = nlohmann::json::parse(to_json(id));
  EXPECT_EQ(json["nsze"], 0xffffffffffffffff);
  EXPECT_EQ(json["lbafs"].size(), 2u);
  EXPECT_EQ(json["lbafs"][1]["ds"], 12);
  EXPECT_FALSE(json.contains("npwg"));
}

}  // namespace
}  // namespace nvmf::nvme
