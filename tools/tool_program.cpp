#include "tool_program.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

namespace nvmf::tools {

void complain(std::string_view program, std::string_view sentence) {
  fmt::print(stderr, "{}: {}\n", program, sentence);
}

bool flush_stdout(std::string_view program) {
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return true;
  if (errno != EPIPE) {
    complain(program, fmt::format("cannot write to the standard output: {}",
                                  errno != 0 ? std::strerror(errno) : "it failed before"));
  }
  return false;
}

namespace {

/// Written before the alarm is set, read by its handler alone.
std::array<char, 256> last_words;
std::size_t last_words_bytes = 0;

/// Only what a signal handler may do. What write() says no longer matters.
void say_last_words(int) {
  [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, last_words.data(), last_words_bytes);
  ::_exit(kExitFailure);
}

}  // namespace

void end_at_the_latest(std::string_view program, std::chrono::seconds after) {
  const auto end = fmt::format_to_n(last_words.data(), last_words.size(),
                                    "{}: this process did not end within {} s of being told to and "
                                    "is ended by force; what it leaves in the runtime directory "
                                    "goes with the next connection\n",
                                    program, after.count());
  last_words_bytes = std::min(end.size, last_words.size());
  struct sigaction action{};
  action.sa_handler = &say_last_words;
  ::sigaction(SIGALRM, &action, nullptr);
  sigset_t alarms;
  ::sigemptyset(&alarms);
  ::sigaddset(&alarms, SIGALRM);
  ::pthread_sigmask(SIG_UNBLOCK, &alarms, nullptr);
  ::alarm(static_cast<unsigned>(after.count()));
}

void raise_file_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);  // if it fails, what we have will do for a while
}

/// glibc 2.36 declares pidfd_open() for C only.
Result<io::UniqueFd> open_process(pid_t pid) {
  io::UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (fd.valid()) return fd;
  return fail(fmt::format("cannot watch process {}: {}", pid, std::strerror(errno)), errno);
}

Result<void> send_signal(const io::UniqueFd& process, int signal) {
  if (::syscall(SYS_pidfd_send_signal, process.get(), signal, nullptr, 0) == 0 || errno == ESRCH) {
    return {};
  }
  return fail(fmt::format("cannot send a signal to a process: {}", std::strerror(errno)), errno);
}

}  // namespace nvmf::tools
