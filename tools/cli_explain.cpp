// The command line of `nvmf explain`.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "cli.h"

namespace nvmf::tools {

namespace {

void add_context(CLI::App& verb, const std::shared_ptr<ExplainWords>& words, const char* flag,
                 nvme::StatusContext context, const char* help) {
  verb.add_flag_callback(
      flag,
      [words, context] {
        if (words->context && *words->context != context) {
          throw CLI::ValidationError(
              "Give one of --admin, --io and --fabrics: a command is of one kind");
        }
        words->context = context;
      },
      help);
}

}  // namespace

void add_explain(CLI::App& app, Chosen& chosen) {
  auto* verb = app.add_subcommand("explain", "Say what a status or an error means");
  auto words = std::make_shared<ExplainWords>();
  verb->add_option("status", words->status,
                   "As it was found: 0x4002, 2/81h, sct 0x2 sc 0x81, INVALID_FIELD, ECONNREFUSED …")
      ->type_name("STATUS");
  add_context(*verb, words, "--admin", nvme::StatusContext::admin, "It answered an admin command");
  add_context(*verb, words, "--io", nvme::StatusContext::nvm, "It answered an I/O command");
  add_context(*verb, words, "--fabrics", nvme::StatusContext::fabrics,
              "It answered a fabrics command, such as Connect");
  verb->add_flag("--cqe", words->cqe, "STATUS is dword 3 of a completion queue entry");
  verb->add_option("--errno", words->system_error, "An error of the system, number or name")
      ->type_name("ERROR")
      ->check(not_empty);
  verb->add_option("--termreq", words->term_req, "FES, or FES:FEI, of a terminate request")
      ->type_name("FES")
      ->check(not_empty);
  verb->add_option("--connect", words->connect, "Dword 0 of a Connect with invalid parameters")
      ->type_name("RESULT")
      ->check(not_empty);
  add_format(*verb, words->format, false);
  verb->final_callback([&chosen, words] {
    const int given = (words->status.empty() ? 0 : 1) + (words->system_error.empty() ? 0 : 1) +
                      (words->term_req.empty() ? 0 : 1) + (words->connect.empty() ? 0 : 1);
    if (given != 1) {
      throw CLI::ValidationError(
          "Give either a status, as `nvmf explain 0x4002`, or --errno, or --termreq, or --connect");
    }
    if (words->status.empty() && (words->cqe || words->context)) {
      throw CLI::ValidationError("--cqe, --admin, --io and --fabrics are for a STATUS");
    }
    chosen = [words] { return explain(*words); };
  });
}

}  // namespace nvmf::tools
