// What a connection tells of itself as text, for the files that a mounted directory has in .nvmf/.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace nvmf::tools {

/// A text by its name, made when it is asked for, on the control loop and at once.
struct ConnectionText {
  std::string name;
  std::function<std::string()> text;
};

/// `status`: as the verb of that name answers. A line for each thing to know, and one for each
/// namespace; ends with a newline.
[[nodiscard]] std::string state_text(const nlohmann::json& status);

}  // namespace nvmf::tools
