#include "transport/tcp/pdu_validate.h"

#include "transport/limits.h"

namespace nvmf::tcp {
namespace {

constexpr std::uint32_t kOffsetType = 0;
constexpr std::uint32_t kOffsetFlags = 1;
constexpr std::uint32_t kOffsetHlen = 2;
constexpr std::uint32_t kOffsetPdo = 3;
constexpr std::uint32_t kOffsetPlen = 4;
constexpr std::uint32_t kOffsetPfv = 8;
constexpr std::uint32_t kOffsetPda = 10;
constexpr std::uint32_t kOffsetDgst = 11;
constexpr std::uint32_t kOffsetMaxH2cData = 12;
constexpr std::uint32_t kOffsetDatal = 16;
constexpr std::uint8_t kPdaMax = 31;

PduVerdict invalid_field(std::uint32_t offset) {
  return {PduVerdict::Kind::fatal, Fes::invalid_header_field, offset, 0};
}
PduVerdict fatal(Fes fes, std::uint32_t fei = 0) {
  return {PduVerdict::Kind::fatal, fes, fei, 0};
}
PduVerdict good(std::uint32_t data_bytes) {
  return {PduVerdict::Kind::ok, Fes::none, 0, data_bytes};
}

std::size_t header_bytes(PduType type) {
  switch (type) {
    case PduType::ic_req:
    case PduType::ic_resp:
      return kIcBytes;
    case PduType::h2c_term_req:
    case PduType::c2h_term_req:
      return kTermReqHeaderBytes;
    case PduType::capsule_cmd:
      return kCapsuleCmdBytes;
    case PduType::capsule_resp:
      return kCapsuleRespBytes;
    case PduType::h2c_data:
    case PduType::c2h_data:
      return kDataHeaderBytes;
    case PduType::r2t:
      return kR2tBytes;
  }
  return 0;
}

/// Bit 0 of the type says who sends it (Figure 10).
bool from_controller(PduType type) {
  return (static_cast<unsigned>(type) & 1) != 0;
}
bool is_ic(PduType t) {
  return t == PduType::ic_req || t == PduType::ic_resp;
}
bool is_term_req(PduType t) {
  return t == PduType::h2c_term_req || t == PduType::c2h_term_req;
}

/// §3.6.2.2, §3.6.2.3
PduVerdict check_ic(const PduRules& rules, const CommonHeader& h, const std::byte* p) {
  if (h.plen != kIcBytes) return invalid_field(kOffsetPlen);
  if (rules.controller) {
    const IcReq req = IcReq::decode(p);
    if (req.pfv != 0) return fatal(Fes::unsupported_parameter, kOffsetPfv);
    if (req.hpda > kPdaMax) return invalid_field(kOffsetPda);
    return good(0);
  }
  const IcResp resp = IcResp::decode(p);
  if (resp.pfv != 0) return fatal(Fes::unsupported_parameter, kOffsetPfv);
  if (resp.cpda > kPdaMax) return invalid_field(kOffsetPda);
  // §3.3.1.1: a digest that was not asked for.
  if ((resp.hdgst && !rules.asked_hdgst) || (resp.ddgst && !rules.asked_ddgst)) {
    return invalid_field(kOffsetDgst);
  }
  if (resp.maxh2cdata_bytes < transport::kH2cDataBytesMin || resp.maxh2cdata_bytes % 4 != 0) {
    return invalid_field(kOffsetMaxH2cData);
  }
  return good(0);
}

/// §3.5: a TermReq of impossible length is ignored, the connection ended at once.
PduVerdict check_term_req(const CommonHeader& h) {
  if (h.plen < kTermReqHeaderBytes || h.plen > kTermReqBytesMax) {
    return {PduVerdict::Kind::drop, Fes::none, 0, 0};
  }
  return good(h.plen - static_cast<std::uint32_t>(kTermReqHeaderBytes));
}

bool hdgst_flag_wrong(const PduRules& rules, std::uint8_t flags) {
  return ((flags & kFlagHdgst) != 0) != rules.hdgst;
}

/// PDO, PLEN and with them the length of DATA, of a PDU that carries some. §3.3, Figure 3.
PduVerdict check_data_part(const PduRules& rules, const CommonHeader& h) {
  const std::uint32_t least = h.hlen + (rules.hdgst ? kDigestBytes : 0);
  const std::uint32_t unit = (static_cast<std::uint32_t>(rules.pda) + 1) * 4;
  if (h.pdo < least || h.pdo % unit != 0) return invalid_field(kOffsetPdo);
  const std::uint32_t overhead = h.pdo + (rules.ddgst ? kDigestBytes : 0);
  if (h.plen <= overhead) return invalid_field(kOffsetPlen);
  return good(h.plen - static_cast<std::uint32_t>(overhead));
}

/// §3.6.2.6
PduVerdict check_capsule_cmd(const PduRules& rules, const CommonHeader& h) {
  const std::uint32_t bare = kCapsuleCmdBytes + (rules.hdgst ? kDigestBytes : 0);
  const bool has_data = h.plen > bare;
  const bool ddgst = (h.flags & kFlagDdgst) != 0;
  if (hdgst_flag_wrong(rules, h.flags)) return invalid_field(kOffsetFlags);
  if (ddgst && !rules.ddgst) return invalid_field(kOffsetFlags);
  if (has_data && rules.ddgst && !ddgst) return invalid_field(kOffsetFlags);
  if (h.plen < bare) return invalid_field(kOffsetPlen);
  if (!has_data) return good(0);
  PduVerdict v = check_data_part(rules, h);
  if (v.kind == PduVerdict::Kind::ok && v.data_bytes > rules.in_capsule_bytes_max) {
    return invalid_field(kOffsetPlen);
  }
  return v;
}

/// §3.6.2.7, §3.6.2.10
PduVerdict check_no_data(const PduRules& rules, const CommonHeader& h) {
  if (hdgst_flag_wrong(rules, h.flags)) return invalid_field(kOffsetFlags);
  if (h.plen != h.hlen + (rules.hdgst ? kDigestBytes : 0)) return invalid_field(kOffsetPlen);
  return good(0);
}

/// §3.6.2.8, §3.6.2.9
PduVerdict check_data_pdu(const PduRules& rules, const CommonHeader& h, const std::byte* p) {
  if (hdgst_flag_wrong(rules, h.flags)) return invalid_field(kOffsetFlags);
  if (((h.flags & kFlagDdgst) != 0) != rules.ddgst) return invalid_field(kOffsetFlags);
  // §3.3.2.1: SUCCESS belongs to the last PDU of a transfer only.
  if (h.type == PduType::c2h_data && (h.flags & kFlagSuccess) != 0 && (h.flags & kFlagLast) == 0) {
    return invalid_field(kOffsetFlags);
  }
  const PduVerdict v = check_data_part(rules, h);
  if (v.kind != PduVerdict::Kind::ok) return v;
  const DataHeader data = DataHeader::decode(p);
  if (data.datal_bytes != v.data_bytes) return invalid_field(kOffsetDatal);
  if (h.type == PduType::h2c_data && data.datal_bytes > rules.maxh2cdata_bytes) {
    return fatal(Fes::limit_exceeded);  // §3.3.2.2
  }
  return v;
}

}  // namespace

std::uint8_t pdu_data_offset(std::size_t hlen, bool hdgst, std::uint8_t pda) {
  const std::size_t unit = (static_cast<std::size_t>(pda) + 1) * 4;
  const std::size_t least = hlen + (hdgst ? kDigestBytes : 0);
  return static_cast<std::uint8_t>((least + unit - 1) / unit * unit);
}

PduVerdict validate_common_header(const PduRules& rules, const CommonHeader& h) {
  const std::size_t hlen = header_bytes(h.type);
  // §3.3: an unknown type, or one that only we may send.
  if (hlen == 0 || from_controller(h.type) == rules.controller) return invalid_field(kOffsetType);
  // §3.1: ICReq and ICResp come first and once. A TermReq may come at any time.
  if (!is_term_req(h.type) && is_ic(h.type) == rules.initialized) {
    return fatal(Fes::pdu_sequence_error);
  }
  if (h.hlen != hlen) return invalid_field(kOffsetHlen);
  return good(0);
}

PduVerdict validate_pdu_header(const PduRules& rules, std::span<const std::byte> header) {
  const CommonHeader h = CommonHeader::decode(header.data());
  const PduVerdict common = validate_common_header(rules, h);
  if (common.kind != PduVerdict::Kind::ok) return common;
  switch (h.type) {
    case PduType::ic_req:
    case PduType::ic_resp:
      return check_ic(rules, h, header.data());
    case PduType::h2c_term_req:
    case PduType::c2h_term_req:
      return check_term_req(h);
    case PduType::capsule_cmd:
      return check_capsule_cmd(rules, h);
    case PduType::capsule_resp:
    case PduType::r2t:
      return check_no_data(rules, h);
    case PduType::h2c_data:
    case PduType::c2h_data:
      return check_data_pdu(rules, h, header.data());
  }
  return invalid_field(kOffsetType);
}

}  // namespace nvmf::tcp
