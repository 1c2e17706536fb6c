#include "nvme/status.h"

#include <fmt/format.h>

#include <span>

namespace nvmf::nvme {
namespace {

struct CodeName {
  std::uint8_t code;
  std::string_view name;
};

// SCT 0h: Base 2.1 §4.2.3.1, NVM 1.2 §3.1.2.
constexpr CodeName kGeneric[] = {
    {0x00, "Successful Completion"},
    {0x01, "Invalid Command Opcode"},
    {0x02, "Invalid Field in Command"},
    {0x03, "Command ID Conflict"},
    {0x04, "Data Transfer Error"},
    {0x05, "Commands Aborted due to Power Loss Notification"},
    {0x06, "Internal Error"},
    {0x07, "Command Abort Requested"},
    {0x08, "Command Aborted due to SQ Deletion"},
    {0x09, "Command Aborted due to Failed Fused Command"},
    {0x0a, "Command Aborted due to Missing Fused Command"},
    {0x0b, "Invalid Namespace or Format"},
    {0x0c, "Command Sequence Error"},
    {0x0d, "Invalid SGL Segment Descriptor"},
    {0x0e, "Invalid Number of SGL Descriptors"},
    {0x0f, "Data SGL Length Invalid"},
    {0x10, "Metadata SGL Length Invalid"},
    {0x11, "SGL Descriptor Type Invalid"},
    {0x12, "Invalid Use of Controller Memory Buffer"},
    {0x13, "PRP Offset Invalid"},
    {0x14, "Atomic Write Unit Exceeded"},
    {0x15, "Operation Denied"},
    {0x16, "SGL Offset Invalid"},
    {0x18, "Host Identifier Inconsistent Format"},
    {0x19, "Keep Alive Timer Expired"},
    {0x1a, "Keep Alive Timeout Invalid"},
    {0x1b, "Command Aborted due to Preempt and Abort"},
    {0x1c, "Sanitize Failed"},
    {0x1d, "Sanitize In Progress"},
    {0x1e, "SGL Data Block Granularity Invalid"},
    {0x1f, "Command Not Supported for Queue in CMB"},
    {0x20, "Namespace is Write Protected"},
    {0x21, "Command Interrupted"},
    {0x22, "Transient Transport Error"},
    {0x23, "Command Prohibited by Command and Feature Lockdown"},
    {0x24, "Admin Command Media Not Ready"},
    {0x25, "Invalid Key Tag"},
    {0x26, "Host Dispersed Namespace Support Not Enabled"},
    {0x27, "Host Identifier Not Initialized"},
    {0x28, "Incorrect Key"},
    {0x29, "FDP Disabled"},
    {0x2a, "Invalid Placement Handle List"},
    {0x80, "LBA Out of Range"},
    {0x81, "Capacity Exceeded"},
    {0x82, "Namespace Not Ready"},
    {0x83, "Reservation Conflict"},
    {0x84, "Format In Progress"},
    {0x85, "Invalid Value Size"},
    {0x86, "Invalid Key Size"},
    {0x87, "KV Key Does Not Exist"},
    {0x88, "Unrecovered Error"},
    {0x89, "Key Exists"},
};

// SCT 1h below 80h, whatever the command: Base 2.1 §4.2.3.2.
constexpr CodeName kCommandSpecific[] = {
    {0x00, "Completion Queue Invalid"},
    {0x01, "Invalid Queue Identifier"},
    {0x02, "Invalid Queue Size"},
    {0x03, "Abort Command Limit Exceeded"},
    {0x05, "Asynchronous Event Request Limit Exceeded"},
    {0x06, "Invalid Firmware Slot"},
    {0x07, "Invalid Firmware Image"},
    {0x08, "Invalid Interrupt Vector"},
    {0x09, "Invalid Log Page"},
    {0x0a, "Invalid Format"},
    {0x0b, "Firmware Activation Requires Conventional Reset"},
    {0x0c, "Invalid Queue Deletion"},
    {0x0d, "Feature Identifier Not Saveable"},
    {0x0e, "Feature Not Changeable"},
    {0x0f, "Feature Not Namespace Specific"},
    {0x10, "Firmware Activation Requires NVM Subsystem Reset"},
    {0x11, "Firmware Activation Requires Controller Level Reset"},
    {0x12, "Firmware Activation Requires Maximum Time Violation"},
    {0x13, "Firmware Activation Prohibited"},
    {0x14, "Overlapping Range"},
    {0x15, "Namespace Insufficient Capacity"},
    {0x16, "Namespace Identifier Unavailable"},
    {0x18, "Namespace Already Attached"},
    {0x19, "Namespace Is Private"},
    {0x1a, "Namespace Not Attached"},
    {0x1b, "Thin Provisioning Not Supported"},
    {0x1c, "Controller List Invalid"},
    {0x1d, "Device Self-test In Progress"},
    {0x1e, "Boot Partition Write Prohibited"},
    {0x1f, "Invalid Controller Identifier"},
    {0x20, "Invalid Secondary Controller State"},
    {0x21, "Invalid Number of Controller Resources"},
    {0x22, "Invalid Resource Identifier"},
    {0x23, "Sanitize Prohibited While Persistent Memory Region is Enabled"},
    {0x24, "ANA Group Identifier Invalid"},
    {0x25, "ANA Attach Failed"},
    {0x26, "Insufficient Capacity"},
    {0x27, "Namespace Attachment Limit Exceeded"},
    {0x28, "Prohibition of Command Execution Not Supported"},
    {0x29, "I/O Command Set Not Supported"},
    {0x2a, "I/O Command Set Not Enabled"},
    {0x2b, "I/O Command Set Combination Rejected"},
    {0x2c, "Invalid I/O Command Set"},
    {0x2d, "Identifier Unavailable"},
    {0x2e, "Namespace Is Dispersed"},
    {0x2f, "Invalid Discovery Information"},
    {0x30, "Zoning Data Structure Locked"},
    {0x31, "Zoning Data Structure Not Found"},
    {0x32, "Insufficient Discovery Resources"},
    {0x33, "Requested Function Disabled"},
    {0x34, "ZoneGroup Originator Invalid"},
    {0x35, "Invalid Host"},
    {0x36, "Invalid NVM Subsystem"},
    {0x37, "Invalid Controller Data Queue"},
    {0x38, "Not Enough Resources"},
    {0x39, "Controller Suspended"},
    {0x3a, "Controller Not Suspended"},
    {0x3b, "Controller Data Queue Full"},
};

// SCT 1h from 80h, fabrics commands: Base 2.1 §4.2.3.2, the figure for them.
constexpr std::uint8_t kDiscoverRestart = 0x90;
constexpr std::uint8_t kAuthenticationRequired = 0x91;
constexpr CodeName kFabrics[] = {
    {0x80, "Incompatible Format"},          {0x81, "Controller Busy"},
    {0x82, "Connect Invalid Parameters"},   {0x83, "Connect Restart Discovery"},
    {0x84, "Connect Invalid Host"},         {0x85, "Invalid Queue Type"},
    {kDiscoverRestart, "Discover Restart"}, {kAuthenticationRequired, "Authentication Required"},
};

// SCT 1h from 80h, NVM and zoned commands: Base 2.1 §4.2.3.2, NVM 1.2 §3.1.2. The codes of
// computational programs, 8Ah to 9Bh, are left out: there are none without that command set.
constexpr CodeName kNvm[] = {
    {0x80, "Conflicting Attributes"},
    {0x81, "Invalid Protection Information"},
    {0x82, "Attempted Write to Read Only Range"},
    {0x83, "Command Size Limit Exceeded"},
    {0x84, "Invalid Command ID"},
    {0x85, "Incompatible Namespace or Format"},
    {0x86, "Fast Copy Not Possible"},
    {0x87, "Overlapping I/O Range"},
    {0x88, "Namespace Not Reachable"},
    {0x89, "Insufficient Resources"},
    {0x9c, "Successful Media Verification Read"},
    {0xb8, "Zone Boundary Error"},
    {0xb9, "Zone Is Full"},
    {0xba, "Zone Is Read Only"},
    {0xbb, "Zone Is Offline"},
    {0xbc, "Zone Invalid Write"},
    {0xbd, "Too Many Active Zones"},
    {0xbe, "Too Many Open Zones"},
    {0xbf, "Invalid Zone State Transition"},
};

// SCT 2h: Base 2.1 §4.2.3.3.
constexpr CodeName kMedia[] = {
    {0x80, "Write Fault"},
    {0x81, "Unrecovered Read Error"},
    {0x82, "End-to-end Guard Check Error"},
    {0x83, "End-to-end Application Tag Check Error"},
    {0x84, "End-to-end Reference Tag Check Error"},
    {0x85, "Compare Failure"},
    {0x86, "Access Denied"},
    {0x87, "Deallocated or Unwritten Logical Block"},
    {0x88, "End-to-End Storage Tag Check Error"},
};

// SCT 3h: Base 2.1 §4.2.3.4.
constexpr CodeName kPath[] = {
    {0x00, "Internal Path Error"},
    {0x01, "Asymmetric Access Persistent Loss"},
    {0x02, "Asymmetric Access Inaccessible"},
    {0x03, "Asymmetric Access Transition"},
    {0x60, "Controller Pathing Error"},
    {0x70, "Host Pathing Error"},
    {0x71, "Command Aborted By Host"},
};

std::string_view find(std::span<const CodeName> names, std::uint8_t code,
                      std::string_view otherwise) {
  for (const CodeName& entry : names) {
    if (entry.code == code) return entry.name;
  }
  return otherwise;
}

std::string_view command_specific_name(std::uint8_t code, StatusContext context) {
  constexpr std::string_view kUnknown = "Unknown Command Specific Status";
  if (code >= 0xc0) return "Vendor Specific Command Status";
  if (code >= 0x70 && code < 0x80) return "Directive Specific Status";
  if (code < 0x80) return find(kCommandSpecific, code, kUnknown);
  // From 80h on the same number means one thing for Connect and Disconnect and another for all
  // other commands (Format NVM has 82h too). Two of the fabrics' codes are for those others: Get
  // Log Page's Discover Restart, and Authentication Required, which any command may get.
  const bool fabrics = context == StatusContext::fabrics || code == kDiscoverRestart ||
                       code == kAuthenticationRequired;
  if (!fabrics) return find(kNvm, code, kUnknown);
  if (code >= 0xb0) return "Transport Specific Status";
  return find(kFabrics, code, kUnknown);
}

}  // namespace

std::string_view status_name(Status status, StatusContext context) {
  switch (status.sct) {
    case 0:
      if (status.sc >= 0xc0) return "Vendor Specific Generic Status";
      return find(kGeneric, status.sc, "Unknown Generic Status");
    case 1:
      return command_specific_name(status.sc, context);
    case 2:
      return find(kMedia, status.sc, "Unknown Media Error");
    case 3:
      return find(kPath, status.sc, "Unknown Path Error");
    case 7:
      return "Vendor Specific Status";
    default:
      return "Status of a Reserved Type";
  }
}

std::string describe(Status status, StatusContext context) {
  std::string text = fmt::format("{} (0x{:03x}", status_name(status, context),
                                 static_cast<unsigned>(status.code()));
  if (status.dnr) text += ", do not retry";
  if (status.crd != 0) text += fmt::format(", retry after CRDT{}", status.crd);
  if (status.more) text += ", more in the error log";
  return text + ")";
}

}  // namespace nvmf::nvme
