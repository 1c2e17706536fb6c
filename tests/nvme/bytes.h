// Bytes for tests: written down at the offsets of the specification, never by the code under test.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <random>
#include <span>
#include <string_view>
#include <vector>

namespace nvmf::test {

/// A buffer of zeroes in which fields are put, least significant byte first.
class Bytes {
 public:
  explicit Bytes(std::size_t size) : data_(size) {}

  Bytes& put(std::size_t offset, std::initializer_list<int> values) {
    for (const int value : values) data_.at(offset++) = static_cast<std::byte>(value);
    return *this;
  }
  Bytes& text(std::size_t offset, std::size_t width, std::string_view value, char pad) {
    for (std::size_t i = 0; i < width; ++i) {
      data_.at(offset + i) = static_cast<std::byte>(i < value.size() ? value[i] : pad);
    }
    return *this;
  }

  [[nodiscard]] std::span<const std::byte> span() const { return data_; }
  [[nodiscard]] const std::vector<std::byte>& vector() const { return data_; }

 private:
  std::vector<std::byte> data_;
};

inline std::vector<std::byte> random_bytes(std::size_t size, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> out(size);
  std::ranges::generate(out, [&] { return static_cast<std::byte>(random()); });
  return out;
}

/// What encode() writes, starting from a buffer full of something else: it must leave nothing of
/// it.
template <std::size_t N, class T>
std::vector<std::byte> encoded(const T& value) {
  std::vector<std::byte> out(N, std::byte{0xa5});
  value.encode(std::span<std::byte, N>(out.data(), N));
  return out;
}

}  // namespace nvmf::test
