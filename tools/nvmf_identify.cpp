// nvmf id-ctrl, nvmf id-ns.
#include <fmt/format.h>

#include <cstdio>

#include "nvme/identify.h"
#include "nvme/json.h"
#include "nvme/print.h"
#include "nvmf_verbs.h"
#include "tool_program.h"

namespace nvmf::tools {

namespace {

constexpr const char* kProgram = "nvmf";

/// EINVAL is the user's doing, everything else the world's.
int refuse(const Error& error) {
  complain(kProgram, error.message);
  return error.code == EINVAL ? kExitUsage : kExitFailure;
}

/// Into stdout's buffer: main() sees whether it can be written out.
int write_raw(const std::vector<std::byte>& data) {
  return std::fwrite(data.data(), 1, data.size(), stdout) == data.size() ? kExitSuccess
                                                                         : kExitFailure;
}

void show(const std::string& text) {
  fmt::print("{}{}", text, text.ends_with('\n') ? "" : "\n");
}

}  // namespace

int id_ctrl(const IdentifyWords& words) {
  const auto target = Target::find(words.target, words.temporary);
  if (!target) return refuse(target.error());
  const auto data = identify(*target, {.cns = nvme::Cns::controller});
  if (!data) return refuse({fmt::format("{}: {}", words.target, data.error().message)});
  if (words.format == OutputFormat::binary) return write_raw(*data);
  const auto id = nvme::IdentifyController::decode(*data);
  show(words.format == OutputFormat::json ? nvme::to_json(id) : nvme::print(id));
  return kExitSuccess;
}

int id_ns(const IdentifyWords& words) {
  const auto target = Target::find(words.target, words.temporary);
  if (!target) return refuse(target.error());
  const auto nsid = words.nsid ? words.nsid : target->nsid;
  if (!nsid) {
    return refuse({"name a namespace: NAMEn<NSID>, a URI with /NSID, or --namespace-id", EINVAL});
  }
  const auto data = identify(*target, {.cns = nvme::Cns::identify_namespace, .nsid = *nsid});
  if (!data) return refuse({fmt::format("{}: {}", words.target, data.error().message)});
  if (words.format == OutputFormat::binary) return write_raw(*data);
  const auto id = nvme::IdentifyNamespace::decode(*data);
  show(words.format == OutputFormat::json ? nvme::to_json(id) : nvme::print(id, *nsid));
  return kExitSuccess;
}

}  // namespace nvmf::tools
