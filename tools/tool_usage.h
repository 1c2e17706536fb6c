// What is wrong with a command line. For the files that know CLI11.
#pragma once

#include <string>

namespace CLI {
class App;
class ParseError;
}  // namespace CLI

namespace nvmf::tools {

/// One sentence that says what is wrong, and what to type where that can be known. CLI11's own
/// words where they are clear, better ones elsewhere.
std::string usage_error(const CLI::App& app, const CLI::ParseError& error);

/// "list, disconnect and id-ctrl": the verbs of a program that has some.
std::string verbs_of(const CLI::App& app);

/// "there is no such subcommand as idctrl: is id-ctrl meant? ...", or with all that there are if
/// `word` is like none of them.
std::string no_such_verb(const CLI::App& app, const std::string& word);

/// A check for CLI11: "$DELAY" in a script where nothing of that name is set means something else
/// than no option.
std::string not_empty(const std::string& value);

}  // namespace nvmf::tools
