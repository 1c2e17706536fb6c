#include "tool_target.h"

#include <fmt/format.h>

#include <charconv>

#include "host/identity.h"
#include "nvme/address.h"
#include "nvme/text.h"

namespace nvmf::tools {

namespace {

Result<Target> from_uri(const std::string& text, const TemporaryOptions& options) {
  auto uri = nvme::TargetUri::parse(text);
  if (!uri) return fail(uri.error().message, EINVAL);
  Target target;
  if (const auto* nsid = std::get_if<std::uint32_t>(&uri->namespace_selector)) {
    target.nsid = *nsid;
  } else if (uri->namespace_selector.index() != 0) {
    return fail("name the namespace by its number for this command", EINVAL);
  }
  auto identity =
      host::host_identity(options.hostnqn, options.hostid, host::IdentityPaths::from_environment());
  if (!identity) return std::unexpected(identity.error());
  host::ConnectParams params;
  params.name = "nvmf";
  params.traddr = uri->host;
  params.port = uri->port;
  params.subnqn = uri->subnqn;
  params.hostnqn = identity->hostnqn;
  params.hostid = identity->hostid;
  params.host_traddr = options.host_traddr;
  params.host_iface = options.host_iface;
  params.header_digest = options.header_digest;
  params.data_digest = options.data_digest;
  params.nr_io_queues = 0;
  params.loss.ctrl_loss = Duration::zero();  // whoever asks may ask again
  if (auto valid = params.validate(); !valid) return fail(valid.error().message, EINVAL);
  target.at = std::move(params);
  return target;
}

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

}  // namespace

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

std::optional<std::pair<std::string, std::uint32_t>> split_namespace_name(const std::string& text) {
  const std::size_t n = text.find_last_not_of("0123456789");
  if (n == std::string::npos || n == 0 || text[n] != 'n' || n + 1 == text.size()) return {};
  std::uint32_t nsid = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data() + n + 1, end, nsid);
  if (parsed.ec != std::errc() || parsed.ptr != end || nsid == 0) return {};
  return std::pair(text.substr(0, n), nsid);
}

Result<Target> Target::find(const std::string& text, const TemporaryOptions& options) {
  if (nvme::looks_like_uri(text)) return from_uri(text, options);
  if (auto good = check_connection_name(text); !good) return std::unexpected(good.error());
  const auto runtime = control::RuntimeDir::open();
  if (!runtime) return std::unexpected(runtime.error());
  // A connection may be called "disk1n2": the name as it stands comes first.
  Target target;
  if (runtime->find(text)) {
    target.at = Running{runtime->control_socket(text)};
    return target;
  }
  if (const auto split = split_namespace_name(text); split && runtime->find(split->first)) {
    target.at = Running{runtime->control_socket(split->first)};
    target.nsid = split->second;
    return target;
  }
  return fail(fmt::format("there is no connection {} in {}: `nvmf list` shows those that there are",
                          text, runtime->path()),
              ENOENT);
}

}  // namespace nvmf::tools
