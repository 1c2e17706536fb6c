// Why a controller refused to be connected, in words, and whether that is final.
#pragma once

#include <cerrno>
#include <cstdint>
#include <string>

#include "host/params.h"
#include "nvme/command.h"
#include "nvme/identify.h"
#include "nvme/result.h"

namespace nvmf::host {

/// "cannot connect to SUBNQN at ADDRESS: ", before every reason.
std::string connect_context(const ConnectParams& params);

// Codes of bring_up()'s errors that mean something of their own.
/// The target has no controller free just now and did not say that it will be so tomorrow (Connect
/// Controller Busy without DNR).
inline constexpr int kControllerBusy = EBUSY;
/// It wants this host to authenticate, and we have no key, or not the one that it wants.
inline constexpr int kAuthenticationFailed = EKEYREJECTED;

/// Whether an error of bring_up() ends the attempts to come back after a loss. Only authentication
/// does: all else, DNR or not, a target may say while it is being set up (Linux's target refuses
/// subsystem and host with DNR until its configuration is complete). On a first connect every error
/// is final.
bool final_for_reconnect(const Error& error);

/// The answer to a Connect of queue `qid` that was not success. EACCES where the target does not
/// want this host, ENOENT where it does not know the subsystem, EINVAL, the codes above; EIO
/// otherwise.
Error connect_refused(const ConnectParams& params, std::uint16_t qid, const nvme::Cqe& cqe);

/// What of Identify Controller's data makes it one that cannot be used; sentence part.
Result<void> check_controller(const ConnectParams& params, const nvme::IdentifyController& id,
                              std::uint16_t cntlid);

}  // namespace nvmf::host
