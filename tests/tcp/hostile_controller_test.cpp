// What a hostile or broken controller may send, and the TermReq that it gets. NVMe/TCP 1.0 §3.3.2,
// §3.5.
#include "tcp/hostile_controller.h"

namespace nvmf::tcp {
namespace {

TEST_F(HostileController, SpeaksSomethingElse) {
  start();
  const std::string http = "HTTP/1.1 400 Bad Request\r\n\r\n";
  const auto raw = std::as_bytes(std::span(http));
  peer.send(Bytes(raw.begin(), raw.end()));
  ASSERT_TRUE(loop.run_until([&] { return events.ended.has_value(); }, 10s));
  EXPECT_NE(events.ended->message.find("does not speak NVMe/TCP"), std::string::npos);
}

TEST_F(HostileController, ClosesAfterIcReq) {
  start();
  peer.stream->finish(1s);
  ASSERT_TRUE(loop.run_until([&] { return events.ended.has_value(); }, 10s));
  EXPECT_EQ(events.ended->code, ECONNABORTED);
}

TEST_F(HostileController, IcRespCutShort) {
  start();
  Bytes half = ic_resp_bytes();
  half.resize(64);
  peer.send(half);
  peer.stream->finish(1s);
  ASSERT_TRUE(loop.run_until([&] { return events.ended.has_value(); }, 10s));
  EXPECT_FALSE(events.ready);
}

TEST_F(HostileController, IcRespOfWrongPfv) {
  start();
  peer.send(ic_resp_bytes({.pfv = 1, .maxh2cdata_bytes = 4096}));
  expect_term_req(Fes::unsupported_parameter, 8);
}

TEST_F(HostileController, IcRespEnablesDigestsNotOffered) {
  start();
  peer.send(ic_resp_bytes({.ddgst = true, .maxh2cdata_bytes = 4096}));
  expect_term_req(Fes::invalid_header_field, 11);
}

TEST_F(HostileController, SecondIcResp) {
  start();
  ready();
  peer.send(ic_resp_bytes());
  expect_term_req(Fes::pdu_sequence_error, 0);
}

TEST_F(HostileController, ResponseToNothing) {
  start();
  ready();
  peer.send(capsule_resp_bytes(0));
  expect_term_req(Fes::invalid_header_field, 20);
}

TEST_F(HostileController, CidAtTheArraysEnd) {
  start();  // 7 slots in 3 bits: index 7 exists on the wire only
  ready();
  Command c(DataDirection::none, 0);
  submit(c);
  peer.send(capsule_resp_bytes(7));
  expect_term_req(Fes::invalid_header_field, 20);
}

TEST_F(HostileController, StaleGeneration) {
  start();
  ready();
  Command c(DataDirection::none, 0);
  const std::uint16_t cid = submit(c);
  peer.send(capsule_resp_bytes(static_cast<std::uint16_t>(cid ^ 8)));
  expect_term_req(Fes::invalid_header_field, 20);
  EXPECT_EQ(c.completions, 1);
  EXPECT_EQ(c.delivery, Delivery::unanswered);
}

TEST_F(HostileController, DuplicateCompletion) {
  start();
  ready();
  Command c(DataDirection::none, 0);
  const std::uint16_t cid = submit(c);
  peer.send(capsule_resp_bytes(cid) + capsule_resp_bytes(cid));
  expect_term_req(Fes::invalid_header_field, 20);
  EXPECT_EQ(c.completions, 1);
  EXPECT_EQ(c.delivery, Delivery::answered);
}

TEST_F(HostileController, ReadEndsShortByResponse) {
  start();
  ready();
  Command c(DataDirection::from_controller, 4096);
  const std::uint16_t cid = submit(c);
  peer.send(data_bytes(PduType::c2h_data, kFlagLast, cid, 0, 0, Bytes(512)) +
            capsule_resp_bytes(cid));
  ASSERT_TRUE(loop.run_until([&] { return c.completions == 1; }, 10s));
  EXPECT_EQ(c.cqe.status.code(), nvme::StatusCode::data_transfer_error);
}

TEST_F(HostileController, ReadEndsWithoutAnyData) {
  start();
  ready();
  Command c(DataDirection::from_controller, 4096);
  peer.send(capsule_resp_bytes(submit(c)));
  ASSERT_TRUE(loop.run_until([&] { return c.completions == 1; }, 10s));
  EXPECT_EQ(c.cqe.status.code(), nvme::StatusCode::data_transfer_error);
}

TEST_F(HostileController, ReadEndsShortBySuccessFlag) {
  start();
  ready();
  Command c(DataDirection::from_controller, 4096);
  const std::uint16_t cid = submit(c);
  peer.send(data_bytes(PduType::c2h_data, kFlagLast | kFlagSuccess, cid, 0, 0, Bytes(512)));
  ASSERT_TRUE(loop.run_until([&] { return c.completions == 1; }, 10s));
  EXPECT_EQ(c.cqe.status.code(), nvme::StatusCode::data_transfer_error);
}

TEST_F(HostileController, ReadEndsShortAfterItsDigest) {
  start({.queue_entries = 8, .data_digest = true, .in_capsule_bytes = 0});
  ready({.ddgst = true, .maxh2cdata_bytes = 4096});
  Command c(DataDirection::from_controller, 4096);
  const std::uint16_t cid = submit(c);
  const Bytes payload(512, std::byte{9});
  Bytes pdu =
      data_bytes(PduType::c2h_data, kFlagLast | kFlagSuccess | kFlagDdgst, cid, 0, 0, payload);
  store_le32(pdu.data() + 4, static_cast<std::uint32_t>(pdu.size() + 4));
  Bytes digest(4);
  store_le32(digest.data(), crc32c(payload));
  peer.send(pdu + digest);
  ASSERT_TRUE(loop.run_until([&] { return c.completions == 1; }, 10s));
  EXPECT_EQ(c.cqe.status.code(), nvme::StatusCode::data_transfer_error);
}

TEST_F(HostileController, DataForAnUnknownCid) {
  start();
  ready();
  peer.send(data_bytes(PduType::c2h_data, kFlagLast, 3, 0, 0, Bytes(512)));
  expect_term_req(Fes::invalid_header_field, 8);
}

TEST_F(HostileController, DataForAWrite) {
  start();
  ready();
  Command c(DataDirection::to_controller, 4096);
  const std::uint16_t cid = submit(c);
  peer.send(data_bytes(PduType::c2h_data, kFlagLast, cid, 0, 0, Bytes(512)));
  expect_term_req(Fes::pdu_sequence_error, 0);
}

TEST_F(HostileController, DataBeyondTheBuffer) {
  start();
  ready();
  Command c(DataDirection::from_controller, 512);
  const std::uint16_t cid = submit(c);
  peer.send(data_bytes(PduType::c2h_data, kFlagLast, cid, 0, 0, Bytes(516)));
  expect_term_req(Fes::data_out_of_range, 0);
}

TEST_F(HostileController, DataOffsetWraps) {
  start();
  ready();
  Command c(DataDirection::from_controller, 512);
  const std::uint16_t cid = submit(c);
  peer.send(data_bytes(PduType::c2h_data, kFlagLast, cid, 0, 0xfffffffc, Bytes(8)));
  expect_term_req(Fes::data_out_of_range, 0);
}

TEST_F(HostileController, DataOutOfSequence) {
  start();
  ready();
  Command c(DataDirection::from_controller, 4096);
  const std::uint16_t cid = submit(c);
  peer.send(data_bytes(PduType::c2h_data, 0, cid, 0, 512, Bytes(512)));
  expect_term_req(Fes::pdu_sequence_error, 0);
}

TEST_F(HostileController, DataAfterLast) {
  start();
  ready();
  Command c(DataDirection::from_controller, 4096);
  const std::uint16_t cid = submit(c);
  peer.send(data_bytes(PduType::c2h_data, kFlagLast, cid, 0, 0, Bytes(512)) +
            data_bytes(PduType::c2h_data, kFlagLast, cid, 0, 512, Bytes(512)));
  expect_term_req(Fes::pdu_sequence_error, 0);
}

TEST_F(HostileController, R2tForARead) {
  start();
  ready();
  Command c(DataDirection::from_controller, 4096);
  peer.send(r2t_bytes(submit(c), 1, 0, 512));
  expect_term_req(Fes::pdu_sequence_error, 0);
}

TEST_F(HostileController, R2tForAWriteWhoseDataWentInTheCapsule) {
  start({.queue_entries = 8, .in_capsule_bytes = 8192});
  ready();
  Command c(DataDirection::to_controller, 4096);
  peer.send(r2t_bytes(submit(c), 1, 0, 512));
  expect_term_req(Fes::pdu_sequence_error, 0);
}

TEST_F(HostileController, R2tOfNothing) {
  start();
  ready();
  Command c(DataDirection::to_controller, 4096);
  peer.send(r2t_bytes(submit(c), 1, 0, 0));
  expect_term_req(Fes::invalid_header_field, 16);
}

TEST_F(HostileController, R2tOutsideTheCommand) {
  start();
  ready();
  Command c(DataDirection::to_controller, 4096);
  peer.send(r2t_bytes(submit(c), 1, 0, 4100));
  expect_term_req(Fes::data_out_of_range, 0);
}

TEST_F(HostileController, R2tOutOfSequence) {
  start();
  ready();
  Command c(DataDirection::to_controller, 4096);
  peer.send(r2t_bytes(submit(c), 1, 512, 512));
  expect_term_req(Fes::pdu_sequence_error, 0);
}

TEST_F(HostileController, R2tForAFreedCid) {
  start();
  ready();
  Command c(DataDirection::to_controller, 4096);
  const std::uint16_t cid = submit(c);
  peer.send(capsule_resp_bytes(cid) + r2t_bytes(cid, 1, 0, 4096));
  expect_term_req(Fes::invalid_header_field, 8);
  EXPECT_EQ(c.completions, 1);
}

TEST_F(HostileController, R2tsBeyondTheLimit) {
  start({.queue_entries = 8, .r2t_max = 2, .in_capsule_bytes = 0});
  ready();
  Command c(DataDirection::to_controller, 65536);
  const std::uint16_t cid = submit(c);
  peer.send(r2t_bytes(cid, 1, 0, 4096) + r2t_bytes(cid, 2, 4096, 4096) +
            r2t_bytes(cid, 3, 8192, 4096));
  expect_term_req(Fes::limit_exceeded, 0);
}

TEST_F(HostileController, NextR2tBeforeTheLastDataLeft) {
  start({.queue_entries = 8, .r2t_max = 2, .in_capsule_bytes = 0});
  ready();
  Command c(DataDirection::to_controller, 16384);
  const std::uint16_t cid = submit(c);
  peer.send(r2t_bytes(cid, 1, 0, 8192) + r2t_bytes(cid, 2, 8192, 8192));
  // MAXH2CDATA 4096: four PDUs, LAST on the second and the fourth.
  ASSERT_TRUE(loop.run_until([&] { return peer.pdus().size() == 6; }, 10s));
  const std::vector<Bytes> pdus = peer.pdus();
  for (std::size_t i = 0; i < 4; ++i) {
    const Bytes& pdu = pdus[i + 2];
    ASSERT_EQ(type_of(pdu), PduType::h2c_data);
    const DataHeader d = DataHeader::decode(pdu.data());
    EXPECT_EQ(d.datao_bytes, 4096 * i);
    EXPECT_EQ(d.datal_bytes, 4096u);
    EXPECT_EQ(d.ttag, i < 2 ? 1 : 2);
    EXPECT_EQ((load_u8(pdu.data() + 1) & kFlagLast) != 0, i % 2 == 1);
  }
  EXPECT_EQ(c.completions, 0);
  peer.send(capsule_resp_bytes(cid));
  ASSERT_TRUE(loop.run_until([&] { return c.completions == 1; }, 10s));
}

TEST_F(HostileController, TermReqIsPutIntoWords) {
  start();
  ready();
  Command c(DataDirection::none, 0);
  submit(c);
  Bytes pdu(kTermReqBytesMax);
  pdu.resize(TermReq{Fes::invalid_header_field, 16}.encode(
      std::span<std::byte, kTermReqBytesMax>(pdu), PduType::c2h_term_req, Bytes(72)));
  peer.send(pdu);
  ASSERT_TRUE(loop.run_until([&] { return events.ended.has_value(); }, 10s));
  EXPECT_NE(events.ended->message.find("Invalid PDU Header Field (FES 1, field offset 16)"),
            std::string::npos)
      << events.ended->message;
  EXPECT_EQ(c.delivery, Delivery::unanswered);
}

/// A loop whose only connection the test drives by hand.
class HandLoop final : public transport::Loop {
 public:
  class HandStream final : public transport::Stream {
   public:
    void wake() override {}
    void reset(Error) override {}
    void finish(std::chrono::nanoseconds) override {}
    [[nodiscard]] std::string peer() const override { return "peer"; }
    [[nodiscard]] std::string local() const override { return "local"; }
  };
  transport::StreamUser* user = nullptr;
  HandStream* stream = nullptr;

