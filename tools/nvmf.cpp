// nvmf: looks at connections and ends them, and asks controllers.
//
// Exit status: 0, 1 when something was refused or is not there, 2 for bad usage.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <array>
#include <csignal>
#include <cstdio>
#include <map>
#include <system_error>

#include "nvmf_verbs.h"
#include "tool_program.h"
#include "tool_usage.h"

namespace {

using namespace nvmf::tools;

/// What a verb writes: a list of some thousand connections has this.
constexpr std::size_t kOutputBytes = 1024 * 1024;

const std::map<std::string, OutputFormat> kFormats = {{"normal", OutputFormat::normal},
                                                      {"json", OutputFormat::json},
                                                      {"binary", OutputFormat::binary}};

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

void add_list(CLI::App& app, std::function<int()>& chosen) {
  auto* verb = app.add_subcommand("list", "List connections and their namespaces");
  auto format = std::make_shared<OutputFormat>(OutputFormat::normal);
  add_format(*verb, *format, false);
  accept_verbose(*verb);
  verb->final_callback([&chosen, format] { chosen = [format] { return list(*format); }; });
}

void add_disconnect(CLI::App& app, std::function<int()>& chosen) {
  auto* verb = app.add_subcommand("disconnect", "End connections; returns when they have gone");
  auto words = std::make_shared<DisconnectWords>();
  verb->add_option("name", words->names,
                   "Connections: nvmf0 ends all of nvmf0n1, nvmf0n2, … of `nvmf list`")
      ->type_name("NAME");
  verb->add_option("-d,--device", words->names, "The same, as nvme-cli spells it")
      ->type_name("NAME")
      ->allow_extra_args(false);
  verb->add_option("-n,--nqn", words->nqn, "All connections to this subsystem")->type_name("NQN");
  verb->add_flag("--all", words->all, "All connections");
  verb->add_flag("--force", words->force,
                 "Do not wait for what is under way; kill a process that hangs");
  accept_verbose(*verb);
  verb->final_callback([&chosen, words] {
    const int ways =
        (words->names.empty() ? 0 : 1) + (words->nqn.empty() ? 0 : 1) + (words->all ? 1 : 0);
    if (ways != 1) {
      throw CLI::ValidationError(
          "Give either names of connections, as `nvmf list` shows them, or --nqn NQN, or --all");
    }
    chosen = [words] { return disconnect(*words); };
  });
}

void add_disconnect_all(CLI::App& app, std::function<int()>& chosen) {
  auto* verb = app.add_subcommand("disconnect-all", "End all connections");
  verb->add_option_function<std::string>(
          "-r,--transport",
          [](const std::string& word) {
            if (word == "tcp") return;
            throw CLI::ValidationError(
                fmt::format("The transport {} is not known: every connection here is tcp", word));
          },
          "Only tcp, as every connection is")
      ->type_name("STR");
  accept_verbose(*verb);
  verb->final_callback(
      [&chosen] { chosen = [] { return disconnect({.names = {}, .nqn = {}, .all = true}); }; });
}

/// "$DELAY" in a script where nothing of that name is set means something else than no option.
std::string not_empty(const std::string& value) {
  return value.empty() ? "what stands after it is empty" : "";
}

void add_policy(CLI::App& app, std::function<int()>& chosen) {
  auto* verb = app.add_subcommand(
      "policy", "Show, and change, what happens when a connection loses its target");
  auto words = std::make_shared<PolicyWords>();
  verb->add_option("name", words->name, "A connection, as `nvmf list` shows it before the n")
      ->required()
      ->type_name("NAME");
  const auto add = [verb](const char* names, std::string& word, const char* help) {
    verb->add_option(names, word, help)->type_name("SECONDS")->check(not_empty);
  };
  add("-c,--reconnect-delay", words->timers.reconnect_delay,
      "Longest pause between two attempts to connect again");
  add("-l,--ctrl-loss-tmo", words->timers.ctrl_loss,
      "Give the connection up so long after the loss, -1 for never");
  add("-F,--fast_io_fail_tmo", words->timers.fast_io_fail,
      "Fail requests so long after the loss until the target is back, -1 for never");
  verb->add_option_function<std::string>(
          "-k,--keep-alive-tmo",
          [](const std::string&) {
            throw CLI::ValidationError(
                "-k,--keep-alive-tmo cannot be changed while a connection runs: the controller is "
                "told when the connection is made. End it with `nvmf disconnect NAME`, and give -k "
                "to nvmf-connect");
          },
          "Refused: it belongs to nvmf-connect")
      ->type_name("SECONDS");
  add_format(*verb, words->format, false);
  verb->final_callback([&chosen, words] { chosen = [words] { return policy(*words); }; });
}

void add_named(CLI::App& app, std::function<int()>& chosen, const char* name, const char* help,
               const char* operand, int (*run)(const std::string&)) {
  auto* verb = app.add_subcommand(name, help);
  auto word = std::make_shared<std::string>();
  verb->add_option("name", *word, operand)->required()->type_name("NAME");
  verb->final_callback([&chosen, word, run] { chosen = [word, run] { return run(*word); }; });
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

CLI::App* add_identify(CLI::App& app, std::function<int()>& chosen, const std::string& name,
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

/// `nvmf help` and `nvmf help VERB`, as nvme-cli has them.
void add_help(CLI::App& app, std::function<int()>& chosen) {
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

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Manages connections that nvmf-connect made, and asks NVMe controllers.\n", "nvmf");
  app.set_version_flag("--version", "nvmf " NVMF_VERSION);
  app.require_subcommand(1);
  std::function<int()> chosen;
  add_list(app, chosen);
  add_disconnect(app, chosen);
  add_disconnect_all(app, chosen);
  add_policy(app, chosen);
  add_named(app, chosen, "reset", "End a connection's queues and make new ones",
            "A connection, as `nvmf list` shows it before the n", &reset);
  add_named(app, chosen, "accept", "Go on with a disk that is not the one that was there before",
            "A connection, or a namespace of it", &accept);
  add_identify(app, chosen, "id-ctrl", "Show what a controller says of itself",
               std::make_shared<IdentifyWords>(), &id_ctrl);
  const auto ns_words = std::make_shared<IdentifyWords>();
  add_identify(app, chosen, "id-ns", "Show what a controller says of a namespace", ns_words, &id_ns)
      ->add_option("-n,--namespace-id", ns_words->nsid, "The namespace, if the target names none")
      ->type_name("NSID");
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
