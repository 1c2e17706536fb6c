#include "transport/tcp/term_words.h"

#include <fmt/format.h>

#include "nvme/endian.h"

namespace nvmf::tcp {
namespace {

struct Field {
  std::uint32_t first;
  std::uint32_t end;
  std::string_view name;
};

constexpr Field kCommon[] = {
    {0, 1, "PDU-Type"}, {1, 2, "FLAGS"}, {2, 3, "HLEN"}, {3, 4, "PDO"}, {4, 8, "PLEN"}};
constexpr Field kIcReq[] = {{8, 10, "PFV"}, {10, 11, "HPDA"}, {11, 12, "DGST"}, {12, 16, "MAXR2T"}};
constexpr Field kIcResp[] = {
    {8, 10, "PFV"}, {10, 11, "CPDA"}, {11, 12, "DGST"}, {12, 16, "MAXH2CDATA"}};
constexpr Field kTermReq[] = {{8, 10, "FES"}, {10, 14, "FEI"}};
// Byte 8 is byte 0 of the submission queue entry. Base 2.1 §4.1, Figures 92 and 93.
constexpr Field kCapsuleCmd[] = {
    {8, 9, "OPC of the command"},     {9, 10, "FUSE and PSDT of the command"},
    {10, 12, "CID of the command"},   {12, 16, "NSID of the command"},
    {16, 20, "CDW2 of the command"},  {20, 24, "CDW3 of the command"},
    {24, 32, "MPTR of the command"},  {32, 48, "SGL1 of the command"},
    {48, 52, "CDW10 of the command"}, {52, 56, "CDW11 of the command"},
    {56, 60, "CDW12 of the command"}, {60, 64, "CDW13 of the command"},
    {64, 68, "CDW14 of the command"}, {68, 72, "CDW15 of the command"}};
// Byte 8 is byte 0 of the completion queue entry.
constexpr Field kCapsuleResp[] = {{8, 16, "DW0 and DW1 of the completion"},
                                  {16, 18, "SQHD of the completion"},
                                  {20, 22, "CID of the completion"},
                                  {22, 24, "STATUS of the completion"}};
constexpr Field kH2cData[] = {
    {8, 10, "CCCID"}, {10, 12, "TTAG"}, {12, 16, "DATAO"}, {16, 20, "DATAL"}};
constexpr Field kC2hData[] = {{8, 10, "CCCID"}, {12, 16, "DATAO"}, {16, 20, "DATAL"}};
constexpr Field kR2t[] = {{8, 10, "CCCID"}, {10, 12, "TTAG"}, {12, 16, "R2TO"}, {16, 20, "R2TL"}};

std::span<const Field> fields_of(PduType type) {
  switch (type) {
    case PduType::ic_req:
      return kIcReq;
    case PduType::ic_resp:
      return kIcResp;
    case PduType::h2c_term_req:
    case PduType::c2h_term_req:
      return kTermReq;
    case PduType::capsule_cmd:
      return kCapsuleCmd;
    case PduType::capsule_resp:
      return kCapsuleResp;
    case PduType::h2c_data:
      return kH2cData;
    case PduType::c2h_data:
      return kC2hData;
    case PduType::r2t:
      return kR2t;
  }
  return {};
}

}  // namespace

std::string_view pdu_field(PduType type, std::uint32_t offset) {
  for (const auto fields : {std::span<const Field>(kCommon), fields_of(type)}) {
    for (const Field& field : fields) {
      if (offset >= field.first && offset < field.end) return field.name;
    }
  }
  return {};
}

std::string describe_term_req(Fes fes, std::uint32_t fei, bool from_host,
                              std::span<const std::byte> offending, std::string_view whose) {
  const std::string text = describe_fes(fes, fei, from_host);
  if (offending.empty()) return fmt::format("{} in {} PDUs", text, whose);
  const auto type = static_cast<PduType>(load_u8(offending.data()));
  const bool has_offset = fes == Fes::invalid_header_field || fes == Fes::unsupported_parameter;
  const std::string_view field = has_offset ? pdu_field(type, fei) : std::string_view();
  return fmt::format("{} in {}{}{} {} PDU", text, field, field.empty() ? "" : " of ", whose,
                     pdu_name(type));
}

FesWords fes_words(Fes fes, bool from_host) {
  constexpr std::string_view kReport =
      "to connect again, and report it with a capture of the connection";
  switch (fes) {
    case Fes::none:
      break;
    case Fes::invalid_header_field:
      return {"a field of a PDU's header has a value that the other side finds wrong", kReport};
    case Fes::pdu_sequence_error:
      return {"a PDU came that the protocol does not allow at that point", kReport};
    case Fes::header_digest_error:
      return {"the header of a PDU was damaged on its way, as its CRC32C tells",
              "to connect again; if it recurs, look at network cards, switches and cables"};
    case Fes::data_out_of_range:
      return {from_host ? "a C2HData PDU brought data from beyond the command's buffer"
                        : "an H2CData PDU brought data from beyond what its R2T asked for",
              kReport};
    case Fes::limit_exceeded:
      return {from_host ? "the controller sent more R2Ts for a command than MAXR2T allows"
                        : "an H2CData PDU was longer than MAXH2CDATA allows",
              kReport};
    case Fes::unsupported_parameter:
      return {"the other side does not support a parameter that it was asked for",
              "to connect without --hdr-digest and --data-digest, or with a target of another "
              "version"};
  }
  return {"NVMe/TCP 1.0 gives this number no meaning", "the log of the side that sent it"};
}

bool known_fes(std::uint64_t number) {
  return number >= 1 && number <= 6;
}

}  // namespace nvmf::tcp
