#include "nvme/text.h"

#include <gtest/gtest.h>

#include "nvme/uint128.h"

namespace nvmf::nvme {
namespace {

TEST(Text, Utf8) {
  EXPECT_TRUE(valid_utf8(""));
  EXPECT_TRUE(valid_utf8("plain"));
  EXPECT_TRUE(valid_utf8("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"));
  for (const char* bad :
       {"\x80", "\xc3", "\xc0\xaf", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf",
        "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xe2\x82", "a\xe2(\xa1"}) {
    EXPECT_FALSE(valid_utf8(bad)) << printable(bad);
  }
}

TEST(Text, NothingThatSteersATerminalIsPrinted) {
  EXPECT_EQ(printable("disk \xc3\xa4"), "disk \xc3\xa4");
  EXPECT_EQ(printable("\x1b[2J\x7f\n"), "\\x1b[2J\\x7f\\x0a");
  EXPECT_EQ(printable("\xff\xfe"), "\\xff\\xfe");
  EXPECT_EQ(printable("\xc2\x9b"
                      "31m"),
            "\\xc2\\x9b31m");  // CSI as one character
  EXPECT_EQ(printable("\xc2\xa0"), "\xc2\xa0");
  EXPECT_EQ(printable("\xc2"), "\\xc2");
}

TEST(Uint128, Decimal) {
  EXPECT_EQ((Uint128{}.to_string()), "0");
  EXPECT_EQ((Uint128{.low = 1'000'000'000, .high = 0}.to_string()), "1000000000");
  EXPECT_EQ((Uint128{.low = 0, .high = 1}.to_string()), "18446744073709551616");
  EXPECT_EQ((Uint128{.low = ~0ull, .high = ~0ull}.to_string()),
            "340282366920938463463374607431768211455");
  EXPECT_DOUBLE_EQ((Uint128{.low = 0, .high = 1}.to_double()), 18446744073709551616.0);
}

}  // namespace
}  // namespace nvmf::nvme
