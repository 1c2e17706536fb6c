// Until when the ranges of unanswered writes must not be written again: bookkeeping of one device
// on one reactor, without the fences themselves.
//
// A fence begins to count while its association is still being ended, when nobody knows yet until
// when it is needed ("pending"); settle() says so for all of these. Of several that share a number
// the latest time counts. Numbers: those of ReactorHolds::fence(), then one per bounce slot.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "host/range_holds.h"
#include "transport/timer.h"

namespace nvmf::host {

class LossFences {
 public:
  static constexpr std::size_t kNumbers = kFenceSlots + kHoldSlotsMax;

  void add(std::uint8_t number);
  void add_until(std::uint8_t number, Instant lifts_at);
  /// One less of it: only for who breaks the rules.
  void remove_one(std::uint8_t number);
  /// All that are pending are to be lifted then (Instant::max(): never).
  void settle(Instant lifts_at);

  [[nodiscard]] bool any() const { return any_ != 0; }
  [[nodiscard]] bool in_force(std::uint8_t number) const { return all_[number].times != 0; }
  [[nodiscard]] bool pending(std::uint8_t number) const { return all_[number].pending; }
  [[nodiscard]] Instant lifts_at(std::uint8_t number) const { return all_[number].lifts_at; }
  /// The next time at which one is due; nothing if none ever is.
  [[nodiscard]] std::optional<Instant> next() const;
  struct Due {
    std::uint8_t number = 0;
    std::uint32_t times = 0;
  };
  /// One that is due, which is in force no more.
  std::optional<Due> take_due(Instant now);

 private:
  struct One {
    std::uint32_t times = 0;
    bool pending = false;
    Instant lifts_at{};
  };
  std::array<One, kNumbers> all_{};
  std::uint32_t any_ = 0;  // numbers in force
};

}  // namespace nvmf::host
