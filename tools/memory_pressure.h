// A process behind a disk of this very machine: when memory is short, the kernel writes dirty pages
// to that disk, and waits for us. So we must never wait for it to do so.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace nvmf::tools {

/// Before any thread is started, which inherits it: allocations do not wait for disks
/// (PR_SET_IO_FLUSHER), what is in memory stays there (mlockall), and the process is the last that
/// is killed for its memory (oom_score_adj). Sentences about what the system refuses, and what that
/// means.
[[nodiscard]] std::vector<std::string> guard_against_memory_pressure();

/// A child inherits what it must not have. While this lives, children of the calling thread are
/// started without the first; the last is taken from one that has been started.
class UnguardedChildren {
 public:
  UnguardedChildren();
  ~UnguardedChildren();
  UnguardedChildren(const UnguardedChildren&) = delete;
  UnguardedChildren& operator=(const UnguardedChildren&) = delete;
  void started(pid_t child) const;

 private:
  bool was_flusher_;
};

}  // namespace nvmf::tools
