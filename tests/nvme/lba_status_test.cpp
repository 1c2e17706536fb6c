// Get LBA Status and its list, as bytes.
#include "nvme/lba_status.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>

namespace nvmf::nvme {
namespace {

TEST(LbaStatus, CommandHasItsFields) {
  const GetLbaStatus get{.nsid = 3,
                         .lba = 0x123456789abcull,
                         .length_bytes = 4096,
                         .action = LbaStatusAction::allocated,
                         .blocks = 0xfedc};
  const Sqe sqe = get.to_sqe();
  EXPECT_EQ(sqe.opcode, 0x86);
  EXPECT_EQ(sqe.nsid, 3u);
  EXPECT_EQ(sqe.cdw10, 0x56789abcu);
  EXPECT_EQ(sqe.cdw11, 0x1234u);
  EXPECT_EQ(sqe.cdw12, 1023u);  // dwords, 0's based
  EXPECT_EQ(sqe.cdw13, 0x0200fedcu);
  EXPECT_EQ(GetLbaStatus::from_sqe(sqe), get);
}

TEST(LbaStatus, ListIsAsTheSpecificationHasIt) {
  const LbaStatusList list{.entries = {{.lba = 8, .blocks = 1, .status = kLbaStatusAllocated},
                                       {.lba = 0x10000, .blocks = kLbaStatusBlocksMax}},
                           .end = LbaStatusEnd::complete};
  const auto bytes = list.encode();
  ASSERT_EQ(bytes.size(), 40u);
  const std::array<unsigned char, 40> expected{2, 0, 0, 0, 2, 0, 0, 0,  //
                                               8, 0, 0, 0, 0, 0, 0, 0, 0,    0,    0,    0,
                                               0, 2, 0, 0,  //
                                               0, 0, 1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff};
  EXPECT_EQ(std::memcmp(bytes.data(), expected.data(), expected.size()), 0);
  const auto again = LbaStatusList::decode(bytes);
  EXPECT_EQ(again.entries, list.entries);
  EXPECT_EQ(again.announced, 2u);
  EXPECT_EQ(again.end, LbaStatusEnd::complete);
}

TEST(LbaStatus, AnyBytesDecode) {
  EXPECT_TRUE(LbaStatusList::decode({}).entries.empty());
  std::vector<std::byte> bytes(47, std::byte{0xff});
  for (std::size_t length = 0; length <= bytes.size(); ++length) {
    const auto list = LbaStatusList::decode(std::span(bytes).first(length));
    EXPECT_EQ(list.entries.size(), length < 8 ? 0 : (length - 8) / 16);
    if (length >= 4) EXPECT_EQ(list.announced, 0xffffffffu);
  }
}

}  // namespace
}  // namespace nvmf::nvme
