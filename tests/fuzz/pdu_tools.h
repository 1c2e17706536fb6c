// PDUs for the fuzzers: built with correct lengths, offsets and digests, so that deep states are
// reached, and taken apart again with every field checked by the rules of the receiving end.
#pragma once

#include <optional>
#include <vector>

#include "fuzz/input.h"
#include "nvme/endian.h"
#include "transport/tcp/pdu.h"
#include "transport/tcp/pdu_validate.h"

namespace nvmf::fuzz {

using Bytes = std::vector<std::byte>;

/// What is wrong with a PDU on purpose. Applied when it is built.
struct Damage {
  bool any = false;
  bool before_digests = false;  // digests then fit the damage
  std::size_t at = 0;
  std::byte bits{};

  void apply(Bytes& pdu) const {
    if (any && !pdu.empty()) pdu[at % pdu.size()] ^= bits;
  }
};

/// `header` is the PDU's HLEN bytes with type, flags and PSH; the rest is filled in.
inline Bytes build_pdu(Bytes header, const Bytes& data, const tcp::PduRules& receiver,
                       const Damage& damage = {}) {
  const std::size_t hlen = header.size();
  const bool has_data = !data.empty();
  const bool ddgst = has_data && receiver.ddgst;
  const std::size_t pdo = has_data ? tcp::pdu_data_offset(hlen, receiver.hdgst, receiver.pda)
                                   : hlen + (receiver.hdgst ? tcp::kDigestBytes : 0);
  const auto flags = static_cast<std::uint8_t>(load_u8(header.data() + 1) |
                                               (receiver.hdgst ? tcp::kFlagHdgst : 0) |
                                               (ddgst ? tcp::kFlagDdgst : 0));
  store_u8(header.data() + 1, flags);
  store_u8(header.data() + 2, static_cast<std::uint8_t>(hlen));
  store_u8(header.data() + 3, has_data ? static_cast<std::uint8_t>(pdo) : std::uint8_t{0});
  store_le32(header.data() + 4,
             static_cast<std::uint32_t>(pdo + data.size() + (ddgst ? tcp::kDigestBytes : 0)));
  if (damage.before_digests) damage.apply(header);
  Bytes pdu = header;
  pdu.resize(pdo);
  if (receiver.hdgst) store_le32(pdu.data() + hlen, tcp::crc32c(header));
  pdu.insert(pdu.end(), data.begin(), data.end());
  if (ddgst) {
    pdu.resize(pdu.size() + tcp::kDigestBytes);
    store_le32(pdu.data() + pdu.size() - tcp::kDigestBytes, tcp::crc32c(data));
  }
  if (!damage.before_digests) damage.apply(pdu);
  return pdu;
}

inline Bytes header_of(tcp::PduType type, std::size_t hlen, std::uint8_t flags = 0) {
  Bytes header(hlen);
  tcp::CommonHeader{.type = type, .flags = flags}.encode(header.data());
  return header;
}

inline Bytes term_req_pdu(tcp::PduType type, std::uint16_t fes, std::uint32_t fei,
                          const Bytes& offending) {
  Bytes pdu(tcp::kTermReqBytesMax);
  pdu.resize(tcp::TermReq{static_cast<tcp::Fes>(fes), fei}.encode(
      std::span<std::byte, tcp::kTermReqBytesMax>(pdu), type, offending));
  return pdu;
}

/// One PDU that our engine sent, checked: header accepted by `rules`, digests right.
struct SentPdu {
  tcp::CommonHeader common;
  std::span<const std::byte> header;
  std::span<const std::byte> data;
};

/// Takes the PDU at `at` of `stream` and moves on; nothing if it is not complete. Stops the program
/// if our engine sent something that a peer had to refuse.
inline std::optional<SentPdu> take_sent(const Bytes& stream, std::size_t& at,
                                        const tcp::PduRules& rules) {
  if (stream.size() - at < tcp::kCommonHeaderBytes) return std::nullopt;
  const std::byte* p = stream.data() + at;
  SentPdu pdu;
  pdu.common = tcp::CommonHeader::decode(p);
  NVMF_CHECK(pdu.common.plen >= tcp::kCommonHeaderBytes && pdu.common.hlen <= pdu.common.plen);
  if (stream.size() - at < pdu.common.plen) return std::nullopt;
  pdu.header = {p, pdu.common.hlen};
  const tcp::PduVerdict verdict = tcp::validate_pdu_header(rules, pdu.header);
  NVMF_CHECK(verdict.kind == tcp::PduVerdict::Kind::ok);
  const bool term = pdu.common.type == tcp::PduType::c2h_term_req ||
                    pdu.common.type == tcp::PduType::h2c_term_req;
  const bool hdgst = rules.hdgst && !term;
  if (hdgst) NVMF_CHECK(load_le32(p + pdu.common.hlen) == tcp::crc32c(pdu.header));
  if (verdict.data_bytes != 0) {
    const std::size_t from = term ? pdu.common.hlen : pdu.common.pdo;
    for (std::size_t i = pdu.common.hlen + (hdgst ? tcp::kDigestBytes : 0); i < from; ++i) {
      NVMF_CHECK(p[i] == std::byte{0});  // padding
    }
    pdu.data = {p + from, verdict.data_bytes};
    if (rules.ddgst && !term) {
      NVMF_CHECK(load_le32(p + from + verdict.data_bytes) == tcp::crc32c(pdu.data));
    }
  }
  at += pdu.common.plen;
  return pdu;
}

}  // namespace nvmf::fuzz
