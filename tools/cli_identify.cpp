// The command line of the verbs that show Identify data.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "cli.h"
#include "nvmf_identify.h"

namespace nvmf::tools {

namespace {

/// What there is of options of Identify; nvme-cli has some for each verb.
enum Options : unsigned {
  kBinary = 1u << 0,     // -b
  kHuman = 1u << 1,      // -H
  kNamespace = 1u << 2,  // -n, of the namespace that is meant
  kVerbose = 1u << 3,    // -v for more words, where -H would do
  kVendor = 1u << 4,     // -v for the vendor's bytes
  kNoRaw = 1u << 5,      // no `-o binary`
};

struct Verb {
  CLI::App& app;
  std::shared_ptr<IdentifyWords> words;
};

/// A verb with the options named; the rest is added, then finish() called.
Verb begin(CLI::App& app, const char* name, const char* help, unsigned options) {
  auto words = std::make_shared<IdentifyWords>();
  CLI::App& verb = *app.add_subcommand(name, help);
  add_target(verb, words->target);
  if ((options & kNamespace) != 0) {
    add_namespace_id(verb, words->nsid, "The namespace, if the target names none");
  }
  add_format(verb, words->format, (options & kNoRaw) == 0);
  if ((options & kBinary) != 0) add_raw_binary(verb, words->format);
  if ((options & kHuman) != 0) add_human(verb, words->detail);
  if ((options & kVerbose) != 0) {
    verb.add_flag_callback(
        "-v,--verbose", [words] { words->detail = nvme::Detail::human; }, "Say more");
  }
  if ((options & kVendor) != 0) {
    verb.add_flag("-v,--vendor-specific", words->vendor_specific, "Dump the vendor's bytes");
  }
  return {verb, words};
}

void finish(const Verb& verb, Chosen& chosen, int (*run)(const IdentifyWords&)) {
  add_temporary(verb.app, verb.words->temporary);
  verb.app.final_callback(
      [&chosen, words = verb.words, run] { chosen = [words, run] { return run(*words); }; });
}

void add(CLI::App& app, Chosen& chosen, const char* name, const char* help, unsigned options,
         int (*run)(const IdentifyWords&)) {
  finish(begin(app, name, help, options), chosen, run);
}

/// One that begins with an identifier, or is about it.
void add_by_id(CLI::App& app, Chosen& chosen, const char* name, const char* help, unsigned options,
               const char* id_names, const char* id_help, int (*run)(const IdentifyWords&)) {
  const Verb verb = begin(app, name, help, options);
  verb.app.add_option(id_names, verb.words->id, id_help)->type_name("N");
  finish(verb, chosen, run);
}

void add_uuid_index(const Verb& verb) {
  verb.app.add_option("-U,--uuid-index", verb.words->uuid_index, "Entry of the UUID list")
      ->type_name("N")
      ->check(CLI::Range(0, 127));
}

void add_namespaces(CLI::App& app, Chosen& chosen) {
  const Verb id_ns_verb = begin(app, "id-ns", "Show what a controller says of a namespace",
                                kBinary | kHuman | kNamespace | kVendor);
  id_ns_verb.app.add_flag("--force", id_ns_verb.words->allocated,
                          "Also if it is not attached to this controller");
  finish(id_ns_verb, chosen, &id_ns);

  const Verb list = begin(app, "list-ns", "List a controller's namespaces", kNoRaw);
  add_namespace_id(list.app, list.words->nsid, "The first to be listed, if it is there");
  list.app.add_option("-y,--csi", list.words->csi, "Those of this I/O command set")
      ->type_name("CSI");
  list.app.add_flag("-a,--all", list.words->allocated,
                    "All of the subsystem, attached to this controller or not");
  finish(list, chosen, &list_ns);

  add(app, chosen, "ns-descs", "Show by what a namespace is told from others", kBinary | kNamespace,
      &ns_descs);
  const Verb nvm =
      begin(app, "nvm-id-ns", "Show what the NVM command set adds to id-ns", kNamespace | kVerbose);
  add_uuid_index(nvm);
  finish(nvm, chosen, &nvm_id_ns);
  add(app, chosen, "cmdset-ind-id-ns", "Show a namespace whatever its command set",
      kBinary | kHuman | kNamespace, &cmdset_ind_id_ns);
  add(app, chosen, "id-ns-granularity", "Show sizes that suit new namespaces", 0,
      &id_ns_granularity);
}

void add_lists(CLI::App& app, Chosen& chosen) {
  const Verb controllers = begin(app, "list-ctrl", "List a subsystem's controllers", 0);
  controllers.app.add_option("-c,--cntid", controllers.words->id, "The first to be listed")
      ->type_name("N");
  add_namespace_id(controllers.app, controllers.words->nsid,
                   "Those that this namespace is attached to");
  finish(controllers, chosen, &list_ctrl);

  const Verb secondary = begin(app, "list-secondary", "List secondary controllers", 0);
  secondary.app.add_option("-c,--cntid", secondary.words->id, "The first to be listed")
      ->type_name("N");
  add_namespace_id(secondary.app, secondary.words->nsid,
                   "Those that this namespace is attached to");
  secondary.app.add_option("-e,--num-entries", secondary.words->entries, "At most so many")
      ->type_name("N");
  finish(secondary, chosen, &list_secondary);

  add_by_id(app, chosen, "list-endgrp", "List endurance groups", 0, "-i,--endgrp-id",
            "The first to be listed", &list_endgrp);
  add_by_id(app, chosen, "id-nvmset", "List NVM sets", 0, "-i,--nvmset_id",
            "The first to be listed", &id_nvmset);
  add_by_id(app, chosen, "id-domain", "List domains", 0, "-d,--dom-id", "The first to be listed",
            &id_domain);
  add(app, chosen, "id-uuid", "List the UUIDs of vendors' definitions", kBinary | kHuman, &id_uuid);
}

}  // namespace

void add_identify_verbs(CLI::App& app, Chosen& chosen) {
  add(app, chosen, "id-ctrl", "Show what a controller says of itself", kBinary | kHuman | kVendor,
      &id_ctrl);
  add_namespaces(app, chosen);
  add(app, chosen, "nvm-id-ctrl", "Show what the NVM command set adds to id-ctrl", 0, &nvm_id_ctrl);
  add_by_id(app, chosen, "id-iocs", "Show which I/O command sets go together", 0,
            "-c,--controller-id", "Of this controller", &id_iocs);
  add_by_id(app, chosen, "primary-ctrl-caps", "Show what a primary controller can share out",
            kHuman, "-c,--cntlid", "Of this controller", &primary_ctrl_caps);
  add_lists(app, chosen);
}

}  // namespace nvmf::tools
