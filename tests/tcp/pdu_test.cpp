// Golden bytes of every PDU. NVMe/TCP 1.0 §3.6.2.
#include "transport/tcp/pdu.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "nvme/endian.h"
#include "transport/tcp/pdu_sender.h"

namespace nvmf::tcp {
namespace {

std::vector<std::byte> bytes(std::initializer_list<int> values, std::size_t size = 0) {
  std::vector<std::byte> out;
  for (const int v : values) out.push_back(static_cast<std::byte>(v));
  if (size > out.size()) out.resize(size);
  return out;
}

std::vector<std::byte> sent_by(PduSender& sender) {
  std::vector<std::byte> out;
  for (;;) {
    iovec v[64];
    const std::size_t n = sender.send_vectors(v);
    if (n == 0) return out;
    std::size_t sum = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const auto* p = static_cast<const std::byte*>(v[i].iov_base);
      out.insert(out.end(), p, p + v[i].iov_len);
      sum += v[i].iov_len;
    }
    sender.send_advance(sum, [](SendTag) {});
  }
}

TEST(Crc32c, CheckValue) {
  const std::string digits = "123456789";
  EXPECT_EQ(crc32c(std::as_bytes(std::span(digits))), 0xe3069283u);
}

TEST(Crc32c, InPieces) {
  const std::string digits = "123456789";
  const auto all = std::as_bytes(std::span(digits));
  EXPECT_EQ(crc_finish(crc_update(crc_update(kCrcStart, all.first(4)), all.subspan(4))),
            0xe3069283u);
}

TEST(Pdu, IcReq) {
  std::vector<std::byte> out(kIcBytes, std::byte{0xff});
  IcReq{.pfv = 0, .hpda = 3, .hdgst = true, .ddgst = true, .maxr2t = 0x01020304}.encode(
      std::span<std::byte, kIcBytes>(out));
  EXPECT_EQ(out, bytes({0, 0, 128, 0, 128, 0, 0, 0, 0, 0, 3, 3, 4, 3, 2, 1}, kIcBytes));
  const IcReq back = IcReq::decode(out.data());
  EXPECT_EQ(back.hpda, 3);
  EXPECT_TRUE(back.hdgst && back.ddgst);
  EXPECT_EQ(back.maxr2t, 0x01020304u);
}

TEST(Pdu, IcResp) {
  std::vector<std::byte> out(kIcBytes, std::byte{0xff});
  IcResp{.pfv = 0, .cpda = 31, .hdgst = false, .ddgst = true, .maxh2cdata_bytes = 4096}.encode(
      std::span<std::byte, kIcBytes>(out));
  EXPECT_EQ(out, bytes({1, 0, 128, 0, 128, 0, 0, 0, 0, 0, 31, 2, 0, 16, 0, 0}, kIcBytes));
  const IcResp back = IcResp::decode(out.data());
  EXPECT_EQ(back.cpda, 31);
  EXPECT_FALSE(back.hdgst);
  EXPECT_TRUE(back.ddgst);
  EXPECT_EQ(back.maxh2cdata_bytes, 4096u);
}

TEST(Pdu, TermReqCarriesTheOffendingHeader) {
  std::vector<std::byte> out(kTermReqBytesMax, std::byte{0xff});
  const auto header = bytes({5, 1, 24, 0});
  const std::size_t n = TermReq{Fes::invalid_header_field, 0x11223344}.encode(
      std::span<std::byte, kTermReqBytesMax>(out), PduType::h2c_term_req, header);
  ASSERT_EQ(n, 28u);
  out.resize(n);
  EXPECT_EQ(out, bytes({2, 0, 24, 0, 28, 0, 0, 0, 1, 0, 0x44, 0x33, 0x22, 0x11,
                        0, 0, 0,  0, 0,  0, 0, 0, 0, 0, 5,    1,    24,   0}));
  EXPECT_EQ(TermReq::decode(out.data()).fei, 0x11223344u);
}

TEST(Pdu, TermReqDataIsCut) {
  std::vector<std::byte> out(kTermReqBytesMax);
  const std::vector<std::byte> header(200);
  EXPECT_EQ(
      TermReq{}.encode(std::span<std::byte, kTermReqBytesMax>(out), PduType::h2c_term_req, header),
      kTermReqBytesMax);
}

TEST(Pdu, DataHeader) {
  std::vector<std::byte> out(kDataHeaderBytes, std::byte{0xff});
  DataHeader{.cccid = 0x0102, .ttag = 0x0304, .datao_bytes = 0x05060708, .datal_bytes = 0x090a0b0c}
      .encode(out.data());
  EXPECT_EQ(std::vector(out.begin() + 8, out.end()),
            bytes({2, 1, 4, 3, 8, 7, 6, 5, 12, 11, 10, 9, 0, 0, 0, 0}));
  EXPECT_EQ(DataHeader::decode(out.data()).datal_bytes, 0x090a0b0cu);
}

TEST(Pdu, R2t) {
  std::vector<std::byte> out(kR2tBytes, std::byte{0xff});
  R2tHeader{.cccid = 1, .ttag = 2, .r2to_bytes = 3, .r2tl_bytes = 4}.encode(out.data());
  EXPECT_EQ(std::vector(out.begin() + 8, out.end()),
            bytes({1, 0, 2, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0}));
}

TEST(PduSender, CapsuleWithDataBothDigestsAndPadding) {
  PduSender sender;
  std::vector<std::byte> header(kCapsuleCmdBytes, std::byte{0x11});
  CommonHeader{.type = PduType::capsule_cmd}.encode(header.data());
  const std::vector<std::byte> payload(16, std::byte{0x22});
  // CPDA 31: data at a multiple of 128. §3.3
  sender.push(header, payload, {.hdgst = true, .ddgst = true, .pda = 31}, 7);
  const std::vector<std::byte> out = sent_by(sender);
  ASSERT_EQ(out.size(), 128u + 16 + 4);
  const CommonHeader h = CommonHeader::decode(out.data());
  EXPECT_EQ(h.flags, kFlagHdgst | kFlagDdgst);
  EXPECT_EQ(h.hlen, 72);
  EXPECT_EQ(h.pdo, 128);
  EXPECT_EQ(h.plen, 148u);
  EXPECT_EQ(load_le32(out.data() + 72), crc32c(std::span(out).first(72)));
  for (std::size_t i = 76; i < 128; ++i) EXPECT_EQ(out[i], std::byte{0});
  EXPECT_EQ(load_le32(out.data() + 144), crc32c(payload));
}

TEST(PduSender, NeighbouringHeadersAreOneRange) {
  PduSender sender;
  std::vector<std::byte> header(kCapsuleCmdBytes);
  for (SendTag tag = 0; tag < 32; ++tag) sender.push(header, {}, {}, tag);
  iovec v[64];
  ASSERT_EQ(sender.send_vectors(v), 1u);
  EXPECT_EQ(v[0].iov_len, 32 * kCapsuleCmdBytes);
  std::vector<SendTag> done;
  sender.send_advance(kCapsuleCmdBytes * 2 + 1, [&](SendTag t) { done.push_back(t); });
  EXPECT_EQ(done, (std::vector<SendTag>{0, 1}));
}

TEST(PduSender, RingWrapsForever) {
  PduSender sender;
  std::vector<std::byte> header(kCapsuleCmdBytes);
  const std::vector<std::byte> payload(100, std::byte{1});
  std::size_t pushed = 0;
  std::size_t released = 0;
  for (int round = 0; round < 2000; ++round) {
    for (int i = 0; i < round % 50 && sender.room(); ++i, ++pushed) {
      sender.push(header,
                  i % 2 ? std::span<const std::byte>(payload) : std::span<const std::byte>{},
                  {.hdgst = true, .ddgst = true, .pda = static_cast<std::uint8_t>(i % 32)}, 1);
    }
    iovec v[8];
    const std::size_t n = sender.send_vectors(v);
    std::size_t sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum += v[i].iov_len;
    sender.send_advance(sum / 2, [&](SendTag) { ++released; });
  }
  std::size_t sent_late = 0;
  for (iovec v[8]; sender.send_vectors(v) != 0;) {
    sender.send_advance(v[0].iov_len, [&](SendTag) { ++sent_late; });
  }
  EXPECT_TRUE(sender.empty());
  EXPECT_EQ(released + sent_late, pushed);
  EXPECT_GT(pushed, 5'000u);
}

TEST(DescribeFes, SaysTheFieldOffset) {
  EXPECT_EQ(describe_fes(Fes::invalid_header_field, 8, true),
            "Invalid PDU Header Field (FES 1, field offset 8)");
  EXPECT_EQ(describe_fes(Fes::limit_exceeded, 0, true), "R2T Limit Exceeded (FES 5)");
  EXPECT_EQ(describe_fes(Fes::limit_exceeded, 0, false), "Data Transfer Limit Exceeded (FES 5)");
}

}  // namespace
}  // namespace nvmf::tcp
