#include "host/same_namespace.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <string>
#include <string_view>

namespace nvmf::host {

namespace {

constexpr std::string_view kUuid = "UUID";

std::unexpected<Error> other_disk(const Namespace& now, std::string_view why) {
  return fail(
      fmt::format("namespace {} is not the disk that it was before: {}", now.info.nsid, why),
      ESTALE);
}

/// One of the three ways to tell a namespace from all others. Zeroes stand for none.
struct Identifier {
  std::string_view name;
  std::span<const std::byte> before, now;

  static bool known(std::span<const std::byte> id) {
    return std::ranges::any_of(id, [](std::byte b) { return b != std::byte{0}; });
  }
  [[nodiscard]] bool known_before() const { return known(before); }
  [[nodiscard]] bool known_now() const { return known(now); }
  [[nodiscard]] bool same() const { return std::ranges::equal(before, now); }
  static std::string text(std::string_view name, std::span<const std::byte> id) {
    if (name != kUuid) return nvme::format_hex(id);
    nvme::Uuid uuid{};
    std::ranges::copy(id, uuid.begin());
    return nvme::format_uuid(uuid);
  }
};

std::span<const std::byte> bytes_of(const std::optional<nvme::Uuid>& uuid) {
  return uuid ? std::span<const std::byte>(*uuid) : std::span<const std::byte>();
}

std::string known_identifiers(std::span<const Identifier> all, bool before) {
  std::string text;
  for (const Identifier& id : all) {
    const auto value = before ? id.before : id.now;
    if (!Identifier::known(value)) continue;
    fmt::format_to(std::back_inserter(text), "{}{} {}", text.empty() ? "" : ", ", id.name,
                   Identifier::text(id.name, value));
  }
  return text.empty() ? "none" : text;
}

Result<void> same_without_identifiers(const Namespace& before, const Namespace& now, bool weak) {
  if (!weak) {
    return other_disk(now,
                      "the target gives it no UUID, NGUID or EUI64 by which that could be told "
                      "(set one there, or pass --weak-identity to go by serial number and size)");
  }
  if (before.serial.empty() || before.serial != now.serial) {
    return other_disk(now, fmt::format("the controller's serial number was \"{}\" and is \"{}\"",
                                       before.serial, now.serial));
  }
  if (before.blocks != now.blocks) {
    return other_disk(now, fmt::format("it had {} blocks and has {}, and it has no identifier",
                                       before.blocks, now.blocks));
  }
  return {};
}

Result<void> same_identifiers(const Namespace& before, const Namespace& now, bool weak) {
  const Identifier all[] = {
      {kUuid, bytes_of(before.uuid), bytes_of(now.uuid)},
      {"NGUID", before.nguid, now.nguid},
      {"EUI64", before.eui64, now.eui64},
  };
  bool on_both = false;
  for (const Identifier& id : all) {
    if (!id.known_before() || !id.known_now()) continue;
    on_both = true;
    if (id.same()) continue;
    return other_disk(
        now, fmt::format("its {} was {} and is {}", id.name, Identifier::text(id.name, id.before),
                         Identifier::text(id.name, id.now)));
  }
  if (on_both) return {};
  const bool none = std::ranges::none_of(
      all, [](const Identifier& id) { return id.known_before() || id.known_now(); });
  if (none) return same_without_identifiers(before, now, weak);
  return other_disk(now, fmt::format("its identifiers were {} and are {}, with none in common",
                                     known_identifiers(all, true), known_identifiers(all, false)));
}

std::string metadata(const Namespace& ns) {
  if (ns.metadata_bytes == 0 && ns.protection_type == 0) return "no metadata";
  return fmt::format("{} bytes of metadata per block {} the data, protection type {}",
                     ns.metadata_bytes, ns.metadata_with_data ? "with" : "apart from",
                     ns.protection_type);
}

bool same_metadata(const Namespace& a, const Namespace& b) {
  return a.metadata_bytes == b.metadata_bytes && a.metadata_with_data == b.metadata_with_data &&
         a.protection_type == b.protection_type;
}

}  // namespace

Result<void> same_namespace(const Namespace& before, const Namespace& now, bool weak) {
  if (before.subnqn != now.subnqn) {
    return other_disk(
        now, fmt::format("the subsystem was \"{}\" and is \"{}\"", before.subnqn, now.subnqn));
  }
  if (auto ok = same_identifiers(before, now, weak); !ok) return ok;
  if (before.csi != now.csi) {
    return other_disk(
        now, fmt::format("its command set was {} and is {}", static_cast<unsigned>(before.csi),
                         static_cast<unsigned>(now.csi)));
  }
  if (before.block_shift != now.block_shift) {
    return other_disk(now, fmt::format("its blocks had {} bytes and have {}",
                                       std::uint64_t{1} << before.block_shift,
                                       std::uint64_t{1} << now.block_shift));
  }
  if (!same_metadata(before, now)) {
    return other_disk(now,
                      fmt::format("its format had {} and has {}", metadata(before), metadata(now)));
  }
  if (now.blocks < before.blocks) {
    return other_disk(now,
                      fmt::format("it had {} blocks and has only {}", before.blocks, now.blocks));
  }
  return {};
}

}  // namespace nvmf::host
