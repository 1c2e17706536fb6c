// What a hostile or broken host may send, and the TermReq or status that it gets.
// NVMe/TCP 1.0 §3.3.2, §3.5.
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <optional>

#include "tcp/raw_peer.h"
#include "transport/tcp/controller_qpair.h"

namespace nvmf::tcp {
namespace {

using namespace std::chrono_literals;

constexpr std::uint8_t kWrite = 1;
constexpr std::uint8_t kHold = 9;  // not answered

struct Session final : transport::ControllerQpairEvents {
  explicit Session(const ControllerQpairOptions& options)
      : qpair(std::make_unique<ControllerQpair>(options, *this)) {}
  void on_command(transport::ControllerCommand& c) override {
    if (c.sqe.opcode == kHold) return;
    if (c.sqe.opcode == kWrite && c.in_capsule.empty()) {
      return qpair->receive_data(c, std::span(buffer).first(c.data_bytes));
    }
    qpair->respond(c, {}, 0);
  }
  void on_data_received(transport::ControllerCommand& c, bool) override {
    qpair->respond(c, {}, 0);
  }
  void on_data_sent(transport::ControllerCommand&) override {}
  void on_ended(const Error& reason) override { ended = reason; }
  std::unique_ptr<ControllerQpair> qpair;
  Bytes buffer = Bytes(1 << 20);
  std::optional<Error> ended;
};

nvme::Sqe sqe(std::uint8_t opcode, std::uint16_t cid, std::uint32_t length,
              std::uint8_t sgl = nvme::kSglTransportDataBlock) {
  nvme::Sqe s;
  s.opcode = opcode;
  s.flags = 0x40;
  s.cid = cid;
  s.sgl = {0, length, sgl};
  return s;
}

class HostileHost : public ::testing::Test {
 protected:
  void start(const ControllerQpairOptions& options = {.maxh2cdata_bytes = 4096}, bool open = true) {
    auto listening = loop.listen({"127.0.0.1", 4420, ""}, [this, options, open](auto incoming) {
      session = std::make_unique<Session>(options);
      session->qpair->start(loop, std::move(incoming));
      if (open) session->qpair->open_queue(4, 8192, true);
    });
    listener = std::move(*listening);
    peer.stream = loop.connect({"127.0.0.1", 4420, ""}, {}, peer);
    ASSERT_TRUE(loop.run_until([&] { return peer.opened && session; }, 10s));
  }
  void ready(const IcReq& req = {.maxr2t = 3}) {
    peer.send(ic_req_bytes(req));
    wait_pdus(1);
  }
  void wait_pdus(std::size_t n) {
    ASSERT_TRUE(loop.run_until([&] { return peer.pdus().size() >= n; }, 10s));
  }
  nvme::Status status_of(std::size_t pdu_index) {
    const Bytes pdu = peer.pdus().at(pdu_index);
    EXPECT_EQ(type_of(pdu), PduType::capsule_resp);
    return nvme::Cqe::decode(std::span(pdu).subspan<8, 16>()).status;
  }
  R2tHeader r2t_of(std::size_t pdu_index) {
    const Bytes pdu = peer.pdus().at(pdu_index);
    EXPECT_EQ(type_of(pdu), PduType::r2t);
    return R2tHeader::decode(pdu.data());
  }
  void expect_term_req(Fes fes, std::uint32_t fei) {
    ASSERT_TRUE(loop.run_until([&] { return peer.term_req().has_value(); }, 10s));
    EXPECT_EQ(peer.term_req()->fes, fes);
    EXPECT_EQ(peer.term_req()->fei, fei);
    ASSERT_TRUE(loop.run_until([&] { return session->ended.has_value(); }, 10s));
  }
  void TearDown() override {
    if (session && !session->ended) session->qpair->end(Error{"test over"});
    EXPECT_TRUE(loop.run_until([&] { return !session || session->ended.has_value(); }, 10s));
    if (peer.stream && !peer.closed) peer.stream->reset(Error{"test over"});
    EXPECT_TRUE(loop.run_until([&] { return !peer.stream || peer.closed.has_value(); }, 10s));
  }

