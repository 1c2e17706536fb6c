// What the simulator writes: every granule says which request wrote it, and where.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

#include "simulator/checker.h"

namespace nvmf::simulator {

/// Repeated through the granule, so that no part of another one goes unnoticed.
struct Stamp {
  Id id = 0;
  std::uint32_t granule = 0;  // of its namespace
  std::uint32_t disk = 0;     // which disk this is meant for
  std::uint32_t check = 0;
};
inline constexpr std::size_t kStampBytes = sizeof(Stamp);

inline std::uint32_t check_of(const Stamp& s) {
  std::uint64_t x = (std::uint64_t{s.id} << 32 | s.granule) ^ (std::uint64_t{s.disk} << 17);
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9U;
  return static_cast<std::uint32_t>(x ^ x >> 29) | 1U;
}

/// `place` is one granule.
inline void put_stamp(std::span<std::byte> place, Id id, std::size_t granule, std::uint32_t disk) {
  Stamp s{.id = id, .granule = static_cast<std::uint32_t>(granule), .disk = disk};
  s.check = check_of(s);
  for (std::size_t at = 0; at < place.size(); at += kStampBytes) {
    std::memcpy(place.data() + at, &s, kStampBytes);
  }
}

/// The id in a granule, 0 for zeroes; nothing if no request can have left it like that.
inline std::optional<Id> read_stamp(std::span<const std::byte> place, std::size_t granule,
                                    std::uint32_t disk) {
  Stamp s;
  std::memcpy(&s, place.data(), kStampBytes);
  for (std::size_t at = kStampBytes; at < place.size(); at += kStampBytes) {
    if (std::memcmp(place.data(), place.data() + at, kStampBytes) != 0) return std::nullopt;
  }
  if (s.id == 0 && s.granule == 0 && s.disk == 0 && s.check == 0) return Id{0};
  if (s.id == 0 || s.granule != granule || s.disk != disk || s.check != check_of(s)) {
    return std::nullopt;
  }
  return s.id;
}

}  // namespace nvmf::simulator
