// More of what controllers have done to hosts, one test each; tests/README.md says which is which.
// FES and FEI: NVMe/TCP 1.0 §3.6.2.4.
#include "nvme/fabrics.h"
#include "tcp/hostile_controller.h"

namespace nvmf::tcp {
namespace {

constexpr std::uint32_t kFesMax = 6;

Bytes with_digest(Bytes header) {
  const std::size_t hlen = header.size();
  store_u8(header.data() + 1, static_cast<std::uint8_t>(load_u8(header.data() + 1) | kFlagHdgst));
  store_le32(header.data() + 4, static_cast<std::uint32_t>(hlen + kDigestBytes));
  Bytes digest(kDigestBytes);
  store_le32(digest.data(), crc32c(header));
  return header + digest;
}

TEST_F(HostileController, SuccessFlagAloneEndsARead) {
  start();
  ready();
  Command c(DataDirection::from_controller, 1024);
  const std::uint16_t cid = submit(c);
  peer.send(data_bytes(PduType::c2h_data, 0, cid, 0, 0, Bytes(512, std::byte{1})));
  loop.run_for(1s);
  EXPECT_EQ(c.completions, 0) << "the flag belongs to the last PDU";
  peer.send(data_bytes(PduType::c2h_data, kFlagLast | kFlagSuccess, cid, 0, 512,
                       Bytes(512, std::byte{2})));
  ASSERT_TRUE(loop.run_until([&] { return c.completions == 1; }, 10s));
  EXPECT_TRUE(c.cqe.status.ok());
  EXPECT_EQ(c.cqe.cid, cid);
  EXPECT_EQ(c.buffer, Bytes(512, std::byte{1}) + Bytes(512, std::byte{2}));
  // A response on top of it is one for a CID that is not in flight.
  peer.send(capsule_resp_bytes(cid));
  expect_term_req(Fes::invalid_header_field, 20);
  EXPECT_EQ(c.completions, 1);
}

TEST_F(HostileController, SuccessFlagBeforeTheLastPdu) {
  start();
  ready();
  Command c(DataDirection::from_controller, 1024);
  const std::uint16_t cid = submit(c);
  peer.send(data_bytes(PduType::c2h_data, kFlagSuccess, cid, 0, 0, Bytes(512)));
  expect_term_req(Fes::invalid_header_field, 1);
  EXPECT_EQ(c.delivery, Delivery::unanswered);
}

TEST_F(HostileController, ZeroInCapsuleSizeSendsNoDataInACapsule) {
  start({.queue_entries = 8, .in_capsule_bytes = 0});
  ready();
  Command c(DataDirection::to_controller, 4);
  submit(c);
  EXPECT_EQ(peer.pdus().back().size(), kCapsuleCmdBytes);
  EXPECT_EQ(c.sqe.sgl.type, nvme::kSglTransportDataBlock);
  finish(c);
}

TEST_F(HostileController, ConnectDataIsInTheCapsuleWhateverItsSizeMayBe) {
  start({.qid = 1, .queue_entries = 8, .in_capsule_bytes = 0});
  ready();
  Command c(DataDirection::to_controller, nvme::kConnectDataBytes);
  c.sqe = nvme::ConnectCommand{.qid = 1, .queue_entries = 8}.to_sqe();
  submit(c);
  EXPECT_EQ(peer.pdus().back().size(), kCapsuleCmdBytes + nvme::kConnectDataBytes);
  EXPECT_EQ(c.sqe.sgl.type, nvme::kSglDataBlockOffset);
  finish(c);
}

TEST_F(HostileController, DigestsWithoutInCapsuleData) {
  start({.queue_entries = 8, .header_digest = true, .data_digest = true, .in_capsule_bytes = 8192});
  ready({.hdgst = true, .ddgst = true, .maxh2cdata_bytes = 4096});
  Command c(DataDirection::none, 0);
  const std::uint16_t cid = submit(c);
  const Bytes pdu = peer.pdus().back();
  ASSERT_EQ(pdu.size(), kCapsuleCmdBytes + kDigestBytes) << "no digest of no data";
  EXPECT_EQ(load_u8(pdu.data() + 1), kFlagHdgst);
  EXPECT_EQ(load_u8(pdu.data() + 3), 0u) << "no offset of no data";
  EXPECT_EQ(load_le32(pdu.data() + kCapsuleCmdBytes),
            crc32c(std::span(pdu).first(kCapsuleCmdBytes)));
  peer.send(with_digest(capsule_resp_bytes(cid)));
  ASSERT_TRUE(loop.run_until([&] { return c.completions == 1; }, 10s));
  EXPECT_TRUE(c.cqe.status.ok());
}

TEST_F(HostileController, HeaderDigestWrong) {
  start({.queue_entries = 8, .header_digest = true, .in_capsule_bytes = 0});
  ready({.hdgst = true, .maxh2cdata_bytes = 4096});
  Command c(DataDirection::none, 0);
  const std::uint16_t cid = submit(c);
  Bytes pdu = with_digest(capsule_resp_bytes(cid));
  pdu[kCapsuleRespBytes] ^= std::byte{0x10};
  peer.send(pdu);
  // §3.5: FEI is the digest that came.
  expect_term_req(Fes::header_digest_error, load_le32(pdu.data() + kCapsuleRespBytes));
  EXPECT_EQ(c.delivery, Delivery::unanswered) << "whose response it was is not known";
}

TEST_F(HostileController, HeaderDigestFlagMissing) {
  start({.queue_entries = 8, .header_digest = true, .in_capsule_bytes = 0});
  ready({.hdgst = true, .maxh2cdata_bytes = 4096});
  Command c(DataDirection::none, 0);
  Bytes pdu = with_digest(capsule_resp_bytes(submit(c)));
  pdu[1] = std::byte{0};
  store_le32(pdu.data() + kCapsuleRespBytes, crc32c(std::span(pdu).first(kCapsuleRespBytes)));
  peer.send(pdu);
  expect_term_req(Fes::invalid_header_field, 1);
}

TEST_F(HostileController, IcRespEnablesAHeaderDigestNotOffered) {
  start();
  peer.send(ic_resp_bytes({.hdgst = true, .maxh2cdata_bytes = 4096}));
  expect_term_req(Fes::invalid_header_field, 11);
}

TEST_F(HostileController, CpdaOf31IsObeyed) {
  start({.queue_entries = 8, .in_capsule_bytes = 8192});
  ready({.cpda = 31, .maxh2cdata_bytes = 4096});
  Command c(DataDirection::to_controller, 512);
  submit(c);
  const Bytes pdu = peer.pdus().back();
  EXPECT_EQ(load_u8(pdu.data() + 3), 128u);
  EXPECT_EQ(pdu.size(), 128u + 512);
  finish(c);
}

TEST_F(HostileController, CpdaBeyond31) {
  start();
  peer.send(ic_resp_bytes({.cpda = 32, .maxh2cdata_bytes = 4096}));
  expect_term_req(Fes::invalid_header_field, 10);
}

TEST_F(HostileController, DataNotAlignedToOurHpda) {
  start({.queue_entries = 8, .hpda = 31, .in_capsule_bytes = 0});
  ready();
  Command c(DataDirection::from_controller, 512);
  const std::uint16_t cid = submit(c);
  peer.send(data_bytes(PduType::c2h_data, kFlagLast, cid, 0, 0, Bytes(512)));  // PDO 24
  expect_term_req(Fes::invalid_header_field, 3);
}

TEST_F(HostileController, MaxH2cDataOf4096IsLegalAndLessIsNot) {
  start();
  peer.send(ic_resp_bytes({.maxh2cdata_bytes = 4092}));
  expect_term_req(Fes::invalid_header_field, 12);
}

TEST_F(HostileController, PduForTheOtherEnd) {
  start();
  ready();
  peer.send(capsule_cmd_bytes({}));
  expect_term_req(Fes::invalid_header_field, 0);
}

TEST_F(HostileController, UnknownPduType) {
  start();
  ready();
  Bytes pdu = capsule_resp_bytes(0);
  pdu[0] = std::byte{0x0b};
  peer.send(pdu);
  expect_term_req(Fes::invalid_header_field, 0);
}

TEST_F(HostileController, HeaderLengthOfAnotherType) {
  start();
  ready();
  Bytes pdu = capsule_resp_bytes(0);
  pdu[2] = std::byte{72};
  peer.send(pdu);
  expect_term_req(Fes::invalid_header_field, 2);
}

TEST_F(HostileController, PduLengthThatDoesNotFit) {
  start();
  ready();
  Bytes pdu = capsule_resp_bytes(0);
  store_le32(pdu.data() + 4, 25);
  peer.send(pdu);
  expect_term_req(Fes::invalid_header_field, 4);
}

TEST_F(HostileController, DataLengthThatDoesNotFit) {
  start();
  ready();
  Command c(DataDirection::from_controller, 4096);
  const std::uint16_t cid = submit(c);
  Bytes pdu = data_bytes(PduType::c2h_data, 0, cid, 0, 0, Bytes(512));
  store_le32(pdu.data() + 16, 516);
  peer.send(pdu);
  expect_term_req(Fes::invalid_header_field, 16);
}

TEST_F(HostileController, R2tOffsetWraps) {
  start();
  ready();
  Command c(DataDirection::to_controller, 4096);
  peer.send(r2t_bytes(submit(c), 1, 0xfffff000, 0x2000));
  expect_term_req(Fes::data_out_of_range, 0);
}

TEST_F(HostileController, R2tAfterEverythingWasAskedFor) {
  start();
  ready();
  Command c(DataDirection::to_controller, 4096);
  const std::uint16_t cid = submit(c);
  peer.send(r2t_bytes(cid, 1, 0, 4096) + r2t_bytes(cid, 2, 0, 4096));
  expect_term_req(Fes::pdu_sequence_error, 0);
}

TEST_F(HostileController, TermReqThatIsTooShortIsDroppedWithoutAWord) {
  start();
  ready();
  Bytes pdu(kTermReqHeaderBytes);
  CommonHeader{PduType::c2h_term_req, 0, kTermReqHeaderBytes, 0, 23}.encode(pdu.data());
  peer.send(pdu);
  ASSERT_TRUE(loop.run_until([&] { return events.ended.has_value(); }, 10s));
  EXPECT_FALSE(peer.term_req().has_value());
  EXPECT_NE(events.ended->message.find("impossible length"), std::string::npos);
}

TEST_F(HostileController, EveryBufferStaysAsItWasAtAWrongPdu) {
  // What is on its way when the connection breaks is neither lost twice nor written to.
  start();
  ready();
  Command read(DataDirection::from_controller, 4096);
  Command write(DataDirection::to_controller, 4096);
  const std::uint16_t cid = submit(read);
  submit(write);
  peer.send(data_bytes(PduType::c2h_data, 0, cid, 0, 0, Bytes(512, std::byte{7})) +
            capsule_resp_bytes(0x7fff));
  expect_term_req(Fes::invalid_header_field, 20);
  for (const Command* c : {&read, &write}) {
    EXPECT_EQ(c->completions, 1);
    EXPECT_EQ(c->delivery, Delivery::unanswered);
  }
  EXPECT_EQ(Bytes(read.buffer.begin() + 512, read.buffer.end()), Bytes(3584, std::byte{0x5a}));
  EXPECT_EQ(write.buffer, Bytes(4096, std::byte{0x5a}));
}

class TermReqOfEachFes : public HostileController,
                         public ::testing::WithParamInterface<std::uint32_t> {};

TEST_P(TermReqOfEachFes, EndsTheConnectionInWords) {
  start();
  ready();
  Command c(DataDirection::none, 0);
  submit(c);
  const auto fes = static_cast<Fes>(GetParam());
  Bytes pdu(kTermReqBytesMax);
  pdu.resize(TermReq{fes, 4}.encode(std::span<std::byte, kTermReqBytesMax>(pdu),
                                    PduType::c2h_term_req, Bytes(72)));
  peer.send(pdu);
  ASSERT_TRUE(loop.run_until([&] { return events.ended.has_value(); }, 10s));
  EXPECT_NE(events.ended->message.find(describe_fes(fes, 4, false)), std::string::npos)
      << events.ended->message;
  EXPECT_FALSE(peer.term_req().has_value()) << "a TermReq is not answered by one";
  EXPECT_EQ(c.delivery, Delivery::unanswered);
  EXPECT_EQ(c.completions, 1);
}

// 0 and 7 are no FES: whatever they mean, the connection is over.
INSTANTIATE_TEST_SUITE_P(Fes, TermReqOfEachFes, ::testing::Range(0u, kFesMax + 2));

}  // namespace
}  // namespace nvmf::tcp
