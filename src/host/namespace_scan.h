// Which namespaces a controller has, read over its admin queue.
#pragma once

#include <string>

#include "host/association.h"
#include "host/task.h"

namespace nvmf::host {

/// Namespaces that one connection serves at most: each has a device per reactor.
inline constexpr std::size_t kNamespacesMax = 4096;

/// Fills association.namespaces and refused_namespaces: the active namespaces (Identify CNS 02h in
/// pages of 1024), each identified by CNS 00h and, where known, 03h. Namespaces that vanish
/// meanwhile, or cannot be served, are skipped with a sentence. Fails if the controller does not
/// answer, if its lists are out of sense, or if the one namespace that was asked for is not there.
Task<Result<void>> scan_namespaces(Association& association, Duration timeout);

/// The identifiers of all active namespaces now, rising, at most about kNamespacesMax. Fails if the
/// controller does not answer, refuses, or lists what makes no sense.
Task<Result<std::vector<std::uint32_t>>> list_namespaces(Association& association,
                                                         Duration timeout);

/// One namespace as it is now; nullptr if it is not active or cannot be served, with the reason in
/// `why` (empty if it is just not there). Fails if the controller does not answer; with EAGAIN if
/// it refuses without saying that there is no such namespace.
Task<Result<std::shared_ptr<const Namespace>>> identify_namespace(Association& association,
                                                                  std::uint32_t nsid,
                                                                  Duration timeout,
                                                                  std::string& why);

}  // namespace nvmf::host
