#include "nvme/uint128.h"

#include <algorithm>
#include <cmath>

namespace nvmf::nvme {

std::string Uint128::to_string() const {
  // Long division by 10^9 in 32-bit limbs: no 128-bit type that every compiler has.
  constexpr std::uint64_t kChunk = 1'000'000'000;
  std::uint32_t limbs[4] = {static_cast<std::uint32_t>(high >> 32),
                            static_cast<std::uint32_t>(high), static_cast<std::uint32_t>(low >> 32),
                            static_cast<std::uint32_t>(low)};
  std::string reversed;
  while (std::ranges::any_of(limbs, [](std::uint32_t limb) { return limb != 0; })) {
    std::uint64_t remainder = 0;
    for (std::uint32_t& limb : limbs) {
      const std::uint64_t part = remainder << 32 | limb;
      limb = static_cast<std::uint32_t>(part / kChunk);
      remainder = part % kChunk;
    }
    for (int digit = 0; digit < 9; ++digit) {
      reversed.push_back(static_cast<char>('0' + remainder % 10));
      remainder /= 10;
    }
  }
  while (!reversed.empty() && reversed.back() == '0') reversed.pop_back();
  if (reversed.empty()) return "0";
  return {reversed.rbegin(), reversed.rend()};
}

double Uint128::to_double() const {
  return std::ldexp(static_cast<double>(high), 64) + static_cast<double>(low);
}

}  // namespace nvmf::nvme
