#include "host/fence_time.h"

#include <algorithm>

namespace nvmf::host {

namespace {

Duration quiesce_time(std::uint16_t cqt_ms, const ConnectParams& params) {
  return cqt_ms == 0 ? params.cqt_unreported : Duration(std::chrono::milliseconds(cqt_ms));
}

/// From the last sign of life that was sent until the controller has noticed that none follows,
/// and has quiesced. katt_ms is not 0.
Duration after_last_sign(const SilenceFacts& facts, const ConnectParams& params) {
  const std::uint32_t katts =
      facts.traffic_based ? params.rules.silence_katts_traffic : params.rules.silence_katts;
  // The largest KATT is 50 days: far from what a Duration holds.
  return std::chrono::milliseconds(std::uint64_t{katts} * facts.katt_ms) +
         quiesce_time(facts.cqt_ms, params);
}

Instant silence_over(const AssociationEnd& end, const ConnectParams& params) {
  if (end.katt_ms == 0) return kNever;
  // A Keep Alive is a command like any other where commands are what counts.
  const Instant last =
      end.traffic_based ? std::max(end.command_at, end.keep_alive_at) : end.keep_alive_at;
  const SilenceFacts facts{
      .katt_ms = end.katt_ms, .traffic_based = end.traffic_based, .cqt_ms = end.cqt_ms};
  // What was submitted may be fetched late, as long as its connection is there: such a sign of life
  // counts from the end of that.
  const Instant fetched = end.ended_at - std::chrono::milliseconds(end.katt_ms);
  return std::max(last, fetched) + after_last_sign(facts, params);
}

}  // namespace

Instant nothing_executes_from(const AssociationEnd& end, const ConnectParams& params) {
  if (!params.fence || end.nothing_unanswered) return end.ended_at;
  Instant from = silence_over(end, params);
  if (end.controller_disabled) {
    from = end.cqt_ms != 0 ? end.ended_at : std::min(from, end.ended_at + params.cqt_unreported);
  }
  if (end.peer_closed && params.trust_peer_close) {
    from = std::min(from, end.ended_at + quiesce_time(end.cqt_ms, params));
  }
  return std::max(from, end.ended_at);
}

std::optional<Duration> silence_bound(const SilenceFacts& facts, const ConnectParams& params) {
  if (!params.fence) return Duration::zero();
  if (facts.katt_ms == 0) return std::nullopt;
  return after_last_sign(facts, params);
}

}  // namespace nvmf::host
