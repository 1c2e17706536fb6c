// The command line of the verbs that show Identify data.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "cli.h"
#include "tool_program.h"

namespace nvmf::tools {

namespace {

CLI::App* add_identify(CLI::App& app, Chosen& chosen, const std::string& name,
                       const std::string& help, const std::shared_ptr<IdentifyWords>& words,
                       int (*run)(const IdentifyWords&)) {
  auto* verb = app.add_subcommand(name, help);
  verb->add_option("target", words->target, "A connection, a namespace of it, or nvme+tcp://…")
      ->required()
      ->type_name("TARGET");
  add_format(*verb, words->format, true);
  verb->add_flag_callback(
      "-b,--raw-binary", [words] { words->format = OutputFormat::binary; },
      "Write the 4096 bytes as they are");
  verb->add_flag_callback(
      "-H,--human-readable",
      [] { complain("nvmf", "note: -H has no effect here: fields are shown as numbers"); },
      "Accepted, without effect");
  add_temporary(*verb, words->temporary);
  verb->final_callback([&chosen, words, run] { chosen = [words, run] { return run(*words); }; });
  return verb;
}

}  // namespace

void add_identify_verbs(CLI::App& app, Chosen& chosen) {
  add_identify(app, chosen, "id-ctrl", "Show what a controller says of itself",
               std::make_shared<IdentifyWords>(), &id_ctrl);
  const auto ns_words = std::make_shared<IdentifyWords>();
  add_identify(app, chosen, "id-ns", "Show what a controller says of a namespace", ns_words, &id_ns)
      ->add_option("-n,--namespace-id", ns_words->nsid, "The namespace, if the target names none")
      ->type_name("NSID");
}

}  // namespace nvmf::tools
