// Questions to running connections, asked of all at the same time and waited for.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "nvme/result.h"
#include "transport/timer.h"

namespace nvmf::tools {

struct ControlAnswer {
  Result<void> ok;
  std::shared_ptr<const nlohmann::json> fields;  // an object if ok
};

/// One answer per socket, in their order. Each comes within `timeout`, or is an error that names
/// the socket.
std::vector<ControlAnswer> call_all(const std::vector<std::string>& sockets, std::string_view verb,
                                    const nlohmann::json& args, Duration timeout);
ControlAnswer call(const std::string& socket, std::string_view verb, const nlohmann::json& args,
                   Duration timeout);

}  // namespace nvmf::tools
