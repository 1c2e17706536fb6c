// nvmf id-ctrl, nvmf id-ns.
#include <fmt/format.h>

#include "nvme/admin.h"
#include "nvme/identify.h"
#include "nvme/json.h"
#include "nvme/print.h"
#include "nvmf_output.h"
#include "nvmf_verbs.h"
#include "tool_port.h"
#include "tool_program.h"

namespace nvmf::tools {

namespace {

Result<std::vector<std::byte>> identify(CommandPort& port, const nvme::IdentifyCommand& command) {
  std::vector<std::byte> data(nvme::kIdentifyBytes);
  const auto sqe = command.to_sqe();
  const auto reply = read_admin(port, sqe, data);
  if (auto ok = judge(port, sqe, true, reply); !ok) return std::unexpected(ok.error());
  return data;
}

}  // namespace

int id_ctrl(const IdentifyWords& words) {
  auto port = CommandPort::open(words.target, words.temporary, PortUse::admin);
  if (!port) return refuse(port.error());
  const auto data = identify(**port, {.cns = nvme::Cns::controller});
  if (!data) return refuse(data.error());
  if (words.format == OutputFormat::binary) return write_raw(*data);
  const auto id = nvme::IdentifyController::decode(*data);
  return show(words.format == OutputFormat::json ? nvme::to_json(id) : nvme::print(id));
}

int id_ns(const IdentifyWords& words) {
  auto port = CommandPort::open(words.target, words.temporary, PortUse::admin);
  if (!port) return refuse(port.error());
  const auto nsid = wanted_nsid(**port, words.nsid);
  if (!nsid) return refuse(nsid.error());
  const auto data = identify(**port, {.cns = nvme::Cns::identify_namespace, .nsid = *nsid});
  if (!data) return refuse(data.error());
  if (words.format == OutputFormat::binary) return write_raw(*data);
  const auto id = nvme::IdentifyNamespace::decode(*data);
  return show(words.format == OutputFormat::json ? nvme::to_json(id) : nvme::print(id, *nsid));
}

}  // namespace nvmf::tools
