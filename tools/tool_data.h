// The data of a command: from a file or stdin, to a file or stdout, as nvme-cli has it.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "io/unique_fd.h"
#include "nvme/result.h"

namespace nvmf::tools {

/// Fills `out` from the file's beginning, or from stdin if `path` is empty. `rest`: what bytes have
/// that the file does not reach to; without it a short file is an Error, EINVAL, as is one that
/// cannot be read.
Result<void> read_data(const std::string& path, std::span<std::byte> out,
                       std::optional<std::byte> rest = std::nullopt);

/// Where data goes. Opened before the command is sent, so that a name that cannot be written to is
/// known in time; what the file had stays until write().
class DataSink {
 public:
  /// Empty: stdout. EINVAL with a sentence for what cannot be opened.
  static Result<DataSink> open(const std::string& path);
  /// All of the file is then `data`. stdout is buffered: main() sees whether it can be written out.
  Result<void> write(std::span<const std::byte> data);
  [[nodiscard]] bool is_stdout() const { return !file_.valid(); }

 private:
  io::UniqueFd file_;
  std::string path_;
};

}  // namespace nvmf::tools
