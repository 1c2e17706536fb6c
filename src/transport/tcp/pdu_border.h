// Where PDUs begin in bytes of which the beginning was not seen: for a trace that is switched on in
// the middle of a connection.
#pragma once

#include <cstddef>
#include <span>

namespace nvmf::tcp {

/// Whether the bytes begin with a PDU, as far as they tell: a header whose type, lengths and flags
/// fit together, and, if it ends among them, another one behind it. Data that was made to look so
/// can deceive it.
bool begins_with_pdu(std::span<const std::byte> bytes);

/// How long the first two PDUs are together, of a connection seen from its beginning: ICReq and
/// Connect, or ICResp and its response. As many as are complete.
std::size_t first_pdus_bytes(std::span<const std::byte> bytes);

}  // namespace nvmf::tcp
