#include "controller/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <set>

#include "controller/nbd_link.h"
#include "nvme/text.h"

namespace nvmf::controller {

namespace {

bool takes_block_size(std::uint64_t bytes) {
  return bytes == 512 || bytes == 4096;
}

Result<void> check_serial(const std::string& serial, const std::string& nqn) {
  const bool printable =
      std::ranges::all_of(serial, [](unsigned char c) { return c >= 0x20 && c <= 0x7e; });
  if (serial.size() <= 20 && printable) return {};
  return fail(fmt::format("The serial number '{}' of {} must be at most 20 printable ASCII "
                          "characters",
                          nvme::printable(serial), nqn),
              EINVAL);
}

bool digits_below_256(std::string_view text) {
  unsigned value = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && rest == text.data() + text.size() && text.size() <= 3 &&
         value <= 255;
}

bool numeric_address(std::string_view host) {
  if (host.find(':') != std::string_view::npos) {
    return host.find_first_not_of("0123456789abcdefABCDEF:.") == std::string_view::npos;
  }
  for (int part = 0; part < 4; ++part) {
    const auto dot = host.find('.');
    if ((dot == std::string_view::npos) != (part == 3)) return false;
    if (!digits_below_256(host.substr(0, dot))) return false;
    host.remove_prefix(dot == std::string_view::npos ? host.size() : dot + 1);
  }
  return true;
}

}  // namespace

Result<void> check_ana_group(const NamespaceConfig& ns, std::uint32_t groups,
                             const std::string& subnqn) {
  if (ns.ana_group >= 1 && ns.ana_group <= std::max(groups, 1u)) return {};
  return fail(groups == 0
                  ? fmt::format("The subsystem {} has no ANA groups: say how many (--ana) before "
                                "one of its namespaces is in group {}",
                                subnqn, ns.ana_group)
                  : fmt::format("The subsystem {} has no ANA group {}: its groups are 1 to {}",
                                subnqn, ns.ana_group, groups),
              EINVAL);
}

Result<void> check_subsystem(const SubsystemConfig& subsystem) {
  if (auto good = nvme::check_nqn(subsystem.nqn); !good) return good;
  if (subsystem.nqn == nvme::kDiscoveryNqn) {
    return fail(fmt::format("{} is the discovery subsystem, which is always there; give this "
                            "subsystem another NQN",
                            subsystem.nqn),
                EINVAL);
  }
  if (subsystem.namespaces.size() > kNamespacesMax) {
    return fail(fmt::format("The subsystem {} has {} namespaces; at most {} are possible",
                            subsystem.nqn, subsystem.namespaces.size(), kNamespacesMax),
                EINVAL);
  }
  if (subsystem.hosts.size() > kHostsMax) {
    return fail(fmt::format("The subsystem {} allows {} hosts; at most {} are possible",
                            subsystem.nqn, subsystem.hosts.size(), kHostsMax),
                EINVAL);
  }
  if (subsystem.ana_groups > kAnaGroupsMax) {
    return fail(fmt::format("The subsystem {} has {} ANA groups; at most {} are possible",
                            subsystem.nqn, subsystem.ana_groups, kAnaGroupsMax),
                EINVAL);
  }
  for (const NamespaceConfig& ns : subsystem.namespaces) {
    if (auto good = check_ana_group(ns, subsystem.ana_groups, subsystem.nqn); !good) return good;
  }
  for (const std::string& host : subsystem.hosts) {
    if (!nvme::usable_nqn(host)) {
      return fail(fmt::format("'{}' is no host NQN (allowed host of {}): it must be 1 to {} bytes "
                              "of text",
                              nvme::printable(host), subsystem.nqn, nvme::kMaxNqnBytes),
                  EINVAL);
    }
  }
  return check_serial(subsystem.serial, subsystem.nqn);
}

Result<nvme::HostPort> parse_referral(std::string_view text) {
  std::string_view rest = text;
  constexpr std::string_view kScheme = "tcp://";
  if (rest.starts_with(kScheme)) rest.remove_prefix(kScheme.size());
  auto at = nvme::HostPort::parse(rest, nvme::kDefaultDiscoveryPort);
  if (at && at->host == "localhost") at->host = "127.0.0.1";
  if (!at || at->port == 0 || !numeric_address(at->host)) {
    return fail(fmt::format("'{}' is no discovery service to refer to: give tcp://ADDR:PORT with a "
                            "numeric address, such as tcp://192.0.2.1:8009",
                            nvme::printable(std::string(text))),
                EINVAL);
  }
  return at;
}

Result<std::uint64_t> parse_size(std::string_view text) {
  std::uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  unsigned shift = 0;
  std::string_view suffix(rest, static_cast<std::size_t>(end - rest));
  bool good = error == std::errc{};
  if (good && !suffix.empty()) {
    const std::size_t power =
        std::string_view("kmgt").find(static_cast<char>(suffix.front() | 0x20));
    good = power != std::string_view::npos && suffix.size() == 1;
    shift = 10 * (static_cast<unsigned>(power) + 1);
  }
  if (!good || (shift != 0 && static_cast<unsigned>(std::countl_zero(value)) < shift)) {
    return fail(fmt::format("'{}' is no size: give a number of bytes, with K, M, G or T after it "
                            "for powers of 1024, such as 64M",
                            text),
                EINVAL);
  }
  return value << shift;
}

namespace {

Error unfit(std::string_view value, const char* what, std::string_view text, const char* possible) {
  return Error{fmt::format("'{}' is no {} (namespace {}); {}", value, what, text, possible),
               EINVAL};
}

/// Takes one ",key=value" from the end of `rest`; false if there is none.
Result<bool> take_option(std::string_view& rest, std::string_view text, NamespaceConfig& config) {
  const auto comma = rest.rfind(',');
  if (comma == std::string_view::npos) return false;
  const std::string_view option = rest.substr(comma + 1);
  const std::string_view value = option.substr(option.find('=') + 1);
  if (option.starts_with("block=")) {
    const auto block = parse_size(value);
    if (!block || !takes_block_size(*block)) {
      return std::unexpected(unfit(value, "block size", text, "512 and 4096 are possible"));
    }
    config.block_bytes = static_cast<std::uint32_t>(*block);
    config.block_given = true;
  } else if (option.starts_with("uuid=")) {
    const auto uuid = nvme::parse_uuid(value);
    if (!uuid) {
      return std::unexpected(
          unfit(value, "UUID", text, "give 32 hexadecimal digits as 8-4-4-4-12"));
    }
    config.uuid = *uuid;
  } else if (option.starts_with("anagrp=")) {
    const auto group = parse_size(value);
    if (!group || *group < 1 || *group > kAnaGroupsMax) {
      return std::unexpected(unfit(value, "ANA group", text, "1 to 128 are possible"));
    }
    config.ana_group = static_cast<std::uint32_t>(*group);
  } else if (option == "readonly") {
    config.read_only = true;
  } else if (option.starts_with("cache=")) {
    if (value != "volatile") {
      return std::unexpected(unfit(value, "cache", text, "volatile is the only one there is"));
    }
    config.volatile_cache = true;
  } else if (text.starts_with("nbd") && option.starts_with("timeout=")) {
    const auto seconds = parse_size(value);
    if (!seconds || *seconds < 1 || *seconds > kNbdRequestTimeoutMax.count()) {
      return std::unexpected(unfit(value, "timeout", text, "1 to 3600 seconds are possible"));
    }
    config.timeout_seconds = static_cast<std::uint32_t>(*seconds);
  } else if (text.starts_with("nbd") && option.starts_with("unflushed=")) {
    if (value != "trust" && value != "fail") {
      return std::unexpected(unfit(value, "policy", text, "trust and fail are possible"));
    }
    config.fail_unflushed = value == "fail";
  } else {
    return false;
  }
  rest = rest.substr(0, comma);
  return true;
}

Result<NamespaceConfig> parse_nbd(std::string_view text, std::string_view rest,
                                  NamespaceConfig config) {
  if (config.volatile_cache) {
    return fail(fmt::format("Namespace {} cannot have cache=volatile: only memory can", text),
                EINVAL);
  }
  config.kind = NamespaceConfig::Kind::nbd;
  // "nbd://HOST" is a URI itself, and so is "nbd+unix://…".
  const bool prefixed = rest.starts_with("nbd:") && !rest.starts_with("nbd://");
  config.path = prefixed ? rest.substr(4) : rest;
  if (auto good = NbdUri::parse(config.path); !good) return std::unexpected(good.error());
  return config;
}

}  // namespace

Result<NamespaceConfig> NamespaceConfig::parse(std::string_view text) {
  NamespaceConfig config;
  std::string_view rest = text;
  for (bool more = true; more;) {
    auto taken = take_option(rest, text, config);
    if (!taken) return std::unexpected(std::move(taken.error()));
    more = *taken;
  }
  if (rest.starts_with("memory:")) {
    config.kind = Kind::memory;
    const auto size = parse_size(rest.substr(7));
    if (!size) return std::unexpected(size.error());
    if (*size == 0 || *size % config.block_bytes != 0 || *size >> 46 != 0) {
      return fail(fmt::format("The size of namespace {} is {} bytes; it must be a multiple of the "
                              "block size of {} bytes, not 0 and less than 64T",
                              text, *size, config.block_bytes),
                  EINVAL);
    }
    config.size_bytes = *size;
    return config;
  }
  if (rest.starts_with("file:") && rest.size() > 5) {
    if (config.volatile_cache) {
      return fail(fmt::format("Namespace {} cannot have cache=volatile: only memory can", text),
                  EINVAL);
    }
    config.kind = Kind::file;
    config.path = rest.substr(5);
    return config;
  }
  if (rest.starts_with("nbd")) return parse_nbd(text, rest, std::move(config));
  return fail(fmt::format("'{}' is no namespace: give memory:SIZE, file:PATH or nbd:URI, each with "
                          ",block=512 or ,block=4096 after it",
                          text),
              EINVAL);
}

Result<void> check_config(const TargetConfig& config) {
  if (config.subsystems.size() > kSubsystemsMax) {
    return fail(fmt::format("{} subsystems are too many; at most {} are possible",
                            config.subsystems.size(), kSubsystemsMax),
                EINVAL);
  }
  if (config.referrals.size() > kReferralsMax) {
    return fail(fmt::format("{} referrals are too many; at most {} are possible",
                            config.referrals.size(), kReferralsMax),
                EINVAL);
  }
  std::set<std::string_view> names;
  for (const SubsystemConfig& subsystem : config.subsystems) {
    if (auto checked = check_subsystem(subsystem); !checked) return checked;
    if (!names.insert(subsystem.nqn).second) {
      return fail(fmt::format("The subsystem {} is given twice", subsystem.nqn), EINVAL);
    }
  }
  if (config.max_queues < 1 || config.max_queues > kIoQueuesMax) {
    return fail(fmt::format("{} I/O queues per controller are not possible; 1 to {} are",
                            config.max_queues, kIoQueuesMax),
                EINVAL);
  }
  if (config.queue_entries < transport::kQueueEntriesMin ||
      config.queue_entries > transport::kQueueEntriesMax) {
    return fail(
        fmt::format("A queue size of {} is not possible; {} to {} are", config.queue_entries,
                    transport::kQueueEntriesMin, transport::kQueueEntriesMax),
        EINVAL);
  }
  if (config.in_capsule_bytes % 16 != 0 ||
      config.in_capsule_bytes > transport::kInCapsuleBytesMax) {
    return fail(fmt::format("In-capsule data of {} bytes is not possible; it must be a multiple "
                            "of 16 and at most {}",
                            config.in_capsule_bytes, transport::kInCapsuleBytesMax),
                EINVAL);
  }
  if (config.shared_buffers == 0) {
    return fail("A target needs at least one shared buffer", EINVAL);
  }
  return {};
}

}  // namespace nvmf::controller
