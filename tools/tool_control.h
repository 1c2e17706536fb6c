// Questions to running connections, asked of all at the same time and waited for.
#pragma once

#include <cstddef>
#include <functional>
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

/// What goes behind a request, and how much may come behind its answer.
struct ControlPayload {
  std::vector<std::byte> bytes;
  std::size_t room_bytes = 0;
};
/// `payload.bytes` becomes the answer's, which is empty if it has none.
ControlAnswer call(const std::string& socket, std::string_view verb, const nlohmann::json& args,
                   Duration timeout, ControlPayload& payload);

/// Asks every socket for a stream. `on_answer` gets each answer, `on_news` each piece of news, both
/// with the number of their socket; on_news returns false when it has had enough. Returns when it
/// had, or all streams have ended. An answer that does not come within `timeout` is an error.
struct StreamReader {
  std::function<void(std::size_t, const ControlAnswer&)> on_answer;
  std::function<bool(std::size_t, const nlohmann::json&)> on_news;
};
Result<void> follow_all(const std::vector<std::string>& sockets, std::string_view verb,
                        const nlohmann::json& args, Duration timeout, const StreamReader& user);

}  // namespace nvmf::tools
