// The command line of the verbs about connections: list, disconnect, policy, reset, accept.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "cli.h"

namespace nvmf::tools {

namespace {

void add_list(CLI::App& app, Chosen& chosen) {
  auto* verb = app.add_subcommand("list", "List connections and their namespaces");
  auto format = std::make_shared<OutputFormat>(OutputFormat::normal);
  add_format(*verb, *format, false);
  accept_verbose(*verb);
  verb->final_callback([&chosen, format] { chosen = [format] { return list(*format); }; });
}

void add_list_subsys(CLI::App& app, Chosen& chosen) {
  auto* verb = app.add_subcommand("list-subsys", "List subsystems and the connections to each");
  auto name = std::make_shared<std::string>();
  auto format = std::make_shared<OutputFormat>(OutputFormat::normal);
  verb->add_option("name", *name, "A connection or a namespace: its subsystem alone")
      ->type_name("NAME");
  add_format(*verb, *format, false);
  accept_verbose(*verb);
  verb->final_callback(
      [&chosen, name, format] { chosen = [name, format] { return list_subsys(*name, *format); }; });
}

void add_ns_rescan(CLI::App& app, Chosen& chosen) {
  auto* verb = app.add_subcommand("ns-rescan", "Ask which namespaces there are now, and act on it");
  auto words = std::make_shared<RescanWords>();
  verb->add_option("name", words->name, "A connection, as `nvmf list` shows it before the n")
      ->required()
      ->type_name("NAME");
  add_format(*verb, words->format, false);
  verb->final_callback([&chosen, words] { chosen = [words] { return ns_rescan(*words); }; });
}

void add_disconnect(CLI::App& app, Chosen& chosen) {
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

void add_disconnect_all(CLI::App& app, Chosen& chosen) {
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

void add_policy(CLI::App& app, Chosen& chosen) {
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

void add_events(CLI::App& app, Chosen& chosen) {
  auto* verb = app.add_subcommand("events", "Show what connections and controllers reported");
  auto words = std::make_shared<EventsWords>();
  verb->add_option("name", words->names, "Connections; all if none is named")->type_name("NAME");
  verb->add_flag("-f,--follow", words->follow,
                 "Show what happens from now on, as JSON lines unless -o says otherwise");
  add_format(*verb, words->format, false);
  verb->final_callback([&chosen, verb, words] {
    if (words->follow && verb->count("--output-format") == 0) words->format = OutputFormat::json;
    chosen = [words] { return events(*words); };
  });
}

void add_stats(CLI::App& app, Chosen& chosen) {
  auto* verb = app.add_subcommand("stats", "Show what connections have done, and how fast");
  auto words = std::make_shared<StatsWords>();
  verb->add_option("name", words->names, "Connections; all if none is named")->type_name("NAME");
  add_format(*verb, words->format, false);
  verb->add_flag("--openmetrics", words->openmetrics, "Print OpenMetrics text, for Prometheus");
  verb->final_callback([&chosen, verb, words] {
    if (words->openmetrics && verb->count("--output-format") != 0) {
      throw CLI::ValidationError("--openmetrics is a format of its own: leave -o out");
    }
    chosen = [words] { return stats(*words); };
  });
}

void add_trace(CLI::App& app, Chosen& chosen) {
  auto* verb = app.add_subcommand("trace", "Write what a connection sends and receives to a file");
  auto words = std::make_shared<TraceWords>();
  verb->add_option("name", words->name, "A connection")->required()->type_name("NAME");
  verb->add_option("file", words->file, "Begin with this file, for Wireshark")
      ->type_name("FILE")
      ->check(not_empty);
  verb->add_flag("--off", words->off, "End the trace");
  verb->final_callback([&chosen, words] {
    if (words->off && !words->file.empty()) {
      throw CLI::ValidationError("Give either a FILE to begin a trace, or --off to end it");
    }
    chosen = [words] { return trace(*words); };
  });
}

void add_named(CLI::App& app, Chosen& chosen, const char* name, const char* help,
               const char* operand, int (*run)(const std::string&)) {
  auto* verb = app.add_subcommand(name, help);
  auto word = std::make_shared<std::string>();
  verb->add_option("name", *word, operand)->required()->type_name("NAME");
  verb->final_callback([&chosen, word, run] { chosen = [word, run] { return run(*word); }; });
}
}  // namespace

void add_connection_verbs(CLI::App& app, Chosen& chosen) {
  add_list(app, chosen);
  add_list_subsys(app, chosen);
  add_disconnect(app, chosen);
  add_disconnect_all(app, chosen);
  add_policy(app, chosen);
  add_events(app, chosen);
  add_stats(app, chosen);
  add_trace(app, chosen);
  add_named(app, chosen, "reset", "End a connection's queues and make new ones",
            "A connection, as `nvmf list` shows it before the n", &reset);
  add_named(app, chosen, "accept", "Go on with a disk that is not the one that was there before",
            "A connection, or a namespace of it", &accept);
  add_ns_rescan(app, chosen);
}

}  // namespace nvmf::tools
