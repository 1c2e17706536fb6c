// What nvme-cli 2.3 (libnvme 1.3) prints of a status: output that people's scripts look for, word
// by word. tests/nvme/nvme_cli_test.cpp compares it with the program itself.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <string_view>

#include "nvme/explain.h"

namespace nvmf::nvme {
namespace {

struct CliWords {
  std::uint16_t code;  // SCT << 8 | SC
  std::string_view text;
};

// In rising order. It knows of no more than this; fabrics commands have no words of their own here.
constexpr CliWords kCliWords[] = {
    {0x000, "Successful Completion: The command completed without error"},
    {0x001,
     "Invalid Command Opcode: A reserved coded value or an unsupported value in the command opcode "
     "field"},
    {0x002,
     "Invalid Field in Command: A reserved coded value or an unsupported value in a defined field"},
    {0x003, "Command ID Conflict: The command identifier is already in use"},
    {0x004,
     "Data Transfer Error: Transferring the data or metadata associated with a command experienced "
     "an error"},
    {0x005,
     "Commands Aborted due to Power Loss Notification: Indicates that the command was aborted due "
     "to a power loss notification"},
    {0x006, "Internal Error: The command was not completed successfully due to an internal error"},
    {0x007, "Command Abort Requested: The command was aborted due to an Abort command"},
    {0x008,
     "Command Aborted due to SQ Deletion: The command was aborted due to a Delete I/O Submission "
     "Queue"},
    {0x009,
     "Command Aborted due to Failed Fused Command: The command was aborted due to the other "
     "command in a fused operation failing"},
    {0x00a,
     "Command Aborted due to Missing Fused Command: The fused command was aborted due to the "
     "adjacent submission queue entry not containing a fused command"},
    {0x00b,
     "Invalid Namespace or Format: The namespace or the format of that namespace is invalid"},
    {0x00c,
     "Command Sequence Error: The command was aborted due to a protocol violation in a multi- "
     "command sequence"},
    {0x00d,
     "Invalid SGL Segment Descriptor: The command includes an invalid SGL Last Segment or SGL "
     "Segment descriptor"},
    {0x00e,
     "Invalid Number of SGL Descriptors: There is an SGL Last Segment descriptor or an SGL Segment "
     "descriptor in a location other than the last descriptor of a segment based on the length "
     "indicated"},
    {0x00f,
     "Data SGL Length Invalid: The length of a Data SGL is too short or too long and the "
     "controller does not support SGL transfers longer than the amount of data to be transferred"},
    {0x010,
     "Metadata SGL Length Invalid: The length of a Metadata SGL is too short or too long and the "
     "controller does not support SGL transfers longer than the amount of data to be transferred"},
    {0x011,
     "SGL Descriptor Type Invalid: The type of an SGL Descriptor is a type that is not supported "
     "by the controller"},
    {0x012,
     "Invalid Use of Controller Memory Buffer: The attempted use of the Controller Memory Buffer "
     "is not supported by the controller"},
    {0x013, "PRP Offset Invalid: The Offset field for a PRP entry is invalid"},
    {0x014, "Atomic Write Unit Exceeded: The length specified exceeds the atomic write unit size"},
    {0x015, "Operation Denied: The command was denied due to lack of access rights"},
    {0x016, "SGL Offset Invalid: The offset specified in a descriptor is invalid"},
    {0x018,
     "Host Identifier Inconsistent Format: The NVM subsystem detected the simultaneous use of 64- "
     "bit and 128-bit Host Identifier values on different controllers"},
    {0x019, "Keep Alive Timer Expired: The Keep Alive Timer expired"},
    {0x01a, "Keep Alive Timeout Invalid: The Keep Alive Timeout value specified is invalid"},
    {0x01b,
     "Command Aborted due to Preempt and Abort: The command was aborted due to a Reservation "
     "Acquire command"},
    {0x01c,
     "Sanitize Failed: The most recent sanitize operation failed and no recovery action has been "
     "successfully completed"},
    {0x01d,
     "Sanitize In Progress: The requested function is prohibited while a sanitize operation is in "
     "progress"},
    {0x01e,
     "SGL Data Block Granularity Invalid: The Address alignment or Length granularity for an SGL "
     "Data Block descriptor is invalid"},
    {0x01f,
     "Command Not Supported for Queue in CMB: The controller does not support Submission Queue in "
     "the Controller Memory Buffer or Completion Queue in the Controller Memory Buffer"},
    {0x020,
     "Namespace is Write Protected: The command is prohibited while the namespace is write "
     "protected"},
    {0x021,
     "Command Interrupted: Command processing was interrupted and the controller is unable to "
     "successfully complete the command"},
    {0x022, "Transient Transport Error: A transient transport error was detected"},
    {0x023,
     "Command Prohibited by Command and Feature Lockdown: The command was aborted due to command "
     "execution being prohibited by the Command and Feature Lockdown"},
    {0x024,
     "Admin Command Media Not Ready: The Admin command requires access to media and the media is "
     "not ready"},
    {0x080,
     "LBA Out of Range: The command references an LBA that exceeds the size of the namespace"},
    {0x081,
     "Capacity Exceeded: Execution of the command has caused the capacity of the namespace to be "
     "exceeded"},
    {0x082, "Namespace Not Ready: The namespace is not ready to be accessed"},
    {0x083,
     "Reservation Conflict: The command was aborted due to a conflict with a reservation held on "
     "the accessed namespace"},
    {0x084, "Format In Progress: A Format NVM command is in progress on the namespace"},
    {0x100,
     "Completion Queue Invalid: The Completion Queue identifier specified in the command does not "
     "exist"},
    {0x101,
     "Invalid Queue Identifier: The creation of the I/O Completion Queue failed due to an invalid "
     "queue identifier specified as part of the command"},
    {0x102,
     "Invalid Queue Size: The host attempted to create an I/O Completion Queue with an invalid "
     "number of entries"},
    {0x103,
     "Abort Command Limit Exceeded: The number of concurrently outstanding Abort commands has "
     "exceeded the limit indicated in the Identify Controller data structure"},
    {0x104, "Abort Command Is Missing: The abort command is missing"},
    {0x105,
     "Asynchronous Event Request Limit Exceeded: The number of concurrently outstanding "
     "Asynchronous Event Request commands has been exceeded"},
    {0x106, "Invalid Firmware Slot: The firmware slot indicated is invalid or read only"},
    {0x107,
     "Invalid Firmware Image: The firmware image specified for activation is invalid and not "
     "loaded by the controller"},
    {0x108,
     "Invalid Interrupt Vector: The creation of the I/O Completion Queue failed due to an invalid "
     "interrupt vector specified as part of the command"},
    {0x109, "Invalid Log Page: The log page indicated is invalid"},
    {0x10a, "Invalid Format: The LBA Format specified is not supported"},
    {0x10b,
     "Firmware Activation Requires Conventional Reset: The firmware commit was successful, "
     "however, activation of the firmware image requires a conventional reset"},
    {0x10c, "Invalid Queue Deletion: Invalid I/O Completion Queue specified to delete"},
    {0x10d,
     "Feature Identifier Not Saveable: The Feature Identifier specified does not support a "
     "saveable value"},
    {0x10e, "Feature Not Changeable: The Feature Identifier is not able to be changed"},
    {0x10f,
     "Feature Not Namespace Specific: The Feature Identifier specified is not namespace specific"},
    {0x110,
     "Firmware Activation Requires NVM Subsystem Reset: The firmware commit was successful, "
     "however, activation of the firmware image requires an NVM Subsystem"},
    {0x111,
     "Firmware Activation Requires Controller Level Reset: The firmware commit was successful; "
     "however, the image specified does not support being activated without a reset"},
    {0x112,
     "Firmware Activation Requires Maximum Time Violation: The image specified if activated "
     "immediately would exceed the Maximum Time for Firmware Activation (MTFA) value reported in "
     "Identify Controller"},
    {0x113,
     "Firmware Activation Prohibited: The image specified is being prohibited from activation by "
     "the controller for vendor specific reasons"},
    {0x114, "Overlapping Range: The downloaded firmware image has overlapping ranges"},
    {0x115,
     "Namespace Insufficient Capacity: Creating the namespace requires more free space than is "
     "currently available"},
    {0x116,
     "Namespace Identifier Unavailable: The number of namespaces supported has been exceeded"},
    {0x118,
     "Namespace Already Attached: The controller is already attached to the namespace specified"},
    {0x119,
     "Namespace Is Private: The namespace is private and is already attached to one controller"},
    {0x11a,
     "Namespace Not Attached: The request to detach the controller could not be completed because "
     "the controller is not attached to the namespace"},
    {0x11b,
     "Thin Provisioning Not Supported: Thin provisioning is not supported by the controller"},
    {0x11c,
     "Controller List Invalid: The controller list provided contains invalid controller ids"},
    {0x11d,
     "Device Self-test In Progress: The controller or NVM subsystem already has a device self-test "
     "operation in process"},
    {0x11e, "Boot Partition Write Prohibited: The command tried to modify a locked Boot Partition"},
    {0x11f, "Invalid Controller Identifier: An invalid controller id was specified"},
    {0x120,
     "Invalid Secondary Controller State: The requested secondary controller action is invalid "
     "based on the secondary and primary controllers current states"},
    {0x121,
     "Invalid Number of Controller Resources: The specified number of Flexible Resources is "
     "invalid"},
    {0x122,
     "Invalid Resource Identifier: At least one of the specified resource identifiers was invalid"},
    {0x123, "Sanitize Prohibited While Persistent Memory Region is Enabled"},
    {0x124,
     "ANA Group Identifier Invalid: The specified ANA Group Identifier (ANAGRPID) is not supported "
     "in the submitted command"},
    {0x125,
     "ANA Attach Failed: The controller is not attached to the namespace as a result of an ANA "
     "condition"},
    {0x126,
     "Insufficient Capacity: Requested operation requires more free space than is currently "
     "available"},
    {0x127,
     "Namespace Attachment Limit Exceeded: Attaching the ns to a controller causes max number of "
     "ns attachments allowed to be exceeded"},
    {0x128, "Prohibition of Command Execution Not Supported"},
    {0x129, "The I/O command set is not supported"},
    {0x12a, "The I/O command set is not enabled"},
    {0x12b, "The I/O command set combination is rejected"},
    {0x12c, "The I/O command set is invalid"},
    {0x12d,
     "Identifier Unavailable: The number of Endurance Groups or NVM Sets supported has been "
     "exceeded"},
    {0x12f, "Discovery Info Entry not applicable to selected entity"},
    {0x130, "The requested Zoning data structure is locked on the CDC"},
    {0x131, "The requested Zoning data structure does not exist on the CDC"},
    {0x132, "Discovery Info entries exceed Discovery Controller's capacity"},
    {0x133, "Fabric Zoning is not enabled on the CDC"},
    {0x134,
     "The NQN contained in the ZoneGroup Originator field does not match the Host NQN used by the "
     "DDC to connect to the CDC"},
    {0x180, "Conflicting Attributes: The attributes specified in the command are conflicting"},
    {0x181,
     "Invalid Protection Information: The command's Protection Information Field settings are "
     "invalid for the namespace's Protection Information format"},
    {0x182,
     "Attempted Write to Read Only Range: The LBA range specified contains read-only blocks"},
    {0x183, "Command Size Limit Exceeded"},
    {0x1b6, "Invalid Zone Operation Request: The operation requested is invalid"},
    {0x1b7, "ZRWA Resources Unavailable: No ZRWAs are available"},
    {0x1b8, "Zoned Boundary Error: Invalid Zone Boundary crossing"},
    {0x1b9, "Zone Is Full: The accessed zone is in ZSF:Full state"},
    {0x1ba, "Zone Is Read Only: The accessed zone is in ZSRO:Read Only state"},
    {0x1bb, "Zone Is Offline: The access zone is in ZSO:Offline state"},
    {0x1bc, "Zone Invalid Write: The write to zone was not at the write pointer offset"},
    {0x1bd, "Too Many Active Zones: The controller does not allow additional active zones"},
    {0x1be, "Too Many Open Zones: The controller does not allow additional open zones"},
    {0x1bf, "Invalid Zone State Transition: The request is not a valid zone state transition"},
    {0x280, "Write Fault: The write data could not be committed to the media"},
    {0x281, "Unrecovered Read Error: The read data could not be recovered from the media"},
    {0x282,
     "End-to-end Guard Check Error: The command was aborted due to an end-to-end guard check "
     "failure"},
    {0x283,
     "End-to-end Application Tag Check Error: The command was aborted due to an end-to-end "
     "application tag check failure"},
    {0x284,
     "End-to-end Reference Tag Check Error: The command was aborted due to an end-to-end reference "
     "tag check failure"},
    {0x285, "Compare Failure: The command failed due to a miscompare during a Compare command"},
    {0x286,
     "Access Denied: Access to the namespace and/or LBA range is denied due to lack of access "
     "rights"},
    {0x287,
     "Deallocated or Unwritten Logical Block: The command failed due to an attempt to read from or "
     "verify an LBA range containing a deallocated or unwritten logical block"},
    {0x288,
     "End-to-End Storage Tag Check Error: The command was aborted due to an end-to-end storage tag "
     "check failure"},
    {0x300,
     "Internal Path Error: An internal error specific to the controller processing the command "
     "prevented completion"},
    {0x301,
     "Asymmetric Access Persistent Loss: The controller is in a persistent loss state with the "
     "requested namespace"},
    {0x302,
     "Asymmetric Access Inaccessible: The controller is in an inaccessible state with the "
     "requested namespace"},
    {0x303,
     "Asymmetric Access Transition: The controller is currently transitioning states with the "
     "requested namespace"},
    {0x360, "Controller Pathing Error: A pathing error was detected by the controller"},
    {0x370, "Host Pathing Error: A pathing error was detected by the host"},
    {0x371, "Command Aborted By Host: The command was aborted as a result of host action"},
};
static_assert(std::ranges::is_sorted(kCliWords, {}, &CliWords::code));

}  // namespace

std::string_view nvme_cli_status_words(Status status) {
  if (status.sct == 7) return "Vendor Specific Status";
  if (status.sct > 3) return "Unknown status";
  const auto code = static_cast<std::uint16_t>(status.code());
  const auto* found = std::ranges::lower_bound(kCliWords, code, {}, &CliWords::code);
  if (found == std::end(kCliWords) || found->code != code) return "unrecognized";
  return found->text;
}

std::string nvme_cli_status_line(Status status) {
  return fmt::format("NVMe status: {}({:#x})", nvme_cli_status_words(status),
                     nvme_cli_status(status));
}

}  // namespace nvmf::nvme
