// The verbs of nvmf as its command line has them: what words there are, what they mean, and what is
// to be done then. For the few files that know CLI11; what a verb does is in nvmf_*.cpp.
//
// Each add_*() adds verbs to the program. When the command line has been read, `chosen` is what the
// verb that was given does; it returns the status to exit with.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "nvmf_verbs.h"
#include "tool_usage.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace nvmf::tools {

using Chosen = std::function<int()>;

void add_connection_verbs(CLI::App& app, Chosen& chosen);  // list, disconnect, policy, reset …
void add_identify_verbs(CLI::App& app, Chosen& chosen);    // id-ctrl, id-ns …
void add_discovery_verbs(CLI::App& app, Chosen& chosen);   // discover, connect-all, connect
void add_help(CLI::App& app, Chosen& chosen);              // `nvmf help`, as nvme-cli has it

// What verbs have in common.
/// -o FORMAT; `binary` if the verb has that.
void add_format(CLI::App& verb, OutputFormat& format, bool binary);
/// -v, which nvme-cli has.
void accept_verbose(CLI::App& verb);
/// Words for a connection that is made from a URI.
void add_temporary(CLI::App& verb, TemporaryOptions& options);

}  // namespace nvmf::tools
