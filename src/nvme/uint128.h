// A 128-bit unsigned integer, as capacities and health counters are. NVMe Base 2.1 §5.1.13,
// §5.1.12.1.3.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace nvmf::nvme {

struct Uint128 {
  std::uint64_t low = 0;
  std::uint64_t high = 0;

  /// Decimal digits, without separators.
  [[nodiscard]] std::string to_string() const;
  /// The nearest double, for prints that round.
  [[nodiscard]] double to_double() const;

  friend constexpr bool operator==(const Uint128&, const Uint128&) = default;
};

}  // namespace nvmf::nvme
