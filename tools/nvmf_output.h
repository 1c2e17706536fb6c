// What the verbs of nvmf that ask controllers have in common: how an answer is judged, and how it
// is shown.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "nvme/command.h"
#include "nvme/result.h"
#include "tool_port.h"

namespace nvmf::tools {

/// Says so, and returns the status to exit with: EINVAL is the user's doing, everything else the
/// world's.
int refuse(const Error& error);

/// An Error that names the target, and says what the controller answered and what to try, unless
/// the reply is a success. Of a bad status it also writes the line that nvme-cli has for it to
/// stderr, "NVMe status: ...(0x4002)", which scripts look for: the Error is to be told next.
Result<void> judge(const CommandPort& port, const nvme::Sqe& sqe, bool admin,
                   const Result<PortReply>& reply);

/// What was given, or what the target names. 0 counts as not given, as in nvme-cli. EINVAL if
/// neither does.
Result<std::uint32_t> wanted_nsid(const CommandPort& port,
                                  const std::optional<std::uint32_t>& given);

// Into stdout's buffer: main() sees whether it can be written out.
/// As it is.
int write_raw(std::span<const std::byte> data);
/// With a newline at its end; nothing for no text.
int show(const std::string& text);

}  // namespace nvmf::tools
