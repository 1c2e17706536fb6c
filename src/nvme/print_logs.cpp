#include "nvme/print_logs.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <iterator>
#include <utility>

#include "nvme/explain.h"
#include "nvme/hex_dump.h"
#include "nvme/print_lines.h"
#include "nvme/text.h"

namespace nvmf::nvme {
namespace {

template <class... Args>
void add(std::string& out, fmt::format_string<Args...> format, Args&&... args) {
  fmt::format_to(std::back_inserter(out), format, std::forward<Args>(args)...);
}

constexpr int kZeroCelsius = 273;  // kelvins, as nvme-cli rounds them

std::string celsius_and_kelvin(std::uint16_t kelvin) {
  return fmt::format("{}°C ({} Kelvin)", kelvin - kZeroCelsius, kelvin);
}

/// Thousands of 512 bytes, as "1.02 TB". nvme-cli counts in x87's long double; so do we, to round
/// as it does.
std::string data_units_size(const Uint128& units) {
  constexpr long double kUnitBytes = 512'000;
  constexpr long double kStep = 4294967296.0L;
  long double bytes = 0;
  for (const std::uint64_t word :
       {units.high >> 32, units.high & 0xffffffff, units.low >> 32, units.low & 0xffffffff}) {
    bytes = bytes * kStep + static_cast<long double>(word);
  }
  bytes *= kUnitBytes;
  constexpr std::array kSuffixes = {
      std::pair{1e30L, "Q"}, std::pair{1e27L, "R"}, std::pair{1e24L, "Y"}, std::pair{1e21L, "Z"},
      std::pair{1e18L, "E"}, std::pair{1e15L, "P"}, std::pair{1e12L, "T"}, std::pair{1e9L, "G"},
      std::pair{1e6L, "M"},  std::pair{1e3L, "k"}};
  for (const auto& [magnitude, suffix] : kSuffixes) {
    if (bytes >= magnitude) return fmt::format("{:.2f} {}B", bytes / magnitude, suffix);
  }
  return fmt::format("{:.2f} B", bytes);
}

void print_critical_warning(std::string& out, unsigned warning) {
  constexpr std::array kBits = {
      "Available Spare[0]             ", "Temp. Threshold[1]             ",
      "NVM subsystem Reliability[2]   ", "Read-only[3]                   ",
      "Volatile mem. backup failed[4] ", "Persistent Mem. RO[5]          "};
  for (std::size_t bit = 0; bit < kBits.size(); ++bit) {
    add(out, "      {}: {}\n", kBits[bit], warning >> bit & 1u);
  }
}

std::string_view transport_error_text(unsigned trtype) {
  switch (trtype) {
    case 0:
      return "The transport type is not indicated or the error is not transport related.";
    case 1:
      return "RDMA Transport error.";
    case 2:
      return "Fibre Channel Transport error.";
    case 3:
      return "TCP Transport error.";
    case 254:
      return "Intra-host Transport error.";
    default:
      return "Reserved";
  }
}

// CSE, Command Submission and Execution. Base 2.1 §5.1.12.1.6. It has three bits, of which nvme-cli
// looks at two: the values from 4 on are reserved.
std::string_view execution_text(std::uint32_t effects) {
  switch (effects >> 16 & 3) {
    case 0:
      return "No command restriction";
    case 1:
      return "No other command for same namespace";
    case 2:
      return "No other command for any namespace";
    default:
      return "Reserved CSE";
  }
}

void print_effects(std::string& out, std::uint32_t effects) {
  const auto flag = [&](std::string_view name, std::uint32_t bit) {
    add(out, "  {}{}", name, (effects & bit) != 0 ? '+' : '-');
  };
  out += "  CSUPP+";
  flag("LBCC", kEffectLbcc);
  flag("NCC", kEffectNcc);
  flag("NIC", kEffectNic);
  flag("CCC", kEffectCcc);
  flag("USS", kEffectUuidSelection);
  add(out, "  {}", execution_text(effects));
}

struct Commands {
  std::string_view prefix;  // of the opcode's line
  int opcode_width;
  std::string_view (*name)(std::uint8_t);
};
constexpr Commands kAdminCommands = {.prefix = "ACS", .opcode_width = 6, .name = admin_opcode_name};
constexpr Commands kIoCommands = {.prefix = "IOCS", .opcode_width = 5, .name = io_opcode_name};

// The supported of the opcodes first to last, under their heading if there are any.
void print_effects_of(std::string& out, std::string_view heading, const Commands& commands,
                      const std::array<std::uint32_t, 256>& effects, unsigned first, unsigned last,
                      Detail detail) {
  std::string lines;
  for (unsigned opcode = first; opcode <= last; ++opcode) {
    const std::uint32_t value = effects[opcode];
    if ((value & kEffectSupported) == 0) continue;
    add(lines, "{}{:<{}}[{:<32}] {:08x}", commands.prefix, opcode, commands.opcode_width,
        commands.name(static_cast<std::uint8_t>(opcode)), value);
    if (detail == Detail::human) print_effects(lines, value);
    lines.push_back('\n');
  }
  if (!lines.empty()) add(out, "{}\n{}\n", heading, lines);
}

std::string_view command_set_heading(Csi csi) {
  switch (csi) {
    case Csi::nvm:
      return "NVM Command Set Log Page";
    case Csi::zoned:
      return "ZNS Command Set Log Page";
    default:
      return "Unknown Command Set Log Page";
  }
}

// Base 2.1 §5.1.12.1.7, Device Self-test Status, bits 3:0. Reserved values read as "not used", as
// nvme-cli reads them.
std::string_view self_test_result_text(unsigned result) {
  constexpr std::array<std::string_view, 11> kTexts = {
      "Operation completed without error",
      "Operation was aborted by a Device Self-test command",
      "Operation was aborted by a Controller Level Reset",
      "Operation was aborted due to a removal of a namespace from the namespace inventory",
      "Operation was aborted due to the processing of a Format NVM command",
      "A fatal error or unknown test error occurred while the controller was executing the device "
      "self-test operation and the operation did not complete",
      "Operation completed with a segment that failed and the segment that failed is not known",
      "Operation completed with one or more failed segments and the first segment that failed is "
      "indicated in the SegmentNumber field",
      "Operation was aborted for unknown reason",
      "Operation was aborted due to a sanitize operation",
      "Reserved"};
  return result < kTexts.size() ? kTexts[result] : "Entry not used (does not contain a result)";
}

std::string_view self_test_code_text(unsigned code) {
  switch (code) {
    case 1:
      return "Short device self-test operation";
    case 2:
      return "Extended device self-test operation";
    case 0xe:
      return "Vendor specific";
    default:
      return "Reserved";
  }
}

// " text" for people, nothing for scripts.
std::string spoken(Detail detail, std::string_view text) {
  return detail == Detail::human ? fmt::format(" {}", text) : "";
}

void print_self_test(std::string& out, const SelfTestResult& r, Detail detail) {
  constexpr unsigned kKnownSegmentFailed = 7;
  add(out, "  Operation Result             : {}{}\n", c_hex(r.result()),
      spoken(detail, self_test_result_text(r.result())));
  if (r.result() == kSelfTestUnused) return;
  add(out, "  Self Test Code               : {:x}{}\n", r.code(),
      spoken(detail, self_test_code_text(r.code())));
  if (r.result() == kKnownSegmentFailed) {
    add(out, "  Segment Number               : {}\n", c_hex(r.seg));
  }
  add(out, "  Valid Diagnostic Information : {}\n", c_hex(r.vdi));
  add(out, "  Power on hours (POH)         : {}\n", c_hex(r.poh));
  if ((r.vdi & kSelfTestVdiNsid) != 0) {
    add(out, "  Namespace Identifier         : {}\n", c_hex(r.nsid));
  }
  if ((r.vdi & kSelfTestVdiFlba) != 0) {
    add(out, "  Failing LBA                  : {}\n", c_hex(r.flba));
  }
  if ((r.vdi & kSelfTestVdiSct) != 0) {
    add(out, "  Status Code Type             : {}\n", c_hex(r.sct));
  }
  if ((r.vdi & kSelfTestVdiSc) != 0) {
    Status status;
    status.sct = r.sct & 7u;
    status.sc = r.sc;
    add(out, "  Status Code                  : {}{}\n", c_hex(r.sc),
        spoken(detail, nvme_cli_status_words(status)));
  }
  add(out, "  Vendor Specific              : {} {}\n", c_hex(r.vs[0]), c_hex(r.vs[1]));
}

}  // namespace

std::string firmware_revision_text(std::uint64_t frs) {
  std::string text;
  for (unsigned i = 0; i < 8; ++i) {
    const auto c = static_cast<unsigned char>(frs >> 8 * i);
    text.push_back(c >= '!' && c <= '~' ? static_cast<char>(c) : '.');
  }
  return text;
}

std::string print(const SmartLog& log, std::string_view device, std::uint32_t nsid, Detail detail) {
  std::string out =
      fmt::format("Smart Log for NVME device:{} namespace-id:{:x}\n", printable(device), nsid);
  add(out, "critical_warning\t\t\t: {}\n", c_hex(log.critical_warning));
  if (detail == Detail::human) print_critical_warning(out, log.critical_warning);
  add(out, "temperature\t\t\t\t: {}\n", celsius_and_kelvin(log.composite_temperature));
  add(out, "available_spare\t\t\t\t: {}%\n", log.avail_spare);
  add(out, "available_spare_threshold\t\t: {}%\n", log.spare_thresh);
  add(out, "percentage_used\t\t\t\t: {}%\n", log.percent_used);
  add(out, "endurance group critical warning summary: {}\n",
      c_hex(log.endurance_group_critical_warning));
  add(out, "Data Units Read\t\t\t\t: {} ({})\n", log.data_units_read.to_string(),
      data_units_size(log.data_units_read));
  add(out, "Data Units Written\t\t\t: {} ({})\n", log.data_units_written.to_string(),
      data_units_size(log.data_units_written));
  add(out, "host_read_commands\t\t\t: {}\n", log.host_read_commands.to_string());
  add(out, "host_write_commands\t\t\t: {}\n", log.host_write_commands.to_string());
  add(out, "controller_busy_time\t\t\t: {}\n", log.controller_busy_time.to_string());
  add(out, "power_cycles\t\t\t\t: {}\n", log.power_cycles.to_string());
  add(out, "power_on_hours\t\t\t\t: {}\n", log.power_on_hours.to_string());
  add(out, "unsafe_shutdowns\t\t\t: {}\n", log.unsafe_shutdowns.to_string());
  add(out, "media_errors\t\t\t\t: {}\n", log.media_errors.to_string());
  add(out, "num_err_log_entries\t\t\t: {}\n", log.num_err_log_entries.to_string());
  add(out, "Warning Temperature Time\t\t: {}\n", log.warning_temp_time);
  add(out, "Critical Composite Temperature Time\t: {}\n", log.critical_comp_time);
  for (std::size_t i = 0; i < log.temp_sensor.size(); ++i) {
    if (log.temp_sensor[i] == 0) continue;
    add(out, "Temperature Sensor {}           : {}\n", i + 1,
        celsius_and_kelvin(log.temp_sensor[i]));
  }
  add(out, "Thermal Management T1 Trans Count\t: {}\n", log.thm_temp_trans_count[0]);
  add(out, "Thermal Management T2 Trans Count\t: {}\n", log.thm_temp_trans_count[1]);
  add(out, "Thermal Management T1 Total Time\t: {}\n", log.thm_temp_total_time[0]);
  add(out, "Thermal Management T2 Total Time\t: {}\n", log.thm_temp_total_time[1]);
  return out;
}

std::string print(std::span<const ErrorEntry> log, std::string_view device) {
  constexpr std::string_view kRule = ".................\n";
  std::string out = fmt::format("Error Log Entries for device:{} entries:{}\n{}", printable(device),
                                log.size(), kRule);
  for (std::size_t i = 0; i < log.size(); ++i) {
    const ErrorEntry& entry = log[i];
    add(out, " Entry[{:>2}]   \n{}", i, kRule);
    add(out, "error_count\t: {}\n", entry.error_count);
    add(out, "sqid\t\t: {}\n", entry.sqid);
    add(out, "cmdid\t\t: {}\n", c_hex(entry.cmdid));
    add(out, "status_field\t: {}({})\n", c_hex(entry.status_field >> 1),
        nvme_cli_status_words(entry.status()));
    add(out, "phase_tag\t: {}\n", c_hex(entry.status_field & 1u));
    add(out, "parm_err_loc\t: {}\n", c_hex(entry.parm_error_location));
    add(out, "lba\t\t: {}\n", c_hex(entry.lba));
    add(out, "nsid\t\t: {}\n", c_hex(entry.nsid));
    add(out, "vs\t\t: {}\n", entry.vs);
    add(out, "trtype\t\t: {}\n", transport_error_text(entry.trtype));
    add(out, "cs\t\t: {}\n", c_hex(entry.cs));
    add(out, "trtype_spec_info: {}\n{}", c_hex(entry.trtype_spec_info), kRule);
  }
  return out;
}

std::string print(const FirmwareSlots& log, std::string_view device) {
  std::string out =
      fmt::format("Firmware Log for device:{}\nafi  : {}\n", printable(device), c_hex(log.afi));
  for (std::size_t i = 0; i < log.frs_raw.size(); ++i) {
    const std::uint64_t frs = log.frs_raw[i];
    if ((frs & 0xff) == 0) continue;  // nvme-cli's idea of an empty slot
    add(out, "frs{} : {:#016x} ({})\n", i + 1, frs, firmware_revision_text(frs));
  }
  return out;
}

std::string print(const EffectsLog& log, Csi csi, Detail detail) {
  std::string out = fmt::format("{}\n{:-<80}\n", command_set_heading(csi), "");
  print_effects_of(out, "Admin Commands", kAdminCommands, log.acs, 0, 0xbe, detail);
  print_effects_of(out, "Vendor Specific Admin Commands", kAdminCommands, log.acs, 0xc0, 0xfe,
                   detail);
  print_effects_of(out, "I/O Commands", kIoCommands, log.iocs, 0, 0x7f, detail);
  print_effects_of(out, "Vendor Specific I/O Commands", kIoCommands, log.iocs, 0x80, 0xff, detail);
  return out;
}

std::string print(const ChangedNamespaces& log) {
  if (log.overflow) {
    return fmt::format("more than {} ns changed\n", kChangedNamespacesBytes / 4);
  }
  std::string out;
  for (std::size_t i = 0; i < log.nsids.size(); ++i) {
    add(out, "[{:>4}]:{}\n", i, c_hex(log.nsids[i]));
  }
  return out;
}

std::string print(const AnaLog& log, std::string_view device) {
  std::string out =
      fmt::format("Asymmetric Namespace Access Log for NVMe device: {}\n", printable(device));
  add(out, "ANA LOG HEADER :-\nchgcnt\t:\t{}\nngrps\t:\t{}\nANA Log Desc :-\n", log.change_count,
      log.groups.size());
  for (const AnaGroup& group : log.groups) {
    add(out, "grpid\t:\t{}\nnnsids\t:\t{}\nchgcnt\t:\t{}\nstate\t:\t{}\n", group.group_id,
        group.nsids.size(), group.change_count, ana_state_name(group.state));
    for (const std::uint32_t nsid : group.nsids) add(out, "\tnsid\t:\t{}\n", nsid);
    out.push_back('\n');
  }
  return out;
}

std::string print(const SelfTestLog& log, std::string_view device, std::size_t entries,
                  Detail detail) {
  std::string out = fmt::format("Device Self Test Log for NVME device:{}\n", printable(device));
  add(out, "Current operation  : {}\n", c_hex(log.current_operation));
  add(out, "Current Completion : {}%\n", log.current_completion);
  for (std::size_t i = 0; i < std::min(entries, log.results.size()); ++i) {
    add(out, "Self Test Result[{}]:\n", i);
    print_self_test(out, log.results[i], detail);
  }
  return out;
}

std::string print(const SupportedLogPages& log, std::string_view device, Detail detail) {
  constexpr std::uint8_t kPersistentEvent = 0x0d;
  const auto supported = [](bool set) { return set ? "supported" : "not supported"; };
  std::string out = fmt::format("Support Log Pages Details for {}:\n", printable(device));
  for (unsigned lid = 0; lid < log.lids.size(); ++lid) {
    const std::uint32_t value = log.lids[lid];
    if ((value & kLogPageSupported) == 0) continue;
    add(out, "LID {:#x} ({}), supports {:#x}\n", lid, log_page_name(static_cast<std::uint8_t>(lid)),
        value);
    if (detail == Detail::brief) {
      out.push_back('\n');
      continue;
    }
    add(out, "  LSUPP is {}\n  IOS is {}\n", supported(true), supported((value >> 1 & 1) != 0));
    if (lid == kPersistentEvent) {
      // nvme-cli looks at bit 22 where bit 16 is meant; matched, since scripts see that.
      add(out, "  Establish Context and Read 512 Bytes of Header is {}\n",
          supported((value >> 0x16 & 1) != 0));
    }
  }
  return out;
}

std::string print_log_bytes(std::string_view device, std::uint8_t log_id, std::uint32_t nsid,
                            std::span<const std::byte> bytes) {
  return fmt::format("Device:{} log-id:{} namespace-id:{}\n{}", printable(device), log_id,
                     c_hex(nsid), hex_dump(bytes));
}

}  // namespace nvmf::nvme
