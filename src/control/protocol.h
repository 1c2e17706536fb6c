// The control socket's language: one JSON document a line, over a unix stream socket.
//
//   request   {"version":1,"verb":"status","args":{}}
//   response  {"ok":true,...}  or  {"ok":false,"error":"a sentence","errno":22}
//
// A client sends a request and reads one line; then it may send the next. A version that we do not
// speak is refused with a sentence. Fields that the reader does not know are ignored: so both sides
// may grow without a new version.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "nvme/result.h"
#include "transport/timer.h"

namespace nvmf::control {

inline constexpr int kProtocolVersion = 1;
/// A line with its newline. Identify data takes 8 KiB, the status of 1024 namespaces about 256 KiB.
inline constexpr std::size_t kLineBytesMax = 1u << 20;
/// The same of a request: no verb's arguments take more than a few KiB, and reading a request takes
/// time of the loop that serves I/O.
inline constexpr std::size_t kRequestBytesMax = 64u * 1024;
/// How deep objects and arrays may be nested. What we send is 4 deep; each level of a document
/// costs its reader memory and time.
inline constexpr std::size_t kNestingMax = 32;
/// A person's tools and a few watchers; beyond it the one that has been silent longest makes room.
inline constexpr std::size_t kClientsMax = 64;
/// A client that neither completes a request nor takes its answer for this long is cut off.
inline constexpr Duration kClientPatience{std::chrono::seconds(30)};
/// At the end: how long answers may take to reach their clients.
inline constexpr Duration kStopGrace{std::chrono::milliseconds(300)};

/// Lines, with the newline.
std::string request_line(std::string_view verb, const nlohmann::json& args);
/// `fields` is an object; "ok" is set in it.
std::string success_line(const nlohmann::json& fields);
std::string failure_line(const Error& error);

/// The verb of a request; its args, an object, go to `args`. The line is without its newline. What
/// is wrong with it is said so that it can be sent back.
Result<std::string> parse_request(std::string_view line, nlohmann::json& args);
/// The response's fields go to `fields`; a refusal is the Error it carries. `who` is named in the
/// Error if the line is none of this protocol.
Result<void> parse_response(std::string_view line, std::string_view who, nlohmann::json& fields);

/// args[key] as a number of at most `most`; `fallback` if it is missing; an error if it is
/// something else.
Result<std::uint64_t> unsigned_arg(const nlohmann::json& args, const char* key, std::uint64_t most,
                                   std::uint64_t fallback);

}  // namespace nvmf::control
