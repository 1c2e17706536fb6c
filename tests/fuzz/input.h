// A fuzzer's input, read as decisions: the front of the bytes is taken, and what is missing is 0.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "nvme/check.h"

namespace nvmf::fuzz {

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : rest_(data, size) {}

  [[nodiscard]] bool empty() const { return rest_.empty(); }
  std::uint8_t u8() {
    if (rest_.empty()) return 0;
    const std::uint8_t v = rest_.front();
    rest_ = rest_.subspan(1);
    return v;
  }
  std::uint16_t u16() {
    const std::uint8_t low = u8();
    return static_cast<std::uint16_t>(low | u8() << 8);
  }
  std::uint32_t u32() {
    const std::uint32_t low = u16();
    return low | static_cast<std::uint32_t>(u16()) << 16;
  }
  bool flag() { return (u8() & 1) != 0; }
  /// 0 to n - 1.
  std::size_t below(std::size_t n) { return u8() % n; }
  template <class T, std::size_t N>
  T one_of(const T (&of)[N]) {
    return of[below(N)];
  }
  /// At most `n` bytes, fewer at the end.
  std::vector<std::byte> bytes(std::size_t n) {
    n = std::min(n, rest_.size());
    std::vector<std::byte> out(n);
    for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<std::byte>(rest_[i]);
    rest_ = rest_.subspan(n);
    return out;
  }

 private:
  std::span<const std::uint8_t> rest_;
};

/// The byte at `at` of content number `seed`: data that shows when it is in the wrong place.
inline std::byte pattern(std::uint64_t seed, std::uint64_t at) {
  std::uint64_t x = (seed << 32 ^ at) * 0x9e3779b97f4a7c15U;
  x ^= x >> 29;
  return static_cast<std::byte>(x * 0xbf58476d1ce4e5b9U >> 56);
}

}  // namespace nvmf::fuzz
