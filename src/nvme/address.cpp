#include "nvme/address.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "nvme/check.h"
#include "nvme/text.h"

namespace nvmf::nvme {
namespace {

constexpr std::string_view kUuidNqnPrefix = "nqn.2014-08.org.nvmexpress:uuid:";
constexpr std::string_view kUrnUuid = "urn:uuid:";
constexpr std::string_view kScheme = "nvme+tcp";

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

int hex_digit(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool starts_with_no_case(std::string_view text, std::string_view prefix) {
  return text.size() >= prefix.size() &&
         std::ranges::equal(text.substr(0, prefix.size()), prefix, {}, lower, lower);
}

bool all_digits(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, is_digit);
}

bool all_hex(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return hex_digit(c) >= 0; });
}

bool has_control(std::string_view text) {
  return std::ranges::any_of(text, [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 0x20 || byte == 0x7f;
  });
}

/// What is wrong with a name by the rules that Linux has too; empty if nothing.
std::string_view unusable_because(std::string_view nqn) {
  if (nqn.empty()) return "is empty";
  if (nqn.size() > kMaxNqnBytes) return "is longer than 223 bytes";
  if (has_control(nqn)) return "contains a control character";
  if (!valid_utf8(nqn)) return "is not UTF-8";
  return {};
}

/// "YYYY-MM." with a month of 01 to 12.
bool starts_with_date(std::string_view text) {
  if (text.size() < 8 || text[4] != '-' || text[7] != '.') return false;
  if (!all_digits(text.substr(0, 4)) || !all_digits(text.substr(5, 2))) return false;
  const int month = (text[5] - '0') * 10 + (text[6] - '0');
  return month >= 1 && month <= 12;
}

/// Parses all of `text` as a decimal or 0x number; nothing if it is none or too large.
std::optional<std::uint64_t> parse_number(std::string_view text) {
  int base = 10;
  if (starts_with_no_case(text, "0x")) {
    base = 16;
    text.remove_prefix(2);
  }
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// Decodes %XX. Nothing if an escape is cut short or not hexadecimal, or stands for NUL.
std::optional<std::string> percent_decode(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    if (text.size() - i < 3) return std::nullopt;
    const int high = hex_digit(text[i + 1]);
    const int low = hex_digit(text[i + 2]);
    if (high < 0 || low < 0 || (high == 0 && low == 0)) return std::nullopt;
    out.push_back(static_cast<char>(high * 16 + low));
    i += 2;
  }
  return out;
}

