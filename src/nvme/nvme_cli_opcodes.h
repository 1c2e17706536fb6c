// What nvme-cli 2.3 calls commands.
#pragma once

#include <cstdint>
#include <string_view>

namespace nvmf::nvme {

/// As in "Admin Command Identify is Success and result: 0x00000000"; "Vendor Specific" for every
/// opcode that nvme-cli has no name for, fabrics commands among them.
std::string_view nvme_cli_opcode_name(std::uint8_t opcode, bool admin);

}  // namespace nvmf::nvme
