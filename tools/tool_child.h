// Another program of ours, run to its end, with what it says kept for whoever started it.
#pragma once

#include <sys/types.h>

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "io/unique_fd.h"
#include "nvme/result.h"
#include "transport/loop.h"

namespace nvmf::tools {

/// The path of a program of ours: beside this one, else to be looked for in $PATH.
std::string program_beside(const std::string& name);

/// What a program may say and still be heard; the rest is dropped.
inline constexpr std::size_t kChildTextBytesMax = 1024 * 1024;

class ChildProgram {
 public:
  /// Runs `path` with `words` after its name, no signal blocked, nothing on its stdin. `on_exit` is
  /// called once on the loop's thread with the exit status, 128 + N for one that signal N ended,
  /// when it has ended: what its own children say later is nobody's. In there this may be
  /// destroyed.
  static Result<std::unique_ptr<ChildProgram>> start(transport::Loop& loop, const std::string& path,
                                                     const std::vector<std::string>& words,
                                                     std::function<void(int)> on_exit);
  /// Kills it if it still runs, and waits for that.
  ~ChildProgram();
  ChildProgram(const ChildProgram&) = delete;
  ChildProgram& operator=(const ChildProgram&) = delete;

  void kill();
  [[nodiscard]] const std::string& output() const { return said_[0].text; }
  [[nodiscard]] const std::string& errors() const { return said_[1].text; }

 private:
  struct Said {
    io::UniqueFd fd;
    std::unique_ptr<transport::FdWatch> watch;  // before fd is closed
    std::string text;
  };

  ChildProgram() = default;
  Result<void> watch_all(transport::Loop& loop);
  void read(Said& said);
  void ended();

  transport::Loop* loop_ = nullptr;
  pid_t pid_ = 0;
  std::function<void(int)> on_exit_;
  std::array<Said, 2> said_;
  io::UniqueFd process_;
  std::unique_ptr<transport::FdWatch> watch_;  // before process_ is closed
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace nvmf::tools
