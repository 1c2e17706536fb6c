#include "nvme/hex_dump.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace nvmf::nvme {

std::string hex_dump(std::span<const std::byte> bytes) {
  constexpr std::size_t kWidth = 16;
  std::string out = "     ";
  for (std::size_t column = 0; column < kWidth; ++column) {
    fmt::format_to(std::back_inserter(out), "{:3x}", column);
  }
  for (std::size_t at = 0; at < bytes.size(); at += kWidth) {
    const auto line = bytes.subspan(at, std::min(kWidth, bytes.size() - at));
    fmt::format_to(std::back_inserter(out), "\n{:04x}:", at);
    std::string ascii;
    for (const std::byte b : line) {
      const auto value = std::to_integer<unsigned>(b);
      fmt::format_to(std::back_inserter(out), " {:02x}", value);
      ascii.push_back(value >= '!' && value <= '~' ? static_cast<char>(value) : '.');
    }
    if (line.size() < kWidth) out.append(1 + 3 * (kWidth - line.size()), ' ');
    fmt::format_to(std::back_inserter(out), " \"{}\"", ascii);
  }
  out.push_back('\n');
  return out;
}

}  // namespace nvmf::nvme
