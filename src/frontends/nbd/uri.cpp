#include "frontends/nbd/uri.h"

#include <cctype>

namespace nvmf::nbd {
namespace {

// RFC 3986: unreserved characters stand for themselves; '/' may too, in a path and in a query.
std::string percent_encode(std::string_view text) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = byte < 0x80 && (std::isalnum(byte) != 0 || c == '-' || c == '.' ||
                                       c == '_' || c == '~' || c == '/');
    if (plain) {
      out += c;
    } else {
      out += '%';
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return out;
}

}  // namespace

std::string uri(const transport::Endpoint& at, std::string_view export_name) {
  const std::string name = percent_encode(export_name);
  if (at.is_unix()) return "nbd+unix:///" + name + "?socket=" + percent_encode(at.unix_path);
  return "nbd://" + at.to_string() + "/" + name;
}

}  // namespace nvmf::nbd
