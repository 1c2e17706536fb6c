// The verbs of nvmf as its command line has them: what words there are, what they mean, and what is
// to be done then. For the few files that know CLI11; what a verb does is in nvmf_*.cpp.
//
// Each add_*() adds verbs to the program. When the command line has been read, `chosen` is what the
// verb that was given does; it returns the status to exit with.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "nvme/print.h"
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
void add_log_verbs(CLI::App& app, Chosen& chosen);         // get-log, smart-log …
void add_feature_verbs(CLI::App& app, Chosen& chosen);     // get-feature, show-regs …
void add_discovery_verbs(CLI::App& app, Chosen& chosen);   // discover, connect-all, connect
void add_explain(CLI::App& app, Chosen& chosen);           // explain
void add_io_verbs(CLI::App& app, Chosen& chosen);          // read, write, io-passthru …
void add_help(CLI::App& app, Chosen& chosen);              // `nvmf help`, as nvme-cli has it

// What verbs have in common.
/// -o FORMAT; `binary` if the verb has that.
void add_format(CLI::App& verb, OutputFormat& format, bool binary);
/// -b, the same as `-o binary`.
void add_raw_binary(CLI::App& verb, OutputFormat& format);
/// -H.
void add_human(CLI::App& verb, nvme::Detail& detail);
/// TARGET, which must be given.
void add_target(CLI::App& verb, std::string& target);
/// -n, by `help` in words.
void add_namespace_id(CLI::App& verb, std::optional<std::uint32_t>& nsid, const std::string& help);
/// A number that may end in K, M, G or T, powers of 1024, as nvme-cli's "IONUM".
void add_size(CLI::App& verb, const char* names, std::uint64_t& value, const char* help);
/// -v, which nvme-cli has.
void accept_verbose(CLI::App& verb);
/// Words for a connection that is made from a URI, after the verb's own: where a verb has another
/// meaning for a letter, these have their long names only.
void add_temporary(CLI::App& verb, TemporaryOptions& options);

}  // namespace nvmf::tools
