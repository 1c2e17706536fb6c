// nvmf policy, nvmf reset, nvmf accept, nvmf ns-rescan.
#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "control/runtime_dir.h"
#include "nvmf_output.h"
#include "nvmf_verbs.h"
#include "tool_connections.h"
#include "tool_control.h"
#include "tool_health.h"
#include "tool_program.h"
#include "tool_timers.h"

namespace nvmf::tools {

using nlohmann::json;

namespace {

constexpr const char* kProgram = "nvmf";
/// Answered from memory.
constexpr Duration kPatience{std::chrono::seconds(2)};
/// A rescan asks the controller, for each namespace that is served, within the connection's own
/// limit for admin commands.
constexpr Duration kRescanPatience{std::chrono::seconds(70)};
/// A reset ends one association and makes another one.
constexpr std::chrono::seconds kResetPatience{10};
constexpr std::chrono::milliseconds kResetPoll{50};

/// Timers belong to a connection as a whole.
Result<RunningConnection> find_whole(const std::string& text, const char* verb) {
  const auto runtime = control::RuntimeDir::open();
  if (!runtime) return std::unexpected(runtime.error());
  return find_connection(*runtime, text, verb);
}

Result<json> ask(const RunningConnection& running, const char* verb, const json& args,
                 Duration patience = kPatience) {
  const ControlAnswer answer = call(running.socket, verb, args, patience);
  if (!answer.ok) {
    return fail(fmt::format("{}: {}", running.connection.name, answer.ok.error().message),
                answer.ok.error().code == EINVAL ? EINVAL : EIO);
  }
  return *answer.fields;
}

/// What is to be changed, in the control socket's words.
Result<json> to_args(const TimerWords& words) {
  const auto wanted = words.applied_to({});
  if (!wanted) return std::unexpected(wanted.error());
  json args = json::object();
  if (!words.reconnect_delay.empty()) args["reconnect_delay_ms"] = to_ms(wanted->reconnect_delay);
  if (!words.ctrl_loss.empty()) args["ctrl_loss_ms"] = ms_or_null(wanted->ctrl_loss);
  if (!words.fast_io_fail.empty()) args["fast_io_fail_ms"] = ms_or_null(wanted->fast_io_fail);
  return args;
}

host::LossPolicy policy_of(const json& health) {
  host::LossPolicy policy;
  const auto told = health.find("policy");
  if (told == health.end() || !told->is_object()) return policy;
  policy.reconnect_delay =
      duration_of(*told, "reconnect_delay_ms").value_or(policy.reconnect_delay);
  policy.ctrl_loss = duration_of(*told, "ctrl_loss_ms");
  policy.fast_io_fail = duration_of(*told, "fast_io_fail_ms");
  return policy;
}

void show(const json& health) {
  const host::LossPolicy policy = policy_of(health);
  const auto timer = [](const std::optional<Duration>& d) {
    return d ? show_duration(*d) : std::string("never");
  };
  fmt::print("state            : {}\n", text_of(health, "state"));
  fmt::print("reconnect-delay  : {}\n", show_duration(policy.reconnect_delay));
  fmt::print("ctrl-loss-tmo    : {}\n", timer(policy.ctrl_loss));
  fmt::print("fast_io_fail_tmo : {}\n", timer(policy.fast_io_fail));
  for (const std::string& sentence : about_loss(health)) fmt::print("{}\n", sentence);
}

/// Empty if there is none.
json list_of(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_array() ? *found : json::array();
}

}  // namespace

int policy(const PolicyWords& words) {
  const auto args = to_args(words.timers);
  if (!args) return refuse(args.error());
  const auto running = find_whole(words.name, "policy");
  if (!running) return refuse(running.error());
  const auto health = ask(*running, "policy", *args);
  if (!health) return refuse(health.error());
  if (const std::string note = note_about(policy_of(*health));
      !note.empty() && !words.timers.empty()) {
    complain(kProgram, note);
  }
  if (const std::string note =
          note_about_hold(policy_of(*health), duration_of(*health, "writes_held_at_most_ms"));
      !note.empty() && !words.timers.empty()) {
    complain(kProgram, note);
  }
  if (words.format == OutputFormat::json) {
    json document = *health;
    document.erase("ok");
    document.erase("lives");
    fmt::print("{}\n", document.dump(2, ' ', false, json::error_handler_t::replace));
  } else {
    show(*health);
  }
  return kExitSuccess;
}

int reset(const std::string& name) {
  const auto running = find_whole(name, "reset");
  if (!running) return refuse(running.error());
  const auto before = ask(*running, "reset", json::object());
  if (!before) return refuse(before.error());
  const std::uint64_t lives = number_of(*before, "lives");
  const auto until = std::chrono::steady_clock::now() + kResetPatience;
  json last;
  while (std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(kResetPoll);
    const auto health = ask(*running, "health", json::object());
    if (!health) {
      return refuse({fmt::format("{}; it was reset, and has ended since", health.error().message)});
    }
    if (number_of(*health, "lives") > lives) return kExitSuccess;
    last = *health;
  }
  complain(kProgram,
           fmt::format("{} was reset, but is not live again yet; it goes on trying", name));
  for (const std::string& sentence : about_loss(last)) complain(kProgram, sentence);
  return kExitFailure;
}

int accept(const std::string& name) {
  const auto runtime = control::RuntimeDir::open();
  if (!runtime) return refuse(runtime.error());
  const auto running = find_running(*runtime, name);
  if (!running) return refuse(running.error());
  const auto done = ask(*running, "accept", {{"nsid", running->nsid.value_or(0)}});
  if (!done) return refuse(done.error());
  const auto accepted = done->find("accepted");
  if (accepted == done->end() || !accepted->is_array()) return kExitSuccess;
  for (const json& one : *accepted) {
    if (one.is_string()) {
      fmt::print("{} goes on with the disk that is there now\n", one.get<std::string>());
    }
  }
  return kExitSuccess;
}

int ns_rescan(const RescanWords& words) {
  const auto running = find_whole(words.name, "ns-rescan");
  if (!running) return refuse(running.error());
  const auto found = ask(*running, "rescan", json::object(), kRescanPatience);
  if (!found) return refuse(found.error());
  if (words.format == OutputFormat::json) {
    json document = *found;
    document.erase("ok");
    fmt::print("{}\n", document.dump(2, ' ', false, json::error_handler_t::replace));
    return kExitSuccess;
  }
  const std::string& name = running->connection.name;
  const std::size_t count = list_of(*found, "active").size();
  fmt::print("{} has {} namespace{}\n", name, count, count == 1 ? "" : "s");
  for (const json& nsid : list_of(*found, "added")) {
    fmt::print("{}n{} is served now\n", name, nsid.dump());
  }
  for (const json& nsid : list_of(*found, "not_served")) {
    fmt::print("namespace {} is not served; what {} was told to serve, and its log, say why\n",
               nsid.dump(), name);
  }
  std::set<std::string> told;
  for (const json& one : list_of(*found, "stopped")) {
    if (!one.is_object()) continue;
    const std::string nsid = text_of(one, "nsid");
    fmt::print("{}n{} does not go on: {}\n", name, nsid, text_of(one, "why"));
    told.insert(nsid);
  }
  for (const json& nsid : list_of(*found, "gone")) {
    if (!told.contains(nsid.dump())) fmt::print("{}n{} is gone\n", name, nsid.dump());
  }
  return kExitSuccess;
}

}  // namespace nvmf::tools
