// Where the sentences given to host::log() go, in a program that serves: to stderr in the
// foreground, to a file in the background.
#pragma once

#include <string>

#include "nvme/result.h"

namespace nvmf::tools {

/// Warnings and errors go to stderr, "PROGRAM: sentence"; what is merely worth knowing as well if
/// `verbose`.
void log_to_stderr(const std::string& program, bool verbose = false);
/// Everything but debug words goes to a new file with the time before it; stderr goes there, too.
/// The file is kept below 1 MiB. The one before it, of this process or an earlier one, stays as
/// NAME.1.log.
Result<void> log_to_file(const std::string& path);
/// Whether no warning and no error has been logged so far. Any thread may ask.
bool log_is_quiet();

}  // namespace nvmf::tools
