// What is to happen when the association is lost: the timers that nvme-cli's users know, what is
// done about writes that were sent and never answered, and the rules that keep data safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "nvme/result.h"
#include "transport/timer.h"

namespace nvmf::host {

/// Limits of the timers: a day. Whoever needs more wants "for ever", or "off".
inline constexpr Duration kLossTimerMax = std::chrono::hours(24);
/// Shorter pauses between attempts would only keep a target busy.
inline constexpr Duration kReconnectDelayMin = std::chrono::milliseconds(20);

/// May be changed while connected and while not. All run from the moment a loss is detected.
struct LossPolicy {
  /// The longest pause between two attempts to reconnect; the first follow one another faster.
  Duration reconnect_delay{std::chrono::seconds(10)};
  /// Then the connection is given up for good; nothing: never.
  std::optional<Duration> ctrl_loss{std::chrono::seconds(600)};
  /// Then requests that wait, and all that come, fail with EIO until the controller is back;
  /// nothing: they wait until ctrl_loss.
  std::optional<Duration> fast_io_fail;

  friend bool operator==(const LossPolicy&, const LossPolicy&) = default;
};

/// Whether the values are possible: reconnect_delay from kReconnectDelayMin, the timers from 0, all
/// up to kLossTimerMax. The error (EINVAL) is a sentence that names the option, its value, and what
/// may stand there.
Result<void> check(const LossPolicy& policy);

/// What becomes of writes that were answered, but not flushed out of a volatile write cache, when
/// the association is lost: perhaps the target lost its power and they are gone.
enum class Unflushed : std::uint8_t {
  trust,  // counted and logged
  fail,   // one EIO on the next flush or FUA write
  /// Written again from copies in memory before anything else. Blocks with a write that was not
  /// answered, or failed, may show for a while what was answered before it, although somebody has
  /// already read what it wrote.
  replay,
};

/// Rules that keep data safe, and numbers behind them. Every program has them as they are here; the
/// simulator breaks one at a time to see that its checker notices.
struct SafetyRules {
  bool fence_after_error = true;    // a range stays fenced although its request ended with EIO
  bool repeat_flush = true;         // a flush that was lost is sent again, never made up
  bool check_identity = true;       // I/O goes on only on the same disk
  bool order_abandoned = true;      // what a client that went away had sent keeps its place
  std::uint32_t silence_katts = 2;  // how long a silent controller may still execute, in KATTs
  std::uint32_t silence_katts_traffic = 3;  // and with traffic-based keep-alive

  friend bool operator==(const SafetyRules&, const SafetyRules&) = default;
};

}  // namespace nvmf::host
