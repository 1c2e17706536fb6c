// Where a BlockRequest is on its way through a NamespaceDevice: for that class only.
#pragma once

#include <cstdint>

#include "host/block_device.h"

namespace nvmf::host {

// BlockRequest::stage. A deallocate with FUA is Dataset Management, then Flush. What changes less
// than whole blocks waits for its hold, reads the ends of its range, then does what it is to do.
inline constexpr std::uint8_t kStageFirst = 0;
inline constexpr std::uint8_t kStageFlush = 1;
inline constexpr std::uint8_t kStageHold = 2;
inline constexpr std::uint8_t kStageReadEnds = 3;
// A tool's command: one part, as it is (passthrough_request.h).
inline constexpr std::uint8_t kStagePassthrough = 4;
// A barrier that has its hold.
inline constexpr std::uint8_t kStageBarrier = 5;

// BlockRequest::whereabouts, for those that may be abandoned, and for who has to be told of the
// end.
inline constexpr std::uint8_t kPlain = 0;           // in no list of others
inline constexpr std::uint8_t kWaitsForHolds = 1;   // of others: not admitted yet
inline constexpr std::uint8_t kAdmitted = 2;        // by the holds
inline constexpr std::uint8_t kWaitsForBounce = 3;  // memory
inline constexpr std::uint8_t kHasBounce =
    4;  // and a hold, asked for or granted, if it changes data

inline bool is_flush(const BlockRequest& r) {
  return r.op == BlockOp::flush || r.stage == kStageFlush;
}

/// Its length says nothing of its parts: it has one.
inline bool is_single(const BlockRequest& r) {
  return is_flush(r) || r.stage == kStagePassthrough;
}

inline bool changes_data(BlockOp op) {
  return op == BlockOp::write || op == BlockOp::write_zeroes || op == BlockOp::deallocate;
}

}  // namespace nvmf::host
