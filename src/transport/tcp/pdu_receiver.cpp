#include "transport/tcp/pdu_receiver.h"

#include <algorithm>
#include <cstring>

#include "nvme/check.h"
#include "nvme/endian.h"

namespace nvmf::tcp {

PduReceiver::PduReceiver(PduHandler& handler)
    : handler_(handler),
      staging_(std::make_unique_for_overwrite<std::byte[]>(transport::kReceiveStagingBytes)) {}

std::size_t PduReceiver::recv_vectors(std::span<iovec> out) {
  std::size_t n = 0;
  if (phase_ == Phase::payload && out.size() > 1) {
    out[n++] = {place_ + payload_filled_, payload_bytes_ - payload_filled_};
  }
  out[n++] = {staging_.get(), transport::kReceiveStagingBytes};
  return n;
}

void PduReceiver::recv_advance(std::size_t bytes) {
  // After stop() a receive named before may still end, in a place that nobody asks for any more.
  if (stopped_) return;
  if (phase_ == Phase::payload) {
    const std::size_t landed = std::min<std::size_t>(bytes, payload_bytes_ - payload_filled_);
    payload_advance({place_ + payload_filled_, landed});
    bytes -= landed;
  }
  NVMF_CHECK(bytes <= transport::kReceiveStagingBytes);
  std::span<const std::byte> rest{staging_.get(), bytes};
  while (!stopped_ && !rest.empty()) rest = rest.subspan(consume(rest));
}

std::size_t PduReceiver::fill_header(std::span<const std::byte> bytes, std::size_t until) {
  const std::size_t n = std::min(bytes.size(), until - header_filled_);
  std::memcpy(header_.data() + header_filled_, bytes.data(), n);
  header_filled_ += n;
  return n;
}

std::size_t PduReceiver::consume(std::span<const std::byte> bytes) {
  switch (phase_) {
    case Phase::common_header: {
      const std::size_t n = fill_header(bytes, kCommonHeaderBytes);
      if (header_filled_ == kCommonHeaderBytes) common_header_done();
      return n;
    }
    case Phase::header: {
      const std::size_t until = common_.hlen + (header_digest() ? kDigestBytes : 0);
      const std::size_t n = fill_header(bytes, until);
      if (header_filled_ == until) header_done();
      return n;
    }
    case Phase::padding: {
      const std::size_t n = std::min(bytes.size(), padding_left_);
      padding_left_ -= n;
      if (padding_left_ == 0) payload_started();
      return n;
    }
    case Phase::payload: {
      const std::size_t n = std::min<std::size_t>(bytes.size(), payload_bytes_ - payload_filled_);
      std::memcpy(place_ + payload_filled_, bytes.data(), n);
      payload_advance(bytes.first(n));
      return n;
    }
    case Phase::digest: {
      const std::size_t n = std::min(bytes.size(), kDigestBytes - digest_filled_);
      std::memcpy(digest_.data() + digest_filled_, bytes.data(), n);
      digest_filled_ += n;
      if (digest_filled_ == kDigestBytes) {
        payload_done(load_le32(digest_.data()) == crc_finish(crc_));
      }
      return n;
    }
  }
  return bytes.size();
}

bool PduReceiver::header_digest() const {
  // §3.3.1.1: no digest in a TermReq, nor in the initial PDUs, which come before rules.hdgst is
  // set.
  const bool term_req =
      common_.type == PduType::h2c_term_req || common_.type == PduType::c2h_term_req;
  return rules.hdgst && !term_req;
}

void PduReceiver::common_header_done() {
  common_ = CommonHeader::decode(header_.data());
  const PduVerdict v = validate_common_header(rules, common_);
  if (v.kind != PduVerdict::Kind::ok) return fail(v);
  phase_ = Phase::header;
}

void PduReceiver::header_done() {
  if (header_digest()) {
    const std::uint32_t sent = load_le32(header_.data() + common_.hlen);
    if (sent != crc32c({header_.data(), common_.hlen})) {
      return fail(PduError{Fes::header_digest_error, sent});
    }
  }
  const std::span<const std::byte> header{header_.data(), common_.hlen};
  const PduVerdict v = validate_pdu_header(rules, header);
  if (v.kind != PduVerdict::Kind::ok) return fail(v);

  const std::size_t consumed = header_filled_;
  const bool may_have_digest = common_.type == PduType::capsule_cmd ||
                               common_.type == PduType::h2c_data ||
                               common_.type == PduType::c2h_data;
  // The handler may change the rules (ICReq, ICResp): this PDU is finished under the old ones.
  payload_digest_ = rules.ddgst && may_have_digest;
  payload_bytes_ = v.data_bytes;
  const std::expected<std::byte*, PduError> place =
      handler_.on_pdu({common_, header, v.data_bytes});
  if (!place) return fail(place.error());
  if (stopped_) return;
  if (v.data_bytes == 0) return next_pdu();
  place_ = *place;
  padding_left_ = may_have_digest ? common_.pdo - consumed : 0;
  if (padding_left_ == 0) {
    payload_started();
  } else {
    phase_ = Phase::padding;
  }
}

void PduReceiver::payload_started() {
  phase_ = Phase::payload;
  payload_filled_ = 0;
  digest_filled_ = 0;
  crc_ = kCrcStart;
}

void PduReceiver::payload_advance(std::span<const std::byte> landed) {
  // Over each piece while it is in the cache.
  if (payload_digest_) crc_ = crc_update(crc_, landed);
  payload_filled_ += static_cast<std::uint32_t>(landed.size());
  if (payload_filled_ < payload_bytes_) return;
  if (payload_digest_) {
    phase_ = Phase::digest;
  } else {
    payload_done(true);
  }
}

void PduReceiver::payload_done(bool digest_ok) {
  next_pdu();
  handler_.on_pdu_data(digest_ok);
}

void PduReceiver::next_pdu() {
  phase_ = Phase::common_header;
  header_filled_ = 0;
  place_ = nullptr;
}

void PduReceiver::fail(const PduVerdict& verdict) {
  fail(PduError{verdict.fes, verdict.fei, verdict.kind == PduVerdict::Kind::drop});
}

void PduReceiver::fail(const PduError& error) {
  if (stopped_) return;
  stopped_ = true;
  failed_ = true;
  error_ = error;
}

}  // namespace nvmf::tcp
