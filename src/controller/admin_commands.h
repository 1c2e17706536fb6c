// The commands of an admin queue: fabrics commands other than Connect, and the admin command set.
// Base 2.1 §5, §6.
//
// Supported: Identify, Get Log Page, Get and Set Features, Asynchronous Event Request, Abort, Keep
// Alive, Format NVM, Get LBA Status, Property Get and Set; of a discovery controller only what
// §3.1.3.6 gives it. Everything else is Invalid Command Opcode.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "controller/admin_reply.h"
#include "nvme/command.h"
#include "nvme/identify.h"
#include "nvme/log_pages.h"
#include "transport/qpair.h"

namespace nvmf::controller {

class Controller;
class Session;

/// Whether the command may come now and exists at all.
nvme::Status check_admin(const Controller& controller, const nvme::Sqe& sqe);
/// Bytes of data that the command takes from the host (Connect included).
std::size_t admin_data_in_bytes(const nvme::Sqe& sqe);
/// `data` has admin_data_in_bytes(). `command` is kept only if the reply says `later`.
AdminReply execute_admin(Controller& controller, Session& session,
                         transport::ControllerCommand& command, std::span<const std::byte> data);

/// Identify, in identify_command.cpp.
AdminReply execute_identify(const Controller& controller, const nvme::Sqe& sqe,
                            std::uint32_t data_bytes);
/// Get Log Page, in log_page_command.cpp. `session` for the address that discovery reports.
AdminReply execute_get_log_page(Controller& controller, Session& session, const nvme::Sqe& sqe,
                                std::uint32_t data_bytes);
/// The opcodes that this controller takes, by admin queue and I/O queue.
nvme::EffectsLog supported_commands(const Controller& controller);

}  // namespace nvmf::controller
