// nvmf events.
#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "control/runtime_dir.h"
#include "nvmf_verbs.h"
#include "tool_control.h"
#include "tool_health.h"
#include "tool_program.h"

namespace nvmf::tools {

using nlohmann::json;

namespace {

constexpr Duration kPatience{std::chrono::seconds(5)};
constexpr const char* kVerb = "events";

struct Asked {
  std::vector<std::string> names;
  std::vector<std::string> sockets;
};

/// The connections that were named; all that there are if none was.
Result<Asked> find(const std::vector<std::string>& names) {
  const auto runtime = control::RuntimeDir::open();
  if (!runtime) return std::unexpected(runtime.error());
  Asked asked{.names = names, .sockets = {}};
  if (names.empty()) {
    const auto all = runtime->connections();
    if (!all) return std::unexpected(all.error());
    for (const control::Connection& c : *all) asked.names.push_back(c.name);
  }
  for (const std::string& name : asked.names) {
    if (auto good = control::check_name(name); !good) return std::unexpected(good.error());
    if (!runtime->find(name)) {
      return fail(fmt::format("there is no connection {} in {}: `nvmf list` shows those that there "
                              "are",
                              name, runtime->path()),
                  ENOENT);
    }
    asked.sockets.push_back(runtime->control_socket(name));
  }
  return asked;
}

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

int follow(const Asked& asked, OutputFormat format) {
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
  if (!followed) {
    complain("nvmf", followed.error().message);
    return kExitFailure;
  }
  return status;
}

}  // namespace

int events(const EventsWords& words) {
  const auto asked = find(words.names);
  if (!asked) {
    complain("nvmf", asked.error().message);
    return asked.error().code == EINVAL ? kExitUsage : kExitFailure;
  }
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
