#include "tool_program.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace nvmf::tools {

void complain(std::string_view program, std::string_view sentence) {
  fmt::print(stderr, "{}: {}\n", program, sentence);
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

}  // namespace nvmf::tools
