// Whether a namespace is the disk that it was: asked before I/O goes on after a loss, and whenever
// the controller says that a namespace has changed.
#pragma once

#include "host/namespace.h"
#include "nvme/result.h"

namespace nvmf::host {

/// Both have the same NSID. The same disk: at least one non-zero identifier (UUID, NGUID, EUI64) is
/// known on both sides, none that is known on both differs, and subsystem NQN, command set, LBA
/// size and metadata format are the same and the capacity is not smaller. With `weak` and no
/// identifier on either side, the serial number and an equal size stand for one. The error (ESTALE)
/// is a sentence that says what differs, before and now.
Result<void> same_namespace(const Namespace& before, const Namespace& now, bool weak);

}  // namespace nvmf::host
