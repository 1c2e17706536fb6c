#include "host/reconnect.h"

#include <algorithm>

namespace nvmf::host {

namespace {

/// splitmix64: any seed is a good one, and one number of state is enough for jitter.
std::uint64_t next_random(std::uint64_t& state) {
  state += 0x9e3779b97f4a7c15;
  std::uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace

Reconnect::Reconnect(const LossPolicy& policy, std::uint64_t seed)
    : policy_(policy), random_(seed) {}

void Reconnect::lost(Instant now) {
  if (state_ != LossState::live) return;
  state_ = LossState::lost;
  lost_at_ = now;
  attempts_ = 0;
  const bool short_lived =
      attempt_at_ && now - *attempt_at_ < std::min(policy_.reconnect_delay, kShortLived);
  if (!short_lived) pause_ = {};
  next_ = short_lived ? now + grow_pause() : now;
}

void Reconnect::attempt_begins(Instant now) {
  if (state_ != LossState::lost) return;
  state_ = LossState::reconnecting;
  attempt_at_ = now;
  ++attempts_;
}

void Reconnect::attempt_failed(Instant now, bool refused) {
  if (state_ != LossState::reconnecting) return;
  state_ = LossState::lost;
  Duration pause = grow_pause();
  if (refused && now - lost_at_ < policy_.reconnect_delay) {
    pause = std::min(pause, kRefusedPauseMax);
  }
  next_ = now + pause;
}

void Reconnect::live_again() {
  state_ = LossState::live;
}

void Reconnect::set_policy(const LossPolicy& policy, Instant now) {
  policy_ = policy;
  pause_ = std::min(pause_, policy.reconnect_delay);
  next_ = std::min(next_, now + policy.reconnect_delay);
}

std::optional<Instant> Reconnect::next_attempt_at() const {
  if (state_ != LossState::lost) return std::nullopt;
  return next_;
}

std::optional<Instant> Reconnect::io_fails_at() const {
  if (state_ == LossState::live || !policy_.fast_io_fail) return std::nullopt;
  return lost_at_ + *policy_.fast_io_fail;
}

std::optional<Instant> Reconnect::gone_at() const {
  if (state_ == LossState::live || !policy_.ctrl_loss) return std::nullopt;
  return lost_at_ + *policy_.ctrl_loss;
}

Duration Reconnect::grow_pause() {
  pause_ = pause_ == Duration::zero() ? kFirstPause : 2 * pause_;
  pause_ = std::min(pause_, policy_.reconnect_delay);
  return jittered(pause_);
}

/// Hosts that lost the same target at the same moment shall not come back in step.
Duration Reconnect::jittered(Duration pause) {
  const auto half = static_cast<std::uint64_t>(pause.count()) / 2;
  return pause - Duration(static_cast<Duration::rep>(next_random(random_) % (half + 1)));
}

}  // namespace nvmf::host
