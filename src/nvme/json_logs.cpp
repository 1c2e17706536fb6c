#include "nvme/json_logs.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "nvme/print_logs.h"

namespace nvmf::nvme {
namespace {

using Json = nlohmann::ordered_json;

/// nvme-cli 2.3 hands 32-bit fields, and a few longer ones, to json-c as int.
std::int32_t as_int(std::uint64_t value) {
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(value));
}

std::string dump(const Json& json) {
  // A device's name need not be UTF-8: replaced rather than thrown about.
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

Json critical_warning(unsigned warning, Detail detail) {
  if (detail == Detail::brief) return warning;
  return {{"value", warning},
          {"available_spare", warning & 1u},
          {"temp_threshold", warning >> 1 & 1u},
          {"reliability_degraded", warning >> 2 & 1u},
          {"ro", warning >> 3 & 1u},
          {"vmbu_failed", warning >> 4 & 1u},
          {"pmr_ro", warning >> 5 & 1u}};
}

Json effects_of(const std::array<std::uint32_t, 256>& effects, std::string_view prefix,
                std::string_view (*name)(std::uint8_t)) {
  Json commands = Json::object();
  for (unsigned opcode = 0; opcode < effects.size(); ++opcode) {
    if ((effects[opcode] & kEffectSupported) == 0) continue;
    commands[fmt::format("{}_{} ({})", prefix, opcode, name(static_cast<std::uint8_t>(opcode)))] =
        as_int(effects[opcode]);
  }
  return commands;
}

Json effects_page(const EffectsLog& log, Csi csi) {
  return {{"command_set_identifier", std::to_underlying(csi)},
          {"admin_cmd_set", effects_of(log.acs, "ACS", admin_opcode_name)},
          {"io_cmd_set", effects_of(log.iocs, "IOCS", io_opcode_name)}};
}

Json self_test_result(const SelfTestResult& r) {
  Json entry = {{"Self test result", r.result()}};
  if (r.result() == kSelfTestUnused) return entry;
  entry["Self test code"] = r.code();
  entry["Segment number"] = r.seg;
  entry["Valid Diagnostic Information"] = r.vdi;
  entry["Power on hours"] = r.poh;
  if ((r.vdi & kSelfTestVdiNsid) != 0) entry["Namespace Identifier"] = as_int(r.nsid);
  if ((r.vdi & kSelfTestVdiFlba) != 0) entry["Failing LBA"] = r.flba;
  if ((r.vdi & kSelfTestVdiSct) != 0) entry["Status Code Type"] = r.sct;
  if ((r.vdi & kSelfTestVdiSc) != 0) entry["Status Code"] = r.sc;
  entry["Vendor Specific"] = r.vs[1] << 8 | r.vs[0];
  return entry;
}

}  // namespace

std::string to_json(const SmartLog& log, Detail detail) {
  Json root = Json::object();
  root["critical_warning"] = critical_warning(log.critical_warning, detail);
  root["temperature"] = log.composite_temperature;
  root["avail_spare"] = log.avail_spare;
  root["spare_thresh"] = log.spare_thresh;
  root["percent_used"] = log.percent_used;
  root["endurance_grp_critical_warning_summary"] = log.endurance_group_critical_warning;
  root["data_units_read"] = log.data_units_read.to_string();
  root["data_units_written"] = log.data_units_written.to_string();
  root["host_read_commands"] = log.host_read_commands.to_string();
  root["host_write_commands"] = log.host_write_commands.to_string();
  root["controller_busy_time"] = log.controller_busy_time.to_string();
  root["power_cycles"] = log.power_cycles.to_string();
  root["power_on_hours"] = log.power_on_hours.to_string();
  root["unsafe_shutdowns"] = log.unsafe_shutdowns.to_string();
  root["media_errors"] = log.media_errors.to_string();
  root["num_err_log_entries"] = log.num_err_log_entries.to_string();
  root["warning_temp_time"] = as_int(log.warning_temp_time);
  root["critical_comp_time"] = as_int(log.critical_comp_time);
  for (std::size_t i = 0; i < log.temp_sensor.size(); ++i) {
    if (log.temp_sensor[i] == 0) continue;
    root[fmt::format("temperature_sensor_{}", i + 1)] = log.temp_sensor[i];
  }
  root["thm_temp1_trans_count"] = as_int(log.thm_temp_trans_count[0]);
  root["thm_temp2_trans_count"] = as_int(log.thm_temp_trans_count[1]);
  root["thm_temp1_total_time"] = as_int(log.thm_temp_total_time[0]);
  root["thm_temp2_total_time"] = as_int(log.thm_temp_total_time[1]);
  return dump(root);
}

std::string to_json(std::span<const ErrorEntry> log) {
  Json errors = Json::array();
  for (const ErrorEntry& entry : log) {
    errors.push_back({{"error_count", entry.error_count},
                      {"sqid", entry.sqid},
                      {"cmdid", entry.cmdid},
                      {"status_field", entry.status_field >> 1},
                      {"phase_tag", entry.status_field & 1},
                      {"parm_error_location", entry.parm_error_location},
                      {"lba", entry.lba},
                      {"nsid", as_int(entry.nsid)},
                      {"vs", entry.vs},
                      {"trtype", entry.trtype},
                      {"cs", entry.cs},
                      {"trtype_spec_info", entry.trtype_spec_info}});
  }
  return dump({{"errors", std::move(errors)}});
}

std::string to_json(const FirmwareSlots& log, std::string_view device) {
  Json slots = {{"Active Firmware Slot (afi)", log.afi}};
  for (std::size_t i = 0; i < log.frs_raw.size(); ++i) {
    const std::uint64_t frs = log.frs_raw[i];
    if ((frs & 0xff) == 0) continue;
    slots[fmt::format("Firmware Rev Slot {}", i + 1)] =
        fmt::format("{} ({})", frs, firmware_revision_text(frs));
  }
  Json root = Json::object();
  root[std::string(device)] = std::move(slots);
  return dump(root);
}

std::string to_json(std::span<const EffectsPage> pages) {
  Json root = Json::array();
  for (const EffectsPage& page : pages) root.push_back(effects_page(page.log, page.csi));
  return dump(root);
}

std::string to_json(const EffectsLog& log, Csi csi) {
  Json root = Json::array();
  root.push_back(effects_page(log, csi));
  return dump(root);
}

std::string to_json(const ChangedNamespaces& log, std::string_view device) {
  Json nsids = Json::object();
  for (std::size_t i = 0; i < log.nsids.size(); ++i) {
    nsids[fmt::format("[{:>4}]", i + 1)] =
        log.nsids[i] == 0 ? "0" : fmt::format("{:#x}", log.nsids[i]);
  }
  Json root = Json::object();
  root["Changed Namespace List Log"] = device;
  root[std::string(device)] = std::move(nsids);
  if (log.overflow) root["overflow"] = true;
  return dump(root);
}

std::string to_json(const AnaLog& log, std::string_view device) {
  Json groups = Json::array();
  for (const AnaGroup& group : log.groups) {
    Json nsids = Json::array();
    for (const std::uint32_t nsid : group.nsids) nsids.push_back({{"nsid", as_int(nsid)}});
    groups.push_back({{"grpid", as_int(group.group_id)},
                      {"nnsids", as_int(group.nsids.size())},
                      {"chgcnt", as_int(group.change_count)},
                      {"state", ana_state_name(group.state)},
                      {"NSIDS", std::move(nsids)}});
  }
  return dump({{"Asymmetric Namespace Access Log for NVMe device", device},
               {"chgcnt", log.change_count},
               {"ngrps", log.groups.size()},
               {"ANA DESC LIST ", std::move(groups)}});
}

std::string to_json(const SelfTestLog& log, std::size_t entries) {
  Json results = Json::array();
  for (std::size_t i = 0; i < std::min(entries, log.results.size()); ++i) {
    results.push_back(self_test_result(log.results[i]));
  }
  return dump({{"Current Device Self-Test Operation", log.current_operation},
               {"Current Device Self-Test Completion", log.current_completion},
               {"List of Valid Reports", std::move(results)}});
}

std::string to_json(const SupportedLogPages& log) {
  Json pages = Json::array();
  for (unsigned lid = 0; lid < log.lids.size(); ++lid) {
    if ((log.lids[lid] & kLogPageSupported) == 0) continue;
    Json page = Json::object();
    page[fmt::format("lid_{} ", lid == 0 ? "0x0" : fmt::format("{:#x}", lid))] =
        as_int(log.lids[lid]);
    pages.push_back(std::move(page));
  }
  // With nothing supported nvme-cli gets as far as printing an object.
  if (pages.empty()) return dump({{"supported_logs", Json::object()}});
  return dump({{"supported_logs", std::move(pages)}});
}

}  // namespace nvmf::nvme
