// Commands of tools through a live association: what may be sent, and what has to be done around
// it. RemoteSubsystem::passthrough() sends them; what is decided by values alone is here.
//
// Never retried: a command that was sent and not answered "may have been executed". What may have
// changed data then stays fenced as a frontend's write would be (DATA_SAFETY: ghost writes); of
// which blocks it may have been is known for the NVM command set's own commands, for every other
// one it is the whole namespace, or all of them.
//
// Refused, with a sentence: metadata; fused commands; what the association itself lives by (event
// requests, Keep Alive, queues, Connect, Disconnect, authentication, Property Set of CC, Set
// Features of the number of queues, of the Keep Alive timer, of Host Behavior Support, of DULBE);
// Abort and Cancel, as identifiers of commands are the association's own; data in a direction that
// the opcode denies, or more of it than MDTS. Property Set of anything but CC is let through (over
// fabrics that is NSSR: the loss that follows is one like any other).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "nvme/command.h"
#include "nvme/log_pages.h"
#include "nvme/result.h"
#include "transport/qpair.h"
#include "transport/timer.h"

namespace nvmf::host {

struct AssociationInfo;

struct PassthroughCommand {
  bool io = false;  // on an I/O queue; otherwise on the admin queue
  nvme::Sqe sqe;    // CID, PSDT and SGL are set on the way
  transport::DataDirection direction = transport::DataDirection::none;
  /// Stays until the task is done. What comes from the controller lands here.
  std::span<std::byte> data;
  /// From submission, and before that again for what has to be waited for: a slot, a hold, a fence.
  /// 0: the connection's own (admin_timeout, command_timeout).
  Duration timeout{};
  std::uint32_t metadata_bytes = 0;  // what the tool asked for: anything but 0 is refused
};

/// Passthrough commands that wait for their turn, of each kind: more are refused as EBUSY.
inline constexpr std::size_t kPassthroughWaitersMax = 256;
/// Those who wait to have the namespaces looked at: each finds out the same.
inline constexpr std::size_t kRescanWaitersMax = 16;
/// Of an I/O queue's commands, one in so many may be passthrough; at least one may.
inline constexpr std::uint32_t kPassthroughIoShare = 8;

/// What an active namespace list says that is not known from before, and what became of the rest.
struct RescanReport {
  struct Stopped {
    std::uint32_t nsid = 0;
    std::string why;
  };
  std::vector<std::uint32_t> active;      // what the controller lists now
  std::vector<std::uint32_t> added;       // of these, what is served from now on: new, or back
  std::vector<std::uint32_t> not_served;  // of these, what this connection does not serve
  std::vector<std::uint32_t> gone;        // served, and not listed any more
  std::vector<Stopped> stopped;           // served, and not going on, with the reason
};

// ---- decided by values alone ----

/// What a command may reach or change.
enum class Scope : std::uint8_t { none, one_namespace, all_namespaces };

struct PassthroughPlan {
  nvme::Sqe sqe;  // as it is to be sent
  /// Which namespaces' data it may change.
  Scope changes = Scope::none;
  /// Of one namespace: not all of it, but these blocks, [first_lba, end_lba).
  bool blocks_known = false;
  std::uint64_t first_lba = 0;
  std::uint64_t end_lba = 0;
  /// Whose frontends have to stand still meanwhile (LBCC of an admin command, NCC, NIC, CSE).
  Scope quiesce = Scope::none;
  /// What has to be identified again before they go on; with `list_changes` (NIC) also which
  /// namespaces there are.
  Scope identify = Scope::none;
  bool list_changes = false;
  /// What was changed in it, a sentence for the log; empty: nothing.
  std::string note;
};

/// What of the connection decides on it.
struct PassthroughRules {
  const AssociationInfo& info;
  /// As the controller says; nullptr: it has no such log.
  const nvme::EffectsLog* effects = nullptr;
  std::uint32_t io_queues = 0;
  bool read_only = false;
  /// Bits of Asynchronous Event Configuration that the association needs.
  std::uint32_t events_needed = 0;
};

/// EPERM for what the association itself lives by, EOPNOTSUPP for what is not passed through by
/// anybody, EINVAL for what contradicts itself or is too long, EROFS for what may change data on a
/// connection that is read-only; each with a sentence.
Result<PassthroughPlan> plan_passthrough(const PassthroughCommand& command,
                                         const PassthroughRules& rules);

}  // namespace nvmf::host
