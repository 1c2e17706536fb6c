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

}  // namespace

std::string request_line(std::string_view verb, const json& args) {
  return to_line({{"version", kProtocolVersion}, {"verb", verb}, {"args", args}});
}

std::string success_line(const json& fields) {
  json document = fields;
  document["ok"] = true;
  return to_line(document);
}

std::string failure_line(const Error& error) {
  return to_line({{"ok", false}, {"error", error.message}, {"errno", error.code}});
}

Result<std::string> parse_request(std::string_view line, json& args) {
  if (too_deep(line)) {
    return fail(fmt::format("the request is nested deeper than {} levels", kNestingMax), EBADMSG);
  }
  json request = json::parse(line, nullptr, false);
  if (!request.is_object()) return fail("the request is not a JSON object on one line", EBADMSG);
  const json* version = member(request, "version");
  if (version == nullptr || *version != kProtocolVersion) {
    return fail(fmt::format("the request's version is {} but this process speaks version {}: use "
                            "programs of the same release",
                            version == nullptr        ? "missing"
                            : version->is_primitive() ? version->dump()
                                                      : version->type_name(),
                            kProtocolVersion),
                EPROTONOSUPPORT);
  }
  const json* verb = member(request, "verb");
  if (verb == nullptr || !verb->is_string()) return fail("the request has no verb", EBADMSG);
  const auto given = request.find("args");
  if (given == request.end()) {
    args = json::object();
  } else if (given->is_object()) {
    args = std::move(*given);
  } else {
    return fail("the request's args are not an object", EBADMSG);
  }
  return verb->get<std::string>();
}

Result<void> parse_response(std::string_view line, std::string_view who, json& fields) {
  fields = parse_line(line);
  const json* ok = fields.is_object() ? member(fields, "ok") : nullptr;
  if (ok == nullptr || !ok->is_boolean()) {
    return fail(fmt::format("{} answered with something that is not nvmf's control protocol", who),
                EBADMSG);
  }
  if (ok->get<bool>()) return {};
  const json* error = member(fields, "error");
  const json* code = member(fields, "errno");
  return fail(error != nullptr && error->is_string()
                  ? nvme::printable(error->get_ref<const std::string&>())
                  : fmt::format("{} refused without a reason", who),
              code != nullptr && code->is_number_integer() ? code->get<int>() : EIO);
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
