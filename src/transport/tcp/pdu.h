// NVMe/TCP protocol data units: numbers, headers as values, encode and decode.
// NVMe/TCP Transport 1.0 §3.6.2. All fields little-endian.
//
// Decoders read a header that validate_pdu_header() has accepted; they check nothing themselves.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "nvme/command.h"

namespace nvmf::tcp {

enum class PduType : std::uint8_t {
  ic_req = 0x00,
  ic_resp = 0x01,
  h2c_term_req = 0x02,
  c2h_term_req = 0x03,
  capsule_cmd = 0x04,
  capsule_resp = 0x05,
  h2c_data = 0x06,
  c2h_data = 0x07,
  r2t = 0x09,
};

// FLAGS (byte 1), by PDU type.
inline constexpr std::uint8_t kFlagHdgst = 1u << 0;
inline constexpr std::uint8_t kFlagDdgst = 1u << 1;
inline constexpr std::uint8_t kFlagLast = 1u << 2;
inline constexpr std::uint8_t kFlagSuccess = 1u << 3;

inline constexpr std::size_t kCommonHeaderBytes = 8;
inline constexpr std::size_t kIcBytes = 128;
inline constexpr std::size_t kTermReqHeaderBytes = 24;
inline constexpr std::size_t kTermReqBytesMax = 152;
inline constexpr std::size_t kCapsuleCmdBytes = 72;
inline constexpr std::size_t kCapsuleRespBytes = 24;
inline constexpr std::size_t kDataHeaderBytes = 24;
inline constexpr std::size_t kR2tBytes = 24;
inline constexpr std::size_t kHeaderBytesMax = 128;
inline constexpr std::size_t kDigestBytes = 4;
/// PDO is one byte, so the data of a PDU starts at 255 at the latest; PDA goes to 128.
inline constexpr std::size_t kPduDataAlignmentMax = 128;

/// Fatal Error Status of a TermReq. 05h and 04h read differently by direction: see describe_fes().
enum class Fes : std::uint16_t {
  none = 0,
  invalid_header_field = 1,
  pdu_sequence_error = 2,
  header_digest_error = 3,
  data_out_of_range = 4,
  limit_exceeded = 5,  // from the host: R2T limit; from the controller: data transfer limit
  unsupported_parameter = 6,
};

std::string_view pdu_name(PduType type);
/// "Invalid PDU Header Field (FES 1), field offset 8", for messages.
std::string describe_fes(Fes fes, std::uint32_t fei, bool from_host);

struct CommonHeader {
  PduType type = PduType::ic_req;
  std::uint8_t flags = 0;
  std::uint8_t hlen = 0;
  std::uint8_t pdo = 0;
  std::uint32_t plen = 0;

  void encode(std::byte* out) const;
  static CommonHeader decode(const std::byte* in);
};

struct IcReq {
  std::uint16_t pfv = 0;
  std::uint8_t hpda = 0;  // 0's based, in dwords
  bool hdgst = false;
  bool ddgst = false;
  std::uint32_t maxr2t = 0;  // 0's based

  void encode(std::span<std::byte, kIcBytes> out) const;
  static IcReq decode(const std::byte* in);
};

struct IcResp {
  std::uint16_t pfv = 0;
  std::uint8_t cpda = 0;  // 0's based, in dwords
  bool hdgst = false;
  bool ddgst = false;
  std::uint32_t maxh2cdata_bytes = 0;

  void encode(std::span<std::byte, kIcBytes> out) const;
  static IcResp decode(const std::byte* in);
};

struct TermReq {
  Fes fes = Fes::none;
  std::uint32_t fei = 0;

  /// Writes header and up to 128 bytes of `offending`; returns the PDU's length.
  std::size_t encode(std::span<std::byte, kTermReqBytesMax> out, PduType type,
                     std::span<const std::byte> offending) const;
  static TermReq decode(const std::byte* in);
};

/// The PDU specific header of H2CData and C2HData.
struct DataHeader {
  std::uint16_t cccid = 0;
  std::uint16_t ttag = 0;  // H2CData only
  std::uint32_t datao_bytes = 0;
  std::uint32_t datal_bytes = 0;

  void encode(std::byte* out) const;  // bytes 8 to 23
  static DataHeader decode(const std::byte* in);
};

struct R2tHeader {
  std::uint16_t cccid = 0;
  std::uint16_t ttag = 0;
  std::uint32_t r2to_bytes = 0;
  std::uint32_t r2tl_bytes = 0;

  void encode(std::byte* out) const;  // bytes 8 to 23
  static R2tHeader decode(const std::byte* in);
};

/// CRC32C as NVMe/TCP and iSCSI use it; `crc` continues one, kCrcStart begins, crc_finish() ends.
inline constexpr std::uint32_t kCrcStart = 0xffffffffu;
std::uint32_t crc_update(std::uint32_t crc, std::span<const std::byte> data);
inline std::uint32_t crc_finish(std::uint32_t crc) {
  return ~crc;
}
inline std::uint32_t crc32c(std::span<const std::byte> data) {
  return crc_finish(crc_update(kCrcStart, data));
}

}  // namespace nvmf::tcp
