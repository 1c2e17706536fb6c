// The command line of the verbs about features and properties.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "cli.h"
#include "nvmf_features.h"

namespace nvmf::tools {

namespace {

template <class Words>
void finish(CLI::App& verb, Chosen& chosen, const std::shared_ptr<Words>& words,
            int (*run)(const Words&)) {
  add_temporary(verb, words->temporary);
  verb.final_callback([&chosen, words, run] { chosen = [words, run] { return run(*words); }; });
}

template <class T>
CLI::Option* add_number(CLI::App& verb, const char* names, T& value, const char* help) {
  return verb.add_option(names, value, help)->type_name("N");
}

void add_get_feature(CLI::App& app, Chosen& chosen) {
  auto words = std::make_shared<GetFeatureWords>();
  CLI::App& verb = *app.add_subcommand("get-feature", "Show a feature's value, or all of them");
  add_target(verb, words->target);
  add_number(verb, "-f,--feature-id", words->feature, "The feature; else all that there are");
  add_namespace_id(verb, words->nsid, "Of this namespace");
  add_number(verb, "-s,--sel", words->select,
             "Value: 0 current, 1 default, 2 saved, 3 what is supported, 8 changed");
  add_number(verb, "-l,--data-len", words->length_bytes, "Bytes of data, if not the feature's own");
  add_raw_binary(verb, words->format);
  add_number(verb, "-c,--cdw11", words->cdw11, "Dword 11 of the command");
  add_number(verb, "-U,--uuid-index", words->uuid_index, "Entry of the UUID list")
      ->check(CLI::Range(0, 127));
  add_human(verb, words->detail);
  finish(verb, chosen, words, &get_feature);
}

void add_set_feature(CLI::App& app, Chosen& chosen) {
  auto words = std::make_shared<SetFeatureWords>();
  CLI::App& verb = *app.add_subcommand("set-feature", "Change a feature's value");
  add_target(verb, words->target);
  add_number(verb, "-f,--feature-id", words->feature, "The feature");
  add_size(verb, "-v,--value", words->value, "Its new value, dword 11 of the command");
  add_namespace_id(verb, words->nsid, "Of this namespace");
  add_number(verb, "-c,--cdw12", words->cdw12, "Dword 12 of the command");
  add_number(verb, "-U,--uuid-index", words->uuid_index, "Entry of the UUID list")
      ->check(CLI::Range(0, 127));
  add_number(verb, "-l,--data-len", words->length_bytes, "Bytes of data, if not the feature's own");
  verb.add_option("-d,--data", words->file, "The data; else standard input")->type_name("FILE");
  verb.add_flag("-s,--save", words->save, "Keep it over resets and power cycles");
  finish(verb, chosen, words, &set_feature);
}

void add_show_regs(CLI::App& app, Chosen& chosen) {
  auto words = std::make_shared<RegistersWords>();
  CLI::App& verb = *app.add_subcommand("show-regs", "Show a controller's properties");
  add_target(verb, words->target);
  add_format(verb, words->format, false);
  add_human(verb, words->detail);
  finish(verb, chosen, words, &show_regs);
}

/// nvme-cli has -o since 2.0, and -O since 2.11.
void add_offset(CLI::App& verb, PropertyWords& words) {
  add_number(verb, "-o,--offset", words.offset, "CAP 0x0, VS 0x8, CC 0x14, CSTS 0x1c, NSSR 0x20");
  add_number(verb, "-O", words.offset, "The same")->group("");
}

}  // namespace

void add_feature_verbs(CLI::App& app, Chosen& chosen) {
  add_get_feature(app, chosen);
  add_set_feature(app, chosen);
  add_show_regs(app, chosen);

  auto get_words = std::make_shared<PropertyWords>();
  CLI::App& get = *app.add_subcommand("get-property", "Show one of a controller's properties");
  add_target(get, get_words->target);
  add_offset(get, *get_words);
  add_human(get, get_words->detail);
  finish(get, chosen, get_words, &get_property);

  auto set_words = std::make_shared<PropertyWords>();
  CLI::App& set = *app.add_subcommand("set-property", "Change one of a controller's properties");
  add_target(set, set_words->target);
  add_offset(set, *set_words);
  add_number(set, "-v,--value", set_words->value, "Its new value");
  finish(set, chosen, set_words, &set_property);
}

}  // namespace nvmf::tools
