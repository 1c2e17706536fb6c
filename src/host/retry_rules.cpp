#include "host/retry_rules.h"

#include <algorithm>

namespace nvmf::host {

namespace {

constexpr std::uint8_t kSctPath = 3;
constexpr Duration kDelayUnit = std::chrono::milliseconds(100);

bool worth_another_try(nvme::Status status, std::uint32_t tries) {
  using enum nvme::StatusCode;
  if (status.dnr) return false;
  if (status.sct == kSctPath) return true;
  switch (status.code()) {
    case namespace_not_ready:
    case command_interrupted:
    case abort_requested:
    case aborted_sq_deletion:
      return true;
    case transient_transport_error:
      // Base 2.1 §4.2.3.1: from the fourth on it is to be taken for a lasting one.
      return tries < kTransportErrorTries;
    default:
      return false;
  }
}

Duration pause_before(nvme::Status status, std::uint32_t tries, const RetryDelays& delays) {
  if (status.crd != 0 && status.crd <= delays.size() && delays[status.crd - 1u] != 0) {
    return kDelayUnit * delays[status.crd - 1u];
  }
  // 2^4 is beyond the longest already.
  return std::min(kRetryPauseFirst * (1 << std::min(tries, 4u)), kRetryPauseMax);
}

}  // namespace

RetryDecision decide_retry(nvme::Status status, std::uint32_t tries, Duration age,
                           const RetryDelays& delays) {
  if (!worth_another_try(status, tries)) return {};
  const Duration pause = pause_before(status, tries, delays);
  if (age + pause > kRetryTimeMax) return {};
  return {.again = true, .pause = pause};
}

}  // namespace nvmf::host
