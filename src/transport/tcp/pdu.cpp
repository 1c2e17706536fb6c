#include "transport/tcp/pdu.h"

#include <isa-l/crc.h>

#include <algorithm>
#include <climits>
#include <cstring>

#include "nvme/endian.h"
#include "transport/limits.h"

namespace nvmf::tcp {

std::string_view pdu_name(PduType type) {
  switch (type) {
    case PduType::ic_req:
      return "ICReq";
    case PduType::ic_resp:
      return "ICResp";
    case PduType::h2c_term_req:
      return "H2CTermReq";
    case PduType::c2h_term_req:
      return "C2HTermReq";
    case PduType::capsule_cmd:
      return "CapsuleCmd";
    case PduType::capsule_resp:
      return "CapsuleResp";
    case PduType::h2c_data:
      return "H2CData";
    case PduType::c2h_data:
      return "C2HData";
    case PduType::r2t:
      return "R2T";
  }
  return "unknown PDU";
}

std::string describe_fes(Fes fes, std::uint32_t fei, bool from_host) {
  const std::string number = "FES " + std::to_string(static_cast<unsigned>(fes));
  switch (fes) {
    case Fes::none:
      break;
    case Fes::invalid_header_field:
      return "Invalid PDU Header Field (" + number + ", field offset " + std::to_string(fei) + ")";
    case Fes::pdu_sequence_error:
      return "PDU Sequence Error (" + number + ")";
    case Fes::header_digest_error:
      return "Header Digest Error (" + number + ")";
    case Fes::data_out_of_range:
      return "Data Transfer Out of Range (" + number + ")";
    case Fes::limit_exceeded:
      return std::string(from_host ? "R2T Limit Exceeded (" : "Data Transfer Limit Exceeded (") +
             number + ")";
    case Fes::unsupported_parameter:
      return "Unsupported Parameter (" + number + ", field offset " + std::to_string(fei) + ")";
  }
  return "an unknown error (" + number + ")";
}

void CommonHeader::encode(std::byte* out) const {
  store_u8(out, static_cast<std::uint8_t>(type));
  store_u8(out + 1, flags);
  store_u8(out + 2, hlen);
  store_u8(out + 3, pdo);
  store_le32(out + 4, plen);
}

CommonHeader CommonHeader::decode(const std::byte* in) {
  CommonHeader h;
  h.type = static_cast<PduType>(load_u8(in));
  h.flags = load_u8(in + 1);
  h.hlen = load_u8(in + 2);
  h.pdo = load_u8(in + 3);
  h.plen = load_le32(in + 4);
  return h;
}

namespace {

void encode_ic(std::span<std::byte, kIcBytes> out, PduType type, std::uint16_t pfv,
               std::uint8_t pda, bool hdgst, bool ddgst, std::uint32_t last) {
  std::ranges::fill(out, std::byte{0});
  CommonHeader{type, 0, kIcBytes, 0, kIcBytes}.encode(out.data());
  store_le16(out.data() + 8, pfv);
  store_u8(out.data() + 10, pda);
  store_u8(out.data() + 11, static_cast<std::uint8_t>((hdgst ? 1 : 0) | (ddgst ? 2 : 0)));
  store_le32(out.data() + 12, last);
}

}  // namespace

void IcReq::encode(std::span<std::byte, kIcBytes> out) const {
  encode_ic(out, PduType::ic_req, pfv, hpda, hdgst, ddgst, maxr2t);
}

IcReq IcReq::decode(const std::byte* in) {
  const std::uint8_t dgst = load_u8(in + 11);
  return {.pfv = load_le16(in + 8),
          .hpda = load_u8(in + 10),
          .hdgst = (dgst & 1) != 0,
          .ddgst = (dgst & 2) != 0,
          .maxr2t = load_le32(in + 12)};
}

void IcResp::encode(std::span<std::byte, kIcBytes> out) const {
  encode_ic(out, PduType::ic_resp, pfv, cpda, hdgst, ddgst, maxh2cdata_bytes);
}

IcResp IcResp::decode(const std::byte* in) {
  const std::uint8_t dgst = load_u8(in + 11);
  return {.pfv = load_le16(in + 8),
          .cpda = load_u8(in + 10),
          .hdgst = (dgst & 1) != 0,
          .ddgst = (dgst & 2) != 0,
          .maxh2cdata_bytes = load_le32(in + 12)};
}

std::size_t TermReq::encode(std::span<std::byte, kTermReqBytesMax> out, PduType type,
                            std::span<const std::byte> offending) const {
  std::ranges::fill(out, std::byte{0});
  const std::size_t data = std::min(offending.size(), transport::kTermReqDataBytesMax);
  const std::size_t plen = kTermReqHeaderBytes + data;
  CommonHeader{type, 0, kTermReqHeaderBytes, 0, static_cast<std::uint32_t>(plen)}.encode(
      out.data());
  store_le16(out.data() + 8, static_cast<std::uint16_t>(fes));
  store_le32(out.data() + 10, fei);
  if (data != 0) std::memcpy(out.data() + kTermReqHeaderBytes, offending.data(), data);
  return plen;
}

TermReq TermReq::decode(const std::byte* in) {
  return {.fes = static_cast<Fes>(load_le16(in + 8)), .fei = load_le32(in + 10)};
}

void DataHeader::encode(std::byte* out) const {
  store_le16(out + 8, cccid);
  store_le16(out + 10, ttag);
  store_le32(out + 12, datao_bytes);
  store_le32(out + 16, datal_bytes);
  store_le32(out + 20, 0);
}

DataHeader DataHeader::decode(const std::byte* in) {
  return {.cccid = load_le16(in + 8),
          .ttag = load_le16(in + 10),
          .datao_bytes = load_le32(in + 12),
          .datal_bytes = load_le32(in + 16)};
}

void R2tHeader::encode(std::byte* out) const {
  store_le16(out + 8, cccid);
  store_le16(out + 10, ttag);
  store_le32(out + 12, r2to_bytes);
  store_le32(out + 16, r2tl_bytes);
  store_le32(out + 20, 0);
}

R2tHeader R2tHeader::decode(const std::byte* in) {
  return {.cccid = load_le16(in + 8),
          .ttag = load_le16(in + 10),
          .r2to_bytes = load_le32(in + 12),
          .r2tl_bytes = load_le32(in + 16)};
}

std::uint32_t crc_update(std::uint32_t crc, std::span<const std::byte> data) {
  // The library takes int lengths and a pointer to non-const that it only reads.
  while (!data.empty()) {
    const std::size_t n = std::min(data.size(), static_cast<std::size_t>(INT_MAX));
    auto* p = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(data.data()));
    crc = crc32_iscsi(p, static_cast<int>(n), crc);
    data = data.subspan(n);
  }
  return crc;
}

}  // namespace nvmf::tcp
