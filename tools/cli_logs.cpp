// The command line of the verbs that show log pages.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "cli.h"
#include "nvmf_logs.h"

namespace nvmf::tools {

namespace {

/// What there is of options of a log; nvme-cli has some for each verb.
enum Options : unsigned {
  kBinary = 1u << 0,   // -b
  kHuman = 1u << 1,    // -H
  kVerbose = 1u << 2,  // -v, where -H would do
};

struct Verb {
  CLI::App& app;
  std::shared_ptr<LogWords> words;
};

Verb begin(CLI::App& app, const char* name, const char* help, unsigned options) {
  auto words = std::make_shared<LogWords>();
  CLI::App& verb = *app.add_subcommand(name, help);
  add_target(verb, words->target);
  add_format(verb, words->format, true);
  if ((options & kBinary) != 0) add_raw_binary(verb, words->format);
  if ((options & kHuman) != 0) add_human(verb, words->detail);
  if ((options & kVerbose) != 0) {
    verb.add_flag_callback(
        "-v,--verbose", [words] { words->detail = nvme::Detail::human; }, "Say more");
  }
  return {verb, words};
}

void finish(const Verb& verb, Chosen& chosen, int (*run)(const LogWords&)) {
  add_temporary(verb.app, verb.words->temporary);
  verb.app.final_callback(
      [&chosen, words = verb.words, run] { chosen = [words, run] { return run(*words); }; });
}

void add(CLI::App& app, Chosen& chosen, const char* name, const char* help, unsigned options,
         int (*run)(const LogWords&)) {
  finish(begin(app, name, help, options), chosen, run);
}

void add_entries(const Verb& verb, const char* names) {
  verb.app.add_option(names, verb.words->entries, "At most so many of the newest")->type_name("N");
}

void add_get_log(CLI::App& app, Chosen& chosen) {
  auto words = std::make_shared<GetLogWords>();
  CLI::App& verb = *app.add_subcommand("get-log", "Show any log page as bytes");
  add_target(verb, words->target);
  const auto number = [&verb](const char* names, auto& value, const char* help) {
    return verb.add_option(names, value, help)->type_name("N");
  };
  number("-i,--log-id", words->log_id, "Identifier of the log page");
  number("-l,--log-len", words->length_bytes, "Bytes to read");
  add_namespace_id(verb, words->nsid, "Of this namespace; else of the controller");
  number("-a,--aen", words->event, "What an event said: 4096 bytes of the log it names");
  add_size(verb, "-o,--lpo", words->offset, "Where in the log to begin, bytes");
  number("-s,--lsp", words->lsp, "Log specific field")->check(CLI::Range(0, 127));
  number("-S,--lsi", words->lsi, "Log specific identifier");
  verb.add_flag("-r,--rae", words->retain_event, "Do not clear the event that goes with the log");
  number("-U,--uuid-index", words->uuid_index, "Entry of the UUID list")->check(CLI::Range(0, 127));
  add_raw_binary(verb, words->format);
  number("-y,--csi", words->csi, "I/O command set");
  verb.add_flag("-O,--ot", words->index_offset, "The offset is an index");
  number("-x,--xfer-len", words->piece_bytes, "At most so many bytes in one command")
      ->check([](const std::string& text) {
        const std::uint64_t bytes = std::strtoull(text.c_str(), nullptr, 0);
        return bytes != 0 && bytes % 4096 == 0 ? std::string() : "give a multiple of 4096";
      });
  add_temporary(verb, words->temporary);
  verb.final_callback([&chosen, words] { chosen = [words] { return get_log(*words); }; });
}

}  // namespace

void add_log_verbs(CLI::App& app, Chosen& chosen) {
  add_get_log(app, chosen);
  const Verb smart = begin(app, "smart-log", "Show the health of a controller", kBinary | kHuman);
  add_namespace_id(smart.app, smart.words->nsid, "Of this namespace alone");
  finish(smart, chosen, &smart_log);
  const Verb errors = begin(app, "error-log", "Show which commands failed, and how", kBinary);
  add_entries(errors, "-e,--log-entries");
  finish(errors, chosen, &error_log);
  add(app, chosen, "fw-log", "Show which firmware is in which slot", kBinary, &fw_log);
  const Verb effects = begin(app, "effects-log", "Show which commands there are, and their effects",
                             kBinary | kHuman);
  effects.app.add_option("-c,--csi", effects.words->csi, "Of this I/O command set alone")
      ->type_name("CSI");
  finish(effects, chosen, &effects_log);
  add(app, chosen, "changed-ns-list-log", "Show which namespaces have changed", kBinary,
      &changed_ns_list_log);
  const Verb ana = begin(app, "ana-log", "Show how namespaces can be reached", 0);
  ana.app.add_flag("-g,--groups", ana.words->groups_only, "Groups only, not their namespaces");
  finish(ana, chosen, &ana_log);
  const Verb self_test =
      begin(app, "self-test-log", "Show what the controller's self-tests found", kVerbose);
  add_entries(self_test, "-e,--dst-entries");
  finish(self_test, chosen, &self_test_log);
  add(app, chosen, "supported-log-pages", "Show which log pages there are", kVerbose,
      &supported_log_pages);
}

}  // namespace nvmf::tools
