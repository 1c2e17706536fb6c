// What is wrong with a command line. For the files that know CLI11.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace nvmf::tools {

/// What was not expected. Only the options are named, if there are any: the values of an unknown
/// option make whatever stands behind it look wrong. Empty if all was expected.
inline std::string unexpected_words(const CLI::App& app) {
  const std::vector<std::string> words = app.remaining(true);
  std::string unknown;
  for (const std::string& word : words) {
    if (word.starts_with('-')) unknown += (unknown.empty() ? "" : ", ") + word;
  }
  if (!unknown.empty()) return "there is no such option as " + unknown;
  if (words.empty()) return {};
  if (app.get_require_subcommand_min() == 0 || !app.get_subcommands().empty()) {
    return "\"" + words.front() + "\" is one word too many";
  }
  return "there is no such subcommand as " + words.front();
}

/// CLI11's own words where they are clear, better ones elsewhere.
inline std::string usage_error(const CLI::App& app, const CLI::ParseError& error) {
  const std::string text = error.what();
  switch (static_cast<CLI::ExitCodes>(error.get_exit_code())) {
    case CLI::ExitCodes::ExtrasError:
    case CLI::ExitCodes::RequiredError: {
      // Whatever is missing may be just misspelt.
      const std::string unexpected = unexpected_words(app);
      return unexpected.empty() ? text : unexpected;
    }
    case CLI::ExitCodes::ConversionError: {  // "Could not convert: --option = value"
      const std::size_t colon = text.find(": ");
      const std::size_t equals = text.find(" = ");
      if (colon == std::string::npos || equals == std::string::npos || equals < colon) return text;
      const std::string name = text.substr(colon + 2, equals - colon - 2);
      const CLI::Option* option = app.get_option_no_throw(name);
      if (option != nullptr && option->get_items_expected_max() == 0) {
        return name + " takes no value";
      }
      return "\"" + text.substr(equals + 3) + "\" is no value for " + name +
             ": give a whole number, 0 or more";
    }
    case CLI::ExitCodes::ArgumentMismatch: {  // "--option: 1 required TYPE missing"
      const std::size_t required = text.find(": 1 required ");
      if (required == std::string::npos || !text.ends_with(" missing")) return text;
      return text.substr(0, required) + " needs a value after it: " +
             text.substr(required + 13, text.size() - required - 13 - 8);
    }
    default:
      return text;
  }
}

}  // namespace nvmf::tools
