// Going to the background: a parent that waits for the news, a child that serves.
//
// The child is made before there are threads. Until it says that it is ready, it lives and dies
// with the parent; the parent repeats its words and exits with its status.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>

#include "nvme/result.h"

namespace nvmf::tools {

/// Where a program's words go: to its own stdout and stderr, or through the parent's.
class Reporter {
 public:
  /// Of a program in the foreground. `program` stands before each complaint.
  explicit Reporter(std::string program) : program_(std::move(program)) {}
  ~Reporter();
  Reporter(const Reporter&) = delete;
  Reporter& operator=(const Reporter&) = delete;

  /// Forks. In the parent: repeats what the child says until it is ready or gone, and returns the
  /// status to exit with. In the child, with a session of its own and no terminal: nothing.
  Result<std::optional<int>> go_to_background();

  /// A line on stdout. Nowhere, once a background program is ready.
  void print(std::string_view line);
  /// A sentence on stderr, with the same end.
  void complain(std::string_view sentence);
  /// Lets the parent exit with 0. In the foreground, only flushes.
  void ready();
  /// Lets the parent exit with `status`, if it still waits.
  void failed(int status);
  [[nodiscard]] bool background() const { return background_; }

 private:
  void tell(char kind, std::string_view text);
  int relay(int fd, pid_t child);

  std::string program_;
  bool background_ = false;
  int fd_ = -1;  // to the parent
};

}  // namespace nvmf::tools
