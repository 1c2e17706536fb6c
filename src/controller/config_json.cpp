#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "controller/config.h"

namespace nvmf::controller {

namespace {

using nlohmann::json;

Error wrong(const std::string& where, std::string_view wanted) {
  return Error{fmt::format("In the configuration file, {} must be {}", where, wanted), EINVAL};
}

Result<std::uint32_t> number(const json& value, const std::string& where, std::uint32_t most) {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > most) {
    return std::unexpected(wrong(where, fmt::format("a number from 0 to {}", most)));
  }
  return value.get<std::uint32_t>();
}

Result<std::vector<std::string>> strings(const json& value, const std::string& where) {
  std::vector<std::string> texts;
  if (!value.is_array()) return std::unexpected(wrong(where, "a list of strings"));
  for (const json& item : value) {
    if (!item.is_string()) return std::unexpected(wrong(where, "a list of strings"));
    texts.push_back(item.get<std::string>());
  }
  return texts;
}

Result<SubsystemConfig> subsystem_of(const json& value) {
  if (!value.is_object()) return std::unexpected(wrong("each of \"subsystems\"", "an object"));
  SubsystemConfig subsystem;
  for (const auto& [key, item] : value.items()) {
    if (key == "nqn" || key == "serial") {
      if (!item.is_string()) return std::unexpected(wrong("\"" + key + "\"", "a string"));
      (key == "nqn" ? subsystem.nqn : subsystem.serial) = item.get<std::string>();
    } else if (key == "ana_groups") {
      auto groups = number(item, "\"ana_groups\"", kAnaGroupsMax);
      if (!groups) return std::unexpected(std::move(groups.error()));
      subsystem.ana_groups = *groups;
    } else if (key == "hosts") {
      auto hosts = strings(item, "\"hosts\"");
      if (!hosts) return std::unexpected(std::move(hosts.error()));
      subsystem.hosts = std::move(*hosts);
    } else if (key == "namespaces") {
      const auto texts = strings(item, "\"namespaces\"");
      if (!texts) return std::unexpected(texts.error());
      for (const std::string& text : *texts) {
        auto parsed = NamespaceConfig::parse(text);
        if (!parsed) return std::unexpected(std::move(parsed.error()));
        subsystem.namespaces.push_back(std::move(*parsed));
      }
    } else {
      return std::unexpected(
          wrong("a key of a subsystem",
                "nqn, serial, hosts, ana_groups or namespaces, not \"" + key + "\""));
    }
  }
  return subsystem;
}

Result<void> read_list(const std::string& key, const json& value, ConfigFile& file) {
  if (key == "listen") {
    const auto texts = strings(value, "\"listen\"");
    if (!texts) return std::unexpected(texts.error());
    for (const std::string& text : *texts) {
      auto parsed = nvme::HostPort::parse(text);
      if (!parsed) return std::unexpected(std::move(parsed.error()));
      file.listen.push_back(std::move(*parsed));
    }
    return {};
  }
  if (key == "referrals") {
    const auto texts = strings(value, "\"referrals\"");
    if (!texts) return std::unexpected(texts.error());
    for (const std::string& text : *texts) {
      auto parsed = parse_referral(text);
      if (!parsed) return std::unexpected(std::move(parsed.error()));
      file.target.referrals.push_back(std::move(*parsed));
    }
    return {};
  }
  if (!value.is_array()) return std::unexpected(wrong("\"subsystems\"", "a list"));
  for (const json& item : value) {
    auto subsystem = subsystem_of(item);
    if (!subsystem) return std::unexpected(std::move(subsystem.error()));
    file.target.subsystems.push_back(std::move(*subsystem));
  }
  return {};
}

Result<void> read_limit(const std::string& key, const json& value, TargetConfig& target) {
  auto read = number(value, "\"" + key + "\"", key == "cqt" ? 0xffff : 0xffffff);
  if (!read) return std::unexpected(std::move(read.error()));
  if (key == "max_queues") target.max_queues = *read;
  if (key == "queue_size") target.queue_entries = *read;
  if (key == "in_capsule") target.in_capsule_bytes = *read;
  if (key == "cqt") target.cqt_ms = static_cast<std::uint16_t>(*read);
  return {};
}

}  // namespace

Result<ConfigFile> parse_config(std::string_view text) {
  json root;
  try {
    root = json::parse(text);
  } catch (const json::parse_error& error) {
    const std::string_view before = text.substr(0, error.byte == 0 ? 0 : error.byte - 1);
    return fail(fmt::format("The configuration file is not JSON from line {} on: a comma, a quote "
                            "or a bracket may be missing before that place",
                            std::ranges::count(before, '\n') + 1),
                EINVAL);
  } catch (const json::exception&) {
    return fail("The configuration file has a number that is too large", EINVAL);
  }
  if (!root.is_object()) {
    return fail(
        "The configuration file must be one JSON object: "
        "{\"listen\": [\"ADDR:PORT\"], \"subsystems\": [{\"nqn\": …, \"namespaces\": […]}]}",
        EINVAL);
  }
  ConfigFile file;
  for (const auto& [key, value] : root.items()) {
    Result<void> done;
    if (key == "listen" || key == "subsystems" || key == "referrals") {
      done = read_list(key, value, file);
    } else if (key == "max_queues" || key == "queue_size" || key == "in_capsule" || key == "cqt") {
      done = read_limit(key, value, file.target);
    } else {
      done = std::unexpected(wrong("a key",
                                   "listen, subsystems, referrals, max_queues, queue_size, "
                                   "in_capsule or cqt, not \"" +
                                       key + "\""));
    }
    if (!done) return std::unexpected(std::move(done.error()));
  }
  return file;
}

}  // namespace nvmf::controller
