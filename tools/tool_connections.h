// Running connections by the names that a command line has for them.
#pragma once

#include <string>
#include <vector>

#include "nvme/result.h"

namespace nvmf::tools {

struct NamedConnections {
  std::vector<std::string> names;
  std::vector<std::string> sockets;  // their control sockets, in the same order
};

/// The connections that were named; all that there are if none was. EINVAL for what can be no name,
/// ENOENT for what is not there.
Result<NamedConnections> find_connections(const std::vector<std::string>& names);

}  // namespace nvmf::tools
