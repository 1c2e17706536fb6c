#include <array>

#include "nvme/print_flags.h"
#include "nvme/print_identify_flags.h"

namespace nvmf::nvme {
namespace {

constexpr int kKelvinOfZeroCelsius = 273;

void explain_temperature(Lines& out, std::uint16_t kelvins, std::string_view name) {
  out.raw(" [15:0] : {}\u00b0C ({} Kelvin)\t{}\n\n", int{kelvins} - kKelvinOfZeroCelsius, kelvins,
          name);
}

void explain_capacity(Lines& out, const Uint128& bytes, std::string_view name) {
  out.raw("[127:0] : {}\n\t{}\n\n", bytes.to_string(), name);
}

void explain_count(Lines& out, std::uint8_t count, std::string_view name) {
  out.raw("  [7:0] : {} (0's based)\t{}\n\n", count, name);
}

/// Queue entry sizes: powers of two.
void explain_entry_sizes(Lines& out, std::uint8_t sizes, std::string_view queue) {
  Flags flags(out, sizes);
  flags.named(7, 4, fmt::format("Max {} Entry Size ({})", queue, 1u << flags.bits(7, 4)));
  flags.named(3, 0, fmt::format("Min {} Entry Size ({})", queue, 1u << flags.bits(3, 0)));
  flags.end();
}

/// nvme-cli 2.3 shifts these two reserved groups before it masks them, so that the lowest two of
/// their bits are never shown.
void reserved_shifted(Flags& flags) {
  if (const std::uint32_t shown = flags.bits(7, 2) & 0xfcu; shown != 0) {
    flags.line(7, 2, shown, "Reserved", {.indent = 1});
  }
}

void explain_format(Lines& out, std::uint8_t value, std::string_view commands) {
  Flags flags(out, value);
  flags.reserved(7, 1);
  flags.choice(0, fmt::format("{} Vendor Specific Commands uses Vendor Specific Format", commands),
               fmt::format("{} Vendor Specific Commands uses NVMe Format", commands));
  flags.end();
}

}  // namespace

void explain_cmic(Lines& out, std::uint8_t cmic) {
  Flags flags(out, cmic);
  flags.reserved(7, 4);
  flags.choice(3, "ANA not supported", "ANA supported");
  flags.choice(2, "PCI", "SR-IOV");
  flags.choice(1, "Single Controller", "Multi Controller");
  flags.choice(0, "Single Port", "Multi Port");
  flags.end();
}

void explain_oaes(Lines& out, std::uint32_t oaes) {
  Flags flags(out, oaes);
  flags.supported(31, "Discovery Log Change Notice");
  flags.reserved(30, 28);
  flags.supported(27, "Zone Descriptor Changed Notices");
  flags.reserved(26, 16);
  flags.supported(15, "Normal NSS Shutdown Event");
  flags.supported(14, "Endurance Group Event Aggregate Log Page Change Notice");
  flags.supported(13, "LBA Status Information Notices");
  flags.supported(12, "Predictable Latency Event Aggregate Log Change Notices");
  flags.supported(11, "Asymmetric Namespace Access Change Notices");
  flags.reserved(10, 10);
  flags.supported(9, "Firmware Activation Notices");
  flags.supported(8, "Namespace Attribute Changed Event");
  flags.reserved(7, 0);
  flags.end();
}

void explain_ctratt(Lines& out, std::uint32_t ctratt) {
  Flags flags(out, ctratt);
  flags.reserved(31, 20, {.indent = 1});
  flags.supported(19, "Flexible Data Placement");
  flags.reserved(18, 16);
  flags.supported(15, "Extended LBA Formats");
  flags.supported(14, "Delete NVM Set");
  flags.supported(13, "Delete Endurance Group");
  flags.supported(12, "Variable Capacity Management");
  flags.supported(11, "Fixed Capacity Management");
  flags.supported(10, "Multi Domain Subsystem");
  flags.supported(9, "UUID List");
  flags.supported(8, "SQ Associations");
  flags.supported(7, "Namespace Granularity");
  flags.supported(6, "Traffic Based Keep Alive");
  flags.supported(5, "Predictable Latency Mode");
  flags.supported(4, "Endurance Groups");
  flags.supported(3, "Read Recovery Levels");
  flags.supported(2, "NVM Sets");
  flags.supported(1, "Non-Operational Power State Permissive");
  flags.supported(0, "128-bit Host Identifier");
  flags.end();
}

void explain_cntrltype(Lines& out, std::uint8_t cntrltype) {
  constexpr std::array<std::string_view, 4> kTypes = {"Controller type not reported",
                                                      "I/O Controller", "Discovery Controller",
                                                      "Administrative Controller"};
  Flags flags(out, cntrltype);
  flags.named(7, 2, "Reserved");
  flags.line(1, 0, cntrltype, kTypes[flags.bits(1, 0)]);  // 2.3 shows the whole field here
}

void explain_nvmsr(Lines& out, std::uint8_t nvmsr) {
  Flags flags(out, nvmsr);
  reserved_shifted(flags);
  flags.choice(1, "NVM subsystem Not part of an Enclosure", "NVM subsystem part of an Enclosure");
  flags.choice(0, "NVM subsystem Not part of an Storage Device",
               "NVM subsystem part of an Storage Device");
  flags.end();
}

void explain_vwci(Lines& out, std::uint8_t vwci) {
  Flags flags(out, vwci);
  flags.choice(7, "VPD Write Cycles Remaining field is Not valid.",
               "VPD Write Cycles Remaining field is valid.");
  flags.line(6, 0, vwci & 0xfeu, "VPD Write Cycles Remaining ");  // 2.3 masks it so
  flags.end();
}

void explain_mec(Lines& out, std::uint8_t mec) {
  Flags flags(out, mec);
  reserved_shifted(flags);
  flags.choice(1, "NVM subsystem Not contains a Management Endpoint on a PCIe port",
               "NVM subsystem contains a Management Endpoint on a PCIe port");
  flags.choice(0, "NVM subsystem Not contains a Management Endpoint on an SMBus/I2C port",
               "NVM subsystem contains a Management Endpoint on an SMBus/I2C port");
  flags.end();
}

void explain_oacs(Lines& out, std::uint16_t oacs) {
  Flags flags(out, oacs);
  flags.reserved(15, 11, {.indent = 1});
  flags.supported(10, "Lockdown Command and Feature");
  flags.supported(9, "Get LBA Status Capability");
  flags.supported(8, "Doorbell Buffer Config");
  flags.supported(7, "Virtualization Management");
  flags.supported(6, "NVMe-MI Send and Receive");
  flags.supported(5, "Directives");
  flags.supported(4, "Device Self-test");
  flags.supported(3, "NS Management and Attachment");
  flags.supported(2, "FW Commit and Download");
  flags.supported(1, "Format NVM");
  flags.supported(0, "Security Send and Receive");
  flags.end();
}

void explain_frmw(Lines& out, std::uint8_t frmw) {
  Flags flags(out, frmw);
  flags.reserved(7, 6);
  flags.supported(5, "Multiple FW or Boot Update Detection");
  flags.supported(4, "Firmware Activate Without Reset");
  flags.named(3, 1, "Number of Firmware Slots");
  flags.choice(0, "Firmware Slot 1 Read/Write", "Firmware Slot 1 Read-Only");
  flags.end();
}

void explain_lpa(Lines& out, std::uint8_t lpa) {
  Flags flags(out, lpa);
  flags.reserved(7, 7);
  flags.supported(6, "Telemetry Log Data Area 4");
  flags.supported(5, "LID 0x0, Scope of each command in LID 0x5, 0x12, 0x13");
  flags.supported(4, "Persistent Event log");
  flags.supported(3, "Telemetry host/controller initiated log page");
  flags.supported(2, "Extended data for Get Log Page");
  flags.supported(1, "Command Effects Log Page");
  flags.supported(0, "SMART/Health Log Page per NS");
  flags.end();
}

void explain_elpe(Lines& out, std::uint8_t elpe) {
  explain_count(out, elpe, "Error Log Page Entries (ELPE)");
}

void explain_npss(Lines& out, std::uint8_t npss) {
  explain_count(out, npss, "Number of Power States Support (NPSS)");
}

void explain_avscc(Lines& out, std::uint8_t avscc) {
  explain_format(out, avscc, "Admin");
}

void explain_apsta(Lines& out, std::uint8_t apsta) {
  Flags flags(out, apsta);
  flags.reserved(7, 1);
  flags.supported(0, "Autonomous Power State Transitions");
  flags.end();
}

void explain_wctemp(Lines& out, std::uint16_t kelvins) {
  explain_temperature(out, kelvins, "Warning Composite Temperature Threshold (WCTEMP)");
}

void explain_cctemp(Lines& out, std::uint16_t kelvins) {
  explain_temperature(out, kelvins, "Critical Composite Temperature Threshold (CCTEMP)");
}

void explain_mntmt(Lines& out, std::uint16_t kelvins) {
  explain_temperature(out, kelvins, "Minimum Thermal Management Temperature (MNTMT)");
}

void explain_mxtmt(Lines& out, std::uint16_t kelvins) {
  explain_temperature(out, kelvins, "Maximum Thermal Management Temperature (MXTMT)");
}

void explain_tnvmcap(Lines& out, const Uint128& bytes) {
  explain_capacity(out, bytes, "Total NVM Capacity (TNVMCAP)");
}

void explain_unvmcap(Lines& out, const Uint128& bytes) {
  explain_capacity(out, bytes, "Unallocated NVM Capacity (UNVMCAP)");
}

void explain_rpmbs(Lines& out, std::uint32_t rpmbs) {
  constexpr Flags::Style kTight = {.indent = 1, .colon = ":"};
  Flags flags(out, rpmbs);
  flags.line(31, 24, flags.bits(31, 24), "Access Size", kTight);
  flags.line(23, 16, flags.bits(23, 16), "Total Size", kTight);
  flags.reserved(15, 6, {.indent = 1});
  flags.named(5, 3, "Authentication Method");
  flags.named(2, 0, "Number of RPMB Units");
  flags.end();
}

void explain_hctma(Lines& out, std::uint16_t hctma) {
  Flags flags(out, hctma);
  flags.reserved(15, 1, {.indent = 1});
  flags.supported(0, "Host Controlled Thermal Management");
  flags.end();
}

void explain_sanicap(Lines& out, std::uint32_t sanicap) {
  constexpr std::array<std::string_view, 4> kModifications = {
      "Additional media modification after sanitize operation completes successfully is not "
      "defined",
      "Media is not additionally modified after sanitize operation completes successfully",
      "Media is additionally modified after sanitize operation completes successfully", "Reserved"};
  constexpr Flags::Style kDeep = {.indent = 4};
  Flags flags(out, sanicap);
  flags.named(31, 30, kModifications[flags.bits(31, 30)]);
  flags.choice(29, "No-Deallocate After Sanitize bit in Sanitize command Supported",
               "No-Deallocate After Sanitize bit in Sanitize command Not Supported");
  flags.reserved(28, 3);
  flags.supported(2, "Overwrite Sanitize Operation", kDeep);
  flags.supported(1, "Block Erase Sanitize Operation", kDeep);
  flags.supported(0, "Crypto Erase Sanitize Operation", kDeep);
  flags.end();
}

void explain_anacap(Lines& out, std::uint8_t anacap) {
  Flags flags(out, anacap);
  flags.supported(7, "Non-zero group ID");
  flags.choice(6, "Group ID does change", "Group ID does not change");
  flags.reserved(5, 5, {.indent = 1});
  flags.supported(4, "ANA Change state");
  flags.supported(3, "ANA Persistent Loss state");
  flags.supported(2, "ANA Inaccessible state");
  flags.supported(1, "ANA Non-optimized state");
  flags.supported(0, "ANA Optimized state");
  flags.end();
}

void explain_sqes(Lines& out, std::uint8_t sqes) {
  explain_entry_sizes(out, sqes, "SQ");
}

void explain_cqes(Lines& out, std::uint8_t cqes) {
  explain_entry_sizes(out, cqes, "CQ");
}

void explain_oncs(Lines& out, std::uint16_t oncs) {
  Flags flags(out, oncs);
  flags.reserved(15, 9, {.indent = 1});
  flags.supported(8, "Copy");
  flags.supported(7, "Verify");
  flags.supported(6, "Timestamp");
  flags.supported(5, "Reservations");
  flags.supported(4, "Save and Select");
  flags.supported(3, "Write Zeroes");
  flags.supported(2, "Data Set Management");
  flags.supported(1, "Write Uncorrectable");
  flags.supported(0, "Compare");
  flags.end();
}

void explain_fuses(Lines& out, std::uint16_t fuses) {
  Flags flags(out, fuses);
  if (const std::uint32_t shown = flags.bits(7, 1); shown != 0) {  // all that 2.3 shows of 15:1
    flags.line(15, 1, shown, "Reserved", {.indent = 1});
  }
  flags.supported(0, "Fused Compare and Write");
  flags.end();
}

void explain_fna(Lines& out, std::uint8_t fna) {
  Flags flags(out, fna);
  flags.reserved(7, 4);
  flags.choice(3, "Format NVM Broadcast NSID (FFFFFFFFh) Supported",
               "Format NVM Broadcast NSID (FFFFFFFFh) Not Supported");
  flags.choice(2, "Crypto Erase Not Supported as part of Secure Erase",
               "Crypto Erase Supported as part of Secure Erase");
  flags.choice(1, "Crypto Erase Applies to Single Namespace(s)",
               "Crypto Erase Applies to All Namespace(s)");
  flags.choice(0, "Format Applies to Single Namespace(s)", "Format Applies to All Namespace(s)");
  flags.end();
}

void explain_vwc(Lines& out, std::uint8_t vwc) {
  constexpr std::array<std::string_view, 4> kFlush = {
      "Support for the NSID field set to FFFFFFFFh is not indicated", "Reserved",
      "The Flush command does not support NSID set to FFFFFFFFh",
      "The Flush command supports NSID set to FFFFFFFFh"};
  Flags flags(out, vwc);
  flags.reserved(7, 3);
  flags.named(2, 1, kFlush[flags.bits(2, 1)]);
  flags.choice(0, "Volatile Write Cache Not Present", "Volatile Write Cache Present");
  flags.end();
}

void explain_icsvscc(Lines& out, std::uint8_t icsvscc) {
  explain_format(out, icsvscc, "NVM");
}

void explain_nwpc(Lines& out, std::uint8_t nwpc) {
  Flags flags(out, nwpc);
  flags.reserved(7, 3);
  flags.supported(2, "Permanent Write Protect");
  flags.supported(1, "Write Protect Until Power Supply");
  flags.supported(0, "No Write Protect and Write Protect Namespace");
  flags.end();
}

void explain_ocfs(Lines& out, std::uint16_t ocfs) {
  Flags flags(out, ocfs);
  flags.reserved(15, 2);
  flags.supported(1, "Controller Copy Format 1h");
  flags.supported(0, "Controller Copy Format 0h");
  flags.end();
}

void explain_sgls(Lines& out, std::uint32_t sgls) {
  constexpr Flags::Style kTight = {.indent = 1, .colon = ":"};
  constexpr std::array<std::string_view, 4> kWords = {
      "Scatter-Gather Lists Not Supported",
      "Scatter-Gather Lists Supported. No Dword alignment required.",
      "Scatter-Gather Lists Supported. Dword alignment required.", "Reserved"};
  Flags flags(out, sgls);
  const std::uint32_t support = flags.bits(1, 0);
  // Without SGLs only what is set is worth a line.
  const auto feature = [&](unsigned bit, std::string_view name, Flags::Style style) {
    if (support != 0 || flags.bits(bit, bit) != 0) flags.supported(bit, name, style);
  };
  flags.reserved(31, 22, kTight);
  feature(21, "Transport SGL Data Block Descriptor", kTight);
  feature(20, "Address Offsets", kTight);
  feature(19, "Metadata Pointer Containing SGL Descriptor is", kTight);
  feature(18, "SGL Length Larger than Buffer", kTight);
  feature(17, "Byte-Aligned Contig. MD Buffer", kTight);
  feature(16, "SGL Bit-Bucket", kTight);
  flags.line(15, 8, flags.bits(15, 8), "SGL Descriptor Threshold", {.indent = 1});
  flags.reserved(7, 3, {.indent = 1});
  feature(2, "Keyed SGL Data Block descriptor", {});
  const Flags::Style style =
      support == 0 ? Flags::Style{.indent = 1, .colon = "  :"} : Flags::Style{};
  flags.line(1, 0, support, kWords[support], style);
  flags.end();
}

void explain_fcatt(Lines& out, std::uint8_t fcatt) {
  Flags flags(out, fcatt);
  flags.reserved(7, 1);
  flags.choice(0, "Dynamic Controller Model", "Static Controller Model");
  flags.end();
}

void explain_ofcs(Lines& out, std::uint16_t ofcs) {
  Flags flags(out, ofcs);
  flags.reserved(15, 1);
  flags.choice(0, "Disconnect command Not Supported", "Disconnect command  Supported");
  flags.end();
}

}  // namespace nvmf::nvme
