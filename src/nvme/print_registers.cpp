#include "nvme/print_registers.h"

#include <fmt/format.h>

#include <array>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

namespace nvmf::nvme {
namespace {

template <class... Args>
void add(std::string& out, fmt::format_string<Args...> format, Args&&... args) {
  fmt::format_to(std::back_inserter(out), format, std::forward<Args>(args)...);
}

bool bit(std::uint64_t value, unsigned index) {
  return (value >> index & 1u) != 0;
}

unsigned field(std::uint64_t value, unsigned high, unsigned low) {
  return static_cast<unsigned>(value >> low & (std::uint64_t{2} << (high - low)) - 1);
}

std::string_view yes_or_no(bool value) {
  return value ? "Yes" : "No";
}
std::string_view supported(bool value) {
  return value ? "Supported" : "Not Supported";
}

// §3.1.4.1. The lines about command sets stand under one heading.
void explain_cap(std::string& out, std::uint64_t cap) {
  constexpr std::string_view kIndent = "\t                                           ";
  add(out, "\tController Ready With Media Support (CRWMS): {}\n", supported(bit(cap, 59)));
  add(out, "\tController Ready Independent of Media Support (CRIMS): {}\n",
      supported(bit(cap, 60)));
  add(out, "\tController Memory Buffer Supported (CMBS): The Controller Memory Buffer is {}\n",
      supported(bit(cap, 57)));
  add(out, "\tPersistent Memory Region Supported (PMRS): The Persistent Memory Region is {}\n",
      supported(bit(cap, 56)));
  add(out, "\tMemory Page Size Maximum         (MPSMAX): {} bytes\n",
      1u << (12 + field(cap, 55, 52)));
  add(out, "\tMemory Page Size Minimum         (MPSMIN): {} bytes\n",
      1u << (12 + field(cap, 51, 48)));
  add(out, "\tBoot Partition Support              (BPS): {}\n", yes_or_no(bit(cap, 45)));
  add(out, "\tCommand Sets Supported              (CSS): NVM command set is {}\n",
      supported(bit(cap, 37)));
  add(out, "{}One or more I/O Command Sets are {}\n", kIndent, supported(bit(cap, 43)));
  add(out, "{}{}\n", kIndent,
      bit(cap, 44) ? "Only Admin Command Set Supported" : "I/O Command Set is Supported");
  add(out, "\tNVM Subsystem Reset Supported     (NSSRS): {}\n", yes_or_no(bit(cap, 36)));
  add(out, "\tDoorbell Stride                   (DSTRD): {} bytes\n",
      1u << (2 + field(cap, 35, 32)));
  add(out, "\tTimeout                              (TO): {} ms\n", field(cap, 31, 24) * 500);
  add(out,
      "\tArbitration Mechanism Supported     (AMS): Weighted Round Robin with Urgent Priority "
      "Class "
      "is {}\n",
      bit(cap, 17) ? "supported" : "not supported");
  add(out, "\tContiguous Queues Required          (CQR): {}\n", yes_or_no(bit(cap, 16)));
  add(out, "\tMaximum Queue Entries Supported    (MQES): {}\n\n", field(cap, 15, 0) + 1);
}

void explain_vs(std::string& out, std::uint32_t vs) {
  add(out, "\tNVMe specification {}.{}\n\n", field(vs, 31, 16), field(vs, 15, 8));
}

void explain_cc(std::string& out, std::uint32_t cc) {
  const auto notification = [&]() -> std::string_view {
    constexpr std::array<std::string_view, 4> kTexts = {"No notification; no effect",
                                                        "Normal shutdown notification",
                                                        "Abrupt shutdown notification", "Reserved"};
    return kTexts[field(cc, 15, 14)];
  };
  const auto arbitration = [&]() -> std::string_view {
    switch (field(cc, 13, 11)) {
      case 0:
        return "Round Robin";
      case 1:
        return "Weighted Round Robin with Urgent Priority Class";
      case 7:
        return "Vendor Specific";
      default:
        return "Reserved";
    }
  };
  const auto command_set = [&]() -> std::string_view {
    switch (field(cc, 6, 4)) {
      case 0:
        return "NVM Command Set";
      case 6:
        return "All supported I/O Command Sets";
      case 7:
        return "Admin Command Set only";
      default:
        return "Reserved";
    }
  };
  add(out, "\tController Ready Independent of Media Enable (CRIME): {}\n",
      bit(cc, 24) ? "Enabled" : "Disabled");
  add(out, "\tI/O Completion Queue Entry Size (IOCQES): {} bytes\n", 1u << field(cc, 23, 20));
  add(out, "\tI/O Submission Queue Entry Size (IOSQES): {} bytes\n", 1u << field(cc, 19, 16));
  add(out, "\tShutdown Notification              (SHN): {}\n", notification());
  add(out, "\tArbitration Mechanism Selected     (AMS): {}\n", arbitration());
  add(out, "\tMemory Page Size                   (MPS): {} bytes\n", 1u << (12 + field(cc, 10, 7)));
  add(out, "\tI/O Command Set Selected           (CSS): {}\n", command_set());
  add(out, "\tEnable                              (EN): {}\n\n", yes_or_no(bit(cc, 0)));
}

void explain_csts(std::string& out, std::uint32_t csts) {
  constexpr std::array<std::string_view, 4> kShutdown = {
      "Normal operation (no shutdown has been requested)", "Shutdown processing occurring",
      "Shutdown processing complete", "Reserved"};
  add(out, "\tProcessing Paused               (PP): {}\n", yes_or_no(bit(csts, 5)));
  add(out, "\tNVM Subsystem Reset Occurred (NSSRO): {}\n", yes_or_no(bit(csts, 4)));
  add(out, "\tShutdown Status               (SHST): {}\n", kShutdown[field(csts, 3, 2)]);
  add(out, "\tController Fatal Status        (CFS): {}\n", bit(csts, 1) ? "True" : "False");
  add(out, "\tReady                          (RDY): {}\n\n", yes_or_no(bit(csts, 0)));
}

void explain_nssr(std::string& out, std::uint32_t nssr) {
  add(out, "\tNVM Subsystem Reset Control (NSSRC): {}\n\n", nssr);
}

// In units of 500 ms.
void explain_crto(std::string& out, std::uint32_t crto) {
  add(out, "\tCRIMT                               : {} secs\n", field(crto, 31, 16) / 2);
  add(out, "\tCRWMT                               : {} secs\n", field(crto, 15, 0) / 2);
}

/// How nvme-cli shows one register in words.
struct Shown {
  std::uint32_t offset;
  std::string_view name;
  void (*explain)(std::string& out, std::uint32_t value);
};
constexpr std::uint32_t kOffsetCap = 0x00;
constexpr Shown kShown[] = {
    {0x08, "version", explain_vs}, {0x14, "cc", explain_cc},     {0x1c, "csts", explain_csts},
    {0x20, "nssr", explain_nssr},  {0x68, "crto", explain_crto},
};

/// nvme-cli looks at the 64 bits of CAP for this value too.
constexpr std::uint32_t kRefused = 0xffffffff;

void show(std::string& out, const Shown& shown, std::optional<std::uint32_t> value, Detail detail) {
  if (!value || *value == kRefused) return;
  add(out, "{:<8}: {:x}\n", shown.name, *value);
  if (detail == Detail::human) shown.explain(out, *value);
}

}  // namespace

std::string print(const Registers& registers, Detail detail) {
  std::string out;
  if (registers.cap && *registers.cap != kRefused) {
    add(out, "cap     : {:x}\n", *registers.cap);
    if (detail == Detail::human) explain_cap(out, *registers.cap);
  }
  const std::array values = {registers.vs, registers.cc, registers.csts, registers.nssr,
                             registers.crto};
  static_assert(values.size() == std::size(kShown));
  for (std::size_t i = 0; i < values.size(); ++i) show(out, kShown[i], values[i], detail);
  return out;
}

std::string to_json(const Registers& registers) {
  // json-c is given 32-bit registers as int.
  const auto int_of = [](std::optional<std::uint32_t> value) {
    return static_cast<std::int32_t>(value.value_or(kRefused));
  };
  constexpr std::uint64_t kRefused64 = ~std::uint64_t{0};
  constexpr std::int32_t kNeverAsked = -1;
  nlohmann::ordered_json root = {{"cap", registers.cap.value_or(kRefused64)},
                                 {"vs", int_of(registers.vs)},
                                 {"intms", int_of(registers.intms)},
                                 {"intmc", int_of(registers.intmc)},
                                 {"cc", int_of(registers.cc)},
                                 {"csts", int_of(registers.csts)},
                                 {"nssr", int_of(registers.nssr)},
                                 {"crto", int_of(registers.crto)},
                                 {"aqa", int_of(registers.aqa)},
                                 {"asq", registers.asq.value_or(kRefused64)},
                                 {"acq", registers.acq.value_or(kRefused64)},
                                 {"cmbloc", int_of(registers.cmbloc)},
                                 {"cmbsz", int_of(registers.cmbsz)},
                                 {"bpinfo", kNeverAsked},
                                 {"bprsel", kNeverAsked},
                                 {"bpmbl", kRefused64},
                                 {"cmbmsc", kRefused64}};
  for (const char* name :
       {"cmbsts", "pmrcap", "pmrctl", "pmrsts", "pmrebs", "pmrswtp", "pmrmscl", "pmrmscu"}) {
    root[name] = kNeverAsked;
  }
  return root.dump(2);
}

bool property_has_8_bytes(std::uint32_t offset) {
  switch (offset) {
    case kOffsetCap:
    case 0x28:  // ASQ
    case 0x30:  // ACQ
    case 0x48:  // BPMBL
    case 0x50:  // CMBMSC
      return true;
    default:
      return false;
  }
}

std::string_view property_name(std::uint32_t offset) {
  switch (offset) {
    case kOffsetCap:
      return "Controller Capabilities";
    case 0x08:
      return "Version";
    case 0x0c:
      return "Interrupt Vector Mask Set";
    case 0x10:
      return "Interrupt Vector Mask Clear";
    case 0x14:
      return "Controller Configuration";
    case 0x1c:
      return "Controller Status";
    case 0x20:
      return "NVM Subsystem Reset";
    case 0x24:
      return "Admin Queue Attributes";
    case 0x28:
      return "Admin Submission Queue Base Address";
    case 0x30:
      return "Admin Completion Queue Base Address";
    case 0x38:
      return "Controller Memory Buffer Location";
    case 0x3c:
      return "Controller Memory Buffer Size";
    default:
      return "Unknown";
  }
}

std::string print_property(std::uint32_t offset, std::uint64_t value, Detail detail) {
  const auto low = static_cast<std::uint32_t>(value);
  if (detail == Detail::brief) {
    return fmt::format("property: 0x{:02x} ({}), value: {:x}\n", offset, property_name(offset),
                       property_has_8_bytes(offset) ? value : low);
  }
  std::string out;
  if (offset == kOffsetCap) {
    add(out, "cap : {:x}\n", value);
    explain_cap(out, value);
    return out;
  }
  for (const Shown& shown : kShown) {
    if (shown.offset != offset) continue;
    add(out, "{} : {:x}\n", shown.name, low);
    shown.explain(out, low);
    return out;
  }
  return fmt::format("unknown property: 0x{:02x} ({}), value: {:x}\n", offset,
                     property_name(offset), value);
}

std::string print_set_property(std::uint32_t offset, std::uint64_t value) {
  const auto low = static_cast<std::uint32_t>(value);
  // C's %#08x: eight characters with the prefix, which 0 does not get.
  return fmt::format("set-property: {:02x} ({}), value: {}\n", offset, property_name(offset),
                     low == 0 ? "00000000" : fmt::format("0x{:06x}", low));
}

}  // namespace nvmf::nvme
