// Controller properties as text and JSON, laid out as nvme-cli 2.3 shows those of a fabrics
// controller. Base 2.1 §3.1.4.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "nvme/print.h"

namespace nvmf::nvme {

/// What Property Get answered; nothing where the controller refused. nvme-cli asks for all but
/// CRTO, of which a fabrics controller has CAP, VS, CC, CSTS and perhaps NSSR.
struct Registers {
  std::optional<std::uint64_t> cap;
  std::optional<std::uint32_t> vs;
  std::optional<std::uint32_t> intms;
  std::optional<std::uint32_t> intmc;
  std::optional<std::uint32_t> cc;
  std::optional<std::uint32_t> csts;
  std::optional<std::uint32_t> nssr;
  std::optional<std::uint32_t> crto;
  std::optional<std::uint32_t> aqa;
  std::optional<std::uint64_t> asq;
  std::optional<std::uint64_t> acq;
  std::optional<std::uint32_t> cmbloc;
  std::optional<std::uint32_t> cmbsz;
};

/// `nvme show-regs`: CAP, VS, CC, CSTS, NSSR and CRTO, those that are there. As nvme-cli's it hides
/// values of FFFFFFFFh, which it takes for refused.
std::string print(const Registers& registers, Detail detail = Detail::brief);
/// `nvme show-regs -o json`: all registers up to PMRMSCU; what is not there has all bits set.
std::string to_json(const Registers& registers);

/// Whether the property at this offset has 8 bytes, for Property Get and Set.
bool property_has_8_bytes(std::uint32_t offset);
/// "Controller Configuration"; "Unknown" for those nvme-cli has no name for.
std::string_view property_name(std::uint32_t offset);
/// `nvme get-property --offset`. human explains CAP, VS, CC, CSTS, NSSR and CRTO, and says "unknown
/// property" of all others.
std::string print_property(std::uint32_t offset, std::uint64_t value,
                           Detail detail = Detail::brief);
/// `nvme set-property`: the value's lower 32 bits.
std::string print_set_property(std::uint32_t offset, std::uint64_t value);

}  // namespace nvmf::nvme
