#include "nvme/feature_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <iterator>
#include <string_view>
#include <utility>

#include "nvme/endian.h"
#include "nvme/feature_fields.h"
#include "nvme/hex_dump.h"
#include "nvme/identify.h"
#include "nvme/print_lines.h"
#include "nvme/text.h"

namespace nvmf::nvme {
namespace {

using Data = std::span<const std::byte>;

template <class... Args>
void add(std::string& out, fmt::format_string<Args...> format, Args&&... args) {
  fmt::format_to(std::back_inserter(out), format, std::forward<Args>(args)...);
}

std::string_view range_type_text(unsigned type) {
  constexpr std::array<std::string_view, 5> kTypes = {"Reserved", "Filesystem", "RAID", "Cache",
                                                      "Page / Swap file"};
  if (type < kTypes.size()) return kTypes[type];
  return type < 0x80 ? "Reserved" : "Vendor Specific";
}

std::string local_time(std::time_t seconds) {
  std::tm parts{};
  tzset();
  if (localtime_r(&seconds, &parts) == nullptr) return "-";
  std::array<char, 128> text{};
  return std::strftime(text.data(), text.size(), "%c %Z", &parts) == 0 ? "-" : text.data();
}

std::string_view placement_event_text(unsigned type) {
  switch (type) {
    case 0x00:
      return "Reclaim Unit Not Fully Written";
    case 0x01:
      return "Reclaim Unit Active Time Limit Exceeded";
    case 0x02:
      return "Controller Level Reset Modified Reclaim Unit Handles";
    case 0x03:
      return "Invalid Placement Identifier";
    case 0x80:
      return "Media Reallocated";
    case 0x81:
      return "Implicitly Modified Reclaim Unit Handle";
    default:
      return "Unknown";
  }
}

std::string_view metadata_type_text(HostMetadata kind, unsigned type) {
  constexpr std::array<std::string_view, 16> kController = {"Operating System Controller Name",
                                                            "Operating System Driver Name",
                                                            "Operating System Driver Version",
                                                            "Pre-boot Controller Name",
                                                            "Pre-boot Driver Name",
                                                            "Pre-boot Driver Version",
                                                            "System Processor Model",
                                                            "Chipset Driver Name",
                                                            "Chipset Driver Version",
                                                            "Operating System Name and Build",
                                                            "System Product Name",
                                                            "Firmware Version",
                                                            "Operating System Driver Filename",
                                                            "Display Driver Name",
                                                            "Display Driver Version",
                                                            "Host-Determined Failure Record"};
  constexpr std::array<std::string_view, 4> kNamespace = {
      "Operating System Namespace Name", "Pre-boot Namespace Name",
      "Operating System Namespace Name Qualifier 1", "Operating System Namespace Name Qualifier 2"};
  if (kind == HostMetadata::controller) {
    return type >= 1 && type <= kController.size() ? kController[type - 1]
                                                   : "Unknown Controller Type";
  }
  return type >= 1 && type <= kNamespace.size() ? kNamespace[type - 1] : "Unknown Namespace Type";
}

}  // namespace

std::string lba_ranges_text(Data data, std::size_t count) {
  constexpr std::size_t kRangeBytes = 64;
  if (data.size() < kRangeBytes) return hex_dump(data);
  std::string out;
  for (std::size_t i = 0; i < std::min(count, data.size() / kRangeBytes); ++i) {
    const std::byte* const range = data.data() + i * kRangeBytes;
    const unsigned type = load_u8(range);
    const unsigned attributes = load_u8(range + 1);
    add(out, "\ttype       : {} - {}\n", c_hex(type), range_type_text(type));
    add(out,
        "\tattributes : {} - LBA range {} be overwritten, LBA range should be {} the OS/EFI/BIOS\n",
        c_hex(attributes), (attributes & 1u) != 0 ? "may" : "should not",
        (attributes & 2u) != 0 ? "hidden from" : "visible from");
    add(out, "\tslba       : {}\n", c_hex(load_le64(range + 16)));
    add(out, "\tnlb        : {}\n", c_hex(load_le64(range + 24)));
    out += "\tguid       : ";
    for (std::size_t b = 0; b < 16; ++b) add(out, "{:02x}", load_u8(range + 32 + b));
    out.push_back('\n');
  }
  return out;
}

std::string power_transitions_text(Data data) {
  constexpr std::size_t kEntries = 32;
  constexpr std::string_view kRule = "\t.................\n";
  if (data.size() < kEntries * 8) return hex_dump(data);
  std::string out = fmt::format("\tAuto PST Entries{}", kRule);
  for (std::size_t i = 0; i < kEntries; ++i) {
    const std::uint64_t entry = load_le64(data.data() + 8 * i);
    add(out, "\tEntry[{:>2}]   \n{}", i, kRule);
    add(out, "\tIdle Time Prior to Transition (ITPT): {} ms\n", entry >> 8 & 0xffffff);
    add(out, "\tIdle Transition Power State   (ITPS): {}\n{}", entry >> 3 & 0x1f, kRule);
  }
  return out;
}

std::string host_memory_text(Data data) {
  if (data.size() < 16) return hex_dump(data);
  std::string out;
  add(out, "\tHost Memory Descriptor List Entry Count (HMDLEC): {}\n", load_le32(data.data() + 12));
  add(out, "\tHost Memory Descriptor List Address     (HMDLAU): 0x{:x}\n",
      load_le32(data.data() + 8));
  add(out, "\tHost Memory Descriptor List Address     (HMDLAL): 0x{:x}\n",
      load_le32(data.data() + 4));
  add(out, "\tHost Memory Buffer Size                  (HSIZE): {}\n", load_le32(data.data()));
  return out;
}

std::string timestamp_text(Data data) {
  if (data.size() < 8) return hex_dump(data);
  constexpr std::uint64_t kMask = (std::uint64_t{1} << 48) - 1;
  const std::uint64_t milliseconds = load_le64(data.data()) & kMask;
  const unsigned attributes = load_u8(data.data() + 6);
  std::string out = fmt::format("\tThe timestamp is : {} ({})\n", milliseconds,
                                local_time(static_cast<std::time_t>(milliseconds / 1000)));
  out += (attributes & 2u) != 0
             ? "\tThe Timestamp field was initialized with a Timestamp value using a Set Features "
               "command.\n"
             : "\tThe Timestamp field was initialized to ‘0’ by a Controller Level Reset.\n";
  out += (attributes & 1u) != 0
             ? "\tThe controller may have stopped counting during vendor specific intervals after "
               "the Timestamp value was initialized\n"
             : "\tThe controller counted time in milliseconds continuously since the Timestamp "
               "value was initialized.\n";
  return out;
}

std::string predictable_latency_text(Data data) {
  if (data.size() < 56) return hex_dump(data);
  std::string out;
  add(out, "\tEnable Event          :{:04x}\n", load_le16(data.data()));
  add(out, "\tDTWIN Reads Threshold :{}\n", load_le64(data.data() + 32));
  add(out, "\tDTWIN Writes Threshold:{}\n", load_le64(data.data() + 40));
  add(out, "\tDTWIN Time Threshold  :{}\n", load_le64(data.data() + 48));
  return out;
}

std::string placement_events_text(Data data, std::size_t count) {
  std::string out;
  for (std::size_t i = 0; i < std::min(count, data.size() / 2); ++i) {
    add(out, "\t{:<53}: {}Enabled\n", placement_event_text(load_u8(data.data() + 2 * i)),
        (load_u8(data.data() + 2 * i + 1) & 1u) != 0 ? "" : "Not ");
  }
  return out;
}

std::string host_metadata_text(Data data, HostMetadata kind) {
  constexpr std::size_t kHeaderBytes = 2;
  constexpr std::size_t kElementBytes = 4;  // type, revision, length; then the value
  if (data.size() < kHeaderBytes) return hex_dump(data);
  const unsigned count = load_u8(data.data());
  std::string out = fmt::format("\tNum Metadata Element Descriptors: {}\n", count);
  data = data.subspan(kHeaderBytes);
  for (unsigned i = 0; i < count && data.size() >= kElementBytes; ++i) {
    const unsigned type = load_u8(data.data());
    const std::size_t length = load_le16(data.data() + 2);
    const Data rest = data.subspan(kElementBytes);
    const Data value = rest.first(std::min(length, rest.size()));
    add(out, "\tElement[{:<3}]:\n", i);
    add(out, "\t\tType\t    : 0x{:02x} ({})\n", type, metadata_type_text(kind, type));
    add(out, "\t\tRevision : {}\n", load_u8(data.data() + 1));
    add(out, "\t\tLength   : {}\n", length);
    add(out, "\t\tValue    : {}\n", printable(load_text(value, '\0')));
    data = rest.subspan(value.size());
  }
  return out;
}

std::string host_id_text(Data data) {
  if (data.size() < 8) return hex_dump(data);
  return fmt::format("\tHost Identifier (HOSTID):  {}\n", load_le64(data.data()));
}

}  // namespace nvmf::nvme
