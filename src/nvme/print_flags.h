// Fields of flags, put into words one group of bits a line. For the .cpp files of this room.
#pragma once

#include <cstdint>
#include <string_view>

#include "nvme/print_lines.h"

namespace nvmf::nvme {

/// Lines such as "  [3:3] : 0x1<tab>ANA supported" below a field. nvme-cli 2.3 does not indent all
/// of them alike nor always put a space before the colon; scripts that compare find the same here.
class Flags {
 public:
  Flags(Lines& out, std::uint32_t value) : out_(out), value_(value) {}

  /// Bits high:low of the field.
  [[nodiscard]] std::uint32_t bits(unsigned high, unsigned low) const {
    const unsigned width = high - low + 1;
    const std::uint32_t mask = width >= 32 ? ~0u : (1u << width) - 1;
    return value_ >> low & mask;
  }

  struct Style {
    int indent = 2;
    std::string_view colon = " :";
  };

  void line(unsigned high, unsigned low, std::uint32_t shown, std::string_view words) {
    line(high, low, shown, words, Style());
  }
  void line(unsigned high, unsigned low, std::uint32_t shown, std::string_view words, Style style) {
    out_.raw("{:{}}[{}:{}]{} {}\t{}\n", "", style.indent, high, low, style.colon, c_hex(shown),
             words);
  }
  /// A group of bits with one name, whatever its value.
  void named(unsigned high, unsigned low, std::string_view name) {
    line(high, low, bits(high, low), name);
  }
  /// Only shown where not all of them are 0.
  void reserved(unsigned high, unsigned low) { reserved(high, low, Style()); }
  void reserved(unsigned high, unsigned low, Style style) {
    if (const std::uint32_t shown = bits(high, low); shown != 0) {
      line(high, low, shown, "Reserved", style);
    }
  }
  void choice(unsigned bit, std::string_view clear, std::string_view set) {
    choice(bit, clear, set, Style());
  }
  void choice(unsigned bit, std::string_view clear, std::string_view set, Style style) {
    const std::uint32_t shown = bits(bit, bit);
    line(bit, bit, shown, shown != 0 ? set : clear, style);
  }
  /// "NAME Supported" or "NAME Not Supported".
  void supported(unsigned bit, std::string_view name) { supported(bit, name, Style()); }
  void supported(unsigned bit, std::string_view name, Style style) {
    const std::uint32_t shown = bits(bit, bit);
    line(bit, bit, shown, fmt::format("{} {}Supported", name, shown != 0 ? "" : "Not "), style);
  }
  /// The empty line that ends most groups.
  void end() { out_.raw("\n"); }

 private:
  Lines& out_;
  std::uint32_t value_;
};

}  // namespace nvmf::nvme
