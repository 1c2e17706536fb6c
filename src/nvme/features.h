// Get Features and Set Features as text for people, laid out as nvme-cli 2.3 prints them (it has no
// JSON for them). Base 2.1 §5.1.25; the NVM Command Set's features as well.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "nvme/print.h"

namespace nvmf::nvme {

/// SEL of Get Features as `nvme get-feature --sel` takes it: 0 to 3 are FeatureSelect, 8 is its own
/// "changed": not sent, but Gets of the current and the default value, of which the current one is
/// shown if they differ.
inline constexpr std::uint8_t kSelectSupported = 3;
inline constexpr std::uint8_t kSelectChanged = 8;

/// Bytes of the data that belong to a feature, 0 if it has none: what `get-feature` and
/// `set-feature` transfer unless told otherwise with --data-len, and Get with SEL supported does
/// not at all. `cdw11` decides for the Host Identifier (EXHID: 16 instead of 8 bytes).
std::size_t feature_data_bytes(std::uint8_t feature, std::uint32_t cdw11 = 0);

/// "Number of Queues"; "Unknown" for those nvme-cli does not know.
std::string_view feature_name(std::uint8_t feature);
/// "Current", "Default", "Saved", "Supported capabilities", "Changed"; "Reserved" for the rest.
std::string_view feature_select_name(std::uint8_t select);

/// What a controller answered to Get Features.
struct FeatureAnswer {
  std::uint8_t feature = 0;
  std::uint8_t select = 0;
  std::uint32_t result = 0;         // dword 0 of the completion
  std::span<const std::byte> data;  // empty: none was transferred
};
/// `nvme get-feature`: one line; then what is supported, for SEL supported; or what the value
/// means, for human; or the data as hex_dump(). Data too short for what they should hold are shown
/// as hex_dump() also for human. Times are those of the process's time zone.
std::string print(const FeatureAnswer& answer, Detail detail = Detail::brief);

/// What was sent with Set Features, and its completion.
struct FeatureSetting {
  std::uint8_t feature = 0;
  std::uint64_t value = 0;  // as given; CDW11 are its lower 32 bits
  std::uint32_t cdw12 = 0;
  bool save = false;
  std::uint32_t result = 0;
  std::span<const std::byte> data;  // empty: none was sent
};
/// `nvme set-feature`: one line, then the data.
std::string print(const FeatureSetting& setting);

}  // namespace nvmf::nvme
