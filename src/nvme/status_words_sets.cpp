// SCT 1h from 80h, 2h and 3h: Base 2.3 §4.2.3.2 to §4.2.3.4, Figures 104 to 107; Zoned Namespace
// 1.2 §3.1.2 has B6h and B7h.
#include "nvme/status_words.h"

namespace nvmf::nvme {
namespace {

constexpr StatusWords kIo[] = {
    {0x80, "Conflicting Attributes", "BAD_ATTRIBUTES",
     "two attributes of the command contradict each other", "it with one of them only"},
    {0x81, "Invalid Protection Information", "INVALID_PI",
     "the command's protection information does not fit the namespace's format",
     "the protection that DPS in `nvmf id-ns` shows"},
    {0x82, "Attempted Write to Read Only Range", "READ_ONLY",
     "the range is read only, or the write would pass a limit of the namespace",
     "another range, or to make it writable on the target"},
    {0x83, "Command Size Limit Exceeded", "CMD_SIZE_LIMIT_EXCEEDED",
     "the command is longer than its own limit",
     "smaller pieces: WZSL, DMSL and VSL of the controller, MSSRL and MCL of the namespace are the "
     "limits"},
    {0x84, "Invalid Command ID", "INVALID_CMD_ID", "no command with that identifier is under way",
     "to go on: the command to be cancelled has ended"},
    {0x85, "Incompatible Namespace or Format", "INCOMPATIBLE_NS",
     "source and destination of the copy differ in format",
     "namespaces of the same block and metadata size"},
    {0x86, "Fast Copy Not Possible", "FAST_COPY_NOT_POSSIBLE",
     "the controller could copy this only in the slow way, which the command forbids",
     "a copy that may be slow, or to read and write"},
    {0x87, "Overlapping I/O Range", "OVERLAPPING_IO_RANGE",
     "source and destination of the copy overlap", "ranges that do not overlap"},
    {0x88, "Namespace Not Reachable", "NS_NOT_REACHABLE",
     "the controller cannot reach the other namespace of the copy",
     "another controller, or to read and write"},
    {0x89, "Insufficient Resources", "INSUFFICIENT_RESOURCES",
     "the controller has no resources for the copy now", "it again later, or in smaller pieces"},
    {0x8a, "Insufficient Program Resources", "INSUFFICIENT_PROGRAM_RESOURCES",
     "the controller has no resources for the program now",
     "it again later, or to deactivate another program"},
    {0x8b, "Invalid Memory Namespace", "INVALID_MEM_NS",
     "a memory range is in a namespace that cannot have it",
     "a namespace of the memory command set"},
    {0x8c, "Invalid Memory Range Set", "INVALID_MEM_RANGE_SET",
     "the set of memory ranges is not a good one",
     "ranges with lengths above zero, within their namespaces"},
    {0x8d, "Invalid Memory Range Set Identifier", "INVALID_MEM_RANGE_SET_ID",
     "there is no set of memory ranges of that number", "the number that its creation returned"},
    {0x8e, "Invalid Program Data", "INVALID_PROGRAM_DATA",
     "the program is damaged or not for this controller", "to load it again, whole"},
    {0x8f, "Invalid Program Index", "INVALID_PROGRAM_INDEX", "there is no program of that index",
     "an index from the controller's list of programs"},
    {0x90, "Invalid Program Type", "INVALID_PROGRAM_TYPE",
     "the controller does not run programs of that type",
     "a type that its list of program types has"},
    {0x91, "Maximum Memory Ranges Exceeded", "MAX_MEM_RANGES_EXCEEDED",
     "the set has more memory ranges than it may", "fewer ranges"},
    {0x92, "Maximum Memory Range Sets Exceeded", "MAX_MEM_RANGE_SETS_EXCEEDED",
     "there are as many sets of memory ranges as there can be", "to delete one first"},
    {0x93, "Maximum Programs Activated", "MAX_PROGRAMS_ACTIVATED",
     "as many programs are active as can be", "to deactivate one first"},
    {0x94, "Maximum Program Bytes Exceeded", "MAX_PROGRAM_BYTES_EXCEEDED",
     "programs have taken all the room for them", "to unload one first"},
    {0x95, "Memory Range Set In Use", "MEM_RANGE_SET_IN_USE",
     "a program uses the set of memory ranges", "it again when the program has ended"},
    {0x96, "No Program", "NO_PROGRAM", "no program is loaded at that index", "to load one first"},
    {0x97, "Overlapping Memory Ranges", "OVERLAPPING_MEM_RANGES",
     "memory ranges of the set overlap", "ranges that do not overlap"},
    {0x98, "Program Not Activated", "PROGRAM_NOT_ACTIVATED", "the program is not active",
     "to activate it first"},
    {0x99, "Program In Use", "PROGRAM_IN_USE", "the program runs",
     "it again when the program has ended"},
    {0x9a, "Program Index Not Downloadable", "PROGRAM_INDEX_NOT_DOWNLOADABLE",
     "no program can be loaded at that index", "an index that is free for programs"},
    {0x9b, "Program Too Big", "PROGRAM_TOO_BIG", "the program is larger than the controller allows",
     "a smaller program"},
    {0x9c, "Successful Media Verification Read", "SUCCESSFUL_MEDIA_VERIF_READ",
     "the medium could be read after a sanitize, and its data is not what was written before", ""},
    {0xb6, "Invalid Zone Operation Request", "ZNS_INVALID_OP_REQUEST",
     "the zone does not allow this operation",
     "another zone operation, or one without a random write area"},
    {0xb7, "ZRWA Resources Unavailable", "ZNS_ZRWA_RESRC_UNAVAIL",
     "no random write areas are left for zones", "to finish or close another zone first"},
    {0xb8, "Zoned Boundary Error", "ZNS_BOUNDARY_ERROR",
     "the command crosses the boundary of a zone", "to split it at the boundary"},
    {0xb9, "Zone Is Full", "ZNS_FULL", "the zone is full", "another zone, or to reset this one"},
    {0xba, "Zone Is Read Only", "ZNS_READ_ONLY", "the zone is read only", "another zone"},
    {0xbb, "Zone Is Offline", "ZNS_OFFLINE", "the zone is offline and its data is lost",
     "another zone"},
    {0xbc, "Zone Invalid Write", "ZNS_INVALID_WRITE",
     "the write does not begin at the zone's write pointer",
     "to write where the write pointer is, or Zone Append"},
    {0xbd, "Too Many Active Zones", "ZNS_TOO_MANY_ACTIVE", "as many zones are active as can be",
     "to finish or reset a zone first"},
    {0xbe, "Too Many Open Zones", "ZNS_TOO_MANY_OPENS", "as many zones are open as can be",
     "to close a zone first"},
    {0xbf, "Invalid Zone State Transition", "ZNS_INVAL_TRANSITION",
     "the zone cannot go from its state to that one",
     "a report of the zones, which tells their states"},
};

constexpr StatusWords kFabrics[] = {
    {0x80, "Incompatible Format", "CONNECT_FORMAT",
     "the target does not know the record format of the Connect or Disconnect",
     "a target of a newer NVMe over Fabrics version, and report it"},
    {0x81, "Controller Busy", "CONNECT_CTRL_BUSY",
     "the target has no controller free, or this one has a host already",
     "it again later, or disconnect another host"},
    {0x82, "Connect Invalid Parameters", "CONNECT_INVALID_PARAM",
     "the target finds fault with a parameter of Connect, such as a subsystem that it does not "
     "have or a host that it does not allow",
     "`nvmf discover` for the names that it has; `nvmf explain --connect RESULT` names the "
     "parameter"},
    {0x83, "Connect Restart Discovery", "CONNECT_RESTART_DISC",
     "the subsystem is not available at this address",
     "`nvmf discover`, which tells where it is now"},
    {0x84, "Connect Invalid Host", "CONNECT_INVALID_HOST", "the target does not allow this host",
     "to allow its NQN on the target, or another --hostnqn"},
    {0x85, "Invalid Queue Type", "DISCONNECT_INVALID_QTYPE",
     "a Disconnect came on a queue that it is not for", "it on an I/O queue, and report it"},
    {kDiscoverRestart, "Discover Restart", "DISCOVERY_RESTART",
     "the discovery log changed while it was read", "to read it again from its beginning"},
    {kAuthenticationRequired, "Authentication Required", "AUTH_REQUIRED",
     "the target wants this host to authenticate first",
     "to connect with the key that the target has for this host"},
};

constexpr StatusWords kMedia[] = {
    {0x80, "Write Fault", "WRITE_FAULT", "the medium could not take the data",
     "it again, then `nvmf smart-log` for the state of the medium"},
    {0x81, "Unrecovered Read Error", "READ_ERROR", "the medium could not give the data back",
     "a copy of the data, and `nvmf smart-log` for the state of the medium"},
    {0x82, "End-to-end Guard Check Error", "GUARD_CHECK", "the data does not fit its guard (CRC)",
     "the data from another copy: somewhere between host and medium it was damaged"},
    {0x83, "End-to-end Application Tag Check Error", "APPTAG_CHECK",
     "the data's application tag is not the expected one",
     "the application tag that it was written with"},
    {0x84, "End-to-end Reference Tag Check Error", "REFTAG_CHECK",
     "the data's reference tag is not the expected one: it may belong to another block",
     "the reference tag that it was written with"},
    {0x85, "Compare Failure", "COMPARE_FAILED",
     "the data on the medium is not the data that it was compared with",
     "to read it and see where it differs"},
    {0x86, "Access Denied", "ACCESS_DENIED", "this host lacks the right to the data",
     "to unlock the range on the target"},
    {0x87, "Deallocated or Unwritten Logical Block", "UNWRITTEN_BLOCK",
     "the blocks were never written, or were deallocated", "to write them first"},
    {0x88, "End-to-End Storage Tag Check Error", "STORAGE_TAG_CHECK",
     "the data's storage tag is not the expected one", "the storage tag that it was written with"},
};

constexpr StatusWords kPath[] = {
    {0x00, "Internal Path Error", "INTERNAL_PATH_ERROR",
     "this controller failed within itself; others of the subsystem may do it",
     "another path, or it again"},
    {0x01, "Asymmetric Access Persistent Loss", "ANA_PERSISTENT_LOSS",
     "this controller has lost the namespace for good",
     "another path: `nvmf ana-log` shows the states"},
    {0x02, "Asymmetric Access Inaccessible", "ANA_INACCESSIBLE",
     "the namespace cannot be reached through this controller now",
     "another path: `nvmf ana-log` shows the states"},
    {0x03, "Asymmetric Access Transition", "ANA_TRANSITION",
     "the namespace's access through this controller is changing just now",
     "it again when the change is over: ANATT in `nvmf id-ctrl` tells how long it may take"},
    {0x60, "Controller Pathing Error", "CTRL_PATH_ERROR",
     "the controller lost its own way to the namespace", "another path, or it again"},
    {0x70, "Host Pathing Error", "HOST_PATH_ERROR",
     "the host lost its connection to the controller",
     "it again when `nvmf list` shows the connection as live"},
    {0x71, "Command Aborted By Host", "CMD_ABORTED_BY_HOST",
     "the host ended the command itself, as its connection ended or its time was over",
     "it again when `nvmf list` shows the connection as live"},
};

}  // namespace

std::span<const StatusWords> io_status_words() {
  return kIo;
}
std::span<const StatusWords> fabrics_status_words() {
  return kFabrics;
}
std::span<const StatusWords> media_status_words() {
  return kMedia;
}
std::span<const StatusWords> path_status_words() {
  return kPath;
}

}  // namespace nvmf::nvme
