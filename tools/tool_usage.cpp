#include "tool_usage.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <string_view>
#include <utility>
#include <vector>

namespace nvmf::tools {

namespace {

/// A word with more slips of the pen than that is another word.
constexpr std::size_t kSlipsMax = 2;
/// Longer words than that are no verbs, and are not compared.
constexpr std::size_t kVerbLengthMax = 64;

/// How many letters were left out, put in or mistaken, at the least; more than kSlipsMax for words
/// that are too long or short to be compared.
std::size_t slips_between(std::string_view word, std::string_view verb) {
  if (word.size() > kVerbLengthMax || word.size() <= kSlipsMax) return kSlipsMax + 1;
  std::vector<std::size_t> row(verb.size() + 1);
  for (std::size_t j = 0; j < row.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= word.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j < row.size(); ++j) {
      const std::size_t mistaken = diagonal + (word[i - 1] == verb[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, mistaken});
    }
  }
  return row.back();
}

/// The verb that was given, or the program itself.
const CLI::App& innermost(const CLI::App& app) {
  const CLI::App* inner = &app;
  for (auto verbs = inner->get_subcommands(); !verbs.empty(); verbs = inner->get_subcommands()) {
    inner = verbs.front();
  }
  return *inner;
}

/// What was not expected. Only the options are named, if there are any: the values of an unknown
/// option make whatever stands behind it look wrong. Empty if all was expected.
std::string unexpected_words(const CLI::App& app) {
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
  return no_such_verb(app, words.front());
}

/// Something that must be there is missing: "NAME is required".
std::string missing(const CLI::App& app, const std::string& text) {
  const std::string name = text.substr(0, text.find(" is required"));
  const CLI::Option* option = innermost(app).get_option_no_throw(name);
  if (option == nullptr) {
    return app.get_require_subcommand_min() == 0 ? text : "say what to do: " + verbs_of(app);
  }
  std::string what = option->get_description();
  if (!what.empty()) what.front() = static_cast<char>(std::tolower(what.front()));
  return option->get_type_name() + " is missing: give " + what;
}

/// A whole number, 0 or more, however large: decimal, or hexadecimal as 0x1f.
bool is_number(std::string_view text) {
  const bool hexadecimal = text.starts_with("0x") || text.starts_with("0X");
  if (hexadecimal) text.remove_prefix(2);
  return !text.empty() && std::ranges::all_of(text, [hexadecimal](unsigned char c) {
    return hexadecimal ? std::isxdigit(c) : std::isdigit(c);
  });
}

/// "Could not convert: --option = value"
std::string no_value(const CLI::App& app, const std::string& text) {
  const std::size_t colon = text.find(": ");
  const std::size_t equals = text.find(" = ");
  if (colon == std::string::npos || equals == std::string::npos || equals < colon) return text;
  const std::string name = text.substr(colon + 2, equals - colon - 2);
  const std::string value = text.substr(equals + 3);
  const CLI::Option* option = innermost(app).get_option_no_throw(name);
  if (option != nullptr && option->get_items_expected_max() == 0) return name + " takes no value";
  if (is_number(value)) return value + " is too large for " + name;
  return "\"" + value + "\" is no value for " + name + ": give a whole number, 0 or more";
}

/// "--option: 1 required TYPE missing", "--option: At Most 1 required but received 2"
std::string wrong_count(const std::string& text) {
  const std::string name = text.substr(0, text.find(':'));
  if (text.find(": At Most 1 required") != std::string::npos) {
    return name + " is given more than once: give it once";
  }
  constexpr std::string_view kRequired = ": 1 required ";
  constexpr std::string_view kMissing = " missing";
  const std::size_t required = text.find(kRequired);
  if (required == std::string::npos || !text.ends_with(kMissing)) return text;
  const std::size_t type = required + kRequired.size();
  return name +
         " needs a value after it: " + text.substr(type, text.size() - type - kMissing.size());
}

}  // namespace

std::string verbs_of(const CLI::App& app) {
  std::string all;
  const auto verbs = app.get_subcommands([](const CLI::App*) { return true; });
  for (std::size_t i = 0; i < verbs.size(); ++i) {
    if (i != 0) all += i + 1 == verbs.size() ? " and " : ", ";
    all += verbs[i]->get_name();
  }
  return all;
}

std::string no_such_verb(const CLI::App& app, const std::string& word) {
  const std::string what = "there is no such subcommand as " + word + ": ";
  const CLI::App* nearest = nullptr;
  std::size_t least = kSlipsMax + 1;
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; })) {
    const std::size_t slips = slips_between(word, verb->get_name());
    if (slips >= least) continue;
    least = slips;
    nearest = verb;
  }
  if (nearest == nullptr) return what + "there are " + verbs_of(app);
  return what + "is " + nearest->get_name() + " meant? --help lists those that there are";
}

std::string usage_error(const CLI::App& app, const CLI::ParseError& error) {
  const std::string text = error.what();
  switch (static_cast<CLI::ExitCodes>(error.get_exit_code())) {
    case CLI::ExitCodes::ExtrasError:
    case CLI::ExitCodes::RequiredError: {
      // Whatever is missing may be just misspelt.
      const std::string unexpected = unexpected_words(app);
      return unexpected.empty() ? missing(app, text) : unexpected;
    }
    case CLI::ExitCodes::ConversionError:
      return no_value(app, text);
    case CLI::ExitCodes::ArgumentMismatch:
      return wrong_count(text);
    default:
      return text;
  }
}

std::string not_empty(const std::string& value) {
  return value.empty() ? "what stands after it is empty" : "";
}

}  // namespace nvmf::tools
