// Borders of PDUs in the middle of a stream.
#include "transport/tcp/pdu_border.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "transport/tcp/pdu.h"

namespace nvmf::test {
namespace {

using tcp::PduType;

std::vector<std::byte> pdu(PduType type, std::uint8_t hlen, std::uint32_t data,
                           std::uint8_t flags = 0) {
  const bool digest = (flags & tcp::kFlagHdgst) != 0;
  const auto header = static_cast<std::uint8_t>(hlen + (digest ? 4 : 0));
  std::vector<std::byte> out(header + data);
  tcp::CommonHeader{.type = type,
                    .flags = flags,
                    .hlen = hlen,
                    .pdo = data != 0 ? header : std::uint8_t{0},
                    .plen = header + data}
      .encode(out.data());
  return out;
}

TEST(PduBorder, IsSeenWhereAPduBegins) {
  EXPECT_TRUE(tcp::begins_with_pdu(pdu(PduType::capsule_cmd, 72, 0)));
  EXPECT_TRUE(tcp::begins_with_pdu(pdu(PduType::capsule_cmd, 72, 4096, tcp::kFlagHdgst)));
  EXPECT_TRUE(tcp::begins_with_pdu(pdu(PduType::c2h_data, 24, 512, tcp::kFlagLast)));
  EXPECT_FALSE(tcp::begins_with_pdu(pdu(PduType::c2h_data, 25, 512)));
  EXPECT_FALSE(tcp::begins_with_pdu(pdu(PduType::r2t, 24, 0, tcp::kFlagLast)));
  EXPECT_FALSE(tcp::begins_with_pdu(std::vector<std::byte>(4096)));
  EXPECT_FALSE(tcp::begins_with_pdu(std::vector<std::byte>(7)));
  EXPECT_FALSE(tcp::begins_with_pdu({}));
  // The next one tells, if it is there.
  std::vector<std::byte> two = pdu(PduType::capsule_resp, 24, 0);
  two.resize(24 + 8, std::byte{0xff});
  EXPECT_FALSE(tcp::begins_with_pdu(two));
}

TEST(PduBorder, RandomBytesAreNone) {
  std::mt19937 random(1);
  int taken = 0;
  for (int i = 0; i < 100'000; ++i) {
    std::vector<std::byte> bytes(random() % 64);
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    taken += tcp::begins_with_pdu(bytes) ? 1 : 0;
    EXPECT_LE(tcp::first_pdus_bytes(bytes), bytes.size());
  }
  EXPECT_EQ(taken, 0);
}

TEST(PduBorder, TheHandshakeIsTwoPdus) {
  std::vector<std::byte> bytes = pdu(PduType::ic_req, 128, 0);
  EXPECT_EQ(tcp::first_pdus_bytes(bytes), 128u);
  const std::vector<std::byte> connect = pdu(PduType::capsule_cmd, 72, 1024);
  bytes.insert(bytes.end(), connect.begin(), connect.end());
  EXPECT_EQ(tcp::first_pdus_bytes(std::span(bytes).first(bytes.size() - 1)), 128u);
  EXPECT_EQ(tcp::first_pdus_bytes(bytes), bytes.size());
  bytes.insert(bytes.end(), connect.begin(), connect.end());
  EXPECT_EQ(tcp::first_pdus_bytes(bytes), 128u + 72 + 1024);
  EXPECT_EQ(tcp::first_pdus_bytes({}), 0u);
}

}  // namespace
}  // namespace nvmf::test
