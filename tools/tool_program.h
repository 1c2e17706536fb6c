// What the programs have in common: exit statuses, and words for people.
#pragma once

#include <sys/types.h>

#include <string_view>

#include "io/unique_fd.h"
#include "nvme/result.h"

namespace nvmf::tools {

inline constexpr int kExitSuccess = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;

/// "PROGRAM: sentence" on stderr; the sentence must be fit to be shown.
void complain(std::string_view program, std::string_view sentence);

/// Raises the soft limit of open files to the hard one: queues, clients and sockets need them.
void raise_file_limit();

/// A descriptor that becomes readable when the process ends; ESRCH if there is none.
Result<io::UniqueFd> open_process(pid_t pid);

}  // namespace nvmf::tools
