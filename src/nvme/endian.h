// Little-endian (and for NBD big-endian) loads and stores, byte by byte.
//
// Everything on the wire goes through these: no packed structs, no casts of buffers. Compilers turn
// each into one move.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>

namespace nvmf {

template <std::unsigned_integral T>
constexpr T load_le(const std::byte* p) {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    value = static_cast<T>(value | static_cast<T>(static_cast<T>(p[i]) << (8 * i)));
  }
  return value;
}

template <std::unsigned_integral T>
constexpr void store_le(std::byte* p, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) p[i] = static_cast<std::byte>(value >> (8 * i));
}

template <std::unsigned_integral T>
constexpr T load_be(const std::byte* p) {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    value =
        static_cast<T>(value | static_cast<T>(static_cast<T>(p[i]) << (8 * (sizeof(T) - 1 - i))));
  }
  return value;
}

template <std::unsigned_integral T>
constexpr void store_be(std::byte* p, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    p[i] = static_cast<std::byte>(value >> (8 * (sizeof(T) - 1 - i)));
  }
}

constexpr std::uint8_t load_u8(const std::byte* p) {
  return static_cast<std::uint8_t>(*p);
}
constexpr std::uint16_t load_le16(const std::byte* p) {
  return load_le<std::uint16_t>(p);
}
constexpr std::uint32_t load_le32(const std::byte* p) {
  return load_le<std::uint32_t>(p);
}
constexpr std::uint64_t load_le64(const std::byte* p) {
  return load_le<std::uint64_t>(p);
}
constexpr void store_u8(std::byte* p, std::uint8_t v) {
  *p = static_cast<std::byte>(v);
}
constexpr void store_le16(std::byte* p, std::uint16_t v) {
  store_le(p, v);
}
constexpr void store_le32(std::byte* p, std::uint32_t v) {
  store_le(p, v);
}
constexpr void store_le64(std::byte* p, std::uint64_t v) {
  store_le(p, v);
}
constexpr std::uint16_t load_be16(const std::byte* p) {
  return load_be<std::uint16_t>(p);
}
constexpr std::uint32_t load_be32(const std::byte* p) {
  return load_be<std::uint32_t>(p);
}
constexpr std::uint64_t load_be64(const std::byte* p) {
  return load_be<std::uint64_t>(p);
}
constexpr void store_be16(std::byte* p, std::uint16_t v) {
  store_be(p, v);
}
constexpr void store_be32(std::byte* p, std::uint32_t v) {
  store_be(p, v);
}
constexpr void store_be64(std::byte* p, std::uint64_t v) {
  store_be(p, v);
}

}  // namespace nvmf
