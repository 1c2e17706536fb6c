// The Connect command. NVMe Base 2.1 §6.3, and §3.3.2.2 for what may be connected when.
#pragma once

#include <cstddef>
#include <span>

#include "controller/admin_reply.h"
#include "nvme/command.h"

namespace nvmf::controller {

class Session;
class Target;

/// Checks every parameter, lowest byte of the command first, then the data; makes the controller
/// (admin queue) or finds it (I/O queue), and turns the session into that queue. A refusal says in
/// DW0 which parameter was wrong. `data` has kConnectDataBytes.
AdminReply execute_connect(Target& target, Session& session, const nvme::Sqe& sqe,
                           std::span<const std::byte> data);

}  // namespace nvmf::controller
