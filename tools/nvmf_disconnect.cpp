// nvmf disconnect, nvmf disconnect-all.
#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>

#include "control/runtime_dir.h"
#include "nvmf_output.h"
#include "nvmf_verbs.h"
#include "tool_connections.h"
#include "tool_control.h"
#include "tool_program.h"

namespace nvmf::tools {

namespace {

constexpr const char* kProgram = "nvmf";
/// A connection acknowledges at once and ends within two seconds, or by force within four. Whoever
/// is in a hurry waits for less.
constexpr Duration kAnswerPatience{std::chrono::seconds(2)};
constexpr std::chrono::milliseconds kEndPatience{6000};
constexpr Duration kForcedAnswerPatience{std::chrono::milliseconds(700)};
constexpr std::chrono::milliseconds kForcedEndPatience{1400};
constexpr std::chrono::seconds kKillPatience{5};

/// A process on its way out.
struct Leaving {
  control::Connection connection;
  io::UniqueFd process;
};

bool wait_gone(const io::UniqueFd& process, std::chrono::steady_clock::time_point until) {
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    pollfd watch{process.get(), POLLIN, 0};
    const int ready = ::poll(&watch, 1, static_cast<int>(std::max<std::int64_t>(left.count(), 0)));
    if (ready > 0) return true;
    if (ready == 0) return false;
  }
}

/// By force: the process itself, which will not clean up. True if it has gone.
bool kill_process(const Leaving& leaving) {
  const control::Connection& c = leaving.connection;
  if (auto sent = send_signal(leaving.process, SIGKILL); !sent) {
    complain(kProgram, sent.error().message);
    return false;
  }
  if (!wait_gone(leaving.process, std::chrono::steady_clock::now() + kKillPatience)) {
    complain(kProgram,
             fmt::format("{} (process {}) was killed but does not go: the kernel holds it", c.name,
                         c.pid));
    return false;
  }
  complain(kProgram,
           fmt::format("{} (process {}) did not end and was killed; what it had sent may still be "
                       "executed, so the next connection to {} will hold its writes for a while",
                       c.name, c.pid, c.subnqn));
  return true;
}

/// What the words mean, or why they mean nothing.
Result<std::vector<control::Connection>> chosen(const control::RuntimeDir& runtime,
                                                const DisconnectWords& words) {
  auto running = runtime.connections();
  if (!running || words.all) return running;
  if (!words.nqn.empty()) {
    std::erase_if(*running, [&](const auto& c) { return c.subnqn != words.nqn; });
    if (running->empty()) {
      return fail(fmt::format("no connection to {} is running", words.nqn), ENOENT);
    }
    return running;
  }
  std::vector<control::Connection> named;
  for (const std::string& name : words.names) {
    auto found = find_connection(runtime, name, "disconnect");
    if (!found) return std::unexpected(found.error());
    if (std::ranges::find(named, name, &control::Connection::name) == named.end()) {
      named.push_back(std::move(found->connection));
    }
  }
  return named;
}

}  // namespace

int disconnect(const DisconnectWords& words) {
  const auto runtime = control::RuntimeDir::open();
  if (!runtime) return refuse(runtime.error());
  auto connections = chosen(*runtime, words);
  if (!connections) return refuse(connections.error());

  std::vector<Leaving> leaving;
  std::vector<std::string> sockets;
  for (control::Connection& c : *connections) {
    auto process = open_process(c.pid);
    // It has gone meanwhile, and its number may be somebody else's: then the name is free, too.
    const auto still = runtime->find(c.name);
    if (!process || !still || still->pid != c.pid) continue;
    sockets.push_back(runtime->control_socket(c.name));
    leaving.push_back({std::move(c), std::move(*process)});
  }
  const auto asked_at = std::chrono::steady_clock::now();
  const auto answers = call_all(sockets, "disconnect", {{"force", words.force}},
                                words.force ? kForcedAnswerPatience : kAnswerPatience);
  const auto until = asked_at + (words.force ? kForcedEndPatience : kEndPatience);
  int status = kExitSuccess;
  for (std::size_t i = 0; i < leaving.size(); ++i) {
    const control::Connection& c = leaving[i].connection;
    if (answers[i].ok) {
      for (const auto& sentence : answers[i].fields->value("held", nlohmann::json::array())) {
        if (!sentence.is_string()) continue;
        complain(kProgram, fmt::format("{}, which loses it now", sentence.get<std::string>()));
      }
    }
    // One that is ending anyway refuses, or hangs up: what counts is that it goes.
    const auto patience =
        answers[i].ok ? until : std::min(until, std::chrono::steady_clock::now() + kAnswerPatience);
    if (wait_gone(leaving[i].process, patience)) continue;
    if (words.force) {
      if (!kill_process(leaving[i])) status = kExitFailure;
      // It could not remove its sockets itself.
      if (auto cleaned = runtime->clean(); !cleaned) complain(kProgram, cleaned.error().message);
      continue;
    }
    complain(kProgram, fmt::format("{} (process {}) does not end{}{}: `nvmf disconnect --force {}` "
                                   "kills it",
                                   c.name, c.pid, answers[i].ok ? "" : ": ",
                                   answers[i].ok ? "" : answers[i].ok.error().message, c.name));
    status = kExitFailure;
  }
  if (!words.nqn.empty() && status == kExitSuccess) {
    fmt::print("NQN:{} disconnected {} controller(s)\n", words.nqn, leaving.size());
  }
  return status;
}

}  // namespace nvmf::tools
