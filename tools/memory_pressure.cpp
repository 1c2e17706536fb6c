#include "memory_pressure.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include <cerrno>
#include <cstring>
#include <fstream>

namespace nvmf::tools {

namespace {

constexpr const char* kNever = "-1000";

/// What the score was before we changed it; children get it back.
std::string& score_before() {
  static std::string score;
  return score;
}

bool write_score(const std::string& process, const std::string& score) {
  std::ofstream file("/proc/" + process + "/oom_score_adj");
  file << score << std::flush;
  return static_cast<bool>(file);
}

}  // namespace

std::vector<std::string> guard_against_memory_pressure() {
  std::vector<std::string> sentences;
  const auto lacking = [&](const char* what, const char* means, const char* hint) {
    sentences.push_back(fmt::format("{} is refused ({}): when memory is short, {}; {}", what,
                                    std::strerror(errno), means, hint));
  };
  if (::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0) {
    lacking("PR_SET_IO_FLUSHER", "this process may wait for its own disk",
            "it needs CAP_SYS_RESOURCE");
  }
  // All that is there now, the program's code too; later, what is used as it is used: buffers are
  // reserved more generously than they are needed.
  if (::mlockall(MCL_CURRENT) != 0 || ::mlockall(MCL_FUTURE | MCL_ONFAULT) != 0) {
    lacking("mlockall", "this process may have to be read from a disk again",
            "it needs CAP_IPC_LOCK or a larger RLIMIT_MEMLOCK");
  }
  std::ifstream("/proc/self/oom_score_adj") >> score_before();
  if (!write_score("self", kNever)) {
    score_before().clear();
    errno = EACCES;
    lacking("an oom_score_adj of -1000", "this process may be killed", "it needs CAP_SYS_RESOURCE");
  }
  return sentences;
}

UnguardedChildren::UnguardedChildren() : was_flusher_(::prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0) == 1) {
  if (was_flusher_) ::prctl(PR_SET_IO_FLUSHER, 0, 0, 0, 0);
}

UnguardedChildren::~UnguardedChildren() {
  if (was_flusher_) ::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
}

void UnguardedChildren::started(pid_t child) const {
  if (!score_before().empty()) write_score(std::to_string(child), score_before());
}

}  // namespace nvmf::tools