  std::unique_ptr<transport::Stream> connect(const transport::Endpoint&,
                                             const transport::ConnectOptions&,
                                             transport::StreamUser& u) override {
    auto made = std::make_unique<HandStream>();
    user = &u;
    stream = made.get();
    return made;
  }
  /// What is to be sent now; nothing of it is released.
  std::size_t name_all() {
    iovec v[64];
    std::size_t bytes = 0;
    const std::size_t n = user->send_vectors(v);
    for (std::size_t i = 0; i < n; ++i) bytes += v[i].iov_len;
    return bytes;
  }
  void receive(const Bytes& bytes) {
    iovec v[64];
    ASSERT_GE(user->recv_vectors(v), 1u);
    ASSERT_GE(v[0].iov_len, bytes.size());
    std::ranges::copy(bytes, static_cast<std::byte*>(v[0].iov_base));
    user->recv_advance(bytes.size());
  }

  [[nodiscard]] Instant now() const override { return {}; }
  [[nodiscard]] transport::TimerQueue& timers() override { return timers_; }
  void post(std::move_only_function<void()>) override {}
  Result<std::unique_ptr<transport::Listener>> listen(
      const transport::Endpoint&,
      std::move_only_function<void(std::unique_ptr<transport::Incoming>)>) override {
    return fail("no");
  }
  std::unique_ptr<transport::Stream> adopt(std::unique_ptr<transport::Incoming>,
                                           transport::StreamUser&) override {
    return nullptr;
  }
  void resolve(const std::string&,
               std::move_only_function<void(Result<std::vector<std::string>>)>) override {}
  Result<std::unique_ptr<transport::File>> open_file(const std::string&, bool) override {
    return fail("no");
  }
  Result<std::unique_ptr<transport::FdWatch>> watch(int, bool, bool,
                                                    std::move_only_function<void()>) override {
    return fail("no");
  }

