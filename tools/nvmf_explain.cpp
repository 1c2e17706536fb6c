// nvmf explain.
#include <fmt/format.h>

#include "nvmf_verbs.h"
#include "tool_explain.h"
#include "tool_program.h"

namespace nvmf::tools {

int explain(const ExplainWords& words) {
  const auto found = explanation(words);
  if (!found) {
    complain("nvmf", found.error().message);
    return kExitUsage;
  }
  if (words.format == OutputFormat::json) {
    fmt::print("{}\n", found->json);
    return kExitSuccess;
  }
  for (const std::string& line : found->lines) fmt::print("{}\n", line);
  return kExitSuccess;
}

}  // namespace nvmf::tools
