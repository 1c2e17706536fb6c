// Names and addresses: NQNs, UUIDs, and the URI of a subsystem.
// NVMe Base 2.1 §4.7 (NQN), RFC 4122 (UUID), NVMe Boot 1.0 §3 (URI).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "nvme/identify.h"
#include "nvme/result.h"

namespace nvmf::nvme {

inline constexpr std::size_t kMaxNqnBytes = 223;
/// The name under which every discovery controller answers.
inline constexpr std::string_view kDiscoveryNqn = "nqn.2014-08.org.nvmexpress.discovery";
inline constexpr std::uint16_t kDefaultPort = 4420;
inline constexpr std::uint16_t kDefaultDiscoveryPort = 8009;

/// Whether `nqn` may be used as a name: "nqn.YYYY-MM.reverse.domain[:anything]" or
/// "nqn.2014-08.org.nvmexpress:uuid:UUID", 1 to 223 bytes of UTF-8 without control characters or
/// spaces. The error says which rule is broken.
Result<void> check_nqn(std::string_view nqn);
/// For names that a peer uses: any text that is 1 to 223 bytes of UTF-8 without control characters.
/// Linux asks no more, and targets are named in every way.
bool usable_nqn(std::string_view nqn);
/// "nqn.2014-08.org.nvmexpress:uuid:" and the UUID.
std::string uuid_nqn(const Uuid& uuid);
/// The UUID in an NQN of that form.
std::optional<Uuid> uuid_of_nqn(std::string_view nqn);

/// "01234567-89ab-cdef-0123-456789abcdef", either case, with or without "urn:uuid:".
Result<Uuid> parse_uuid(std::string_view text);
std::string format_uuid(const Uuid& uuid);  // lower case
/// Version 4, from the system's random numbers.
Uuid random_uuid();
/// Bytes as lower-case hexadecimal, in order: NGUID and EUI64 as nvme-cli prints them.
std::string format_hex(std::span<const std::byte> bytes);
/// 16 (EUI64) or 32 (NGUID) digits and so on; nothing if a character is no digit or one is left.
std::optional<std::vector<std::byte>> parse_hex(std::string_view text);

/// Which namespace of a subsystem: by number or by one of its names. Uuid and Nguid are one type to
/// the compiler, so ask index(): 0 none, 1 NSID, 2 UUID, 3 NGUID, 4 EUI64.
using NamespaceSelector = std::variant<std::monostate, std::uint32_t, Uuid, Nguid, Eui64>;

/// nvme+tcp://HOST[:PORT]/SUBNQN[/NSID | /urn:uuid:UUID | /NGUID | /EUI64]
///
/// The NQN may be empty or missing: then it is the discovery NQN. NGUID is 32 hexadecimal digits,
/// EUI64 16; an NSID is decimal or 0x hexadecimal, 1 to FFFFFFFEh. Percent escapes are decoded in
/// host, NQN and namespace.
struct TargetUri {
  std::string host;  // a name or address; IPv6 without brackets, with its %zone if it has one
  std::uint16_t port = kDefaultPort;
  std::string subnqn;
  NamespaceSelector namespace_selector;

  [[nodiscard]] bool is_discovery() const { return subnqn == kDiscoveryNqn; }
  /// The error names the text and the part of it that is wrong.
  static Result<TargetUri> parse(std::string_view text);
  /// A URI that parse() reads back to the same value. The port is always written.
  [[nodiscard]] std::string to_string() const;
  friend bool operator==(const TargetUri&, const TargetUri&) = default;
};
/// Whether text looks like a URI of ours (a scheme of nvme+...), to tell it from a name.
bool looks_like_uri(std::string_view text);

/// HOST:PORT, [IPv6]:PORT: for --listen and messages. Port 0 is allowed.
struct HostPort {
  std::string host;
  std::uint16_t port = 0;
  /// A missing port is `default_port`, an error if that is nothing.
  static Result<HostPort> parse(std::string_view text,
                                std::optional<std::uint16_t> default_port = std::nullopt);
  [[nodiscard]] std::string to_string() const;
  friend bool operator==(const HostPort&, const HostPort&) = default;
};

}  // namespace nvmf::nvme
