#include "tool_connections.h"

#include <fmt/format.h>

#include <cerrno>

#include "control/runtime_dir.h"
#include "tool_target.h"

namespace nvmf::tools {

Result<NamedConnections> find_connections(const std::vector<std::string>& names) {
  const auto runtime = control::RuntimeDir::open();
  if (!runtime) return std::unexpected(runtime.error());
  NamedConnections asked{.names = names, .sockets = {}};
  if (names.empty()) {
    const auto all = runtime->connections();
    if (!all) return std::unexpected(all.error());
    for (const control::Connection& c : *all) asked.names.push_back(c.name);
  }
  for (const std::string& name : asked.names) {
    if (auto good = check_connection_name(name); !good) return std::unexpected(good.error());
    if (!runtime->find(name)) {
      if (const auto split = split_namespace_name(name); split && runtime->find(split->first)) {
        return fail(
            fmt::format("{0} is a namespace of the connection {1}: give {1}", name, split->first),
            ENOENT);
      }
      return fail(fmt::format("there is no connection {} in {}: `nvmf list` shows those that there "
                              "are",
                              name, runtime->path()),
                  ENOENT);
    }
    asked.sockets.push_back(runtime->control_socket(name));
  }
  return asked;
}

}  // namespace nvmf::tools
