// Where the sentences given to host::log() go, in a program that serves: to stderr in the
// foreground, to a file in the background.
#pragma once

#include <string>

#include "nvme/result.h"

namespace nvmf::tools {

/// Warnings and errors go to stderr, "PROGRAM: sentence".
void log_to_stderr(const std::string& program);
/// Everything but debug words goes to a file with the time before it; stderr goes there, too. The
/// file is kept below 1 MiB, the one before it as NAME.1.log.
Result<void> log_to_file(const std::string& path);

}  // namespace nvmf::tools
