#include "tool_child.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <filesystem>

#include "memory_pressure.h"
#include "tool_program.h"

namespace nvmf::tools {

namespace {

/// posix_spawn's two objects with one end.
struct Settings {
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_t actions;
  Settings() {
    ::posix_spawnattr_init(&attributes);
    ::posix_spawn_file_actions_init(&actions);
  }
  ~Settings() {
    ::posix_spawnattr_destroy(&attributes);
    ::posix_spawn_file_actions_destroy(&actions);
  }
  Settings(const Settings&) = delete;
  Settings& operator=(const Settings&) = delete;
};

/// Ours as they are by default, its stdout and stderr at the ends of pipes.
void prepare(Settings& settings, int out, int err) {
  sigset_t none;
  sigset_t defaults;
  ::sigemptyset(&none);
  ::sigemptyset(&defaults);
  ::sigaddset(&defaults, SIGPIPE);
  ::posix_spawnattr_setflags(&settings.attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  ::posix_spawnattr_setsigmask(&settings.attributes, &none);
  ::posix_spawnattr_setsigdefault(&settings.attributes, &defaults);
  ::posix_spawn_file_actions_addopen(&settings.actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&settings.actions, out, STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&settings.actions, err, STDERR_FILENO);
}

}  // namespace

std::string program_beside(const std::string& name) {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) {
    const std::string beside = (self.parent_path() / name).string();
    if (::access(beside.c_str(), X_OK) == 0) return beside;
  }
  return name;
}

Result<std::unique_ptr<ChildProgram>> ChildProgram::start(transport::Loop& loop,
                                                          const std::string& path,
                                                          const std::vector<std::string>& words,
                                                          std::function<void(int)> on_exit) {
  std::unique_ptr<ChildProgram> child(new ChildProgram);
  child->loop_ = &loop;
  child->on_exit_ = std::move(on_exit);
  std::array<io::UniqueFd, 2> write_ends;
  for (std::size_t i = 0; i < 2; ++i) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
      return fail(fmt::format("cannot make a pipe: {}", std::strerror(errno)), errno);
    }
    child->said_[i].fd = io::UniqueFd(ends[0]);
    write_ends[i] = io::UniqueFd(ends[1]);
    ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
  }
  Settings settings;
  prepare(settings, write_ends[0].get(), write_ends[1].get());
  std::vector<std::string> all = {path};
  all.insert(all.end(), words.begin(), words.end());
  std::vector<char*> argv;
  argv.reserve(all.size() + 1);
  for (std::string& word : all) argv.push_back(word.data());
  argv.push_back(nullptr);
  const UnguardedChildren unguarded;
  const int code = ::posix_spawnp(&child->pid_, path.c_str(), &settings.actions,
                                  &settings.attributes, argv.data(), environ);
  if (code != 0) {
    child->pid_ = 0;
    return fail(fmt::format("cannot run {}: {}", path, std::strerror(code)), code);
  }
  unguarded.started(child->pid_);
  if (auto watched = child->watch_all(loop); !watched) return std::unexpected(watched.error());
  return child;
}

Result<void> ChildProgram::watch_all(transport::Loop& loop) {
  for (Said& said : said_) {
    auto watch = loop.watch(said.fd.get(), true, false, [this, &said] { read(said); });
    if (!watch) return std::unexpected(watch.error());
    said.watch = std::move(*watch);
  }
  auto process = open_process(pid_);
  if (!process) return std::unexpected(process.error());
  process_ = std::move(*process);
  auto watch = loop.watch(process_.get(), true, false, [this] { ended(); });
  if (!watch) return std::unexpected(watch.error());
  watch_ = std::move(*watch);
  return {};
}

ChildProgram::~ChildProgram() {
  watch_.reset();
  for (Said& said : said_) said.watch.reset();
  if (pid_ <= 0) return;
  kill();
  ::waitpid(pid_, nullptr, 0);
}

void ChildProgram::kill() {
  if (pid_ > 0) ::kill(pid_, SIGKILL);
}

/// What is there now. A watch stays until the program has ended, but not at the end of its pipe,
/// where it would call again and again.
void ChildProgram::read(Said& said) {
  std::array<char, 4096> buffer{};
  for (;;) {
    const ssize_t n = ::read(said.fd.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) {
      loop_->post([&said, alive = std::weak_ptr(alive_)] {
        if (!alive.expired()) said.watch.reset();
      });
    }
    if (n <= 0) return;
    const std::size_t room = kChildTextBytesMax - said.text.size();
    said.text.append(buffer.data(), std::min(static_cast<std::size_t>(n), room));
  }
}

void ChildProgram::ended() {
  int how = 0;
  if (pid_ <= 0 || ::waitpid(pid_, &how, WNOHANG) != pid_) return;
  pid_ = 0;
  for (Said& said : said_) read(said);
  const int status = WIFSIGNALED(how) ? 128 + WTERMSIG(how) : WEXITSTATUS(how);
  // Not in here: this is a watch's own callback, and the watches are to go.
  loop_->post([this, status, alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    watch_.reset();
    for (Said& said : said_) said.watch.reset();
    const auto on_exit = std::move(on_exit_);
    on_exit(status);
  });
}

}  // namespace nvmf::tools
