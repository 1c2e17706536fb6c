// The verbs of nvmf about features and properties, each with the words it was given. They return
// the status to exit with.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "nvme/print.h"
#include "nvmf_verbs.h"
#include "tool_target.h"

namespace nvmf::tools {

struct GetFeatureWords {
  std::string target;
  std::uint8_t feature = 0;  // 0: all that there are
  std::optional<std::uint32_t> nsid;
  std::uint8_t select = 0;         // as nvme::FeatureSelect, or nvme::kSelectChanged
  std::uint32_t length_bytes = 0;  // 0: what the feature has
  std::uint32_t cdw11 = 0;
  std::uint8_t uuid_index = 0;
  OutputFormat format = OutputFormat::normal;
  nvme::Detail detail = nvme::Detail::brief;
  TemporaryOptions temporary;
};
int get_feature(const GetFeatureWords& words);

struct SetFeatureWords {
  std::string target;
  std::uint8_t feature = 0;
  std::optional<std::uint32_t> nsid;
  std::uint64_t value = 0;
  std::uint32_t cdw12 = 0;
  std::uint8_t uuid_index = 0;
  std::uint32_t length_bytes = 0;  // 0: what the feature has
  std::string file;                // empty: standard input
  bool save = false;
  TemporaryOptions temporary;
};
int set_feature(const SetFeatureWords& words);

struct RegistersWords {
  std::string target;
  OutputFormat format = OutputFormat::normal;
  nvme::Detail detail = nvme::Detail::brief;
  TemporaryOptions temporary;
};
int show_regs(const RegistersWords& words);

struct PropertyWords {
  std::string target;
  std::optional<std::uint32_t> offset;
  std::optional<std::uint64_t> value;  // to be set
  nvme::Detail detail = nvme::Detail::brief;
  TemporaryOptions temporary;
};
int get_property(const PropertyWords& words);
int set_property(const PropertyWords& words);

}  // namespace nvmf::tools
