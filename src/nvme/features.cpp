#include "nvme/features.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "nvme/feature_fields.h"
#include "nvme/hex_dump.h"
#include "nvme/print_lines.h"

namespace nvmf::nvme {
namespace {

/// C's %#0*x as nvme-cli uses it: `digits` of them behind 0x, but 0 as that many zeroes alone.
std::string padded_hex(std::uint64_t value, int digits) {
  return value == 0 ? std::string(static_cast<std::size_t>(digits), '0')
                    : fmt::format("0x{:0{}x}", value, digits);
}

std::string select_result_text(std::uint32_t result) {
  constexpr std::array<std::string_view, 3> kBits = {"saveable", "per-namespace", "changeable"};
  std::string out;
  for (std::size_t bit = 0; bit < kBits.size(); ++bit) {
    if ((result >> bit & 1u) != 0) out += fmt::format("  Feature is {}\n", kBits[bit]);
  }
  return out;
}

constexpr std::uint8_t kFeatureLbaRange = 0x03;
constexpr std::uint8_t kFeatureLbaStatusInterval = 0x15;
constexpr std::uint8_t kFeatureHostId = 0x81;

}  // namespace

std::size_t feature_data_bytes(std::uint8_t feature, std::uint32_t cdw11) {
  switch (feature) {
    case kFeatureLbaRange:
      return 4096;
    case 0x0c:  // Autonomous Power State Transition
      return 256;
    case 0x0d:  // Host Memory Buffer
      return 4096;
    case 0x0e:  // Timestamp
      return 8;
    case 0x13:  // Predictable Latency Mode Config
    case 0x16:  // Host Behavior Support
      return 512;
    case 0x1e:  // Flexible Data Placement Events: 255 of two bytes
      return 510;
    case 0x7d:  // Host metadata
    case 0x7e:
    case 0x7f:
      return 4096;
    case kFeatureHostId:
      return (cdw11 & 1u) != 0 ? 16 : 8;
    default:
      return 0;
  }
}

std::string_view feature_select_name(std::uint8_t select) {
  switch (select) {
    case 0:
      return "Current";
    case 1:
      return "Default";
    case 2:
      return "Saved";
    case kSelectSupported:
      return "Supported capabilities";
    case kSelectChanged:
      return "Changed";
    default:
      return "Reserved";
  }
}

std::string print(const FeatureAnswer& answer, Detail detail) {
  std::string out = fmt::format("get-feature:{} ({}), {} value:{}\n", padded_hex(answer.feature, 2),
                                feature_name(answer.feature), feature_select_name(answer.select),
                                padded_hex(answer.result, 8));
  if (answer.select == kSelectSupported) return out + select_result_text(answer.result);
  if (detail == Detail::human) {
    return out + feature_fields_text(answer.feature, answer.result, answer.data);
  }
  return answer.data.empty() ? out : out + hex_dump(answer.data);
}

std::string print(const FeatureSetting& setting) {
  std::string out = fmt::format("set-feature:{} ({}), value:{}, cdw12:{}, save:{}\n",
                                padded_hex(setting.feature, 2), feature_name(setting.feature),
                                padded_hex(setting.value, 8), padded_hex(setting.cdw12, 8),
                                setting.save ? "0x1" : "0");
  if (setting.feature == kFeatureLbaStatusInterval) {
    out += feature_fields_text(setting.feature, setting.result, {});
  }
  if (setting.data.empty()) return out;
  if (setting.feature == kFeatureLbaRange) {
    return out + lba_ranges_text(setting.data, (setting.result & 0x3fu) + 1);
  }
  return out + hex_dump(setting.data);
}

}  // namespace nvmf::nvme
