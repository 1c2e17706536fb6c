// nvmf: looks at connections and ends them, and asks controllers.
//
// Exit status: 0, 1 when something was refused or is not there, 2 for bad usage.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <array>
#include <csignal>
#include <cstdio>
#include <system_error>

#include "cli.h"
#include "tool_program.h"
#include "tool_usage.h"

namespace {

/// What a verb writes: a list of some thousand connections has this.
constexpr std::size_t kOutputBytes = 1024 * 1024;

}  // namespace

int main(int argc, char** argv) {
  using namespace nvmf::tools;
  CLI::App app("Manages connections that nvmf-connect made, and asks NVMe controllers.\n", "nvmf");
  app.set_version_flag("--version", "nvmf " NVMF_VERSION);
  app.require_subcommand(1);
  Chosen chosen;
  add_connection_verbs(app, chosen);
  add_discovery_verbs(app, chosen);
  add_identify_verbs(app, chosen);
  add_log_verbs(app, chosen);
  add_feature_verbs(app, chosen);
  add_io_verbs(app, chosen);
  add_explain(app, chosen);
  add_help(app, chosen);
  app.footer(
      "A TARGET is a connection (nvmf0), a namespace (nvmf0n1), or nvme+tcp://HOST[:PORT]/SUBNQN,\n"
      "which is connected to for that one command. `nvmf help VERB` lists the options of a verb,\n"
      "`man nvmf` says the rest.\n");
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {  // --help, --version
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    complain("nvmf", usage_error(app, error));
    fmt::print(stderr, "Run nvmf --help, or nvmf VERB --help, for usage.\n");
    return kExitUsage;
  }
  std::signal(SIGPIPE, SIG_IGN);
  // Whatever a verb says goes out at once, at its end, where it is known if that failed.
  static std::array<char, kOutputBytes> output;
  std::setvbuf(stdout, output.data(), _IOFBF, output.size());
  int status = kExitFailure;
  try {
    status = chosen();
  } catch (const std::system_error&) {  // fmt::print() to a stdout that takes no more
    flush_stdout("nvmf");
    return kExitFailure;
  }
  return flush_stdout("nvmf") ? status : kExitFailure;
}
