// The control socket of nvmf-target: the verbs of `nvmf-target ctl`, done on a running target.
//
// Requests are those of control/protocol.h. Common args, all optional: "subsystem" (NQN),
// "controller" (CNTLID), "queue" (QID), "nsid"; each verb takes those that make sense for it and
// refuses the others.
#pragma once

#include <string>
#include <string_view>

#include "control/server.h"
#include "controller/nbd_open.h"
#include "controller/target.h"

namespace nvmf::tools {

/// Before Server::listen(). `target` and `opener` outlive `server`.
void add_target_verbs(control::Server& server, controller::Target& target,
                      controller::NbdOpener& opener);

/// The path that a user means by "PATH" or, as sockets are named elsewhere, "unix:PATH".
std::string orders_socket(std::string_view text);

/// "nvmf-target ctl SOCKET VERB …": argv[0] is "ctl". Returns the status to exit with.
int target_ctl(int argc, char** argv);

}  // namespace nvmf::tools
