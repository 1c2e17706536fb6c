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

/// Asks for a stream and gives each piece of news to `on_news` until that returns false, or the
/// process ends the stream. `timeout` is for the answer, which is what is returned; it is an error
/// if there is none.
ControlAnswer follow(const std::string& socket, std::string_view verb, const nlohmann::json& args,
                     Duration timeout, const std::function<bool(const nlohmann::json&)>& on_news);

}  // namespace nvmf::tools
