#include "tool_program.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <cstdio>

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

}  // namespace nvmf::tools
