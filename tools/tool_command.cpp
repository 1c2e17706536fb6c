#include "tool_command.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstring>
#include <vector>

#include "memory_pressure.h"
#include "tool_program.h"

namespace nvmf::tools {

namespace {

/// Our environment with `variables` in it.
std::vector<std::string> environment(const std::map<std::string, std::string>& variables) {
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (!variables.contains(text.substr(0, text.find('=')))) all.push_back(text);
  }
  for (const auto& [name, value] : variables) all.push_back(fmt::format("{}={}", name, value));
  return all;
}

/// posix_spawn's two objects with one end.
struct SpawnSettings {
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_t actions;
  SpawnSettings() {
    ::posix_spawnattr_init(&attributes);
    ::posix_spawn_file_actions_init(&actions);
  }
  ~SpawnSettings() {
    ::posix_spawnattr_destroy(&attributes);
    ::posix_spawn_file_actions_destroy(&actions);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;
};

}  // namespace

Result<std::unique_ptr<Command>> Command::start(transport::Loop& loop, const std::string& text,
                                                const std::map<std::string, std::string>& variables,
                                                std::function<void(int)> on_exit) {
  std::unique_ptr<Command> command(new Command);
  command->loop_ = &loop;
  command->on_exit_ = std::move(on_exit);
  command->has_terminal_ = ::tcgetpgrp(STDIN_FILENO) == ::getpgrp();

  SpawnSettings settings;
  sigset_t none;
  sigset_t defaults;
  ::sigemptyset(&none);
  ::sigemptyset(&defaults);
  ::sigaddset(&defaults, SIGPIPE);
  ::posix_spawnattr_setflags(
      &settings.attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  ::posix_spawnattr_setpgroup(&settings.attributes, 0);
  ::posix_spawnattr_setsigmask(&settings.attributes, &none);
  ::posix_spawnattr_setsigdefault(&settings.attributes, &defaults);
  if (command->has_terminal_) {
    ::posix_spawn_file_actions_addtcsetpgrp_np(&settings.actions, STDIN_FILENO);
  }
  std::vector<std::string> words = {"/bin/sh", "-c", text};
  std::vector<std::string> env = environment(variables);
  std::vector<char*> argv;
  std::vector<char*> envp;
  argv.reserve(words.size() + 1);
  envp.reserve(env.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  for (std::string& entry : env) envp.push_back(entry.data());
  argv.push_back(nullptr);
  envp.push_back(nullptr);
  const UnguardedChildren unguarded;
  const int code = ::posix_spawn(&command->pid_, "/bin/sh", &settings.actions, &settings.attributes,
                                 argv.data(), envp.data());
  if (code != 0) {
    command->pid_ = 0;
    return fail(fmt::format("cannot run the command: {}", std::strerror(code)), code);
  }
  unguarded.started(command->pid_);
  command->group_ = command->pid_;
  auto process = open_process(command->pid_);
  if (!process) return std::unexpected(process.error());
  command->fd_ = std::move(*process);
  auto watch = loop.watch(command->fd_.get(), true, false, [c = command.get()] { c->ended(); });
  if (!watch) return std::unexpected(watch.error());
  command->watch_ = std::move(*watch);
  return command;
}

Command::~Command() {
  watch_.reset();
  if (!running()) return;
  send(SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  take_back_terminal();
}

void Command::send(int signal) {
  if (!running()) return;
  ::kill(-group_, signal);
  // One that is stopped at the terminal would not notice.
  if (signal != SIGKILL) ::kill(-group_, SIGCONT);
}

void Command::take_back_terminal() const {
  if (!has_terminal_) return;
  // From a group in the background this raises SIGTTOU, which would stop us.
  sigset_t ttou;
  sigset_t before;
  ::sigemptyset(&ttou);
  ::sigaddset(&ttou, SIGTTOU);
  ::pthread_sigmask(SIG_BLOCK, &ttou, &before);
  ::tcsetpgrp(STDIN_FILENO, ::getpgrp());
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Command::ended() {
  int how = 0;
  if (!running() || ::waitpid(pid_, &how, WNOHANG) != pid_) return;
  pid_ = 0;
  take_back_terminal();
  const int status = WIFSIGNALED(how) ? 128 + WTERMSIG(how) : WEXITSTATUS(how);
  // Not in here: this is the watch's own callback, and the watch is to go.
  loop_->post([this, status, alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    watch_.reset();
    fd_.reset();
    on_exit_(status);
  });
}

}  // namespace nvmf::tools
