// Why a controller refused to be connected, in words.
#pragma once

#include <cstdint>
#include <string>

#include "host/params.h"
#include "nvme/command.h"
#include "nvme/identify.h"
#include "nvme/result.h"

namespace nvmf::host {

/// "cannot connect to SUBNQN at ADDRESS: ", before every reason.
std::string connect_context(const ConnectParams& params);

/// The answer to a Connect of queue `qid` that was not success. EACCES where the target does not
/// want this host, ENOENT where it does not know the subsystem, EINVAL or EBUSY; EIO otherwise.
Error connect_refused(const ConnectParams& params, std::uint16_t qid, const nvme::Cqe& cqe);

/// What of Identify Controller's data makes it one that cannot be used; sentence part.
Result<void> check_controller(const ConnectParams& params, const nvme::IdentifyController& id,
                              std::uint16_t cntlid);

}  // namespace nvmf::host
