// When to try again after a loss, and when to give up: the timers of LossPolicy as a pure machine.
// It is told what happens and when, and says what is due. No clock, no timer, no thread.
#pragma once

#include <cstdint>
#include <optional>

#include "host/policy.h"

namespace nvmf::host {

/// The pause after the first attempt that fails, before jitter: doubles up to reconnect_delay.
inline constexpr Duration kFirstPause = std::chrono::milliseconds(20);
/// An association that is lost again so soon after it was begun, or within reconnect_delay if that
/// is less, counts as an attempt that failed.
inline constexpr Duration kShortLived = std::chrono::seconds(1);
/// The longest pause after a refused attempt within the first reconnect_delay after the loss.
inline constexpr Duration kRefusedPauseMax = std::chrono::milliseconds(100);

enum class LossState : std::uint8_t {
  live,          // also before the first loss
  lost,          // detected; the next attempt has not begun
  reconnecting,  // an attempt is under way
};

class Reconnect {
 public:
  /// `seed` for the jitter: equal seeds, equal times.
  Reconnect(const LossPolicy& policy, std::uint64_t seed);

  // What happened. Any order is taken: what does not fit the state is passed over.
  /// Of a live association. One that was lost again within kShortLived after the attempt that
  /// made it counts for the pauses as an attempt that failed: a target that takes us and drops us,
  /// again and again, is not tried without a pause.
  void lost(Instant now);
  void attempt_begins(Instant now);
  /// `refused`: somebody answered that nobody listens there (ECONNREFUSED): a target that is being
  /// restarted, most likely.
  void attempt_failed(Instant now, bool refused);
  void live_again();
  /// Deadlines count from the loss, not from now: one that has passed by the new policy is due. An
  /// attempt that would be further away than the new reconnect_delay comes nearer.
  void set_policy(const LossPolicy& policy, Instant now);

  // What is due. Only in a loss, otherwise nothing.
  /// The first attempt at once; then from 20 ms on, doubling, each pause 0.5 to 1 times that, up to
  /// reconnect_delay. Within the first reconnect_delay after the loss, a refused attempt is
  /// repeated within 100 ms. Nothing while an attempt is under way.
  [[nodiscard]] std::optional<Instant> next_attempt_at() const;
  [[nodiscard]] std::optional<Instant> io_fails_at() const;
  [[nodiscard]] std::optional<Instant> gone_at() const;

  [[nodiscard]] LossState state() const { return state_; }
  [[nodiscard]] Instant lost_at() const { return lost_at_; }
  /// Attempts since the loss.
  [[nodiscard]] std::uint32_t attempts() const { return attempts_; }
  [[nodiscard]] const LossPolicy& policy() const { return policy_; }

 private:
  /// The next pause, with jitter.
  Duration grow_pause();
  [[nodiscard]] Duration jittered(Duration pause);

  LossPolicy policy_;
  std::uint64_t random_;
  LossState state_ = LossState::live;
  Instant lost_at_{};
  Instant next_{};
  std::optional<Instant>
      attempt_at_;    // when the last attempt began, of this loss or the one before
  Duration pause_{};  // the last one without jitter; 0: the first attempt has not failed
  std::uint32_t attempts_ = 0;
};

}  // namespace nvmf::host