/// Escapes whatever RFC 3986 does not allow in a path segment.
std::string percent_encode(std::string_view text) {
  constexpr std::string_view kPlain = "-._~!$&'()*+,;=:@";
  std::string out;
  for (const char c : text) {
    const bool letter = lower(c) >= 'a' && lower(c) <= 'z';
    if (letter || is_digit(c) || kPlain.contains(c)) {
      out.push_back(c);
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

std::unexpected<Error> bad_uri(std::string_view text, std::string_view why) {
  return fail(
      fmt::format("The address \"{}\" {}; it is written nvme+tcp://HOST[:PORT]/SUBNQN[/NSID]",
                  printable(text), why),
      EINVAL);
}

/// What is wrong with a host name or address, empty if nothing.
std::string_view bad_host_because(std::string_view host) {
  if (host.empty()) return "names no host";
  if (host.size() > 255) return "has a host name longer than 255 bytes";
  const bool plain = std::ranges::all_of(host, [](char c) {
    return (lower(c) >= 'a' && lower(c) <= 'z') || is_digit(c) || c == '-' || c == '.' || c == '_';
  });
  return plain ? std::string_view{} : "has a character in its host name that no host name has";
}

bool valid_ipv6(std::string_view host) {
  const std::size_t zone = host.find('%');
  if (zone != std::string_view::npos) {
    const std::string_view name = host.substr(zone + 1);
    if (name.empty() || has_control(name) || name.contains('/') || name.contains('%')) return false;
  }
  in6_addr address{};
  return inet_pton(AF_INET6, std::string(host.substr(0, zone)).c_str(), &address) == 1;
}

struct Authority {
  std::string host;
  std::optional<std::uint16_t> port;
};

/// The words that follow "The address ..." when something is wrong.
using Wrong = std::string;

std::expected<std::optional<std::uint16_t>, Wrong> parse_port(std::string_view text) {
  if (text.empty()) return std::unexpected("has a colon but no port after it");
  const auto port = all_digits(text) ? parse_number(text) : std::nullopt;
  if (!port || *port > 65535) {
    return std::unexpected(
        fmt::format("has \"{}\" for a port, which is not 0 to 65535", printable(text)));
  }
  return static_cast<std::uint16_t>(*port);
}

std::expected<Authority, Wrong> parse_ipv6_authority(std::string_view text) {
  const std::size_t close = text.find(']');
  if (close == std::string_view::npos) return std::unexpected("has [ without ]");
  std::string_view inner = text.substr(1, close - 1);
  const std::string_view after = text.substr(close + 1);
  Authority out{.host = std::string(inner), .port = std::nullopt};
  // A zone is written %25eth0 (RFC 6874), and by people as %eth0.
  if (const std::size_t zone = inner.find("%25"); zone != std::string_view::npos) {
    const auto name = percent_decode(inner.substr(zone + 3));
    if (!name) return std::unexpected("has a broken % escape in its zone");
    out.host = fmt::format("{}%{}", inner.substr(0, zone), *name);
  }
  if (!valid_ipv6(out.host)) return std::unexpected("has no IPv6 address between [ and ]");
  if (after.empty()) return out;
  if (after[0] != ':') return std::unexpected("has something other than a port after ]");
  auto port = parse_port(after.substr(1));
  if (!port) return std::unexpected(port.error());
  out.port = *port;
  return out;
}

/// HOST, HOST:PORT, [IPv6] or [IPv6]:PORT.
std::expected<Authority, Wrong> parse_authority(std::string_view text) {
  if (text.contains('@')) return std::unexpected("names a user, which NVMe has none of");
  if (text.starts_with('[')) return parse_ipv6_authority(text);
  if (std::ranges::count(text, ':') > 1) {
    return std::unexpected("has an IPv6 address without brackets: write [ADDRESS]:PORT");
  }
  const std::size_t colon = text.find(':');
  const auto host = percent_decode(text.substr(0, colon));
  if (!host) return std::unexpected("has a broken % escape in its host");
  if (const std::string_view wrong = bad_host_because(*host); !wrong.empty()) {
    return std::unexpected(std::string(wrong));
  }
  Authority out{.host = *host, .port = std::nullopt};
  if (colon == std::string_view::npos) return out;
  auto port = parse_port(text.substr(colon + 1));
  if (!port) return std::unexpected(port.error());
  out.port = *port;
  return out;
}

template <std::size_t N>
std::array<std::byte, N> to_array(std::span<const std::byte> bytes) {
  NVMF_CHECK(bytes.size() == N);
  std::array<std::byte, N> out{};
  std::ranges::copy(bytes, out.begin());
  return out;
}

std::expected<NamespaceSelector, Wrong> parse_selector(std::string_view text) {
  if (text.empty()) return std::unexpected("ends in / where a namespace should be named");
  if (starts_with_no_case(text, kUrnUuid) || (text.size() == 36 && text.contains('-'))) {
    const auto uuid = parse_uuid(text);
    if (!uuid)
      return std::unexpected(
          fmt::format("names the namespace \"{}\", which is no UUID", printable(text)));
    return NamespaceSelector(std::in_place_index<2>, *uuid);
  }
  if (all_hex(text) && text.size() == 32) {
    return NamespaceSelector(std::in_place_index<3>, to_array<16>(*parse_hex(text)));
  }
  if (all_hex(text) && text.size() == 16) {
    return NamespaceSelector(std::in_place_index<4>, to_array<8>(*parse_hex(text)));
  }
  const auto nsid = parse_number(text);
  if (!nsid) {
    return std::unexpected(
        fmt::format("names the namespace \"{}\", which is no NSID, urn:uuid:UUID, NGUID or EUI64",
                    printable(text)));
  }
  if (*nsid == 0 || *nsid >= kNsidAll) {
    return std::unexpected(
        fmt::format("names namespace {}, but they go from 1 to 4294967294", printable(text)));
  }
  return NamespaceSelector(std::in_place_index<1>, static_cast<std::uint32_t>(*nsid));
}

// Uuid and Nguid are the same type: only the alternative's index tells them apart.
std::string format_selector(const NamespaceSelector& selector) {
  switch (selector.index()) {
    case 1:
      return fmt::format("/{}", std::get<1>(selector));
    case 2:
      return fmt::format("/{}{}", kUrnUuid, format_uuid(std::get<2>(selector)));
    case 3:
      return "/" + format_hex(std::get<3>(selector));
    case 4:
      return "/" + format_hex(std::get<4>(selector));
    default:
      return {};
  }
}

std::string format_host(std::string_view host) {
  if (!host.contains(':')) return std::string(host);
  const std::size_t zone = host.find('%');
  if (zone == std::string_view::npos) return fmt::format("[{}]", host);
  return fmt::format("[{}%25{}]", host.substr(0, zone), percent_encode(host.substr(zone + 1)));
}

}  // namespace

bool usable_nqn(std::string_view nqn) {
  return unusable_because(nqn).empty();
}

Result<void> check_nqn(std::string_view nqn) {
  const auto refuse = [nqn](std::string_view why) {
    return fail(
        fmt::format("The NQN \"{}\" {}; a name is written nqn.YYYY-MM.REVERSE.DOMAIN:NAME or "
                    "{}UUID",
                    printable(nqn), why, kUuidNqnPrefix),
        EINVAL);
  };
  if (const std::string_view why = unusable_because(nqn); !why.empty()) return refuse(why);
  if (nqn.contains(' ')) return refuse("contains a space");
  if (!nqn.starts_with("nqn.")) return refuse("does not begin with \"nqn.\"");
  const std::string_view rest = nqn.substr(4);
  if (!starts_with_date(rest)) return refuse("has no year and month after \"nqn.\"");
  const std::string_view domain = rest.substr(8, rest.substr(8).find(':'));
  if (domain.empty()) return refuse("has no domain after its date");
  if (nqn.starts_with(kUuidNqnPrefix) && !parse_uuid(nqn.substr(kUuidNqnPrefix.size()))) {
    return refuse("has no UUID after \"uuid:\"");
  }
  return {};
}

std::string uuid_nqn(const Uuid& uuid) {
  return std::string(kUuidNqnPrefix) + format_uuid(uuid);
}

std::optional<Uuid> uuid_of_nqn(std::string_view nqn) {
  if (!nqn.starts_with(kUuidNqnPrefix)) return std::nullopt;
  const auto uuid = parse_uuid(nqn.substr(kUuidNqnPrefix.size()));
  if (!uuid) return std::nullopt;
  return *uuid;
}

Result<Uuid> parse_uuid(std::string_view text) {
  std::string_view digits = text;
  if (starts_with_no_case(digits, kUrnUuid)) digits.remove_prefix(kUrnUuid.size());
  std::string hex;
  bool good = digits.size() == 36;
  for (std::size_t i = 0; good && i < digits.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash) {
      good = digits[i] == '-';
    } else {
      hex.push_back(digits[i]);
    }
  }
  const auto bytes = good ? parse_hex(hex) : std::nullopt;
  if (!bytes) {
    return fail(
        fmt::format("\"{}\" is no UUID; one looks like 01234567-89ab-cdef-0123-456789abcdef",
                    printable(text)),
        EINVAL);
  }
  return to_array<16>(*bytes);
}

std::string format_uuid(const Uuid& uuid) {
  const std::string hex = format_hex(uuid);
  const std::string_view h = hex;
  return fmt::format("{}-{}-{}-{}-{}", h.substr(0, 8), h.substr(8, 4), h.substr(12, 4),
                     h.substr(16, 4), h.substr(20));
}

Uuid random_uuid() {
  Uuid uuid{};
  // Fails only for more than 256 bytes or on a kernel older than 3.17.
  NVMF_CHECK(getentropy(uuid.data(), uuid.size()) == 0);
  uuid[6] = (uuid[6] & std::byte{0x0f}) | std::byte{0x40};  // version 4: RFC 4122 §4.4
  uuid[8] = (uuid[8] & std::byte{0x3f}) | std::byte{0x80};
  return uuid;
}

std::string format_hex(std::span<const std::byte> bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const std::byte b : bytes) out += fmt::format("{:02x}", static_cast<unsigned>(b));
  return out;
}

