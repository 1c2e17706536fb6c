#include "control/protocol.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "nvme/text.h"

namespace nvmf::control {

using nlohmann::json;

namespace {

/// Never throws: what is not UTF-8 is replaced.
std::string to_line(const json& document) {
  return document.dump(-1, ' ', false, json::error_handler_t::replace) + '\n';
}

/// Whether brackets outside of strings are nested deeper than kNestingMax. What is no JSON may be
/// judged either way.
bool too_deep(std::string_view line) {
  std::size_t depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (in_string) {
      if (c == '\\') ++i;  // whatever it is, it does not end the string
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kNestingMax) return true;
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  return false;
}

/// Discarded if it is no JSON, or nested too deep.
json parse_line(std::string_view line) {
  if (too_deep(line)) return json(json::value_t::discarded);
  return json::parse(line, nullptr, false);
}

/// The value of a key, or nullptr.
const json* member(const json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

Error not_ours(std::string_view who) {
  return {fmt::format("{} answered with something that is not nvmf's control protocol", who),
          EBADMSG};
}

Result<void> check_version(const json& request) {
  const json* version = member(request, "version");
  if (version != nullptr && version->is_number_integer() && *version >= kOldestVersion &&
      *version <= kProtocolVersion) {
    return {};
  }
  return fail(fmt::format("the request's version is {} but this process speaks version {}: use "
                          "programs of the same release",
                          version == nullptr        ? "missing"
                          : version->is_primitive() ? version->dump()
                                                    : version->type_name(),
                          kProtocolVersion),
              EPROTONOSUPPORT);
}

}  // namespace

std::string request_line(const Request& request, const json& args) {
  json document = {{"version", kProtocolVersion}, {"verb", request.verb}, {"args", args}};
  if (request.payload_bytes != 0) document["payload_bytes"] = request.payload_bytes;
  if (request.room_bytes != 0) document["room_bytes"] = request.room_bytes;
  return to_line(document);
}

std::string success_line(const json& fields, std::size_t payload_bytes) {
  json document = fields;
  document["ok"] = true;
  if (payload_bytes != 0) document["payload_bytes"] = payload_bytes;
  return to_line(document);
}

std::string failure_line(const Error& error) {
  return to_line({{"ok", false}, {"error", error.message}, {"errno", error.code}});
}

std::string news_line(const json& news) {
  return to_line(news);
}

std::string missed_line(std::uint64_t missed) {
  return to_line({{"missed", missed}});
}

Result<Request> parse_request(std::string_view line, json& args) {
  if (too_deep(line)) {
    return fail(fmt::format("the request is nested deeper than {} levels", kNestingMax), EBADMSG);
  }
  json document = json::parse(line, nullptr, false);
  if (!document.is_object()) return fail("the request is not a JSON object on one line", EBADMSG);
  if (auto spoken = check_version(document); !spoken) return std::unexpected(spoken.error());
  const json* verb = member(document, "verb");
  if (verb == nullptr || !verb->is_string()) return fail("the request has no verb", EBADMSG);
  Request request{.verb = verb->get<std::string>()};
  for (const auto& [key, value] : {std::pair("payload_bytes", &request.payload_bytes),
                                   std::pair("room_bytes", &request.room_bytes)}) {
    if (!document.contains(key)) continue;
    const auto bytes = unsigned_arg(document, key, kPayloadBytesMax, 0);
    if (!bytes) return fail(bytes.error().message, EMSGSIZE);
    *value = *bytes;
  }
  const auto given = document.find("args");
  if (given == document.end()) {
    args = json::object();
  } else if (given->is_object()) {
    args = std::move(*given);
  } else {
    return fail("the request's args are not an object", EBADMSG);
  }
  return request;
}

Result<std::size_t> parse_response(std::string_view line, std::string_view who, json& fields) {
  fields = parse_line(line);
  const json* ok = fields.is_object() ? member(fields, "ok") : nullptr;
  if (ok == nullptr || !ok->is_boolean()) return std::unexpected(not_ours(who));
  if (ok->get<bool>()) {
    const auto bytes = unsigned_arg(fields, "payload_bytes", kPayloadBytesMax, 0);
    if (!bytes) return std::unexpected(not_ours(who));
    return static_cast<std::size_t>(*bytes);
  }
  const json* error = member(fields, "error");
  const json* code = member(fields, "errno");
  return fail(error != nullptr && error->is_string()
                  ? nvme::printable(error->get_ref<const std::string&>())
                  : fmt::format("{} refused without a reason", who),
              code != nullptr && code->is_number_integer() ? code->get<int>() : EIO);
}

Result<void> parse_news(std::string_view line, std::string_view who, json& news) {
  news = parse_line(line);
  if (!news.is_object()) return std::unexpected(not_ours(who));
  return {};
}

Result<std::uint64_t> unsigned_arg(const json& args, const char* key, std::uint64_t most,
                                   std::uint64_t fallback) {
  const json* value = member(args, key);
  if (value == nullptr) return fallback;
  if (!value->is_number_unsigned() || value->get<std::uint64_t>() > most) {
    return fail(fmt::format("\"{}\" is not a number from 0 to {}", key, most), EINVAL);
  }
  return value->get<std::uint64_t>();
}

}  // namespace nvmf::control
