// nvmf-target ctl SOCKET VERB …: changes a running target over its control socket.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "controller/config.h"
#include "nvmf_target_control.h"
#include "tool_control.h"
#include "tool_program.h"
#include "tool_usage.h"

namespace nvmf::tools {

using nlohmann::json;

namespace {

constexpr const char* kProgram = "nvmf-target";
/// A target answers within a turn of its loop.
constexpr std::chrono::seconds kPatience{5};

/// A number in decimal, or in hexadecimal behind 0x; nothing if it is none.
std::optional<std::uint64_t> parse_number(std::string_view text) {
  int base = 10;
  if (text.starts_with("0x") || text.starts_with("0X")) {
    text.remove_prefix(2);
    base = 16;
  }
  std::uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value, base);
  if (error != std::errc{} || rest != end) return std::nullopt;
  return value;
}

std::uint64_t parse_status(const std::string& text) {
  const std::size_t slash = text.find('/');
  const auto high = slash == std::string::npos ? std::optional<std::uint64_t>(0)
                                               : parse_number(text.substr(0, slash));
  const auto low = parse_number(slash == std::string::npos ? text : text.substr(slash + 1));
  const std::uint64_t most = slash == std::string::npos ? 0x7ff : 0xff;
  if (!high || !low || *high > 7 || *low > most || (*high << 8 | *low) == 0) {
    throw CLI::ValidationError(fmt::format(
        "\"{}\" is no status: give type and code such as 2/0x81, or both in one such as 0x281",
        text));
  }
  return *high << 8 | *low;
}

struct Opcode {
  std::uint64_t number = 0;
  bool admin = false;  // a name that only admin commands have
};

Opcode parse_opcode(const std::string& text) {
  static const std::map<std::string, Opcode> kNames = {{"flush", {0x00}},
                                                       {"write", {0x01}},
                                                       {"read", {0x02}},
                                                       {"compare", {0x05}},
                                                       {"write-zeroes", {0x08}},
                                                       {"dsm", {0x09}},
                                                       {"get-log", {0x02, true}},
                                                       {"identify", {0x06, true}},
                                                       {"abort", {0x08, true}},
                                                       {"set-features", {0x09, true}},
                                                       {"get-features", {0x0a, true}},
                                                       {"keep-alive", {0x18, true}},
                                                       {"format", {0x80, true}}};
  if (const auto named = kNames.find(text); named != kNames.end()) return named->second;
  const auto number = parse_number(text);
  if (!number || *number > 0xff) {
    std::string names;
    for (const auto& [name, opcode] : kNames) names += (names.empty() ? "" : ", ") + name;
    throw CLI::ValidationError(
        fmt::format("\"{}\" is no opcode: give a number up to 0xff, or one of {}", text, names));
  }
  return {*number};
}

/// The target may have been started in another folder.
std::string absolute(const std::string& text, const controller::NamespaceConfig& spec) {
  if (spec.kind != controller::NamespaceConfig::Kind::file || spec.path.starts_with('/')) {
    return text;
  }
  constexpr std::string_view kPrefix = "file:";
  return fmt::format("{}{}/{}", kPrefix, std::filesystem::current_path().string(),
                     text.substr(kPrefix.size()));
}

/// What a verb puts together, and the options that several have.
class Verb {
 public:
  Verb(CLI::App& ctl, const char* name, const char* help, std::string& chosen, json& args)
      : app_(*ctl.add_subcommand(name, help)), args_(args) {
    app_.final_callback([&chosen, name] { chosen = name; });
  }
  CLI::App& app() { return app_; }

