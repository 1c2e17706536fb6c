#include "nvme/nvme_cli_opcodes.h"

#include <algorithm>
#include <span>

namespace nvmf::nvme {

namespace {

struct Name {
  std::uint8_t opcode;
  std::string_view name;
};

constexpr Name kAdmin[] = {{0x00, "Delete I/O Submission Queue"},
                           {0x01, "Create I/O Submission Queue"},
                           {0x02, "Get Log Page"},
                           {0x04, "Delete I/O Completion Queue"},
                           {0x05, "Create I/O Completion Queue"},
                           {0x06, "Identify"},
                           {0x08, "Abort"},
                           {0x09, "Set Features"},
                           {0x0a, "Get Features"},
                           {0x0c, "Asynchronous Event Request"},
                           {0x0d, "Namespace Management"},
                           {0x10, "Firmware Commit"},
                           {0x11, "Firmware Image Download"},
                           {0x14, "Device Self-test"},
                           {0x15, "Namespace Attachment"},
                           {0x18, "Keep Alive"},
                           {0x19, "Directive Send"},
                           {0x1a, "Directive Receive"},
                           {0x1c, "Virtualization Management"},
                           {0x1d, "NVMe-MI Send"},
                           {0x1e, "NVMe-MI Receive"},
                           {0x7c, "Doorbell Buffer Config"},
                           {0x80, "Format NVM"},
                           {0x81, "Security Send"},
                           {0x82, "Security Receive"},
                           {0x84, "Sanitize"},
                           {0x86, "Get LBA Status"}};

constexpr Name kIo[] = {{0x00, "Flush"},
                        {0x01, "Write"},
                        {0x02, "Read"},
                        {0x04, "Write Uncorrectable"},
                        {0x05, "Compare"},
                        {0x08, "Write Zeroes"},
                        {0x09, "Dataset Management"},
                        {0x0c, "Verify"},
                        {0x0d, "Reservation Register"},
                        {0x0e, "Reservation Report"},
                        {0x11, "Reservation Acquire"},
                        {0x15, "Reservation Release"},
                        {0x19, "Copy"},
                        {0x79, "Zone Management Send"},
                        {0x7a, "Zone Management Receive"},
                        {0x7d, "Zone Append"}};

}  // namespace

std::string_view nvme_cli_opcode_name(std::uint8_t opcode, bool admin) {
  const std::span<const Name> names = admin ? std::span<const Name>(kAdmin) : kIo;
  const auto found = std::ranges::find(names, opcode, &Name::opcode);
  return found == names.end() ? "Vendor Specific" : found->name;
}

}  // namespace nvmf::nvme
