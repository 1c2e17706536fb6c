// The names that nvme-cli 2.3 prints for opcodes and log identifiers.
#include "nvme/print_logs.h"

namespace nvmf::nvme {
namespace {

struct Name {
  std::uint8_t value;
  std::string_view text;
};

constexpr Name kAdminOpcodes[] = {
    {0x00, "Delete I/O Submission Queue"},
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
    {0x86, "Get LBA Status"},
};

constexpr Name kIoOpcodes[] = {
    {0x00, "Flush"},
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
    {0x7d, "Zone Append"},
};

constexpr Name kLogPages[] = {
    {0x00, "Supported Log Pages"},
    {0x01, "Error Information"},
    {0x02, "SMART / Health Information"},
    {0x03, "Firmware Slot Information"},
    {0x04, "Changed Namespace List"},
    {0x05, "Commands Supported and Effects"},
    {0x06, "Device Self-test"},
    {0x07, "Telemetry Host-Initiated"},
    {0x08, "Telemetry Controller-Initiated"},
    {0x09, "Endurance Group Information"},
    {0x0a, "Predictable Latency Per NVM Set"},
    {0x0b, "Predictable Latency Event Aggregate"},
    {0x0c, "Asymmetric Namespace Access"},
    {0x0d, "Persistent Event Log"},
    {0x0e, "LBA Status Information"},
    {0x0f, "Endurance Group Event Aggregate"},
    {0x12, "Feature Identifiers Supported and Effects"},
    {0x15, "Boot Partition"},
    {0x70, "Discovery"},
    {0x80, "Reservation Notification"},
    {0x81, "Sanitize Status"},
    {0xbf, "Changed Zone List"},
};

std::string_view name_in(std::span<const Name> names, std::uint8_t value) {
  for (const Name& name : names) {
    if (name.value == value) return name.text;
  }
  return kUnknownName;
}

}  // namespace

std::string_view admin_opcode_name(std::uint8_t opcode) {
  return name_in(kAdminOpcodes, opcode);
}

std::string_view io_opcode_name(std::uint8_t opcode) {
  return name_in(kIoOpcodes, opcode);
}

std::string_view log_page_name(std::uint8_t log_id) {
  return name_in(kLogPages, log_id);
}

}  // namespace nvmf::nvme
