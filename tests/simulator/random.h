// Chance from a seed: the same everywhere, and as many independent sources as are wanted.
#pragma once

#include <cstdint>

#include "transport/timer.h"

namespace nvmf::simulator {

/// SplitMix64.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t x = state_ += 0x9e3779b97f4a7c15U;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9U;
    x = (x ^ x >> 27) * 0x94d049bb133111ebU;
    return x ^ x >> 31;
  }
  /// 0 to n - 1.
  std::uint64_t below(std::uint64_t n) { return n == 0 ? 0 : next() % n; }
  /// From `least` to `most`, both included.
  std::uint64_t between(std::uint64_t least, std::uint64_t most) {
    return least + below(most - least + 1);
  }
  Duration between(Duration least, Duration most) {
    return least + Duration(static_cast<std::int64_t>(
                       below(static_cast<std::uint64_t>((most - least).count()) + 1)));
  }
  bool percent(unsigned chance) { return below(100) < chance; }
  /// Another source, independent of what this one gives from here on.
  Random fork() { return Random(next() ^ 0x5851f42d4c957f2dU); }
  template <class T, std::size_t n>
  const T& one_of(const T (&these)[n]) {
    return these[below(n)];
  }

 private:
  std::uint64_t state_;
};

}  // namespace nvmf::simulator
