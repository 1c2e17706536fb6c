// Running connections by the names that a command line has for them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "control/runtime_dir.h"
#include "nvme/result.h"

namespace nvmf::tools {

struct RunningConnection {
  control::Connection connection;
  std::string socket;  // its control socket
  /// Of the namespace that the text named, if it did.
  std::optional<std::uint32_t> nsid;
};

/// "nvmf0", or "nvmf0n12" for namespace 12 of it. EINVAL, with a sentence that says what to type,
/// for what can name neither: an address and /dev/nvme0 among it. ENOENT for what is not there.
Result<RunningConnection> find_running(const control::RuntimeDir& runtime, const std::string& text);

/// The same for `verb`, which is about a connection as a whole: ENOENT, too, for the name of a
/// namespace.
Result<RunningConnection> find_connection(const control::RuntimeDir& runtime,
                                          const std::string& text, std::string_view verb);

struct NamedConnections {
  std::vector<std::string> names;
  std::vector<std::string> sockets;  // their control sockets, in the same order
};

/// The connections that were named for `verb`, as find_connection(); all that there are if none
/// was.
Result<NamedConnections> find_connections(const std::vector<std::string>& names,
                                          std::string_view verb);

}  // namespace nvmf::tools
