// What the verbs of nvmf have in common on the command line.
#include "cli.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <map>

#include "tool_program.h"
#include "tool_usage.h"

namespace nvmf::tools {

namespace {

const std::map<std::string, OutputFormat> kFormats = {{"normal", OutputFormat::normal},
                                                      {"json", OutputFormat::json},
                                                      {"binary", OutputFormat::binary}};

}  // namespace

void add_format(CLI::App& verb, OutputFormat& format, bool binary) {
  std::map<std::string, OutputFormat> formats = kFormats;
  if (!binary) formats.erase("binary");
  verb.add_option_function<std::string>(
          "-o,--output-format",
          [&format, formats](const std::string& word) {
            const auto found = formats.find(word);
            if (found == formats.end()) {
              throw CLI::ValidationError(fmt::format("The output format {} is not known: {}", word,
                                                     formats.contains("binary")
                                                         ? "normal, json and binary are"
                                                         : "normal and json are"));
            }
            format = found->second;
          },
          binary ? "normal, json or binary" : "normal or json")
      ->type_name("FORMAT");
}

void accept_verbose(CLI::App& verb) {
  verb.add_flag_callback(
      "-v,--verbose",
      [] { complain("nvmf", "note: -v has no effect here: what there is to say is said"); },
      "Accepted, without effect");
}

void add_temporary(CLI::App& verb, TemporaryOptions& options) {
  constexpr const char* kGroup = "With a URI";
  verb.add_option("-q,--hostnqn", options.hostnqn, "NQN of this host")
      ->group(kGroup)
      ->type_name("NQN");
  verb.add_option("-I,--hostid", options.hostid, "UUID of this host")
      ->group(kGroup)
      ->type_name("UUID");
  verb.add_option("-w,--host-traddr", options.host_traddr, "Source address")
      ->group(kGroup)
      ->type_name("ADDR");
  verb.add_option("-f,--host-iface", options.host_iface, "Interface")
      ->group(kGroup)
      ->type_name("IFACE");
  verb.add_flag("-g,--hdr-digest", options.header_digest, "Check PDU headers")->group(kGroup);
  verb.add_flag("-G,--data-digest", options.data_digest, "Check data")->group(kGroup);
}

/// `nvmf help` and `nvmf help VERB`, as nvme-cli has them.
void add_help(CLI::App& app, Chosen& chosen) {
  auto* verb = app.add_subcommand("help", "Show this text, or the options of a verb");
  auto name = std::make_shared<std::string>();
  verb->add_option("verb", *name, "A verb, such as list")->type_name("VERB");
  verb->final_callback([&app, &chosen, name] {
    const auto named = app.get_subcommands([&](const CLI::App* v) { return v->check_name(*name); });
    const CLI::App* about = name->empty() ? &app : named.empty() ? nullptr : named.front();
    if (about == nullptr) {
      throw CLI::ValidationError(
          fmt::format("there is no such subcommand as {}: there are {}", *name, verbs_of(app)));
    }
    chosen = [about, title = name->empty() ? std::string("nvmf") : "nvmf " + *name] {
      // Not App::help(): that of the program shows the help of the verb that was given, this one.
      fmt::print("{}", about->get_formatter()->make_help(about, title, CLI::AppFormatMode::Normal));
      return kExitSuccess;
    };
  });
}

}  // namespace nvmf::tools
