// One list of fields for both directions.
//
// A structure's fields and their offsets are named once, in a function template over a visitor:
// with a FieldReader it decodes, with a FieldWriter it encodes. So the two can't disagree. For the
// .cpp files of this room.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include "nvme/check.h"
#include "nvme/endian.h"
#include "nvme/identify.h"
#include "nvme/uint128.h"

namespace nvmf::nvme {

template <class T>
concept FieldEnum = std::is_enum_v<T>;

/// Reads fields out of bytes. Offsets are ours, so one beyond the bytes is our own mistake.
class FieldReader {
 public:
  FieldReader(std::span<const std::byte> in, std::size_t needed) : in_(in) {
    NVMF_CHECK(in.size() >= needed);
  }

  template <std::unsigned_integral T>
  void operator()(std::size_t offset, T& field) const {
    field = load_le<T>(at(offset, sizeof(T)));
  }
  template <FieldEnum T>
  void operator()(std::size_t offset, T& field) const {
    field = static_cast<T>(
        load_le<std::make_unsigned_t<std::underlying_type_t<T>>>(at(offset, sizeof(T))));
  }
  void operator()(std::size_t offset, Uint128& field) const {
    field = {.low = load_le64(at(offset, 8)), .high = load_le64(at(offset + 8, 8))};
  }
  template <std::size_t N>
  void operator()(std::size_t offset, std::array<std::byte, N>& field) const {
    std::copy_n(at(offset, N), N, field.begin());
  }
  template <std::unsigned_integral T, std::size_t N>
  void operator()(std::size_t offset, std::array<T, N>& field) const {
    for (std::size_t i = 0; i < N; ++i) (*this)(offset + i * sizeof(T), field[i]);
  }
  void u24(std::size_t offset, std::uint32_t& field) const {
    const std::byte* p = at(offset, 3);
    field = load_le16(p) | static_cast<std::uint32_t>(load_u8(p + 2)) << 16;
  }
  void text(std::size_t offset, std::size_t width, char pad, std::string& field) const {
    field = load_text({at(offset, width), width}, pad);
  }

 private:
  [[nodiscard]] const std::byte* at(std::size_t offset, std::size_t size) const {
    NVMF_CHECK(offset + size <= in_.size());
    return in_.data() + offset;
  }

  std::span<const std::byte> in_;
};

/// Writes fields into bytes, which it clears first.
class FieldWriter {
 public:
  explicit FieldWriter(std::span<std::byte> out) : out_(out) {
    std::ranges::fill(out_, std::byte{0});
  }

  template <std::unsigned_integral T>
  void operator()(std::size_t offset, const T& field) const {
    store_le(at(offset, sizeof(T)), field);
  }
  template <FieldEnum T>
  void operator()(std::size_t offset, const T& field) const {
    using Raw = std::make_unsigned_t<std::underlying_type_t<T>>;
    store_le(at(offset, sizeof(T)), static_cast<Raw>(std::to_underlying(field)));
  }
  void operator()(std::size_t offset, const Uint128& field) const {
    store_le64(at(offset, 8), field.low);
    store_le64(at(offset + 8, 8), field.high);
  }
  template <std::size_t N>
  void operator()(std::size_t offset, const std::array<std::byte, N>& field) const {
    std::ranges::copy(field, at(offset, N));
  }
  template <std::unsigned_integral T, std::size_t N>
  void operator()(std::size_t offset, const std::array<T, N>& field) const {
    for (std::size_t i = 0; i < N; ++i) (*this)(offset + i * sizeof(T), field[i]);
  }
  void u24(std::size_t offset, const std::uint32_t& field) const {
    std::byte* p = at(offset, 3);
    store_le16(p, static_cast<std::uint16_t>(field));
    store_u8(p + 2, static_cast<std::uint8_t>(field >> 16));
  }
  void text(std::size_t offset, std::size_t width, char pad, const std::string& field) const {
    store_text({at(offset, width), width}, field, pad);
  }

 private:
  [[nodiscard]] std::byte* at(std::size_t offset, std::size_t size) const {
    NVMF_CHECK(offset + size <= out_.size());
    return out_.data() + offset;
  }

  std::span<std::byte> out_;
};

}  // namespace nvmf::nvme