  sim::VirtualLoop loop;
  std::unique_ptr<transport::Listener> listener;
  RawPeer peer;
  std::unique_ptr<Session> session;
};

TEST_F(HostileHost, CommandBeforeIcReq) {
  start();
  peer.send(capsule_cmd_bytes(sqe(0, 1, 0)));
  expect_term_req(Fes::pdu_sequence_error, 0);
}

TEST_F(HostileHost, TermReqRepeatsTheHeader) {
  start();
  ready();
  Bytes bad = capsule_cmd_bytes(sqe(0, 1, 0));
  bad[2] = std::byte{73};
  peer.send(bad);
  expect_term_req(Fes::invalid_header_field, 2);
  const Bytes term = peer.pdus().back();
  // The error shows after the common header: that is what was being processed.
  EXPECT_TRUE(std::equal(term.begin() + 24, term.end(), bad.begin()));
  EXPECT_GE(term.size(), 24u + 8);
}

TEST_F(HostileHost, MoreCommandsThanTheQueueHolds) {
  start();
  ready();
  Bytes many;
  for (std::uint16_t cid = 0; cid < 5; ++cid) many = many + capsule_cmd_bytes(sqe(kHold, cid, 0));
  peer.send(many);
  expect_term_req(Fes::pdu_sequence_error, 0);
}

TEST_F(HostileHost, SecondCommandBeforeConnectIsAnswered) {
  start({}, false);
  ready();
  peer.send(capsule_cmd_bytes(sqe(kHold, 1, 0)) + capsule_cmd_bytes(sqe(kHold, 2, 0)));
  expect_term_req(Fes::pdu_sequence_error, 0);
}

TEST_F(HostileHost, SameCidTwice) {
  start();
  ready();
  peer.send(capsule_cmd_bytes(sqe(kHold, 7, 0)) + capsule_cmd_bytes(sqe(0, 7, 0)));
  wait_pdus(2);
  EXPECT_EQ(status_of(1).code(), nvme::StatusCode::command_id_conflict);
  peer.send(capsule_cmd_bytes(sqe(0, 7, 0)));
  wait_pdus(3);
  EXPECT_EQ(status_of(2).code(), nvme::StatusCode::command_id_conflict) << "the first still runs";
}

TEST_F(HostileHost, SglsThatTcpDoesNotKnow) {
  start();
  ready();
  nvme::Sqe no_sgl = sqe(0, 4, 0);
  no_sgl.flags = 0;
  nvme::Sqe offset = sqe(kWrite, 5, 512, nvme::kSglDataBlockOffset);
  offset.sgl.address = 8;
  peer.send(capsule_cmd_bytes(sqe(kWrite, 1, 512, 0x40)) +
            capsule_cmd_bytes(sqe(kWrite, 2, 512, nvme::kSglDataBlockOffset), Bytes(256)));
  wait_pdus(3);
  EXPECT_EQ(status_of(1).code(), nvme::StatusCode::sgl_type_invalid);
  EXPECT_EQ(status_of(2).code(), nvme::StatusCode::data_sgl_length_invalid);
  peer.send(capsule_cmd_bytes(sqe(kWrite, 3, 512), Bytes(512)) + capsule_cmd_bytes(no_sgl) +
            capsule_cmd_bytes(offset, Bytes(512)));
  wait_pdus(6);
  EXPECT_EQ(status_of(3).code(), nvme::StatusCode::data_sgl_length_invalid);
  EXPECT_EQ(status_of(4).code(), nvme::StatusCode::invalid_field);
  EXPECT_EQ(status_of(5).code(), nvme::StatusCode::sgl_offset_invalid);
}

TEST_F(HostileHost, DataForNoR2t) {
  start();
  ready();
  peer.send(data_bytes(PduType::h2c_data, kFlagLast, 1, 0, 0, Bytes(512)));
  expect_term_req(Fes::invalid_header_field, 8);
}

TEST_F(HostileHost, DataOfWrongTag) {
  start();
  ready();
  peer.send(capsule_cmd_bytes(sqe(kWrite, 1, 8192)));
  wait_pdus(2);
  const R2tHeader r2t = r2t_of(1);
  peer.send(data_bytes(PduType::h2c_data, 0, 1, static_cast<std::uint16_t>(r2t.ttag + 1), 0,
                       Bytes(4096)));
  expect_term_req(Fes::invalid_header_field, 10);
}

TEST_F(HostileHost, DataOfWrongCid) {
  start();
  ready();
  peer.send(capsule_cmd_bytes(sqe(kWrite, 1, 8192)));
  wait_pdus(2);
  peer.send(data_bytes(PduType::h2c_data, 0, 2, r2t_of(1).ttag, 0, Bytes(4096)));
  expect_term_req(Fes::invalid_header_field, 8);
}

TEST_F(HostileHost, DataBeyondMaxH2cData) {
  start();
  ready();
  peer.send(capsule_cmd_bytes(sqe(kWrite, 1, 8192)));
  wait_pdus(2);
  peer.send(data_bytes(PduType::h2c_data, kFlagLast, 1, r2t_of(1).ttag, 0, Bytes(8192)));
  expect_term_req(Fes::limit_exceeded, 0);
}

TEST_F(HostileHost, DataBeyondItsR2t) {
  start({.maxh2cdata_bytes = 4096, .r2t_bytes = 2048});
  ready();
  peer.send(capsule_cmd_bytes(sqe(kWrite, 1, 8192)));
  wait_pdus(5);
  EXPECT_EQ(r2t_of(1).r2tl_bytes, 2048u);
  EXPECT_EQ(r2t_of(4).r2to_bytes, 6144u);
  peer.send(data_bytes(PduType::h2c_data, kFlagLast, 1, r2t_of(1).ttag, 0, Bytes(2052)));
  expect_term_req(Fes::data_out_of_range, 0);
}

TEST_F(HostileHost, DataOutOfSequence) {
  start();
  ready();
  peer.send(capsule_cmd_bytes(sqe(kWrite, 1, 8192)));
  wait_pdus(2);
  peer.send(data_bytes(PduType::h2c_data, 0, 1, r2t_of(1).ttag, 4096, Bytes(4096)));
  expect_term_req(Fes::pdu_sequence_error, 0);
}

TEST_F(HostileHost, R2tsServedOutOfOrder) {
  start({.maxh2cdata_bytes = 4096, .r2t_bytes = 2048});
  ready();
  peer.send(capsule_cmd_bytes(sqe(kWrite, 1, 8192)));
  wait_pdus(5);
  peer.send(data_bytes(PduType::h2c_data, kFlagLast, 1, r2t_of(2).ttag, 2048, Bytes(2048)));
  expect_term_req(Fes::pdu_sequence_error, 0);
}

TEST_F(HostileHost, LastTooEarly) {
  start();
  ready();
  peer.send(capsule_cmd_bytes(sqe(kWrite, 1, 8192)));
  wait_pdus(2);
  peer.send(data_bytes(PduType::h2c_data, kFlagLast, 1, r2t_of(1).ttag, 0, Bytes(4096)));
  expect_term_req(Fes::invalid_header_field, 1);
}

TEST_F(HostileHost, DataAfterTheCommandEnded) {
  start();
  ready();
  peer.send(capsule_cmd_bytes(sqe(kWrite, 1, 4096)));
  wait_pdus(2);
  const Bytes pdu = data_bytes(PduType::h2c_data, kFlagLast, 1, r2t_of(1).ttag, 0, Bytes(4096));
  peer.send(pdu + pdu);
  // The response is not sent yet: the CID is in flight, the tag no more.
  expect_term_req(Fes::invalid_header_field, 10);
}

TEST_F(HostileHost, HostThatTakesOneR2tGetsOne) {
  start({.maxh2cdata_bytes = 4096, .r2t_bytes = 2048});
  ready({.maxr2t = 0});
  peer.send(capsule_cmd_bytes(sqe(kWrite, 1, 8192)));
  wait_pdus(2);
  loop.run_for(1s);
  EXPECT_EQ(peer.pdus().size(), 2u);
  peer.send(data_bytes(PduType::h2c_data, kFlagLast, 1, r2t_of(1).ttag, 0, Bytes(2048)));
  wait_pdus(3);
  EXPECT_EQ(r2t_of(2).r2to_bytes, 2048u);
}

TEST_F(HostileHost, HugeMaxR2tDoesNotWrap) {
  start({.maxh2cdata_bytes = 4096, .r2t_bytes = 1024});
  ready({.maxr2t = 0xffffffff});
  peer.send(capsule_cmd_bytes(sqe(kWrite, 1, 8192)));
  wait_pdus(5);
  loop.run_for(1s);
  EXPECT_EQ(peer.pdus().size(), 5u) << "never more than our own limit";
}

TEST_F(HostileHost, TermReqTooLongIsDroppedWithoutAWord) {
  start();
  ready();
  Bytes pdu(24);
  CommonHeader{PduType::h2c_term_req, 0, 24, 0, 100'000}.encode(pdu.data());
  peer.send(pdu);
  ASSERT_TRUE(loop.run_until([&] { return session->ended && peer.closed; }, 10s));
  EXPECT_FALSE(peer.term_req().has_value());
}

TEST_F(HostileHost, TermReqEndsTheConnection) {
  start();
  ready();
  Bytes pdu(kTermReqBytesMax);
  pdu.resize(TermReq{Fes::limit_exceeded, 0}.encode(std::span<std::byte, kTermReqBytesMax>(pdu),
                                                    PduType::h2c_term_req, Bytes(24)));
  peer.send(pdu);
  ASSERT_TRUE(loop.run_until([&] { return session->ended.has_value(); }, 10s));
  EXPECT_NE(session->ended->message.find("R2T Limit Exceeded"), std::string::npos);
}

TEST_F(HostileHost, IcReqOfWrongPfv) {
  start();
  peer.send(ic_req_bytes({.pfv = 7}));
  expect_term_req(Fes::unsupported_parameter, 8);
}

TEST_F(HostileHost, HpdaBeyond31) {
  start();
  peer.send(ic_req_bytes({.hpda = 32}));
  expect_term_req(Fes::invalid_header_field, 10);
}

TEST_F(HostileHost, SecondIcReq) {
  start();
  ready();
  peer.send(ic_req_bytes());
  expect_term_req(Fes::pdu_sequence_error, 0);
}

TEST_F(HostileHost, PduForTheOtherEnd) {
  start();
  ready();
  peer.send(r2t_bytes(0, 0, 0, 512));
  expect_term_req(Fes::invalid_header_field, 0);
}

TEST_F(HostileHost, HeaderDigestWrong) {
  start();
  ready({.hdgst = true});
  Bytes pdu = capsule_cmd_bytes(sqe(0, 1, 0));
  pdu[1] = std::byte{kFlagHdgst};
  store_le32(pdu.data() + 4, kCapsuleCmdBytes + kDigestBytes);
  peer.send(pdu + Bytes(kDigestBytes, std::byte{0x21}));
  expect_term_req(Fes::header_digest_error, 0x21212121);
}

TEST_F(HostileHost, DigestFlagWithoutInCapsuleDataIsNoDigest) {
  start();
  ready({.ddgst = true});
  Bytes pdu = capsule_cmd_bytes(sqe(0, 1, 0));
  pdu[1] = std::byte{kFlagDdgst};
  peer.send(pdu);
  wait_pdus(2);
  EXPECT_TRUE(status_of(1).ok());
}

TEST_F(HostileHost, InCapsuleDataBeyondWhatWasOffered) {
  start();
  ready();
  peer.send(capsule_cmd_bytes(sqe(kWrite, 1, 8196, nvme::kSglDataBlockOffset), Bytes(8196)));
  expect_term_req(Fes::invalid_header_field, 4);
}

TEST_F(HostileHost, DataOf4096IsLegal) {
  start();
  ready();
  peer.send(capsule_cmd_bytes(sqe(kWrite, 1, 8192)));
  wait_pdus(2);
  const std::uint16_t ttag = r2t_of(1).ttag;
  peer.send(data_bytes(PduType::h2c_data, 0, 1, ttag, 0, Bytes(4096)) +
            data_bytes(PduType::h2c_data, kFlagLast, 1, ttag, 4096, Bytes(4096)));
  wait_pdus(3);
  EXPECT_TRUE(status_of(2).ok());
}

TEST_F(HostileHost, DataOffsetBeyondItsR2t) {
  start();
  ready();
  peer.send(capsule_cmd_bytes(sqe(kWrite, 1, 4096)));
  wait_pdus(2);
  peer.send(data_bytes(PduType::h2c_data, kFlagLast, 1, r2t_of(1).ttag, 4096, Bytes(512)));
  expect_term_req(Fes::data_out_of_range, 0);
}

class TermReqOfEachFesFromAHost : public HostileHost,
                                  public ::testing::WithParamInterface<std::uint32_t> {};

TEST_P(TermReqOfEachFesFromAHost, EndsTheConnectionInWords) {
  start();
  ready();
  const TermReq said{static_cast<Fes>(GetParam()), 10};
  Bytes pdu(kTermReqBytesMax);
  pdu.resize(said.encode(std::span<std::byte, kTermReqBytesMax>(pdu), PduType::h2c_term_req,
                         Bytes(kTermReqHeaderBytes)));
  peer.send(pdu);
  ASSERT_TRUE(loop.run_until([&] { return session->ended && peer.closed; }, 10s));
  EXPECT_NE(session->ended->message.find(describe_fes(said.fes, 10, true)), std::string::npos)
      << session->ended->message;
  EXPECT_FALSE(peer.term_req().has_value()) << "a TermReq is not answered by one";
}

INSTANTIATE_TEST_SUITE_P(Fes, TermReqOfEachFesFromAHost, ::testing::Range(0u, 8u));

}  // namespace
}  // namespace nvmf::tcp
