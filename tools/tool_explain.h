// What `nvmf explain` says, without the saying.
#pragma once

#include <string>
#include <vector>

#include "nvme/result.h"
#include "nvmf_verbs.h"

namespace nvmf::tools {

struct Explanation {
  std::vector<std::string> lines;  // sentences without a full stop
  std::string json;                // the same, a whole indented document
};

/// EINVAL, with what may be written, for what cannot be read or has no meaning.
Result<Explanation> explanation(const ExplainWords& words);

}  // namespace nvmf::tools
