#include <array>

#include "nvme/print_flags.h"
#include "nvme/print_identify_flags.h"

namespace nvmf::nvme {

void explain_nsfeat(Lines& out, std::uint8_t nsfeat) {
  Flags flags(out, nsfeat);
  flags.reserved(7, 5);
  flags.choice(4, "NPWG, NPWA, NPDG, NPDA, and NOWS are Not Supported",
               "NPWG, NPWA, NPDG, NPDA, and NOWS are Supported");
  flags.choice(3, "NGUID and EUI64 fields if non-zero, Reused",
               "NGUID and EUI64 fields if non-zero, Never Reused");
  flags.supported(2, "Deallocated or Unwritten Logical Block error");
  flags.choice(1, "Namespace uses AWUN, AWUPF, and ACWU",
               "Namespace uses NAWUN, NAWUPF, and NACWU");
  flags.supported(0, "Thin Provisioning");
  flags.end();
}

void explain_independent_nsfeat(Lines& out, std::uint8_t nsfeat) {
  Flags flags(out, nsfeat);
  flags.reserved(7, 5);
  flags.choice(4, "Namespace does not store data on rotational media",
               "Namespace store data on rotational media");
  flags.choice(3, "NGUID and EUI64 fields if non-zero, Reused",
               "NGUID and EUI64 fields if non-zero, Never Reused");
  flags.reserved(2, 0);
  flags.end();
}

void explain_flbas(Lines& out, std::uint8_t flbas) {
  Flags flags(out, flbas);
  flags.reserved(7, 7);
  flags.named(6, 5, "Most significant 2 bits of Current LBA Format Selected");
  flags.choice(4, "Metadata Transferred in Separate Contiguous Buffer",
               "Metadata Transferred at End of Data LBA");
  flags.named(3, 0, "Least significant 4 bits of Current LBA Format Selected");
  flags.end();
}

void explain_mc(Lines& out, std::uint8_t mc) {
  Flags flags(out, mc);
  flags.reserved(7, 2);
  flags.supported(1, "Metadata Pointer");
  flags.supported(0, "Metadata as Part of Extended Data LBA");
  flags.end();
}

void explain_dpc(Lines& out, std::uint8_t dpc) {
  Flags flags(out, dpc);
  flags.reserved(7, 5);
  flags.supported(4, "Protection Information Transferred as Last 8 Bytes of Metadata");
  flags.supported(3, "Protection Information Transferred as First 8 Bytes of Metadata");
  flags.supported(2, "Protection Information Type 3");
  flags.supported(1, "Protection Information Type 2");
  flags.supported(0, "Protection Information Type 1");
  flags.end();
}

void explain_dps(Lines& out, std::uint8_t dps) {
  constexpr std::array<std::string_view, 4> kTypes = {
      "Protection Information Disabled", "Protection Information Type 1 Enabled",
      "Protection Information Type 2 Enabled", "Protection Information Type 3 Enabled"};
  Flags flags(out, dps);
  flags.reserved(7, 4);
  flags.choice(3, "Protection Information is Transferred as Last 8 Bytes of Metadata",
               "Protection Information is Transferred as First 8 Bytes of Metadata");
  const std::uint32_t type = flags.bits(2, 0);
  flags.named(2, 0,
              type < kTypes.size() ? kTypes[type] : "Protection Information Reserved Enabled");
  flags.end();
}

void explain_nmic(Lines& out, std::uint8_t nmic) {
  Flags flags(out, nmic);
  flags.reserved(7, 1);
  flags.choice(0, "Namespace Multipath Not Capable", "Namespace Multipath Capable");
  flags.end();
}

void explain_rescap(Lines& out, std::uint8_t rescap) {
  Flags flags(out, rescap);
  flags.choice(7, "Ignore Existing Key - Used as defined in revision 1.2.1 or earlier",
               "Ignore Existing Key - Used as defined in revision 1.3 or later");
  flags.supported(6, "Exclusive Access - All Registrants");
  flags.supported(5, "Write Exclusive - All Registrants");
  flags.supported(4, "Exclusive Access - Registrants Only");
  flags.supported(3, "Write Exclusive - Registrants Only");
  flags.supported(2, "Exclusive Access");
  flags.supported(1, "Write Exclusive");
  flags.supported(0, "Persist Through Power Loss");
  flags.end();
}

void explain_fpi(Lines& out, std::uint8_t fpi) {
  Flags flags(out, fpi);
  const std::uint32_t remaining_percent = flags.bits(6, 0);
  flags.supported(7, "Format Progress Indicator");
  if (flags.bits(7, 7) != 0 || remaining_percent != 0) {
    flags.named(6, 0, fmt::format("Format Progress Indicator (Remaining {}%)", remaining_percent));
  }
  flags.end();
}

void explain_dlfeat(Lines& out, std::uint8_t dlfeat) {
  constexpr std::array<std::string_view, 4> kReads = {"Not Reported", "0x00", "0xFF",
                                                      "Reserved Value"};
  Flags flags(out, dlfeat);
  flags.reserved(7, 5);
  flags.choice(4, "Guard Field of Deallocated Logical Blocks is set to 0xFFFF",
               "Guard Field of Deallocated Logical Blocks is set to CRC of The Value Read");
  flags.choice(3, "Deallocate Bit in the Write Zeroes Command is Not Supported",
               "Deallocate Bit in the Write Zeroes Command is Supported");
  const std::uint32_t reads = flags.bits(2, 0);
  flags.named(2, 0,
              fmt::format("Bytes Read From a Deallocated Logical Block and its Metadata are {}",
                          reads < kReads.size() ? kReads[reads] : kReads.back()));
  flags.end();
}

void explain_nsattr(Lines& out, std::uint8_t nsattr) {
  Flags flags(out, nsattr);
  flags.reserved(7, 1);
  flags.choice(0, "Namespace Not Write Protected", "Namespace Write Protected");
  flags.end();
}

void explain_nstat(Lines& out, std::uint8_t nstat) {
  Flags flags(out, nstat);
  flags.reserved(7, 1);
  flags.choice(0, "Name space is not ready", "Name space is ready");
  flags.end();
}

void explain_pic(Lines& out, std::uint8_t pic) {
  Flags flags(out, pic);
  flags.reserved(7, 3);
  flags.named(2, 2, "Storage Tag Check Read Support");
  flags.named(1, 1, "16b Guard Protection Information Storage Tag Mask");
  flags.named(0, 0, "16b Guard Protection Information Storage Tag Support");
  flags.end();
}

}  // namespace nvmf::nvme
