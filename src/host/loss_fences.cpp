#include "host/loss_fences.h"

#include <algorithm>

#include "nvme/check.h"

namespace nvmf::host {

void LossFences::add(std::uint8_t number) {
  One& one = all_[number];
  if (one.times++ == 0) ++any_;
  one.pending = true;
}

void LossFences::add_until(std::uint8_t number, Instant lifts_at) {
  One& one = all_[number];
  if (one.times++ == 0) ++any_;
  one.lifts_at = std::max(one.lifts_at, lifts_at);
}

void LossFences::remove_one(std::uint8_t number) {
  One& one = all_[number];
  NVMF_CHECK(one.times != 0);
  if (--one.times != 0) return;
  one = {};
  --any_;
}

void LossFences::settle(Instant lifts_at) {
  for (One& one : all_) {
    if (!one.pending) continue;
    one.pending = false;
    one.lifts_at = std::max(one.lifts_at, lifts_at);
  }
}

std::optional<Instant> LossFences::next() const {
  std::optional<Instant> first;
  for (const One& one : all_) {
    if (one.times == 0 || one.pending || one.lifts_at == Instant::max()) continue;
    if (!first || one.lifts_at < *first) first = one.lifts_at;
  }
  return first;
}

std::optional<LossFences::Due> LossFences::take_due(Instant now) {
  if (any_ == 0) return std::nullopt;
  for (std::size_t i = 0; i < all_.size(); ++i) {
    One& one = all_[i];
    if (one.times == 0 || one.pending || one.lifts_at > now) continue;
    const Due due{static_cast<std::uint8_t>(i), one.times};
    one = {};
    --any_;
    return due;
  }
  return std::nullopt;
}

}  // namespace nvmf::host
