// A shell command that runs while we serve, and its end as an event of the loop.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "io/unique_fd.h"
#include "nvme/result.h"
#include "transport/loop.h"

namespace nvmf::tools {

class Command {
 public:
  /// Runs `/bin/sh -c text` in a process group of its own, which has the terminal if we had it,
  /// with no signal blocked and with `variables` in its environment. `on_exit` is called once on
  /// the loop's thread with the exit status, 128 + N for one that signal N ended.
  static Result<std::unique_ptr<Command>> start(transport::Loop& loop, const std::string& text,
                                                const std::map<std::string, std::string>& variables,
                                                std::function<void(int)> on_exit);
  /// Ends the group for good if the command still runs.
  ~Command();
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;

  [[nodiscard]] bool running() const { return pid_ > 0; }
  /// To all of its group.
  void send(int signal);

 private:
  Command() = default;
  void ended();
  void take_back_terminal() const;

  transport::Loop* loop_ = nullptr;
  pid_t pid_ = 0;
  pid_t group_ = 0;
  bool has_terminal_ = false;
  std::function<void(int)> on_exit_;
  io::UniqueFd fd_;
  std::unique_ptr<transport::FdWatch> watch_;  // before fd_ is closed
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace nvmf::tools
