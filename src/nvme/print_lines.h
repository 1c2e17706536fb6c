// Lines of text in nvme-cli's layout. For the .cpp files of this room that print.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>

#include "nvme/text.h"

namespace nvmf::nvme {

/// As C's %#x: 0 has no prefix.
template <class T>
std::string c_hex(T value) {
  return value == 0 ? "0" : fmt::format("{:#x}", value);
}

/// Appends "name   : value" lines; names are padded to `width`.
class Lines {
 public:
  explicit Lines(int width) : width_(width) {}

  void text(std::string_view name, std::string_view value) {
    fmt::format_to(std::back_inserter(out_), "{:<{}}: {}\n", name, width_, value);
  }
  template <class T>
  void dec(std::string_view name, T value) {
    text(name, fmt::format("{}", value));
  }
  template <class T>
  void hex(std::string_view name, T value) {
    text(name, c_hex(value));
  }
  /// A field of the structure, with its padding.
  void padded(std::string_view name, std::string_view value, int field_width) {
    text(name, fmt::format("{:<{}}", printable(value), field_width));
  }
  template <class... Args>
  void raw(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(out_), format, std::forward<Args>(args)...);
  }
  std::string take() { return std::move(out_); }

 private:
  int width_;
  std::string out_;
};

/// nvme-cli 2.3 prints a few unsigned fields with %d. Scripts that compare the two outputs find
/// the same digits here.
inline std::int32_t as_printed(std::uint32_t value) {
  return static_cast<std::int32_t>(value);
}

}  // namespace nvmf::nvme
