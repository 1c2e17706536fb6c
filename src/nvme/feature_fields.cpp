#include "nvme/feature_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <string_view>
#include <utility>

#include "nvme/feature_data.h"
#include "nvme/features.h"

namespace nvmf::nvme {
namespace {

using Data = std::span<const std::byte>;

template <class... Args>
void add(std::string& out, fmt::format_string<Args...> format, Args&&... args) {
  fmt::format_to(std::back_inserter(out), format, std::forward<Args>(args)...);
}

unsigned field(std::uint32_t value, unsigned high, unsigned low) {
  return value >> low & (2u << (high - low)) - 1u;
}

std::string_view true_or_false(bool value) {
  return value ? "True" : "False";
}
std::string_view enabled(bool value) {
  return value ? "Enabled" : "Disabled";
}

constexpr int kZeroCelsius = 273;  // kelvins, as nvme-cli rounds them
int celsius(unsigned kelvin) {
  return static_cast<int>(kelvin) - kZeroCelsius;
}

void arbitration(std::string& out, std::uint32_t v) {
  constexpr unsigned kNoLimit = 7;
  add(out, "\tHigh Priority Weight   (HPW): {}\n", field(v, 31, 24) + 1);
  add(out, "\tMedium Priority Weight (MPW): {}\n", field(v, 23, 16) + 1);
  add(out, "\tLow Priority Weight    (LPW): {}\n", field(v, 15, 8) + 1);
  const unsigned burst = field(v, 2, 0);
  add(out, "\tArbitration Burst       (AB): {}\n",
      burst == kNoLimit ? "No limit" : fmt::format("{}", 1u << burst));
}

void power_management(std::string& out, std::uint32_t v) {
  constexpr std::array<std::string_view, 3> kHints = {
      "No Workload", "Extended Idle Period with a Burst of Random Writes",
      "Heavy Sequential Writes"};
  const unsigned hint = field(v, 7, 5);
  add(out, "\tWorkload Hint (WH): {} - {}\n", hint,
      hint < kHints.size() ? kHints[hint] : "Reserved");
  add(out, "\tPower State   (PS): {}\n", field(v, 4, 0));
}

void temperature_threshold(std::string& out, std::uint32_t v) {
  constexpr unsigned kSensors = 8;
  const unsigned type = field(v, 21, 20);
  const unsigned select = field(v, 19, 16);
  const unsigned kelvin = field(v, 15, 0);
  add(out, "\tThreshold Type Select         (THSEL): {} - {}\n", type,
      type == 0   ? "Over Temperature Threshold"
      : type == 1 ? "Under Temperature Threshold"
                  : "Reserved");
  add(out, "\tThreshold Temperature Select (TMPSEL): {} - {}\n", select,
      select == 0          ? "Composite Temperature"
      : select <= kSensors ? fmt::format("Temperature Sensor {}", select)
                           : "Reserved");
  add(out, "\tTemperature Threshold         (TMPTH): {}°C ({} Kelvin)\n", celsius(kelvin), kelvin);
}

void error_recovery(std::string& out, std::uint32_t v) {
  add(out, "\tDeallocated or Unwritten Logical Block Error Enable (DULBE): {}\n",
      enabled(field(v, 16, 16) != 0));
  add(out, "\tTime Limited Error Recovery                          (TLER): {} ms\n",
      field(v, 15, 0) * 100);
}

void number_of_queues(std::string& out, std::uint32_t v) {
  add(out, "\tNumber of IO Completion Queues Allocated (NCQA): {}\n", field(v, 31, 16) + 1);
  add(out, "\tNumber of IO Submission Queues Allocated (NSQA): {}\n", field(v, 15, 0) + 1);
}

void interrupt_coalescing(std::string& out, std::uint32_t v) {
  add(out, "\tAggregation Time     (TIME): {} usec\n", field(v, 15, 8) * 100);
  add(out, "\tAggregation Threshold (THR): {}\n", field(v, 7, 0) + 1);
}

void interrupt_vector(std::string& out, std::uint32_t v) {
  add(out, "\tCoalescing Disable (CD): {}\n", true_or_false(field(v, 16, 16) != 0));
  add(out, "\tInterrupt Vector   (IV): {}\n", field(v, 15, 0));
}

void async_event_config(std::string& out, std::uint32_t v) {
  constexpr std::array<std::pair<std::string_view, std::uint32_t>, 9> kNotices = {
      {{"Discovery Log Page Change Notices", 1u << 31},
       {"Endurance Group Event Aggregate Log Change Notices", 1u << 14},
       {"LBA Status Information Notices", 1u << 13},
       {"Predictable Latency Event Aggregate Log Change Notices", 1u << 12},
       {"Asymmetric Namespace Access Change Notices", 1u << 11},
       {"Telemetry Log Notices", 1u << 10},
       {"Firmware Activation Notices", 1u << 9},
       {"Namespace Attribute Notices", 1u << 8},
       {"SMART / Health Critical Warnings", 0xffu}}};
  for (const auto& [name, bits] : kNotices) {
    add(out, "\t{:<58}: {}\n", name,
        (v & bits) != 0 ? "Send async event" : "Do not send async event");
  }
}

void thermal_management(std::string& out, std::uint32_t v) {
  for (const unsigned number : {1u, 2u}) {
    const unsigned kelvin = number == 1 ? field(v, 31, 16) : field(v, 15, 0);
    add(out, "\tThermal Management Temperature {0} (TMT{0}) : {1} Kelvin ({2}°C)\n", number, kelvin,
        celsius(kelvin));
  }
}

// Without the end of its line, as nvme-cli leaves it.
void latency_window(std::string& out, std::uint32_t v) {
  const unsigned window = field(v, 2, 0);
  add(out, "\tWindow Select: {}",
      window == 1   ? "Deterministic Window (DTWIN)"
      : window == 2 ? "Non-deterministic Window (NDWIN)"
                    : "Reserved");
}

void lba_status_interval(std::string& out, std::uint32_t v) {
  add(out, "\tLBA Status Information Poll Interval (LSIPI)  : {}\n", field(v, 31, 16));
  add(out, "\tLBA Status Information Report Interval (LSIRI): {}\n", field(v, 15, 0));
}

void endurance_events(std::string& out, std::uint32_t v) {
  add(out, "\tEndurance Group Identifier (ENDGID): {}\n", field(v, 15, 0));
  add(out, "\tEndurance Group Critical Warnings  : {}\n", field(v, 23, 16));
}

void data_placement(std::string& out, std::uint32_t v) {
  add(out, "\tFlexible Direct Placement Enable (FDPE)       : {}\n",
      field(v, 0, 0) != 0 ? "Yes" : "No");
  add(out, "\tFlexible Direct Placement Configuration Index : {}\n", field(v, 11, 8));
}

void reservation_mask(std::string& out, std::uint32_t v) {
  add(out, "\tMask Reservation Preempted Notification  (RESPRE): {}\n",
      true_or_false(field(v, 3, 3) != 0));
  add(out, "\tMask Reservation Released Notification   (RESREL): {}\n",
      true_or_false(field(v, 2, 2) != 0));
  add(out, "\tMask Registration Preempted Notification (REGPRE): {}\n",
      true_or_false(field(v, 1, 1) != 0));
}

void write_protect(std::string& out, std::uint32_t v) {
  constexpr std::array<std::string_view, 4> kStates = {"No Write Protect", "Write Protect",
                                                       "Write Protect Until Power Cycle",
                                                       "Permanent Write Protect"};
  add(out, "\tNamespace Write Protect: {}\n", v < kStates.size() ? kStates[v] : "Reserved");
}

/// How one feature is put into words.
struct Feature {
  std::uint8_t id;
  std::string_view name;
  void (*value)(std::string& out, std::uint32_t result) = nullptr;
  /// Called if data were transferred.
  void (*data)(std::string& out, std::uint32_t result, Data data) = nullptr;
};

template <unsigned bit>
bool flag(std::uint32_t v) {
  return (v >> bit & 1u) != 0;
}

constexpr Feature kFeatures[] = {
    {0x01, "Arbitration", arbitration},
    {0x02, "Power Management", power_management},
    {0x03, "LBA Range Type",
     [](std::string& out, std::uint32_t v) {
       add(out, "\tNumber of LBA Ranges (NUM): {}\n", field(v, 5, 0) + 1);
     },
     [](std::string& out, std::uint32_t v, Data data) {
       out += lba_ranges_text(data, field(v, 5, 0) + 1);
     }},
    {0x04, "Temperature Threshold", temperature_threshold},
    {0x05, "Error Recovery", error_recovery},
    {0x06, "Volatile Write Cache",
     [](std::string& out, std::uint32_t v) {
       add(out, "\tVolatile Write Cache Enable (WCE): {}\n", enabled(flag<0>(v)));
     }},
    {0x07, "Number of Queues", number_of_queues},
    {0x08, "Interrupt Coalescing", interrupt_coalescing},
    {0x09, "Interrupt Vector Configuration", interrupt_vector},
    {0x0a, "Write Atomicity Normal",
     [](std::string& out, std::uint32_t v) {
       add(out, "\tDisable Normal (DN): {}\n", true_or_false(flag<0>(v)));
     }},
    {0x0b, "Async Event Configuration", async_event_config},
    {0x0c, "Autonomous Power State Transition",
     [](std::string& out, std::uint32_t v) {
       add(out, "\tAutonomous Power State Transition Enable (APSTE): {}\n", enabled(flag<0>(v)));
     },
     [](std::string& out, std::uint32_t, Data data) { out += power_transitions_text(data); }},
    {0x0d, "Host Memory Buffer",
     [](std::string& out, std::uint32_t v) {
       add(out, "\tEnable Host Memory (EHM): {}\n", enabled(flag<0>(v)));
     },
     [](std::string& out, std::uint32_t, Data data) { out += host_memory_text(data); }},
    {0x0e, "Timestamp", nullptr,
     [](std::string& out, std::uint32_t, Data data) { out += timestamp_text(data); }},
    {0x0f, "Keep Alive Timer",
     [](std::string& out, std::uint32_t v) {
       add(out, "\tKeep Alive Timeout (KATO) in milliseconds: {}\n", v);
     }},
    {0x10, "Host Controlled Thermal Management", thermal_management},
    {0x11, "Non-Operational Power State Config",
     [](std::string& out, std::uint32_t v) {
       add(out, "\tNon-Operational Power State Permissive Mode Enable (NOPPME): {}\n",
           true_or_false(flag<0>(v)));
     }},
    {0x12, "Read Recovery Level",
     [](std::string& out, std::uint32_t v) {
       add(out, "\tRead Recovery Level (RRL): {}\n", field(v, 3, 0));
     }},
    {0x13, "Predictable Latency Mode Config",
     [](std::string& out, std::uint32_t v) {
       add(out, "\tPredictable Latency Window Enabled: {}\n", true_or_false(flag<0>(v)));
     },
     [](std::string& out, std::uint32_t, Data data) { out += predictable_latency_text(data); }},
    {0x14, "Predictable Latency Mode Window", latency_window},
    {0x15, "LBA Status Interval", lba_status_interval},
    {0x16, "Host Behavior", nullptr,
     [](std::string& out, std::uint32_t, Data data) {
       add(out, "\tHost Behavior Support: {}\n",
           true_or_false((data[0] & std::byte{1}) != std::byte{0}));
     }},
    {0x17, "Sanitize",
     [](std::string& out, std::uint32_t v) {
       add(out, "\tNo-Deallocate Response Mode (NODRM) : {}\n", field(v, 0, 0));
     }},
    {0x18, "Endurance Event Group Configuration", endurance_events},
    {0x19, "I/O Command Set Profile",
     [](std::string& out, std::uint32_t v) {
       add(out, "\tI/O Command Set Profile: {}\n", true_or_false(flag<0>(v)));
     }},
    {0x1a, "Spinup Control",
     [](std::string& out, std::uint32_t v) {
       add(out, "\tSpinup control feature Enabled: {}\n", true_or_false(flag<0>(v)));
     }},
    {0x1d, "Flexible Direct Placement", data_placement},
    {0x1e, "Flexible Direct Placement Events", nullptr,
     [](std::string& out, std::uint32_t v, Data data) { out += placement_events_text(data, v); }},
    {0x7d, "Enhanced Controller Metadata", nullptr,
     [](std::string& out, std::uint32_t, Data data) {
       out += host_metadata_text(data, HostMetadata::controller);
     }},
    {0x7e, "Controller Metadata", nullptr,
     [](std::string& out, std::uint32_t, Data data) {
       out += host_metadata_text(data, HostMetadata::controller);
     }},
    {0x7f, "Namespace Metadata", nullptr,
     [](std::string& out, std::uint32_t, Data data) {
       out += host_metadata_text(data, HostMetadata::name_space);
     }},
    {0x80, "Software Progress",
     [](std::string& out, std::uint32_t v) {
       add(out, "\tPre-boot Software Load Count (PBSLC): {}\n", field(v, 7, 0));
     }},
    {0x81, "Host Identifier", nullptr,
     [](std::string& out, std::uint32_t, Data data) { out += host_id_text(data); }},
    {0x82, "Reservation Notification Mask", reservation_mask},
    {0x83, "Reservation Persistence",
     [](std::string& out, std::uint32_t v) {
       add(out, "\tPersist Through Power Loss (PTPL): {}\n", true_or_false(flag<0>(v)));
     }},
    {0x84, "Namespace Write Protect", write_protect},
};

const Feature* find_feature(std::uint8_t id) {
  const auto* const found = std::ranges::find(kFeatures, id, &Feature::id);
  return found == std::end(kFeatures) ? nullptr : found;
}

}  // namespace

std::string_view feature_name(std::uint8_t feature) {
  const Feature* const known = find_feature(feature);
  return known == nullptr ? "Unknown" : known->name;
}

std::string feature_fields_text(std::uint8_t feature, std::uint32_t result, Data data) {
  const Feature* const known = find_feature(feature);
  if (known == nullptr) return {};
  std::string out;
  if (known->value != nullptr) known->value(out, result);
  if (known->data != nullptr && !data.empty()) known->data(out, result, data);
  return out;
}

}  // namespace nvmf::nvme
