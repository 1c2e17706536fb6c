// nvmf list, nvmf list-subsys.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "control/runtime_dir.h"
#include "nvme/json_discovery.h"
#include "nvme/print_discovery.h"
#include "nvme/text.h"
#include "nvmf_output.h"
#include "nvmf_verbs.h"
#include "tool_connections.h"
#include "tool_control.h"
#include "tool_health.h"
#include "tool_places.h"
#include "tool_program.h"
#include "transport/loop.h"

namespace nvmf::tools {

using nlohmann::json;
using nlohmann::ordered_json;

namespace {

/// Status is in memory, with its reactors: a process that takes longer hangs or is stopped.
constexpr Duration kStatusPatience{std::chrono::seconds(2)};

/// Of each connection: its status, or what its lock file says and why there is no more.
std::vector<json> all_status(const control::RuntimeDir& runtime,
                             const std::vector<control::Connection>& connections) {
  std::vector<std::string> sockets;
  sockets.reserve(connections.size());
  for (const auto& c : connections) sockets.push_back(runtime.control_socket(c.name));
  const auto answers = call_all(sockets, "status", json::object(), kStatusPatience);
  std::vector<json> all;
  for (std::size_t i = 0; i < connections.size(); ++i) {
    const control::Connection& c = connections[i];
    json status;
    if (answers[i].ok) {
      status = *answers[i].fields;
      status.erase("ok");
    } else {
      // A process has its name before its socket, and after it: for a moment nobody listens.
      const int code = answers[i].ok.error().code;
      const bool coming = code == ENOENT || code == ECONNREFUSED;
      status = {{"name", c.name},
                {"pid", c.pid},
                {"state", coming ? "connecting" : "hanging"},
                {"traddr", c.address},
                {"trsvcid", std::to_string(c.port)},
                {"address", transport::Endpoint{c.address, c.port, {}}.to_string()},
                {"subnqn", c.subnqn},
                {"hostnqn", c.hostnqn},
                {"error", answers[i].ok.error().message},
                {"namespaces", json::array()}};
    }
    all.push_back(std::move(status));
  }
  return all;
}

/// nvme-cli's units: powers of ten.
std::string human_size(std::uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1000 && unit + 1 < std::size(kUnits)) {
    value /= 1000;
    ++unit;
  }
  return fmt::format("{:.2f} {}", value, kUnits[unit]);
}

/// Where users find a namespace, the handiest place first.
std::vector<std::string> places(const json& ns) {
  std::vector<std::string> all;
  for (const std::string_view kind : kPlaceKinds) {
    const auto list = ns.find(kind);
    if (list == ns.end()) continue;
    for (const json& place : *list) all.push_back(place.get<std::string>());
  }
  return all;
}

struct Column {
  const char* title;
  bool number;  // to the right
};
constexpr Column kColumns[] = {{"Node", false},      {"NSID", true},   {"Size", true},
                               {"Format", true},     {"State", false}, {"Address", false},
                               {"Subsystem", false}, {"Export", false}};
constexpr std::size_t kColumnCount = std::size(kColumns);
using Row = std::array<std::string, kColumnCount>;

/// A row for each namespace, or one for a connection without any; more exports of a namespace stand
/// below each other.
std::vector<Row> to_rows(const std::vector<json>& all) {
  std::vector<Row> rows;
  for (const json& c : all) {
    const std::string state = text_of(c, "state");
    const std::string address = text_of(c, "address");
    const std::string subsystem = text_of(c, "subnqn");
    if (std::ranges::all_of(c["namespaces"], has_gone)) {
      rows.push_back({text_of(c, "name"), "", "", "", state, address, subsystem, ""});
    }
    for (const json& ns : c["namespaces"]) {
      if (has_gone(ns)) continue;  // a sentence below the table says so
      const bool stopped = state == "live" && !text_of(ns, "stopped").empty();
      rows.push_back({text_of(ns, "name"), text_of(ns, "nsid"),
                      human_size(number_of(ns, "size_bytes")),
                      fmt::format("{} B", number_of(ns, "block_bytes")),
                      stopped ? "stopped" : state, address, subsystem, ""});
      std::string* place = &rows.back().back();
      for (const std::string& text : places(ns)) {
        if (place == nullptr) place = &rows.emplace_back().back();
        *place = nvme::printable(text);
        place = nullptr;
      }
    }
  }
  return rows;
}

/// Columns as wide as what stands in them; the last one, which is to be copied, as it is.
void print_table(const std::vector<json>& all) {
  std::vector<Row> rows(2);
  for (Row& row : to_rows(all)) rows.push_back(std::move(row));
  std::array<std::size_t, kColumnCount> widths{};
  for (std::size_t i = 0; i < kColumnCount; ++i) {
    rows[0][i] = kColumns[i].title;
    for (const Row& row : rows) widths[i] = std::max(widths[i], row[i].size());
    rows[1][i] = std::string(widths[i], '-');
  }
  for (const Row& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < kColumnCount; ++i) {
      line += kColumns[i].number ? fmt::format("{:>{}} ", row[i], widths[i])
                                 : fmt::format("{:<{}} ", row[i], widths[i]);
    }
    line.resize(line.find_last_not_of(' ') + 1);
    fmt::print("{}\n", line);
  }
}

