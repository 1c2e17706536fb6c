// Which refused I/O commands are worth another try, and when (Base 2.1 §4.2.3; CRD
// §4.2.3.3). What was never answered is not decided here.
#pragma once

#include <array>
#include <cstdint>

#include "nvme/command.h"
#include "transport/timer.h"

namespace nvmf::host {

/// CRDT1 to CRDT3 of the controller, in units of 100 ms, while ACRE is set (Set Features 16h); all
/// zero: CRD means nothing.
using RetryDelays = std::array<std::uint16_t, 3>;

struct RetryDecision {
  bool again = false;
  Duration pause{};
};

/// `tries`: how often this request has been refused before. `age`: since its first refusal. DNR is
/// final, and so is everything else but: path related statuses (type 3h), Namespace Not Ready,
/// Command Interrupted, Transient Transport Error (3 times), Command Abort Requested, Command
/// Aborted due to SQ Deletion. A reservation conflict is never tried again. Tries end kRetryTimeMax
/// after the first refusal.
inline constexpr Duration kRetryTimeMax = std::chrono::seconds(30);
RetryDecision decide_retry(nvme::Status status, std::uint32_t tries, Duration age,
                           const RetryDelays& delays);

}  // namespace nvmf::host
