// What makes a PDU header acceptable, as one pure function for both roles.
//
// Fields are checked in the order of their offsets, so that a TermReq names the lowest one that is
// wrong (NVMe/TCP 1.0 §3.6.2.4, FES 01h). What depends on commands under way (CIDs, transfer tags,
// offsets) is checked by the queue pairs.
#pragma once

#include <cstdint>
#include <span>

#include "transport/tcp/pdu.h"

namespace nvmf::tcp {

/// What this end has negotiated and expects. `controller` says who we are, the receiver.
struct PduRules {
  bool controller = false;
  bool initialized = false;  // ICReq/ICResp have been exchanged
  bool hdgst = false;
  bool ddgst = false;
  std::uint8_t pda = 0;  // our own HPDA or CPDA: what data sent to us must be aligned to
  /// Controller: the most in-capsule data, and the most data of one H2CData.
  std::uint32_t in_capsule_bytes_max = 0;
  std::uint32_t maxh2cdata_bytes = 0;
  /// Host: what it asked for in ICReq; an ICResp must not enable more.
  bool asked_hdgst = false;
  bool asked_ddgst = false;
};

struct PduVerdict {
  enum class Kind : std::uint8_t {
    ok,
    fatal,  // answer with a TermReq of `fes` and `fei`, then end the connection
    drop,   // end the connection without a word (a broken TermReq)
  };
  Kind kind = Kind::ok;
  Fes fes = Fes::none;
  std::uint32_t fei = 0;
  std::uint32_t data_bytes = 0;  // ok: DATA of this PDU, without digest and padding

  friend bool operator==(const PduVerdict&, const PduVerdict&) = default;
};

/// After the first 8 bytes: may this PDU come at all, and is its HLEN that of its type? The header
/// digest's place is known only then.
PduVerdict validate_common_header(const PduRules& rules, const CommonHeader& header);

/// The whole header (HLEN bytes, without digest), which validate_common_header() has accepted.
PduVerdict validate_pdu_header(const PduRules& rules, std::span<const std::byte> header);

/// Where data starts for a header of `hlen` bytes: after the digest, aligned to `pda`.
std::uint8_t pdu_data_offset(std::size_t hlen, bool hdgst, std::uint8_t pda);

}  // namespace nvmf::tcp
