// The control socket's language: one JSON document a line, over a unix stream socket, and bytes
// behind a line that announces them. nvmf-control(7) says it all for those who write clients.
//
//   request   {"version":2,"verb":"status","args":{}}
//             {"version":2,"verb":"passthrough","args":{…},"payload_bytes":512,"room_bytes":4096}
//             and 512 bytes; the answer may have 4096 bytes
//   response  {"ok":true,…}  or  {"ok":false,"error":"a sentence","errno":22}
//             {"ok":true,…,"payload_bytes":4096} and 4096 bytes
//   stream    the answer to some verbs is followed by a line for each piece of news, until the
//             client closes; {"missed":3} says that it did not read fast enough
//
// A client sends a request and reads its response; then it may send the next. Version 1 had neither
// payloads nor streams; its requests are answered as ever. Another version is refused with a
// sentence. Fields that the reader does not know are ignored: so both sides may grow without a new
// version.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nvme/result.h"
#include "transport/timer.h"

namespace nvmf::control {

inline constexpr int kProtocolVersion = 2;
inline constexpr int kOldestVersion = 1;
/// A line with its newline. Identify data takes 8 KiB, the status of the 4096 namespaces that a
/// connection may have up to 2 MiB, of which the paths of their exports are the largest part.
inline constexpr std::size_t kLineBytesMax = 4u << 20;
/// The same of a request: no verb's arguments take more than a few KiB, and reading a request takes
/// time of the loop that serves I/O.
inline constexpr std::size_t kRequestBytesMax = 64u * 1024;
/// How deep objects and arrays may be nested. What we send is 4 deep; each level of a document
/// costs its reader memory and time.
inline constexpr std::size_t kNestingMax = 32;
/// What one command of a tool may carry: larger than the MDTS of most controllers, and what
/// nvme-cli can have from a kernel.
inline constexpr std::size_t kPayloadBytesMax = 4u << 20;
/// Payloads and room for payloads of all requests under way; those beyond it wait for their turn.
inline constexpr std::size_t kPayloadsBytesMax = 32u << 20;
/// Crowds of tools; beyond it the one that has been silent longest makes room.
inline constexpr std::size_t kClientsMax = 256;
/// Those that follow a stream: a monitor or two, and people.
inline constexpr std::size_t kFollowersMax = 32;
/// News that a follower has not read yet; what comes beyond it is missed.
inline constexpr std::size_t kFollowerBacklogBytesMax = 256u * 1024;
/// A client that neither completes a request nor takes its answer for this long is cut off.
inline constexpr Duration kClientPatience{std::chrono::seconds(30)};
/// At the end: how long answers may take to reach their clients.
inline constexpr Duration kStopGrace{std::chrono::milliseconds(300)};

/// What is asked, beside its args.
struct Request {
  std::string verb;
  std::size_t payload_bytes = 0;  // that follow the line
  std::size_t room_bytes = 0;     // the most that the answer may have
};

/// Lines, with the newline.
std::string request_line(const Request& request, const nlohmann::json& args);
/// `fields` is an object; "ok" is set in it, and "payload_bytes" if there is a payload.
std::string success_line(const nlohmann::json& fields, std::size_t payload_bytes = 0);
std::string failure_line(const Error& error);
/// A piece of news, an object.
std::string news_line(const nlohmann::json& news);
std::string missed_line(std::uint64_t missed);

/// A request's args, an object, go to `args`. The line is without its newline. What is wrong with
/// it is said so that it can be sent back; EMSGSIZE: too much payload.
Result<Request> parse_request(std::string_view line, nlohmann::json& args);
/// The response's fields go to `fields`; the value is its payload's length. A refusal is the Error
/// it carries. `who` is named in the Error if the line is none of this protocol.
Result<std::size_t> parse_response(std::string_view line, std::string_view who,
                                   nlohmann::json& fields);
/// A line of a stream; an object.
Result<void> parse_news(std::string_view line, std::string_view who, nlohmann::json& news);

/// args[key] as a number of at most `most`; `fallback` if it is missing; an error if it is
/// something else.
Result<std::uint64_t> unsigned_arg(const nlohmann::json& args, const char* key, std::uint64_t most,
                                   std::uint64_t fallback);

}  // namespace nvmf::control
