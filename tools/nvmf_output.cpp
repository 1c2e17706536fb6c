#include "nvmf_output.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>

#include "nvme/admin.h"
#include "nvme/explain.h"
#include "nvme/status.h"
#include "tool_program.h"

namespace nvmf::tools {

int refuse(const Error& error) {
  complain("nvmf", error.message);
  return error.code == EINVAL ? kExitUsage : kExitFailure;
}

Result<void> judge(const CommandPort& port, const nvme::Sqe& sqe, bool admin,
                   const Result<PortReply>& reply) {
  if (!reply) {
    return fail(fmt::format("{}: {}", port.target(), reply.error().message), reply.error().code);
  }
  if (reply->status.ok()) return {};
  const auto context = sqe.is_fabrics() ? nvme::StatusContext::fabrics
                       : admin          ? nvme::StatusContext::admin
                                        : nvme::StatusContext::nvm;
  fmt::print(stderr, "{}\n", nvme::nvme_cli_status_line(reply->status));
  return fail(fmt::format("{}: the controller answered {} with {}", port.target(),
                          nvme::opcode_name(sqe, admin), nvme::explain(reply->status, context)),
              EREMOTEIO);
}

Result<std::uint32_t> wanted_nsid(const CommandPort& port,
                                  const std::optional<std::uint32_t>& given) {
  const auto nsid = given.value_or(0) != 0 ? given : port.nsid();
  if (nsid) return *nsid;
  return fail(
      fmt::format("{}: name a namespace: NAMEn<NSID>, a URI with /NSID, or --namespace-id; `nvmf "
                  "list-ns` shows those that there are",
                  port.target()),
      EINVAL);
}

int write_raw(std::span<const std::byte> data) {
  return std::fwrite(data.data(), 1, data.size(), stdout) == data.size() ? kExitSuccess
                                                                         : kExitFailure;
}

int show(const std::string& text) {
  fmt::print("{}{}", text, text.empty() || text.ends_with('\n') ? "" : "\n");
  return kExitSuccess;
}

}  // namespace nvmf::tools
