// nvmf events.
#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "nvmf_output.h"
#include "nvmf_verbs.h"
#include "tool_connections.h"
#include "tool_control.h"
#include "tool_health.h"
#include "tool_program.h"

namespace nvmf::tools {

using nlohmann::json;

namespace {

constexpr Duration kPatience{std::chrono::seconds(5)};
constexpr const char* kVerb = "events";

/// False when nobody reads any more.
bool say(const json& event, OutputFormat format) {
  if (format == OutputFormat::json) {
    fmt::print("{}\n", event.dump(-1, ' ', false, json::error_handler_t::replace));
  } else {
    // Some sentences begin with the connection's name.
    const std::string who = text_of(event, "connection");
    const std::string what = text_of(event, "message");
    fmt::print("{} {}{}\n", text_of(event, "time"), what.starts_with(who) ? "" : who + ": ", what);
  }
  return std::fflush(stdout) == 0;
}

/// What an answer or a stream brings; in both, events.
bool say_all(const json& fields, OutputFormat format) {
  const auto events = fields.find("events");
  if (events == fields.end() || !events->is_array()) return true;
  for (const json& event : *events) {
    if (event.is_object() && !say(event, format)) return false;
  }
  return true;
}

int follow(const NamedConnections& asked, OutputFormat format) {
  int status = kExitSuccess;
  StreamReader user;
  user.on_answer = [&](std::size_t i, const ControlAnswer& answer) {
    if (answer.ok) return;
    complain("nvmf", fmt::format("{}: {}", asked.names[i], answer.ok.error().message));
    status = kExitFailure;
  };
  user.on_news = [&](std::size_t i, const json& news) {
    if (!news.contains("missed")) return say(news, format);
    const json missed = {{"connection", asked.names[i]},
                         {"event", "missed"},
                         {"missed", number_of(news, "missed")},
                         {"message", fmt::format("{} events were missed: they came faster than "
                                                 "they were read",
                                                 number_of(news, "missed"))}};
    return say(missed, format);
  };
  const auto followed = follow_all(asked.sockets, kVerb, {{"follow", true}}, kPatience, user);
  return followed ? status : refuse(followed.error());
}

}  // namespace

int events(const EventsWords& words) {
  const auto asked = find_connections(words.names, kVerb);
  if (!asked) return refuse(asked.error());
  if (words.follow) {
    if (!asked->sockets.empty()) return follow(*asked, words.format);
    complain("nvmf",
             "there is no connection whose events could be followed: `nvmf-connect URI` "
             "makes one");
    return kExitFailure;
  }
  const auto answers = call_all(asked->sockets, kVerb, json::object(), kPatience);
  int status = kExitSuccess;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    if (!answers[i].ok) {
      complain("nvmf", fmt::format("{}: {}", asked->names[i], answers[i].ok.error().message));
      status = kExitFailure;
    } else if (!say_all(*answers[i].fields, words.format)) {
      return kExitFailure;
    }
  }
  return status;
}

}  // namespace nvmf::tools
