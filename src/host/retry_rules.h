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
  Duration pause{};  // from the refusal
};

/// No try begins later after the first refusal.
inline constexpr Duration kRetryTimeMax = std::chrono::seconds(30);
/// Where the controller names no pause: doubles with each refusal.
inline constexpr Duration kRetryPauseFirst = std::chrono::milliseconds(100);
inline constexpr Duration kRetryPauseMax = std::chrono::seconds(1);
/// Another try after so many refusals for Transient Transport Error.
inline constexpr std::uint32_t kTransportErrorTries = 3;

/// `tries`: how often this request has been refused before. `age`: since its first refusal. DNR is
/// final, and so is everything else but: path related statuses (type 3h), Namespace Not Ready,
/// Command Interrupted, Transient Transport Error (kTransportErrorTries), Command Abort Requested,
/// Command Aborted due to SQ Deletion. A reservation conflict is never tried again.
///
/// The pause is what CRD names, counting from 1 in `delays`, if that is not 0; a controller that
/// names one which ends after kRetryTimeMax has said that it is not worth it.
RetryDecision decide_retry(nvme::Status status, std::uint32_t tries, Duration age,
                           const RetryDelays& delays);

}  // namespace nvmf::host