std::optional<std::vector<std::byte>> parse_hex(std::string_view text) {
  if (text.size() % 2 != 0) return std::nullopt;
  std::vector<std::byte> out;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    const int high = hex_digit(text[i]);
    const int low = hex_digit(text[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    out.push_back(static_cast<std::byte>(high * 16 + low));
  }
  return out;
}

bool looks_like_uri(std::string_view text) {
  return starts_with_no_case(text, "nvme+") && text.contains("://");
}

Result<TargetUri> TargetUri::parse(std::string_view text) {
  const std::size_t colon = text.find("://");
  if (colon == std::string_view::npos) return bad_uri(text, "has no nvme+tcp:// at its start");
  const std::string_view scheme = text.substr(0, colon);
  if (scheme.size() != kScheme.size() || !starts_with_no_case(scheme, kScheme)) {
    return bad_uri(text, fmt::format("is of scheme \"{}\", not nvme+tcp", printable(scheme)));
  }
  std::string_view rest = text.substr(colon + 3);
  if (rest.find_first_of("?#") != std::string_view::npos) {
    return bad_uri(text, "has a ? or #, which an address cannot have (write %3F or %23 in a name)");
  }
  const std::size_t slash = rest.find('/');
  auto authority = parse_authority(rest.substr(0, slash));
  if (!authority) return bad_uri(text, authority.error());
  if (authority->port == 0) return bad_uri(text, "has port 0, on which nothing can listen");

  const std::string_view path =
      slash == std::string_view::npos ? std::string_view{} : rest.substr(slash + 1);
  const std::size_t next = path.find('/');
  auto subnqn = percent_decode(path.substr(0, next));
  if (!subnqn) return bad_uri(text, "has a broken % escape in its NQN");
  if (subnqn->empty() && next != std::string_view::npos) return bad_uri(text, "has an empty NQN");
  if (subnqn->empty()) subnqn = kDiscoveryNqn;
  if (const std::string_view why = unusable_because(*subnqn); !why.empty()) {
    return bad_uri(text, fmt::format("has an NQN that {}", why));
  }

  TargetUri uri{.host = authority->host, .port = 0, .subnqn = *subnqn, .namespace_selector = {}};
  uri.port = authority->port.value_or(uri.is_discovery() ? kDefaultDiscoveryPort : kDefaultPort);
  if (next != std::string_view::npos) {
    const auto name = percent_decode(path.substr(next + 1));
    if (!name) return bad_uri(text, "has a broken % escape in its namespace");
    auto selector = parse_selector(*name);
    if (!selector) return bad_uri(text, selector.error());
    uri.namespace_selector = *selector;
  }
  return uri;
}

std::string TargetUri::to_string() const {
  return fmt::format("{}://{}:{}/{}{}", kScheme, format_host(host), port, percent_encode(subnqn),
                     format_selector(namespace_selector));
}

Result<HostPort> HostPort::parse(std::string_view text, std::optional<std::uint16_t> default_port) {
  const auto refuse = [text](std::string_view why) {
    return fail(fmt::format("The address \"{}\" {}; it is written HOST:PORT or [IPv6]:PORT",
                            printable(text), why),
                EINVAL);
  };
  auto authority = parse_authority(text);
  if (!authority) return refuse(authority.error());
  if (!authority->port && !default_port) return refuse("has no port");
  return HostPort{.host = authority->host,
                  .port = authority->port.value_or(default_port.value_or(0))};
}

std::string HostPort::to_string() const {
  if (host.contains(':')) return fmt::format("[{}]:{}", host, port);
  return fmt::format("{}:{}", host, port);
}

}  // namespace nvmf::nvme
