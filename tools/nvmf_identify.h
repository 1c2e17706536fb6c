// The verbs of nvmf that show Identify data, each with the words it was given. They return the
// status to exit with.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "nvme/print.h"
#include "nvmf_verbs.h"
#include "tool_target.h"

namespace nvmf::tools {

struct IdentifyWords {
  std::string target;
  std::optional<std::uint32_t> nsid;
  /// The controller, endurance group, NVM set or domain to begin with; the verb's own if not given.
  std::optional<std::uint16_t> id;
  std::optional<std::uint8_t> csi;
  std::uint8_t uuid_index = 0;
  std::optional<std::uint32_t> entries;  // of a list, those shown
  bool vendor_specific = false;          // the vendor's bytes as well
  bool allocated = false;                // also what is not attached to the controller
  OutputFormat format = OutputFormat::normal;
  nvme::Detail detail = nvme::Detail::brief;
  TemporaryOptions temporary;
};

int id_ctrl(const IdentifyWords& words);
int id_ns(const IdentifyWords& words);
int list_ns(const IdentifyWords& words);
int ns_descs(const IdentifyWords& words);
int nvm_id_ctrl(const IdentifyWords& words);
int nvm_id_ns(const IdentifyWords& words);
int cmdset_ind_id_ns(const IdentifyWords& words);
int id_iocs(const IdentifyWords& words);
int list_ctrl(const IdentifyWords& words);
int list_endgrp(const IdentifyWords& words);
int id_nvmset(const IdentifyWords& words);
int id_uuid(const IdentifyWords& words);
int id_domain(const IdentifyWords& words);
int id_ns_granularity(const IdentifyWords& words);
int primary_ctrl_caps(const IdentifyWords& words);
int list_secondary(const IdentifyWords& words);

}  // namespace nvmf::tools
