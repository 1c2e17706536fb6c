#include "nvmf_output.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>

#include "nvme/admin.h"
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
  return fail(fmt::format("{}: the controller answered {} with {}", port.target(),
                          nvme::opcode_name(sqe, admin),
                          nvme::describe(reply->status, admin ? nvme::StatusContext::admin
                                                              : nvme::StatusContext::nvm)),
              EREMOTEIO);
}

Result<std::uint32_t> wanted_nsid(const CommandPort& port,
                                  const std::optional<std::uint32_t>& given) {
  const auto nsid = given ? given : port.nsid();
  if (nsid) return *nsid;
  return fail("name a namespace: NAMEn<NSID>, a URI with /NSID, or --namespace-id", EINVAL);
}

int write_raw(std::span<const std::byte> data) {
  return std::fwrite(data.data(), 1, data.size(), stdout) == data.size() ? kExitSuccess
                                                                         : kExitFailure;
}

int show(const std::string& text) {
  fmt::print("{}{}", text, text.ends_with('\n') ? "" : "\n");
  return kExitSuccess;
}

}  // namespace nvmf::tools
