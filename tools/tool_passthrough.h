// A passthrough command on the control socket: the args of the verb "passthrough", and its answer.
// The data travels as payload: what goes to the controller behind the request, what comes from it
// behind the answer. The names are in nvmf-control(7).
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>

#include "host/passthrough.h"
#include "host/queue_link.h"
#include "nvme/result.h"

namespace nvmf::tools {

inline constexpr const char* kPassthroughVerb = "passthrough";
/// A command may be given this much time: half a day, as Format of a large disk may take.
inline constexpr Duration kPassthroughTimeoutMax = std::chrono::hours(12);

/// All but the data and its direction.
nlohmann::json passthrough_args(const host::PassthroughCommand& command);
/// The reverse. EINVAL with a sentence for what is out of its range.
Result<host::PassthroughCommand> parse_passthrough(const nlohmann::json& args);

/// What the controller answered.
nlohmann::json passthrough_answer(const host::CommandOutcome& outcome);
struct PassthroughAnswer {
  nvme::Status status;
  std::uint64_t result = 0;  // DW0, and DW1 in the high half
};
/// EBADMSG if there is no such thing in `fields`; nothing in it is trusted.
Result<PassthroughAnswer> parse_passthrough_answer(const nlohmann::json& fields);

}  // namespace nvmf::tools
