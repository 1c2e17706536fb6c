// What is wrong with a command line. For the files that know CLI11.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace nvmf::tools {

/// CLI11's own words, except that of what it did not expect only the options are named, if there
/// are any: the values of an unknown option make whatever stands behind it look wrong.
inline std::string usage_error(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() != static_cast<int>(CLI::ExitCodes::ExtrasError)) return error.what();
  std::string unknown;
  for (const std::string& word : app.remaining(true)) {
    if (word.starts_with('-')) unknown += (unknown.empty() ? "" : ", ") + word;
  }
  return unknown.empty() ? error.what() : "there is no such option as " + unknown;
}

}  // namespace nvmf::tools
