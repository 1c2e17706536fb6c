// How long a write that was sent and never answered may still be executed by the controller of an
// association that has ended (Base 2.1 §9.6). Pure functions of what is known about its end.
#pragma once

#include <cstdint>
#include <optional>

#include "host/params.h"
#include "transport/timer.h"

namespace nvmf::host {

/// What is known about an association that has ended.
struct AssociationEnd {
  Instant ended_at{};  // from here on every socket was reset
  /// No change of data was sent and not answered.
  bool nothing_unanswered = false;
  /// CSTS.RDY = 0 after CC.EN = 0, or SHST complete, was seen on the living admin queue.
  bool controller_disabled = false;
  /// FIN or RST came on every connection that carried a change of data which was not answered.
  bool peer_closed = false;
  Instant keep_alive_at{};    // when the last Keep Alive was submitted, or the timer began to run
  Instant command_at{};       // when the last command was submitted, on any queue
  std::uint32_t katt_ms = 0;  // KATT as read back; 0: the controller has no keep-alive timer
  bool traffic_based = false;
  std::uint16_t cqt_ms = 0;  // Identify Controller bytes 387:386; 0: not reported
};

/// Never: silence lifts nothing where there is no keep-alive timer.
inline constexpr Instant kNever = Instant::max();

/// From when on nothing of it can be executed any more; not before ended_at; kNever if that cannot
/// be known. With params.fence off: ended_at.
///  a. nothing was left unanswered, or the controller was disabled: at once; but a controller that
///     reports no CQT may be one that says so without waiting for what it has under way (Linux's
///     target is): then CQT after ended_at, as in b;
///  b. the peer closed, and params.trust_peer_close: CQT after ended_at;
///  c. silence: 2 × KATT after the last Keep Alive, or 3 × KATT after the last command (a Keep
///  Alive
///     is one) where traffic-based keep-alive is in force, then CQT; but as commands may be fetched
///     late as long as the sockets are open, no sooner than 1 × KATT (2 × KATT) and CQT after
///     ended_at.
/// Each is enough: the earliest counts. CQT that is not reported is params.cqt_unreported.
Instant nothing_executes_from(const AssociationEnd& end, const ConnectParams& params);

/// The same for a process that knows only that another one has ended uncleanly, just now at the
/// latest: how long from now. nullopt: for ever. Zero with params.fence off.
struct SilenceFacts {
  std::uint32_t katt_ms = 0;
  bool traffic_based = false;
  std::uint16_t cqt_ms = 0;
};
std::optional<Duration> silence_bound(const SilenceFacts& facts, const ConnectParams& params);

}  // namespace nvmf::host
