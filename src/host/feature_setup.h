// The features of a new controller that decide how its answers are taken: whether a refusal may
// name a pause (Host Behavior Support), and whether an answered write may still be lost (Volatile
// Write Cache). A step of bring_up().
#pragma once

#include "host/association.h"
#include "host/task.h"
#include "nvme/result.h"

namespace nvmf::host {

/// Sets info.retry_delays and info.volatile_write_cache; info.controller is known. On the control
/// loop. Fails only if the controller does not answer within `timeout`, each time: one that refuses
/// has no retry delays, and its cache, if it has one, counts as enabled.
Task<Result<void>> set_up_features(Association& association, Duration timeout);

}  // namespace nvmf::host
