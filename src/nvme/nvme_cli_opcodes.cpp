#include "nvme/nvme_cli_opcodes.h"

#include "nvme/print_logs.h"

namespace nvmf::nvme {

std::string_view nvme_cli_opcode_name(std::uint8_t opcode, bool admin) {
  const std::string_view name = admin ? admin_opcode_name(opcode) : io_opcode_name(opcode);
  return name == kUnknownName ? "Vendor Specific" : name;
}

}  // namespace nvmf::nvme
