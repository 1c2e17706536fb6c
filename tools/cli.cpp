// What the verbs of nvmf have in common on the command line.
#include "cli.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cctype>
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

void add_raw_binary(CLI::App& verb, OutputFormat& format) {
  verb.add_flag_callback(
      "-b,--raw-binary", [&format] { format = OutputFormat::binary; },
      "Write the bytes as they are");
}

void add_human(CLI::App& verb, nvme::Detail& detail) {
  verb.add_flag_callback(
      "-H,--human-readable", [&detail] { detail = nvme::Detail::human; },
      "Explain fields bit by bit");
}

void add_target(CLI::App& verb, std::string& target) {
  verb.add_option("target", target, "A connection, a namespace of it, or nvme+tcp://…")
      ->required()
      ->type_name("TARGET");
}

void add_namespace_id(CLI::App& verb, std::optional<std::uint32_t>& nsid, const std::string& help) {
  verb.add_option("-n,--namespace-id", nsid, help)->type_name("NSID");
}

void add_size(CLI::App& verb, const char* names, std::uint64_t& value, const char* help) {
  verb.add_option_function<std::string>(
          names,
          [&value, names](const std::string& text) {
            constexpr std::string_view kUnits = "KMGT";
            std::string number = text;
            unsigned shift = 0;
            const auto last =
                number.empty() ? '\0' : static_cast<char>(std::toupper(number.back()));
            if (const auto unit = kUnits.find(last); last != '\0' && unit != kUnits.npos) {
              shift = 10 * static_cast<unsigned>(unit + 1);
              number.pop_back();
            }
            std::uint64_t whole = 0;
            if (!CLI::detail::lexical_cast(number, whole) || whole > UINT64_MAX >> shift) {
              throw CLI::ValidationError(
                  fmt::format("\"{}\" is no value for {}: give a whole number, 0 or more, such as "
                              "4096, 0x1000 or 4K",
                              text, std::string_view(names).substr(3)));
            }
            value = whole << shift;
          },
          help)
      ->type_name("N");
}

void add_temporary(CLI::App& verb, TemporaryOptions& options) {
  constexpr const char* kGroup = "With a URI";
  const auto names = [&verb](char letter, const char* name) {
    const std::string brief{'-', letter};
    const bool taken = verb.get_option_no_throw(brief) != nullptr;
    return taken ? std::string(name) : fmt::format("{},{}", brief, name);
  };
  const auto add = [&](char letter, const char* name, std::string& word, const char* help,
                       const char* type) {
    verb.add_option(names(letter, name), word, help)->group(kGroup)->type_name(type);
  };
  add('q', "--hostnqn", options.hostnqn, "NQN of this host", "NQN");
  add('I', "--hostid", options.hostid, "UUID of this host", "UUID");
  add('w', "--host-traddr", options.host_traddr, "Source address", "ADDR");
  add('f', "--host-iface", options.host_iface, "Interface", "IFACE");
  verb.add_flag(names('g', "--hdr-digest"), options.header_digest, "Check PDU headers")
      ->group(kGroup);
  verb.add_flag(names('G', "--data-digest"), options.data_digest, "Check data")->group(kGroup);
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
      throw CLI::ValidationError(no_such_verb(app, *name));
    }
    chosen = [about, title = name->empty() ? std::string("nvmf") : "nvmf " + *name] {
      // Not App::help(): that of the program shows the help of the verb that was given, this one.
      fmt::print("{}", about->get_formatter()->make_help(about, title, CLI::AppFormatMode::Normal));
      return kExitSuccess;
    };
  });
}

}  // namespace nvmf::tools
