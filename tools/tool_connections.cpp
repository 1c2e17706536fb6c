#include "tool_connections.h"

#include <fmt/format.h>

#include <cerrno>
#include <charconv>
#include <utility>

#include "nvme/address.h"
#include "nvme/text.h"

namespace nvmf::tools {

namespace {

/// Whoever comes from nvme-cli types /dev/nvme0.
Error not_a_device(const std::string& text) {
  std::string name = text.substr(text.rfind('/') + 1);
  if (!name.starts_with("nvmf") || !control::check_name(name)) name = "nvmf0 or nvmf0n1";
  return {
      fmt::format("{} is a device of the kernel, and connections of nvmf have none: type a name "
                  "as `nvmf list` shows it, {}, or the target's address, "
                  "nvme+tcp://HOST[:PORT]/SUBNQN",
                  nvme::printable(text), name),
      EINVAL};
}

Result<void> check_connection_name(const std::string& text) {
  if (text.starts_with("/dev/")) return std::unexpected(not_a_device(text));
  if (nvme::looks_like_uri(text)) {
    return fail(fmt::format("{} is an address, and this is about a connection that runs: name it "
                            "as `nvmf list` shows it, nvmf0 for example",
                            nvme::printable(text)),
                EINVAL);
  }
  return control::check_name(text);
}

/// Namespace 12 of "nvmf0" for "nvmf0n12"; nothing if the text does not end that way.
std::optional<std::pair<std::string, std::uint32_t>> split_namespace_name(const std::string& text) {
  const std::size_t n = text.find_last_not_of("0123456789");
  if (n == std::string::npos || n == 0 || text[n] != 'n' || n + 1 == text.size()) return {};
  std::uint32_t nsid = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data() + n + 1, end, nsid);
  if (parsed.ec != std::errc() || parsed.ptr != end || nsid == 0) return {};
  return std::pair(text.substr(0, n), nsid);
}

}  // namespace

Result<RunningConnection> find_running(const control::RuntimeDir& runtime,
                                       const std::string& text) {
  if (auto good = check_connection_name(text); !good) return std::unexpected(good.error());
  // A connection may be called "disk1n2": the name as it stands comes first.
  if (auto found = runtime.find(text)) {
    return RunningConnection{std::move(*found), runtime.control_socket(text), std::nullopt};
  }
  if (const auto split = split_namespace_name(text)) {
    if (auto found = runtime.find(split->first)) {
      return RunningConnection{std::move(*found), runtime.control_socket(split->first),
                               split->second};
    }
  }
  return fail(fmt::format("there is no connection {} in {}: `nvmf list` shows those that there are",
                          text, runtime.path()),
              ENOENT);
}

Result<RunningConnection> find_connection(const control::RuntimeDir& runtime,
                                          const std::string& text, std::string_view verb) {
  auto running = find_running(runtime, text);
  if (running && running->nsid) {
    const std::string& name = running->connection.name;
    return fail(fmt::format("{} is a namespace of the connection {}: say `nvmf {} {}`", text, name,
                            verb, name),
                ENOENT);
  }
  return running;
}

Result<NamedConnections> find_connections(const std::vector<std::string>& names,
                                          std::string_view verb) {
  const auto runtime = control::RuntimeDir::open();
  if (!runtime) return std::unexpected(runtime.error());
  NamedConnections asked;
  if (names.empty()) {
    const auto all = runtime->connections();
    if (!all) return std::unexpected(all.error());
    for (const control::Connection& c : *all) {
      asked.names.push_back(c.name);
      asked.sockets.push_back(runtime->control_socket(c.name));
    }
  }
  for (const std::string& name : names) {
    auto found = find_connection(*runtime, name, verb);
    if (!found) return std::unexpected(found.error());
    asked.names.push_back(name);
    asked.sockets.push_back(std::move(found->socket));
  }
  return asked;
}

}  // namespace nvmf::tools
