// What a host says to peers that don't get as far as a command: raw bytes instead of a target.

#include <gmock/gmock.h>

#include "host/fixture.h"
#include "sim/byte_user.h"
#include "transport/tcp/pdu.h"

namespace nvmf::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::vector<std::byte> text(std::string_view s) {
  std::vector<std::byte> out;
  for (const char c : s) out.push_back(static_cast<std::byte>(c));
  return out;
}

/// Accepts, and does one thing when the first bytes have come.
class RawPeer : public sim::ByteUser {
 public:
  std::function<void(RawPeer&)> on_bytes;
  void recv_advance(std::size_t bytes) override {
    ByteUser::recv_advance(bytes);
    if (on_bytes) std::exchange(on_bytes, {})(*this);
  }
};

class Handshake : public HostTest {
 protected:
  Handshake() {
    params.port = 80;
    transport::Endpoint at;
    at.host = "10.0.0.1";
    at.port = 80;
    listener = *loop.listen(at, [this](std::unique_ptr<transport::Incoming> incoming) {
      auto& peer = peers.emplace_back(std::make_unique<RawPeer>());
      peer->on_bytes = reaction;
      peer->stream = loop.adopt(std::move(incoming), *peer);
    });
  }
  ~Handshake() override {
    for (auto& peer : peers) {
      if (!peer->closed) peer->stream->reset(Error{"the test is over", 0});
    }
    loop.run_until_idle();
  }
  tcp::IcReq ic_req(std::size_t peer) {
    return tcp::IcReq::decode(peers.at(peer)->incoming.data());
  }

  std::function<void(RawPeer&)> reaction;
  std::vector<std::unique_ptr<RawPeer>> peers;
  std::unique_ptr<transport::Listener> listener;
};

TEST_F(Handshake, PeerThatSpeaksSomethingElse) {
  reaction = [](RawPeer& p) { p.send(text("HTTP/1.1 400 Bad Request\r\n\r\n")); };
  EXPECT_THAT(failure(), HasSubstr("10.0.0.1:80 does not speak NVMe/TCP"));
  EXPECT_LE(took, seconds(3));
}

TEST_F(Handshake, SilentPeer) {
  EXPECT_THAT(failure(), HasSubstr("10.0.0.1:80 admin queue did not answer the ICReq within 10 s"));
  EXPECT_LE(took, seconds(11));
}

TEST_F(Handshake, BareCloseIsTriedOnceMoreWithOneR2t) {
  reaction = [](RawPeer& p) { p.stream->finish(seconds(1)); };
  EXPECT_THAT(failure(), HasSubstr("closed the connection without answering the ICReq"));
  ASSERT_EQ(peers.size(), 2u);
  EXPECT_EQ(ic_req(0).maxr2t, 3u);
  EXPECT_EQ(ic_req(1).maxr2t, 0u);
}

TEST_F(Handshake, ResetIsABareCloseToo) {
  reaction = [](RawPeer& p) { p.stream->reset(Error{"no", ECONNRESET}); };
  failure();
  EXPECT_EQ(peers.size(), 2u);
}

TEST_F(Handshake, TermReqIsDecodedAndNotRetried) {
  reaction = [](RawPeer& p) {
    std::array<std::byte, tcp::kTermReqBytesMax> pdu{};
    const std::size_t n = tcp::TermReq{tcp::Fes::unsupported_parameter, 8}.encode(
        pdu, tcp::PduType::c2h_term_req, std::span(p.incoming).first(24));
    p.send({pdu.begin(), pdu.begin() + static_cast<std::ptrdiff_t>(n)});
  };
  EXPECT_THAT(failure(), AllOf(HasSubstr("ended the connection"),
                               HasSubstr("(FES 6, field offset 8) in PFV of our ICReq PDU"),
                               HasSubstr("; try to connect without --hdr-digest")));
  EXPECT_EQ(peers.size(), 1u);
}

TEST_F(Handshake, IcRespOfAnotherVersion) {
  reaction = [](RawPeer& p) {
    std::array<std::byte, tcp::kIcBytes> pdu{};
    tcp::IcResp{.pfv = 1, .maxh2cdata_bytes = 131072}.encode(pdu);
    p.send({pdu.begin(), pdu.end()});
  };
  EXPECT_THAT(failure(), HasSubstr("10.0.0.1:80"));
}

TEST_F(Handshake, FinInTheMiddleOfTheIcResp) {
  reaction = [](RawPeer& p) {
    std::array<std::byte, tcp::kIcBytes> pdu{};
    tcp::IcResp{.maxh2cdata_bytes = 131072}.encode(pdu);
    p.send({pdu.begin(), pdu.begin() + 60});
    p.stream->finish(seconds(1));
  };
  failure();
  EXPECT_LE(took, seconds(3));
}

}  // namespace
}  // namespace nvmf::test