 private:
  transport::TimerQueue timers_;
};

// A controller may answer while the kernel still reads our buffer: completing then would let the
// caller change what is being sent.
TEST(HostQpairGate, AnswerBeforeTheSendIsReleasedWaitsForIt) {
  HandLoop loop;
  Events events;
  HostQpair qpair({.queue_entries = 8, .r2t_max = 1, .in_capsule_bytes = 0}, events);
  qpair.start(loop, {"127.0.0.1", 4420, ""}, {});
  loop.user->on_open(*loop.stream);
  loop.user->send_advance(loop.name_all());
  loop.receive(ic_resp_bytes({.maxh2cdata_bytes = 4096}));
  ASSERT_TRUE(events.ready);
  Command c(DataDirection::to_controller, 8192);
  qpair.submit(c);
  loop.user->send_advance(loop.name_all());
  loop.receive(r2t_bytes(c.sqe.cid, 1, 0, 8192));
  const std::size_t named = loop.name_all();
  ASSERT_EQ(named, 2 * (kDataHeaderBytes + 4096));
  loop.receive(capsule_resp_bytes(c.sqe.cid));
  EXPECT_EQ(c.completions, 0);
  loop.user->send_advance(named - 1);
  EXPECT_EQ(c.completions, 0);
  EXPECT_EQ(qpair.free_slots(), 6u);
  loop.user->send_advance(1);
  EXPECT_EQ(c.completions, 1);
  EXPECT_EQ(qpair.free_slots(), 7u);
  loop.user->on_closed(Error{"test over"});
}

TEST_F(HostileController, CommandEndedEarlySendsNoMoreData) {
  // The answer comes while H2CData is still to be sent: the buffer must be let go of first.
  start({.queue_entries = 8, .r2t_max = 1, .in_capsule_bytes = 0});
  ready();
  Command c(DataDirection::to_controller, 1 << 20);
  const std::uint16_t cid = submit(c);
  peer.send(r2t_bytes(cid, 1, 0, 1 << 20) +
            capsule_resp_bytes(cid, nvme::StatusCode::internal_error));
  ASSERT_TRUE(loop.run_until([&] { return c.completions == 1; }, 10s));
  EXPECT_EQ(c.cqe.status.code(), nvme::StatusCode::internal_error);
  EXPECT_EQ(qpair->free_slots(), 7u);
}

TEST_F(HostileController, SuccessOfAWriteWhoseDataWasNotFetched) {
  start();
  ready();
  // No R2T at all, one for a part only, one that is still unanswered, one for everything.
  const auto outcome = [&](std::uint32_t asked_bytes, bool answer_at_once) {
    Command c(DataDirection::to_controller, 8192);
    const std::uint16_t cid = submit(c);
    const Bytes success = capsule_resp_bytes(cid);
    const Bytes r2t = asked_bytes != 0 ? r2t_bytes(cid, 1, 0, asked_bytes) : Bytes{};
    if (answer_at_once) {
      peer.send(r2t + success);
    } else {
      const std::size_t before = peer.pdus().size();
      peer.send(r2t);
      const std::size_t after = before + (asked_bytes + 4095) / 4096;  // MAXH2CDATA
      EXPECT_TRUE(loop.run_until([&] { return peer.pdus().size() == after; }, 10s));
      peer.send(success);
    }
    EXPECT_TRUE(loop.run_until([&] { return c.completions == 1; }, 10s));
    EXPECT_EQ(c.delivery, Delivery::answered);
    return c.cqe.status.code();
  };
  EXPECT_EQ(outcome(0, true), nvme::StatusCode::data_transfer_error);
  EXPECT_EQ(outcome(4096, false), nvme::StatusCode::data_transfer_error);
  EXPECT_EQ(outcome(8192, true), nvme::StatusCode::data_transfer_error);
  EXPECT_EQ(outcome(8192, false), nvme::StatusCode::success);
}

}  // namespace
}  // namespace nvmf::tcp
