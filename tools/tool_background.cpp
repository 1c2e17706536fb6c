#include "tool_background.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tool_program.h"

namespace nvmf::tools {

namespace {

// What the child tells the parent: one of these, the text, a newline.
constexpr char kPrint = 'o';
constexpr char kComplain = 'e';
constexpr char kExit = 'x';

/// Standard input, output and error are nobody's any more.
void leave_terminal() {
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) return;
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(null, fd);
  if (null > STDERR_FILENO) ::close(null);
}

}  // namespace

Reporter::~Reporter() {
  if (fd_ >= 0) ::close(fd_);
}

Result<std::optional<int>> Reporter::go_to_background() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return fail(fmt::format("cannot make a pipe: {}", std::strerror(errno)), errno);
  }
  const pid_t parent = ::getpid();
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child < 0) {
    const int code = errno;
    ::close(ends[0]);
    ::close(ends[1]);
    return fail(fmt::format("cannot start a process: {}", std::strerror(code)), code);
  }
  if (child > 0) {
    ::close(ends[1]);
    const int status = relay(ends[0], child);
    ::close(ends[0]);
    return status;
  }
  ::close(ends[0]);
  fd_ = ends[1];
  background_ = true;
  // Whoever interrupts the parent before we are ready means us.
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(kExitFailure);
  ::setsid();
  ::umask(077);
  leave_terminal();
  return std::nullopt;
}

/// The parent's part. The child is not waited for when it serves: then it is init's.
int Reporter::relay(int fd, pid_t child) {
  std::FILE* in = ::fdopen(::dup(fd), "r");
  if (in == nullptr) return kExitFailure;
  std::optional<int> status;
  char* line = nullptr;
  std::size_t capacity = 0;
  for (ssize_t n = 0; !status && (n = ::getline(&line, &capacity, in)) > 0;) {
    std::string_view text(line, static_cast<std::size_t>(n));
    if (text.ends_with('\n')) text.remove_suffix(1);
    const char kind = text.empty() ? '\0' : text.front();
    if (!text.empty()) text.remove_prefix(1);
    if (kind == kPrint) std::puts(std::string(text).c_str());
    if (kind == kComplain) tools::complain(program_, text);
    if (kind == kExit) {
      int value = kExitFailure;
      std::from_chars(text.data(), text.data() + text.size(), value);
      status = value;
    }
  }
  std::free(line);
  std::fclose(in);
  flush_stdout(
      program_);  // whether it serves does not depend on it: `nvmf list` shows what there is
  if (!status) {
    int how = 0;
    ::waitpid(child, &how, 0);
    tools::complain(program_,
                    WIFSIGNALED(how)
                        ? fmt::format("the background process was ended by signal {} before it "
                                      "was ready",
                                      WTERMSIG(how))
                        : std::string("the background process ended before it was ready"));
    return kExitFailure;
  }
  // One that failed has still to end: nothing of it is left when we return.
  if (*status != kExitSuccess) ::waitpid(child, nullptr, 0);
  return *status;
}

/// A pipe that nobody reads any more is no concern: SIGPIPE is ignored, and the end comes with
/// PDEATHSIG.
void Reporter::tell(char kind, std::string_view text) {
  if (fd_ < 0) return;
  std::string message = fmt::format("{}{}\n", kind, text);
  for (std::size_t i = 0; i + 1 < message.size(); ++i) {
    if (message[i] == '\n') message[i] = ' ';
  }
  std::string_view left = message;
  while (!left.empty()) {
    const ssize_t n = ::write(fd_, left.data(), left.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    left.remove_prefix(static_cast<std::size_t>(n));
  }
}

void Reporter::print(std::string_view line) {
  if (background_) return tell(kPrint, line);
  std::puts(std::string(line).c_str());
}

void Reporter::complain(std::string_view sentence) {
  if (background_) return tell(kComplain, sentence);
  tools::complain(program_, sentence);
}

void Reporter::ready() {
  if (!background_) {
    flush_stdout(program_);
    return;
  }
  ::prctl(PR_SET_PDEATHSIG, 0);
  failed(kExitSuccess);
}

void Reporter::failed(int status) {
  if (fd_ < 0) return;
  tell(kExit, fmt::format("{}", status));
  ::close(fd_);
  fd_ = -1;
}

}  // namespace nvmf::tools
