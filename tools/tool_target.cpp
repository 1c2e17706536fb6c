#include "tool_target.h"

#include <fmt/format.h>

#include "host/identity.h"
#include "nvme/address.h"
#include "tool_connections.h"

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

}  // namespace

Result<Target> Target::find(const std::string& text, const TemporaryOptions& options) {
  if (nvme::looks_like_uri(text)) return from_uri(text, options);
  const auto runtime = control::RuntimeDir::open();
  if (!runtime) return std::unexpected(runtime.error());
  auto running = find_running(*runtime, text);
  if (!running) return std::unexpected(running.error());
  return Target{.at = Running{std::move(running->socket)}, .nsid = running->nsid};
}

}  // namespace nvmf::tools
