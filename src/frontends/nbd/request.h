// What a request must fulfil before it may go to a device, as pure functions.
#pragma once

#include <cstdint>
#include <string_view>

#include "frontends/nbd/protocol.h"
#include "host/block_device.h"

namespace nvmf::nbd {

/// The transmission flags of a device: what is advertised is what works. A flag of a command is
/// accepted only where it was advertised, too.
[[nodiscard]] std::uint16_t transmission_flags(const host::BlockInfo& info, bool structured);

/// What was agreed on with a client beside the transmission flags.
struct Agreed {
  bool structured = false;  // also with `extended`, whose replies are chunks, too
  bool extended = false;    // extended headers
  bool allocation = false;  // base:allocation is selected
};

/// The constraints we advertise (proto.md, "Block size constraints").
[[nodiscard]] InfoBlockSize block_size(const host::BlockInfo& info);

/// The verdict over a request header.
struct Verdict {
  WireError error = WireError::ok;
  std::string_view message;  // for people; a literal
  /// A READ of something past the end: the error is at the device's end, as ERROR_OFFSET can say.
  bool at_end = false;
};

/// Checks everything but DISC: command, flags, permission, size, range. `flags` are the
/// transmission flags that this client was told; `info` is the device as it is now.
[[nodiscard]] Verdict check_request(const RequestHeader& request, std::uint16_t flags,
                                    const host::BlockInfo& info, std::uint32_t payload_bytes_max,
                                    const Agreed& agreed = {});

/// The BlockOp of a command that check_request() passed.
[[nodiscard]] host::BlockOp block_op(Command command);

/// What we say about an error that the device reported.
[[nodiscard]] std::string_view device_message(WireError error);

}  // namespace nvmf::nbd