  Verb& number(const char* name, const char* key, const char* type, std::uint64_t most,
               const char* help, bool required = false) {
    CLI::Option* option = text_option(
        name, type,
        [this, key, most, what = std::string(type)](const std::string& text) {
          const auto value = parse_number(text);
          if (!value || *value > most) {
            throw CLI::ValidationError(fmt::format(
                "\"{}\" is no value for {}: give a number from 0 to {}", text, what, most));
          }
          args_[key] = *value;
        },
        help);
    option->required(required);
    return *this;
  }
  Verb& words(const char* name, const char* type, const char* help,
              std::function<void(const std::string&)> act, bool required = false) {
    text_option(name, type, std::move(act), help)->required(required);
    return *this;
  }
  /// One that may be repeated; each value is a word of the list `key`.
  Verb& list(const char* name, const char* key, const char* type, const char* help,
             std::function<std::string(const std::string&)> read) {
    app_.add_option_function<std::vector<std::string>>(
            name,
            [this, key, read = std::move(read)](const std::vector<std::string>& texts) {
              for (const std::string& text : texts) args_[key].push_back(read(text));
            },
            help)
        ->type_name(type)
        ->allow_extra_args(false);
    return *this;
  }
  Verb& flag(const char* name, const char* key, const char* help) {
    app_.add_flag_callback(name, [this, key] { args_[key] = true; }, help);
    return *this;
  }
  Verb& subsystem() {
    return words("--subsystem", "NQN", "Only of this subsystem",
                 [this](const std::string& nqn) { args_["subsystem"] = nqn; });
  }
  Verb& controller() {
    return number("--controller", "controller", "ID", 0xffff, "Only of this controller");
  }
  Verb& queue() {
    return number("--queue", "queue", "QID", 0xffff, "Only of this queue; 0 is the admin queue");
  }
  Verb& nsid() { return number("--nsid", "nsid", "NSID", 0xffff'ffff, "Only of this namespace"); }
  Verb& opcode() {
    return words("--opcode", "OPCODE", "Only commands of this kind: a number, or read, write, …",
                 [this](const std::string& text) {
                   const Opcode opcode = parse_opcode(text);
                   args_["opcode"] = opcode.number;
                   if (opcode.admin) args_["queue"] = 0;
                 });
  }
  Verb& count(const char* help) { return number("--count", "count", "N", ~std::uint64_t{0}, help); }
  Verb& lasts(const char* help, bool required = false) {
    return number("ms", "ms", "MS", 86'400'000, help, required);
  }
  Verb& status(const char* name, const char* help, bool required) {
    words(
        name, "STATUS", help,
        [this](const std::string& text) { args_["status"] = parse_status(text); }, required);
    return flag("--dnr", "dnr", "With Do Not Retry");
  }
  static std::string read_spec(const std::string& text) {
    auto good = controller::NamespaceConfig::parse(text);
    if (!good) throw CLI::ValidationError(good.error().message);
    return absolute(text, *good);
  }
  Verb& spec() {
    return words(
        "namespace", "SPEC", "memory:SIZE, file:PATH or nbd:URI, as for --namespace",
        [this](const std::string& text) { args_["namespace"] = read_spec(text); }, true);
  }
  /// An operand, sent as it is.
  Verb& operand(const char* name, const char* key, const char* type, const char* help) {
    return words(
        name, type, help, [this, key](const std::string& text) { args_[key] = text; }, true);
  }
  Verb& limits() {
    number("--max-queues", "max_queues", "N", 0xffff, "I/O queues of a controller from then on");
    return number("--queue-size", "queue_size", "N", 0xffff,
                  "Entries of an I/O queue from then on");
  }

 private:
  CLI::Option* text_option(const char* name, const char* type,
                           std::function<void(const std::string&)> act, const char* help) {
    return app_.add_option_function<std::string>(name, std::move(act), help)->type_name(type);
  }

  CLI::App& app_;
  json& args_;
};

/// All verbs; each has to outlive the parsing.
class Verbs {
 public:
  Verbs(CLI::App& ctl, std::string& chosen, json& args) : ctl_(ctl), chosen_(chosen), args_(args) {
    add_at_once();
    add_standing();
    add_namespaces();
    add_ana();
    add_subsystems();
    add("show", "Print what is wrong on demand, connections, controllers and counters, as JSON");
    add("clear", "End every standing fault; commands that wait are executed");
  }

 private:
  Verb& add(const char* name, const char* help) {
    return verbs_.emplace_back(ctl_, name, help, chosen_, args_);
  }

  void add_at_once() {
    add("drop", "Reset connections").subsystem().controller().queue();
    add("close-queue", "End one I/O queue of each controller; the others live on")
        .number("queue", "queue", "QID", 0xffff, "The queue, 1 and up", true)
        .flag("--fin", "fin", "In order, with FIN, instead of RST")
        .subsystem()
        .controller();
    add("cfs", "Set CSTS.CFS: no command is answered until the host resets the controller")
        .subsystem()
        .controller();
    add("event", "Tell hosts of an event: smart, error or firmware")
        .words(
            "kind", "KIND", "smart, error or firmware",
            [this](const std::string& kind) { args_["kind"] = kind; }, true)
        .number("--warning", "warning", "BITS", 0xff,
                "smart: the critical warnings, all of them, 0 for none")
        .number("--temperature", "temperature", "KELVINS", 0xffff, "smart: 0 is not reported")
        .number("--spare", "spare", "PERCENT", 0xff, "smart: the available spare")
        .number("--used", "used", "PERCENT", 0xff, "smart: how much of its life is used")
        .status("--status", "error: the status of the log's entry; none: Internal Error", false)
        .flag("--persistent", "persistent", "error: a persistent one, not a transient one")
        .subsystem()
        .controller();
    add("restart", "End every connection, forget every controller, listen again after MS")
        .lasts("Milliseconds without a listener; none: 0")
        .limits();
    add("power-loss", "The same, and lose what a volatile cache has not flushed")
        .lasts("Milliseconds without a listener; none: 0")
        .limits();
  }

  void add_standing() {
    add("refuse", "Close new connections at once, or refuse Connect with a status")
        .lasts("Milliseconds; none: until clear")
        .count("Only the next N")
        .status("--status", "Answer Connect with it: 0x181, or type and code 1/0x81", false)
        .subsystem()
        .queue();
    add("blackhole", "Neither read nor send; connections stay, new ones come in")
        .lasts("Milliseconds; none: until clear")
        .subsystem()
        .controller()
        .queue();
    add("delay", "Let I/O commands wait for MS before they are executed")
        .lasts("Milliseconds", true)
        .flag("--after", "after", "Behind their execution, ahead of the answer")
        .count("Only the next N")
        .opcode()
        .nsid()
        .subsystem()
        .controller()
        .queue();
    add("late", "Execute writes that wait MS after their connection was lost")
        .lasts("Milliseconds from the loss to the execution", true)
        .number("--hold", "hold", "N", ~std::uint64_t{0},
                "Let the next N writes wait for that: they are not answered")
        .flag("--even-if-stopped", "even_if_stopped",
              "Also after a reset or shutdown by the host, whatever CSTS says")
        .nsid()
        .subsystem()
        .controller()
        .queue();
    add("fail", "End commands with a status instead of executing them")
        .status("status", "Type and code such as 2/0x81, or both in one: 0x281", true)
        .number("--crd", "crd", "N", 3, "With Command Retry Delay N, for hosts that enabled it")
        .count("Only the next N")
        .opcode()
        .words("--lba", "FIRST-LAST", "Only commands that touch one of these blocks",
               [this](const std::string& text) { parse_lba(text); })
        .nsid()
        .subsystem()
        .controller()
        .queue();
    add("corrupt", "Send wrong data digests, where those are on")
        .number("count", "count", "N", ~std::uint64_t{0}, "How many; none: 1")
        .subsystem()
        .controller()
        .queue();
    add("keep-alive", "Lose Keep Alive commands: neither notice nor answer them")
        .subsystem()
        .controller();
  }

  void add_namespaces() {
    constexpr std::uint64_t kNsidMax = 0xffff'ffff;
    add("ns-add", "Add a namespace and tell the hosts; prints its NSID")
        .spec()
        .number("--nsid", "nsid", "NSID", kNsidMax, "Its number; none: above the highest")
        .subsystem();
    add("ns-remove", "Remove a namespace and tell the hosts")
        .number("nsid", "nsid", "NSID", kNsidMax, "The namespace", true)
        .subsystem();
    add("ns-swap", "Put another disk with other identifiers under an NSID")
        .number("nsid", "nsid", "NSID", kNsidMax, "The namespace", true)
        .spec()
        .subsystem();
    add("ns-resize", "Give a namespace another size and tell the hosts")
        .number("nsid", "nsid", "NSID", kNsidMax, "The namespace", true)
        .words(
            "size", "SIZE", "Bytes, with K, M, G or T after it in powers of 1024",
            [this](const std::string& text) {
              const auto size = controller::parse_size(text);
              if (!size) throw CLI::ValidationError(size.error().message);
              args_["bytes"] = *size;
            },
            true)
        .subsystem();
    add("ns-protect", "Let no host write a namespace, and tell the hosts")
        .number("nsid", "nsid", "NSID", kNsidMax, "The namespace", true)
        .subsystem();
    add("ns-unprotect", "Let hosts write it again, and tell them")
        .number("nsid", "nsid", "NSID", kNsidMax, "The namespace", true)
        .subsystem();
  }

  void add_ana() {
    add("ana", "Change the state of an ANA group and tell the hosts")
        .number("group", "group", "GROUP", 0xffff'ffff, "The group, 1 and up", true)
        .operand("state", "state", "STATE",
                 "optimized, non-optimized, inaccessible, persistent-loss or change")
        .number("--port", "port", "ID", 0xffff,
                "Only for hosts that came by this port: the number of a --listen, from 1")
        .subsystem();
  }

  void add_subsystems() {
    const auto same = [](const std::string& text) { return text; };
    add("subsystem-add", "Add a subsystem; discovery tells the hosts that may use it")
        .operand("nqn", "nqn", "NQN", "Its name")
        .list("--namespace", "namespaces", "SPEC", "As for nvmf-target; may be repeated",
              &Verb::read_spec)
        .number("--ana", "ana", "GROUPS", 0xffff'ffff, "Report ANA, with that many groups")
        .list("--host", "hosts", "HOSTNQN", "Allow this host only; may be repeated", same)
        .words("--serial", "TEXT", "Its serial number",
               [this](const std::string& text) { args_["serial"] = text; });
    add("subsystem-remove", "Remove a subsystem: end its controllers, free its namespaces")
        .operand("nqn", "nqn", "NQN", "Its name");
    add("allow-host", "Allow a host to use a subsystem that not every host may use")
        .operand("hostnqn", "hostnqn", "HOSTNQN", "The host")
        .subsystem();
    add("disallow-host", "Allow it no more, and end its controllers")
        .operand("hostnqn", "hostnqn", "HOSTNQN", "The host")
        .subsystem();
    for (const bool more : {true, false}) {
      add(more ? "referral-add" : "referral-remove",
          more ? "Refer hosts to another discovery service" : "Do not refer to it any more")
          .words(
              "address", "ADDRESS", "tcp://ADDR:PORT",
              [this](const std::string& text) {
                const auto at = controller::parse_referral(text);
                if (!at) throw CLI::ValidationError(at.error().message);
                args_["at"] = text;
              },
              true);
    }
  }

  void parse_lba(const std::string& text) {
    const std::size_t dash = text.find('-');
    const auto first = parse_number(text.substr(0, dash));
    const auto last =
        dash == std::string::npos ? first : parse_number(std::string_view(text).substr(dash + 1));
    if (!first || !last || *first > *last) {
      throw CLI::ValidationError(fmt::format(
          "\"{}\" is no range of blocks: give the first and the last, such as 0-7", text));
    }
    args_["first_lba"] = *first;
    args_["last_lba"] = *last;
  }

  CLI::App& ctl_;
  std::string& chosen_;
  json& args_;
  std::deque<Verb> verbs_;  // they do not move
};

}  // namespace

std::string orders_socket(std::string_view text) {
  constexpr std::string_view kUnix = "unix:";
  if (text.starts_with(kUnix)) text.remove_prefix(kUnix.size());
  return std::string(text);
}

int target_ctl(int argc, char** argv) {
  CLI::App ctl("Changes a running target: faults on demand, namespaces.\n", "nvmf-target ctl");
  ctl.require_subcommand(1);
  std::string socket;
  ctl.add_option("socket", socket, "The socket that was given to --control")
      ->required()
      ->type_name("SOCKET");
  ctl.footer("`nvmf-target ctl SOCKET VERB --help` lists what a verb takes.\n");
  std::string verb;
  json args = json::object();
  const Verbs verbs(ctl, verb, args);
  try {
    ctl.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return ctl.exit(help);
  } catch (const CLI::ParseError& error) {
    complain(kProgram, usage_error(ctl, error));
    fmt::print(stderr, "Run nvmf-target ctl --help, or … VERB --help, for usage.\n");
    return kExitUsage;
  }
  const ControlAnswer answer = call(orders_socket(socket), verb, args, kPatience);
  if (!answer.ok) {
    complain(kProgram, answer.ok.error().message);
    return kExitFailure;
  }
  json fields = *answer.fields;
  fields.erase("ok");
  std::string out;
  if (verb == "show") {
    out = fields.dump(2) + '\n';
  } else if (!fields.empty()) {
    out = fields.begin()->dump() + '\n';  // a number of connections, or an NSID
  }
  std::fputs(out.c_str(), stdout);
  return flush_stdout(kProgram) ? kExitSuccess : kExitFailure;
}

}  // namespace nvmf::tools
