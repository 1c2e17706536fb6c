// What the programs have in common: exit statuses, and words for people.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string_view>

#include "io/unique_fd.h"
#include "nvme/result.h"

namespace nvmf::tools {

inline constexpr int kExitSuccess = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;

/// "PROGRAM: sentence" on stderr; the sentence must be fit to be shown.
void complain(std::string_view program, std::string_view sentence);

/// Writes out what stdout still has. False if that cannot be done, which is said, unless the reader
/// of a pipe simply had enough.
bool flush_stdout(std::string_view program);

/// When that time has passed, this process says so on stderr and exits with 1, whatever its threads
/// do: by SIGALRM, whose handler touches nothing of ours. To be called once, at the beginning of
/// an end that has limits of its own, all of them shorter.
void end_at_the_latest(std::string_view program, std::chrono::seconds after);

/// Raises the soft limit of open files to the hard one: queues, clients and sockets need them.
void raise_file_limit();

/// A descriptor that becomes readable when the process ends; ESRCH if there is none.
Result<io::UniqueFd> open_process(pid_t pid);
/// To that very process, never to another that has its number by now. No error if it has gone.
Result<void> send_signal(const io::UniqueFd& process, int signal);

}  // namespace nvmf::tools
