// Terminate Connection Requests in words. NVMe/TCP Transport 1.0 §3.6.2.4 and §3.6.2.5 (Figures 22
// and 23), the fields by Figures 20 to 28.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "transport/tcp/pdu.h"

namespace nvmf::tcp {

/// The field of a PDU's header that the byte at `offset` belongs to: "CCCID", or "CDW10 of the
/// command"; empty where there is none, or only a reserved one.
std::string_view pdu_field(PduType type, std::uint32_t offset);

/// describe_fes(), and of which field of which PDU it speaks: "Invalid PDU Header Field (FES 1,
/// field offset 8) in CCCID of our R2T PDU". `offending` is the header that the TermReq brings
/// along or that was refused: any bytes, as many as there are; `whose` it is: "its", "our".
std::string describe_term_req(Fes fes, std::uint32_t fei, bool from_host,
                              std::span<const std::byte> offending, std::string_view whose);

struct FesWords {
  std::string_view meaning;  // what the sender of the TermReq found; a sentence
  std::string_view hint;     // goes on after "try "
};
/// Numbers that the specification does not have are said to be so.
FesWords fes_words(Fes fes, bool from_host);
/// Whether the specification has the number: 1 to 6.
bool known_fes(std::uint64_t number);

}  // namespace nvmf::tcp
