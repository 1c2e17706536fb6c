#include "discovery_text.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

#include "nvme/text.h"

namespace nvmf::tools {
namespace {

constexpr int kNameWidth = 7;

std::string treq_text(std::uint8_t treq) {
  static constexpr std::array<std::string_view, 4> kSecure = {"not specified", "required",
                                                              "not required", "reserved"};
  std::string text(kSecure[treq & nvme::kTreqSecureMask]);
  if ((treq & nvme::kTreqSqFlowControlOff) != 0) text += ", sq flow control disable supported";
  return text;
}

std::string eflags_text(std::uint16_t eflags) {
  std::string text;
  const auto add = [&text](std::string_view words) {
    text += text.empty() ? "" : ", ";
    text += words;
  };
  if ((eflags & nvme::kEflagsPersistent) != 0) add("explicit discovery connections");
  if ((eflags & nvme::kEflagsDuplicate) != 0) add("duplicate discovery information");
  return text.empty() ? "none" : text;
}

std::string_view sectype_text(std::uint8_t sectype) {
  switch (sectype) {
    case nvme::kSectypeNone:
      return "none";
    case nvme::kSectypeTls12:
      return "tls";
    case nvme::kSectypeTls13:
      return "tls13";
    default:
      return "unrecognized";
  }
}

/// An address that is not there has no family.
std::string_view family_text(const nvme::DiscoveryEntry& entry) {
  return entry.traddr.empty() ? "" : nvme::address_family_name(entry.adrfam);
}

}  // namespace

std::string to_text(const nvme::DiscoveryHeader& header,
                    std::span<const nvme::DiscoveryEntry> entries) {
  std::string out = fmt::format("\nDiscovery Log Number of Records {}, Generation counter {}\n",
                                entries.size(), header.genctr);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const nvme::DiscoveryEntry& entry = entries[i];
    const auto line = [&out](std::string_view name, std::string_view value) {
      out += fmt::format("{:<{}} {}\n", fmt::format("{}:", name), kNameWidth + 1, value);
    };
    out += fmt::format("=====Discovery Log Entry {}======\n", i);
    line("trtype", nvme::transport_name(entry.trtype));
    line("adrfam", family_text(entry));
    line("subtype", nvme::subsystem_type_name(entry.subtype));
    line("treq", treq_text(entry.treq));
    line("portid", fmt::format("{}", entry.portid));
    line("trsvcid", nvme::printable(entry.trsvcid));
    line("subnqn", nvme::printable(entry.subnqn));
    line("traddr", nvme::printable(entry.traddr));
    line("eflags", eflags_text(entry.eflags));
    if (entry.trtype == nvme::TransportType::tcp) line("sectype", sectype_text(entry.sectype));
  }
  return out;
}

std::string to_json(const nvme::DiscoveryHeader& header,
                    std::span<const nvme::DiscoveryEntry> entries) {
  nlohmann::ordered_json records = nlohmann::ordered_json::array();
  for (const nvme::DiscoveryEntry& entry : entries) {
    nlohmann::ordered_json record = {{"trtype", nvme::transport_name(entry.trtype)},
                                     {"adrfam", family_text(entry)},
                                     {"subtype", nvme::subsystem_type_name(entry.subtype)},
                                     {"treq", treq_text(entry.treq)},
                                     {"portid", entry.portid},
                                     {"trsvcid", entry.trsvcid},
                                     {"subnqn", entry.subnqn},
                                     {"traddr", entry.traddr},
                                     {"eflags", eflags_text(entry.eflags)}};
    if (entry.trtype == nvme::TransportType::tcp) record["sectype"] = sectype_text(entry.sectype);
    records.push_back(std::move(record));
  }
  const nlohmann::ordered_json log = {{"genctr", header.genctr}, {"records", std::move(records)}};
  return log.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace nvmf::tools