/// Below the table, what a column cannot say.
void print_sentences(const std::vector<json>& all) {
  bool first = true;
  for (const json& status : all) {
    for (const std::string& sentence : about_connection(status)) {
      fmt::print("{}{}\n", first ? "\n" : "", sentence);
      first = false;
    }
  }
}

/// nvme-cli's list of devices, and beside it the connections with everything that they told.
ordered_json to_document(const std::vector<json>& all) {
  ordered_json devices = ordered_json::array();
  ordered_json connections = ordered_json::array();
  for (const json& c : all) {
    connections.push_back(ordered_json::parse(c.dump(), nullptr, false));
    for (const json& ns : c["namespaces"]) {
      if (has_gone(ns)) continue;
      const std::uint64_t size = number_of(ns, "size_bytes");
      const std::uint64_t block = std::max<std::uint64_t>(number_of(ns, "block_bytes"), 1);
      ordered_json device;
      device["NameSpace"] = number_of(ns, "nsid");
      const std::vector<std::string> at = places(ns);
      device["DevicePath"] = at.empty() ? "" : at.front();
      device["Firmware"] = text_of(c, "firmware");
      device["ModelNumber"] = text_of(c, "model");
      device["SerialNumber"] = text_of(c, "serial");
      device["MaximumLBA"] = size / block;
      device["PhysicalSize"] = size;
      device["SectorSize"] = block;
      devices.push_back(std::move(device));
    }
  }
  return {{"Devices", std::move(devices)}, {"Connections", std::move(connections)}};
}

/// Whether the parts that we rely on are there: a process of another release may answer.
bool well_formed(const json& status) {
  const auto namespaces = status.find("namespaces");
  if (namespaces == status.end() || !namespaces->is_array()) return false;
  for (const json& ns : *namespaces) {
    if (!ns.is_object()) return false;
    for (const std::string_view kind : kPlaceKinds) {
      const auto list = ns.find(kind);
      if (list == ns.end()) continue;
      if (!list->is_array() ||
          !std::ranges::all_of(*list, [](const json& place) { return place.is_string(); }))
        return false;
    }
  }
  return true;
}

/// Says of each process that does not answer why; returns the status to exit with.
int tell_hanging(const std::vector<json>& all) {
  int code = kExitSuccess;
  for (const json& status : all) {
    if (text_of(status, "state") != "hanging") continue;
    complain("nvmf", text_of(status, "error"));
    code = kExitFailure;
  }
  return code;
}

/// Each host and subsystem once, with all the connections between them.
std::vector<nvme::Subsystem> to_subsystems(const std::vector<json>& all) {
  std::vector<nvme::Subsystem> subsystems;
  for (const json& c : all) {
    const std::string nqn = text_of(c, "subnqn");
    const std::string hostnqn = text_of(c, "hostnqn");
    auto found = std::ranges::find_if(subsystems, [&](const nvme::Subsystem& subsystem) {
      return subsystem.nqn == nqn && subsystem.hostnqn == hostnqn;
    });
    if (found == subsystems.end()) {
      subsystems.push_back({.name = fmt::format("nvmf-subsys{}", subsystems.size()),
                            .nqn = nqn,
                            .hostnqn = hostnqn,
                            .hostid = text_of(c, "hostid")});
      found = std::prev(subsystems.end());
    }
    found->paths.push_back({.name = text_of(c, "name"),
                            .transport = "tcp",
                            .address = fmt::format("traddr={},trsvcid={}", text_of(c, "traddr"),
                                                   text_of(c, "trsvcid")),
                            .state = text_of(c, "state")});
  }
  return subsystems;
}

}  // namespace

int list(OutputFormat format) {
  const auto runtime = control::RuntimeDir::open();
  const auto connections =
      runtime ? runtime->connections()
              : Result<std::vector<control::Connection>>(std::unexpected(runtime.error()));
  if (!connections) return refuse(connections.error());
  std::vector<json> all = all_status(*runtime, *connections);
  for (json& status : all) {
    if (!well_formed(status)) status["namespaces"] = json::array();
  }
  if (format == OutputFormat::json) {
    fmt::print("{}\n", to_document(all).dump(2, ' ', false, json::error_handler_t::replace));
  } else {
    print_table(all);
    print_sentences(all);
  }
  return tell_hanging(all);
}

int list_subsys(const std::string& name, OutputFormat format) {
  const auto runtime = control::RuntimeDir::open();
  auto connections =
      runtime ? runtime->connections()
              : Result<std::vector<control::Connection>>(std::unexpected(runtime.error()));
  if (!connections) return refuse(connections.error());
  if (!name.empty()) {
    const auto named = find_running(*runtime, name);
    if (!named) return refuse(named.error());
    std::erase_if(*connections, [&](const control::Connection& c) {
      return c.subnqn != named->connection.subnqn;
    });
  }
  const std::vector<json> all = all_status(*runtime, *connections);
  const std::vector<nvme::Subsystem> subsystems = to_subsystems(all);
  fmt::print("{}", format == OutputFormat::json ? nvme::to_json(subsystems) + "\n"
                                                : nvme::print(subsystems));
  return tell_hanging(all);
}

}  // namespace nvmf::tools
