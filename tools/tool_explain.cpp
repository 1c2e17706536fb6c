#include "tool_explain.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <nlohmann/json.hpp>

#include "io/error_words.h"
#include "nvme/explain.h"
#include "nvme/fabrics.h"
#include "nvme/text.h"
#include "transport/tcp/term_words.h"

namespace nvmf::tools {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::array kPduTypes = {
    tcp::PduType::ic_req,       tcp::PduType::ic_resp,     tcp::PduType::h2c_term_req,
    tcp::PduType::c2h_term_req, tcp::PduType::capsule_cmd, tcp::PduType::capsule_resp,
    tcp::PduType::h2c_data,     tcp::PduType::c2h_data,    tcp::PduType::r2t};

std::string dump(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

std::string with_hint(std::string sentence, std::string_view hint) {
  if (!hint.empty()) sentence += fmt::format("; try {}", hint);
  return sentence;
}

Json try_of(std::string_view hint) {
  return hint.empty() ? Json(nullptr) : Json(hint);
}

std::string sentence(nvme::Status status, const nvme::StatusMeaning& meaning, bool one_of_many) {
  const std::string symbol =
      meaning.symbol.empty() ? std::string() : fmt::format(", {}", meaning.symbol);
  return with_hint(
      fmt::format("{}{} ({:x}/{:02x}h{}): {}",
                  one_of_many ? fmt::format("For {} commands: ", meaning.commands) : "",
                  meaning.name, status.sct, status.sc, symbol, meaning.meaning),
      meaning.hint);
}

Result<Explanation> status_explanation(const nvme::FoundStatus& found,
                                       std::optional<nvme::StatusContext> context) {
  const nvme::Status status = found.status;
  const auto meanings = nvme::status_meanings(status, found.context ? found.context : context);
  if (meanings.front().reserved) {
    return fail(fmt::format("status {:x}/{:02x}h ({:#x}) cannot be explained: {}; try {}",
                            status.sct, status.sc, nvme::nvme_cli_status(status),
                            meanings.front().meaning, meanings.front().hint),
                EINVAL);
  }
  Explanation all;
  Json json = {{"status", nvme::nvme_cli_status(status)},
               {"sct", status.sct},
               {"sc", status.sc},
               {"crd", status.crd},
               {"more", status.more},
               {"dnr", status.dnr},
               {"nvme_cli", nvme::nvme_cli_status_line(status)},
               {"meanings", Json::array()},
               {"notes", Json::array()}};
  for (const nvme::StatusMeaning& meaning : meanings) {
    all.lines.push_back(sentence(status, meaning, meanings.size() > 1));
    json["meanings"].push_back({{"commands", meaning.commands},
                                {"name", meaning.name},
                                {"symbol", meaning.symbol},
                                {"meaning", meaning.meaning},
                                {"try", try_of(meaning.hint)}});
  }
  if (found.with_flags) {
    for (std::string& note : nvme::retry_words(status)) {
      json["notes"].push_back(note);
      all.lines.push_back(std::move(note));
    }
  }
  all.json = dump(json);
  return all;
}

Result<Explanation> errno_explanation(int code) {
  const char* known = ::strerrorname_np(code);
  if (code <= 0 || known == nullptr) {
    return fail(fmt::format("{} is no error of the system: try a number that errno can have, such "
                            "as 111, or a name, such as ECONNREFUSED",
                            code),
                EINVAL);
  }
  const io::ErrnoWords* words = io::errno_words(code);
  const std::string meaning = words != nullptr ? std::string(words->meaning) : ::strerror(code);
  const std::string_view hint =
      words != nullptr ? words->hint : "the message that came with it, which says what failed";
  return Explanation{
      .lines = {with_hint(fmt::format("{} ({}): {}", known, code, meaning), hint)},
      .json =
          dump({{"errno", code}, {"name", known}, {"meaning", meaning}, {"try", try_of(hint)}})};
}

Result<Explanation> errno_words_explanation(const std::string& text) {
  if (const auto named = io::errno_from_name(text)) return errno_explanation(*named);
  const auto number = nvme::parse_number(text);
  constexpr std::uint64_t kErrnoMax = 4095;
  if (!number || *number > kErrnoMax) {
    return fail(fmt::format("\"{}\" is no error of the system: try a number that errno can have, "
                            "such as 111, or a name, such as ECONNREFUSED",
                            nvme::printable(text)),
                EINVAL);
  }
  return errno_explanation(static_cast<int>(*number));
}

/// "ICReq: PFV, R2T: CCCID", for an offset whose PDU nobody knows.
Json fields_at(std::uint32_t offset) {
  Json fields = Json::object();
  for (const tcp::PduType type : kPduTypes) {
    const std::string_view field = tcp::pdu_field(type, offset);
    if (!field.empty()) fields[std::string(tcp::pdu_name(type))] = field;
  }
  return fields;
}

Explanation term_req_words(tcp::Fes fes, std::uint32_t fei) {
  Explanation all;
  Json json = {{"fes", static_cast<unsigned>(fes)}, {"fei", fei}, {"meanings", Json::array()}};
  const bool differs = tcp::fes_words(fes, true).meaning != tcp::fes_words(fes, false).meaning;
  for (const bool from_host : {false, true}) {
    if (from_host && !differs) break;
    const std::string name = tcp::describe_fes(fes, fei, from_host);
    const tcp::FesWords words = tcp::fes_words(fes, from_host);
    const char* who = from_host ? "host" : "controller";
    all.lines.push_back(
        with_hint(fmt::format("{}{}: {}", differs ? fmt::format("From a {}: ", who) : "", name,
                              words.meaning),
                  words.hint));
    json["meanings"].push_back({{"from", differs ? who : "both"},
                                {"name", name},
                                {"meaning", words.meaning},
                                {"try", try_of(words.hint)}});
  }
  if (fes == tcp::Fes::invalid_header_field || fes == tcp::Fes::unsupported_parameter) {
    const Json fields = fields_at(fei);
    std::string list;
    for (const auto& [pdu, field] : fields.items()) {
      list += fmt::format("{}{} of {}", list.empty() ? "" : ", ",
                          field.get_ref<const std::string&>(), pdu);
    }
    all.lines.push_back(list.empty() ? fmt::format("Byte {} is no field of a PDU's header", fei)
                                     : fmt::format("Byte {} is {}", fei, list));
    json["fields"] = fields;
  }
  all.json = dump(json);
  return all;
}

Result<Explanation> term_req_explanation(const std::string& text) {
  const std::size_t colon = text.find(':');
  const auto fes = nvme::parse_number(std::string_view(text).substr(0, colon));
  const auto fei = colon == std::string::npos
                       ? std::optional<std::uint64_t>(0)
                       : nvme::parse_number(std::string_view(text).substr(colon + 1));
  if (!fes || !fei || !tcp::known_fes(*fes) || *fei > UINT32_MAX) {
    return fail(fmt::format("\"{}\" is no reason of a terminate request: try FES, 1 to 6, or "
                            "FES:FEI, such as 1:8",
                            nvme::printable(text)),
                EINVAL);
  }
  return term_req_words(static_cast<tcp::Fes>(*fes), static_cast<std::uint32_t>(*fei));
}

Result<Explanation> connect_explanation(const std::string& text) {
  const auto result = nvme::parse_number(text);
  if (!result || *result > UINT32_MAX) {
    return fail(fmt::format("\"{}\" is not dword 0 of a completion: try its 32 bits as a number, "
                            "such as 0x10100",
                            nvme::printable(text)),
                EINVAL);
  }
  const auto where = nvme::ConnectInvalidParameter::decode(*result);
  return Explanation{
      .lines = {with_hint("The target finds fault with " + where.describe(), where.hint())},
      .json = dump({{"connect", *result},
                    {"in_data", where.in_data},
                    {"offset", where.offset},
                    {"field", where.describe()},
                    {"try", try_of(where.hint())}})};
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) {
    if (!text.empty()) text += ' ';
    text += word;
  }
  return text;
}

}  // namespace

Result<Explanation> explanation(const ExplainWords& words) {
  if (!words.system_error.empty()) return errno_words_explanation(words.system_error);
  if (!words.term_req.empty()) return term_req_explanation(words.term_req);
  if (!words.connect.empty()) return connect_explanation(words.connect);
  const std::string text = joined(words.status);
  const auto found = words.cqe ? nvme::parse_cqe_status(text) : nvme::parse_status(text);
  if (found) return status_explanation(*found, words.context);
  if (!words.cqe) {
    if (const auto code = io::errno_from_name(text)) return errno_explanation(*code);
  }
  return std::unexpected(found.error());
}

}  // namespace nvmf::tools
