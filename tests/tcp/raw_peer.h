// A peer made of bytes: sends what a test wrote, keeps what it receives as PDUs.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "nvme/endian.h"
#include "sim/byte_user.h"
#include "sim/virtual_loop.h"
#include "transport/tcp/pdu.h"

namespace nvmf::tcp {

using Bytes = std::vector<std::byte>;

/// Cuts `incoming` into PDUs by their PLEN.
inline std::vector<Bytes> cut_pdus(const Bytes& incoming) {
  std::vector<Bytes> pdus;
  std::size_t at = 0;
  while (incoming.size() - at >= kCommonHeaderBytes) {
    const std::size_t plen = load_le32(incoming.data() + at + 4);
    if (plen < kCommonHeaderBytes || incoming.size() - at < plen) break;
    pdus.emplace_back(incoming.begin() + static_cast<std::ptrdiff_t>(at),
                      incoming.begin() + static_cast<std::ptrdiff_t>(at + plen));
    at += plen;
  }
  return pdus;
}

inline PduType type_of(const Bytes& pdu) {
  return static_cast<PduType>(load_u8(pdu.data()));
}

inline Bytes ic_req_bytes(const IcReq& req = {}) {
  Bytes out(kIcBytes);
  req.encode(std::span<std::byte, kIcBytes>(out));
  return out;
}

inline Bytes ic_resp_bytes(const IcResp& resp = {.maxh2cdata_bytes = 131072}) {
  Bytes out(kIcBytes);
  resp.encode(std::span<std::byte, kIcBytes>(out));
  return out;
}

inline Bytes capsule_cmd_bytes(const nvme::Sqe& sqe, const Bytes& data = {}) {
  Bytes out(kCapsuleCmdBytes);
  CommonHeader{PduType::capsule_cmd, 0, kCapsuleCmdBytes,
               static_cast<std::uint8_t>(data.empty() ? 0 : kCapsuleCmdBytes),
               static_cast<std::uint32_t>(kCapsuleCmdBytes + data.size())}
      .encode(out.data());
  sqe.encode(std::span(out).subspan<kCommonHeaderBytes, nvme::kSqeBytes>());
  out.insert(out.end(), data.begin(), data.end());
  return out;
}

inline Bytes capsule_resp_bytes(std::uint16_t cid, nvme::Status status = {}) {
  Bytes out(kCapsuleRespBytes);
  CommonHeader{PduType::capsule_resp, 0, kCapsuleRespBytes, 0, kCapsuleRespBytes}.encode(
      out.data());
  nvme::Cqe cqe;
  cqe.cid = cid;
  cqe.status = status;
  cqe.encode(std::span(out).subspan<kCommonHeaderBytes, nvme::kCqeBytes>());
  return out;
}

inline Bytes r2t_bytes(std::uint16_t cid, std::uint16_t ttag, std::uint32_t offset,
                       std::uint32_t length) {
  Bytes out(kR2tBytes);
  CommonHeader{PduType::r2t, 0, kR2tBytes, 0, kR2tBytes}.encode(out.data());
  R2tHeader{cid, ttag, offset, length}.encode(out.data());
  return out;
}

inline Bytes data_bytes(PduType type, std::uint8_t flags, std::uint16_t cid, std::uint16_t ttag,
                        std::uint32_t offset, const Bytes& data) {
  Bytes out(kDataHeaderBytes);
  CommonHeader{type, flags, kDataHeaderBytes, kDataHeaderBytes,
               static_cast<std::uint32_t>(kDataHeaderBytes + data.size())}
      .encode(out.data());
  DataHeader{cid, ttag, offset, static_cast<std::uint32_t>(data.size())}.encode(out.data());
  out.insert(out.end(), data.begin(), data.end());
  return out;
}

inline Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// The raw end of a connection, as client or as server.
class RawPeer : public sim::ByteUser {
 public:
  RawPeer() { outgoing.reserve(1 << 20); }
  [[nodiscard]] std::vector<Bytes> pdus() const { return cut_pdus(incoming); }
  /// The TermReq received, if there is one.
  [[nodiscard]] std::optional<TermReq> term_req() const {
    for (const Bytes& pdu : pdus()) {
      if (type_of(pdu) == PduType::c2h_term_req || type_of(pdu) == PduType::h2c_term_req) {
        return TermReq::decode(pdu.data());
      }
    }
    return std::nullopt;
  }
};

}  // namespace nvmf::tcp
