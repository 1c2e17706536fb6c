#include "transport/tcp/qpair_core.h"

#include <cerrno>
#include <chrono>
#include <utility>

#include "transport/tcp/term_words.h"

namespace nvmf::tcp {
namespace {

// How long a peer has to read our TermReq and close. The specification allows 30 s (§3.5); the
// sentence is sent once, and nothing is gained by waiting for a peer that broke the protocol.
constexpr std::chrono::seconds kTermReqLinger{1};
constexpr std::chrono::seconds kFinishLinger{1};

}  // namespace

QpairCore::QpairCore(bool controller) : receiver_(*this), controller_(controller) {
  receiver_.rules.controller = controller;
}

QpairCore::~QpairCore() = default;

void QpairCore::on_open(transport::Stream& stream) {
  open_ = true;
  peer_ = stream.peer();
  local_ = stream.local();
  if (!ending_) opened();
}

void QpairCore::recv_advance(std::size_t bytes) {
  receiver_.recv_advance(bytes);
  if (!ending_ && receiver_.error() != nullptr) fatal(*receiver_.error());
  if (!ending_) batch_done();
}

std::size_t QpairCore::send_vectors(std::span<iovec> out) {
  woken_ = false;
  if (!ending_ || finishing_) pump();
  return sender_.send_vectors(out);
}

void QpairCore::send_advance(std::size_t bytes) {
  sender_.send_advance(bytes, [this](SendTag tag) { released(tag); });
  if (!ending_) batch_done();
}

void QpairCore::on_eof() {
  peer_closed_ = true;
  if (ending_) return;
  end_with(Error{eof_text(), ECONNRESET});
}

void QpairCore::on_closed(const Error& reason) {
  open_ = false;
  if (!ending_) {
    ending_ = true;
    receiver_.stop();
    reason_ = reason;
    // An RST that came while we sent shows as EPIPE.
    if (reason.code == ECONNRESET || reason.code == EPIPE) peer_closed_ = true;
  }
  const std::unique_ptr<transport::Stream> stream = std::move(stream_);
  closed(Error{reason_});  // may destroy us
}

void QpairCore::wake() {
  if (woken_ || !open_) return;
  woken_ = true;
  stream_->wake();
}

void QpairCore::end_with(Error reason) {
  if (ending_) return;
  ending_ = true;
  receiver_.stop();
  reason_ = std::move(reason);
  stream_->reset(reason_);
}

void QpairCore::finish_with(Error reason) {
  if (ending_) return;
  if (!open_) return end_with(std::move(reason));
  ending_ = true;
  finishing_ = true;  // what was accepted is still sent
  receiver_.stop();
  reason_ = std::move(reason);
  stream_->finish(kFinishLinger);
}

void QpairCore::term_req_received() {
  // The header that it complains of begins with the type of its PDU; the rest is not needed.
  const std::span<const std::byte> offending(term_req_data_.data(), term_req_arriving_ ? 1 : 0);
  // §3.5: the one who gets a TermReq terminates the connection.
  end_with(
      Error{std::string(controller_ ? "the host " : "the controller ") + peer_ +
                " ended the connection: it found " +
                describe_term_req(term_req_.fes, term_req_.fei, controller_, offending, "our") +
                "; try " + std::string(fes_words(term_req_.fes, controller_).hint),
            EPROTO});
}

void QpairCore::fatal(const PduError& error) {
  Error reason{violation_text(error), EPROTO};
  if (error.drop) return end_with(std::move(reason));
  std::array<std::byte, kTermReqBytesMax> pdu{};
  const std::size_t bytes = TermReq{error.fes, error.fei}.encode(
      pdu, controller_ ? PduType::c2h_term_req : PduType::h2c_term_req,
      receiver_.offending_header());
  // Without room, the peer reads nothing: then it would not read a TermReq either.
  if (!sender_.room()) return end_with(std::move(reason));
  sender_.push_raw({pdu.data(), bytes});
  ending_ = true;
  reason_ = std::move(reason);
  stream_->wake();
  stream_->finish(kTermReqLinger);
}

std::string QpairCore::peer_name() const {
  return peer_;
}
std::string QpairCore::local_name() const {
  return local_;
}

}  // namespace nvmf::tcp
