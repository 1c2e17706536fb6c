#include "connect_options.h"

#include <fmt/format.h>
#include <sys/un.h>

#include <CLI/CLI.hpp>
#include <filesystem>

#include "control/runtime_dir.h"
#include "host/identity.h"
#include "nvme/address.h"
#include "nvme/text.h"
#include "tool_program.h"
#include "tool_timers.h"
#include "tool_usage.h"

namespace nvmf::tools {

namespace {

constexpr const char* kProgram = "nvmf-connect";
/// What fits in a sockaddr_un, with its NUL.
constexpr std::size_t kSocketPathBytesMax = sizeof(sockaddr_un::sun_path) - 1;
constexpr const char* kDescription =
    "Connects to an NVMe/TCP subsystem and serves its namespaces over NBD.\n"
    "Goes to the background when every export is ready and prints a line for each namespace:\n"
    "  nvmf0n1 nbd+unix:///nvmf0n1?socket=/run/nvmf/nvmf0.nbd.sock\n";
constexpr const char* kFooter =
    "The address is nvme+tcp://HOST[:PORT]/SUBNQN[/NSID], or -t tcp -a HOST -s PORT -n SUBNQN.\n"
    "In the background, what happens is written to NAME.log in the runtime directory\n"
    "($NVMF_RUNTIME_DIR, else /run/nvmf for root, else $XDG_RUNTIME_DIR/nvmf).\n"
    "End a connection with `nvmf disconnect NAME`. `man nvmf-connect` says the rest.\n";
/// A controller reports at most 65.5 s; whoever knows better may say up to an hour.
constexpr Duration kCqtMax = std::chrono::hours(1);
constexpr const char* kRefusedGroup = "Of nvme-cli, refused";

/// Options of nvme-cli's that need what this program does not have: the name that `-X` and `--xyz`
/// have in common is given in the sentence.
struct Refused {
  const char* names;
  const char* value;  // nullptr: a flag
  const char* help;
  const char* sentence;
};

constexpr const char* kNoAuthentication =
    "is not possible yet: there is no in-band authentication here. Leave the option out if the "
    "target does without it; the kernel's host (`nvme connect`) has it";
constexpr const char* kNoTls =
    "is not possible yet: there is no TLS here. Connect to a port of the target without TLS, "
    "through a VPN or a tunnel if the network is not your own";
constexpr const char* kNoConfigFile =
    "knows only \"none\" here: connections are not configured in a file. Give the options on the "
    "command line, or keep them in a script";

constexpr Refused kRefused[] = {
    {"-S,--dhchap-secret", "SECRET", "There is no authentication yet", kNoAuthentication},
    {"-C,--dhchap-ctrl-secret", "SECRET", "There is no authentication yet", kNoAuthentication},
    {"--tls", nullptr, "There is no TLS yet", kNoTls},
    {"--tls_key", "KEY", "There is no TLS yet", kNoTls},
    {"-O,--dump-config", nullptr, "There is no configuration file",
     "is not possible: connections are not configured in a file here, so there is none to show. "
     "`nvmf list -o json` shows how each connection was made"},
};

/// What the command line says, before it is checked as a whole.
struct Words {
  std::string uri, transport, traddr, trsvcid, nqn, hostnqn, hostid;
  std::vector<std::string> nbd;
  std::optional<std::uint32_t> nr_io_queues, nr_write_queues, nr_poll_queues;
  std::uint32_t keep_alive_seconds = 5;
  TimerWords timers;
  std::string cqt;
  std::string peer_close;
  std::string unflushed;
};

[[noreturn]] void wrong(const std::string& sentence) {
  throw CLI::ValidationError(sentence);
}

void add_address_options(CLI::App& app, Words& words, ConnectOptions& options) {
  app.add_option("address", words.uri, "nvme+tcp://HOST[:PORT]/SUBNQN[/NSID]")->type_name("URI");
  app.add_option("-t,--transport", words.transport, "Transport: tcp")->type_name("STR");
  app.add_option("-a,--traddr", words.traddr, "Target's name or address")->type_name("HOST");
  app.add_option("-s,--trsvcid", words.trsvcid, "Target's port (default 4420)")->type_name("PORT");
  app.add_option("-n,--nqn", words.nqn, "NQN of the subsystem")->type_name("NQN");
  app.add_option("-w,--host-traddr", options.params.host_traddr, "Source address to connect from")
      ->type_name("ADDR");
  app.add_option("-f,--host-iface", options.params.host_iface, "Interface to connect through")
      ->type_name("IFACE");
  app.add_option("-q,--hostnqn", words.hostnqn,
                 "NQN of this host (default: /etc/nvme/hostnqn, else one kept for this user)")
      ->type_name("NQN");
  app.add_option("-I,--hostid", words.hostid, "UUID of this host")->type_name("UUID");
}

void add_queue_options(CLI::App& app, Words& words, ConnectOptions& options) {
  auto& params = options.params;
  app.add_option("-i,--nr-io-queues", words.nr_io_queues,
                 "I/O queues, a thread each (default: CPUs, at most 4)")
      ->type_name("N");
  app.add_option("-Q,--queue-size", params.queue_size, "Entries of an I/O queue (default 128)")
      ->type_name("N");
  app.add_option("-k,--keep-alive-tmo", words.keep_alive_seconds,
                 "Keep-alive timeout in seconds, 0 for none (default 5)")
      ->type_name("SECONDS");
  app.add_option("-T,--tos", params.tos, "IP type of service, 0 to 255")->type_name("N");
  app.add_flag("-g,--hdr-digest", params.header_digest, "Check PDU headers by CRC32C");
  app.add_flag("-G,--data-digest", params.data_digest, "Check data by CRC32C");
  app.add_flag("-d,--disable-sqflow", params.disable_sqflow, "Turn SQ flow control off");
  app.add_flag("-D,--duplicate-connect", options.duplicate_connect,
               "Connect although there is a connection to the same subsystem and address");
  app.add_option("-W,--nr-write-queues", words.nr_write_queues, "Accepted, without effect")
      ->type_name("N");
  app.add_option("-P,--nr-poll-queues", words.nr_poll_queues, "Accepted, without effect")
      ->type_name("N");
  app.add_option_function<std::string>(
         "-J,--config",
         [](const std::string& file) {
           if (file != "none") wrong(fmt::format("-J,--config {}", kNoConfigFile));
         },
         "Only \"none\": there is no configuration file")
      ->type_name("FILE");
}

/// "$COMMAND" in a script where nothing of that name is set means something else than no option.
std::string not_empty(const std::string& value) {
  return value.empty() ? "what stands after it is empty" : "";
}

void add_loss_options(CLI::App& app, Words& words, ConnectOptions& options) {
  constexpr const char* kGroup = "When the target is lost";
  const auto add = [&app](const char* names, std::string& word, const char* help,
                          const char* value) {
    app.add_option(names, word, help)->group(kGroup)->type_name(value)->check(not_empty);
  };
  add("-c,--reconnect-delay", words.timers.reconnect_delay,
      "Longest pause between two attempts to connect again (default 10)", "SECONDS");
  add("-l,--ctrl-loss-tmo", words.timers.ctrl_loss,
      "Give the connection up after so long, -1 for never (default 600)", "SECONDS");
  add("-F,--fast_io_fail_tmo", words.timers.fast_io_fail,
      "Fail requests after so long until the target is back, -1 for never (default -1)", "SECONDS");
  add("--cqt", words.cqt,
      "How long a target that does not say so may go on executing after it noticed that we are "
      "gone (default 10)",
      "SECONDS");
  app.add_flag_callback(
         "--no-fence", [&options] { options.params.fence = false; },
         "Write at once where an unanswered write may still be executed: data may be lost")
      ->group(kGroup);
  add("--peer-close", words.peer_close,
      "Who closes connections: trusted (the target, default), or untrusted (perhaps a proxy)",
      "WHO");
  add("--unflushed", words.unflushed,
      "Writes that were not flushed when the target was lost: trust (default), fail or replay",
      "WHAT");
  app.add_flag("--weak-identity", options.params.weak_identity,
               "Recognise a namespace without identifiers by serial number and size")
      ->group(kGroup);
}

void add_refused_options(CLI::App& app) {
  for (const Refused& option : kRefused) {
    const auto refuse = [&option] { wrong(fmt::format("{} {}", option.names, option.sentence)); };
    if (option.value == nullptr) {
      app.add_flag_callback(option.names, refuse, option.help)->group(kRefusedGroup);
    } else {
      app.add_option_function<std::string>(
             option.names, [refuse](const std::string&) { refuse(); }, option.help)
          ->type_name(option.value)
          ->group(kRefusedGroup);
    }
  }
}

void add_local_options(CLI::App& app, Words& words, ConnectOptions& options) {
  app.add_option("--nbd", words.nbd,
                 "Serve NBD at unix:PATH or tcp:ADDR:PORT; may be repeated (default: a unix socket "
                 "in the runtime directory)")
      ->type_name("WHERE")
      ->allow_extra_args(false);
  app.add_option("--name", options.params.name, "Name of the connection (default nvmf0, nvmf1, …)")
      ->type_name("NAME")
      ->check(not_empty);
  app.add_flag("--read-only", options.params.read_only, "Refuse everything that changes data");
  app.add_flag("--foreground", options.foreground, "Stay in the foreground");
  app.add_flag("-v,--verbose", options.verbose,
               "Say more on stderr, in the foreground; the log in the background has it anyway");
  app.add_option_function<std::string>(
         "-o,--output-format",
         [&options](const std::string& word) {
           if (word != "normal" && word != "json") {
             wrong(fmt::format("The output format {} is not known: normal and json are", word));
           }
           options.json = word == "json";
         },
         "How to print what is served: normal (a line for each namespace) or json")
      ->type_name("FORMAT");
  app.add_option("--run", options.run,
                 "Serve while this shell command runs, with $uri set to the first namespace's NBD "
                 "URI; exit with its status")
      ->type_name("COMMAND")
      ->check(not_empty);
}

void take_uri(const Words& words, host::ConnectParams& params) {
  if (!words.traddr.empty() || !words.nqn.empty() || !words.trsvcid.empty()) {
    wrong("Give the address either as a URI or with -a, -s and -n, not both");
  }
  auto uri = nvme::TargetUri::parse(words.uri);
  if (!uri) wrong(uri.error().message);
  params.traddr = uri->host;
  params.port = uri->port;
  params.subnqn = uri->subnqn;
  params.namespace_selector = uri->namespace_selector;
}

void take_words(const Words& words, host::ConnectParams& params) {
  if (words.traddr.empty() || words.nqn.empty()) {
    wrong("Give an address: nvme+tcp://HOST[:PORT]/SUBNQN, or -t tcp -a HOST -s PORT -n SUBNQN");
  }
  params.traddr = words.traddr;
  if (params.traddr.starts_with('[') && params.traddr.ends_with(']')) {
    params.traddr = params.traddr.substr(1, params.traddr.size() - 2);
  }
  params.subnqn = words.nqn;
  params.port = nvme::kDefaultPort;
  if (!words.trsvcid.empty()) {
    auto parsed = nvme::HostPort::parse("[::]:" + words.trsvcid);
    if (!parsed || parsed->port == 0) {
      wrong(fmt::format("\"{}\" is not a port (-s): it must be from 1 to 65535", words.trsvcid));
    }
    params.port = parsed->port;
  }
}

void take_address(const Words& words, host::ConnectParams& params) {
  if (!words.transport.empty() && words.transport != "tcp") {
    wrong(fmt::format("The transport \"{}\" is not known: only tcp is", words.transport));
  }
  if (words.uri.empty()) {
    take_words(words, params);
  } else {
    take_uri(words, params);
  }
  if (params.subnqn == nvme::kDiscoveryNqn) {
    wrong(
        "The address names the discovery subsystem, or none, which has no namespaces to serve: "
        "give nvme+tcp://HOST[:PORT]/SUBNQN");
  }
}

/// The word that stands for one of several values.
template <class T>
T one_of(const char* option, const std::string& word,
         std::initializer_list<std::pair<std::string_view, T>> known) {
  std::string all;
  for (const auto& [name, value] : known) {
    if (word == name) return value;
    all += (all.empty() ? "" : " or ") + std::string(name);
  }
  wrong(fmt::format("{} cannot be \"{}\": give {}", option, nvme::printable(word), all));
}

/// What is to happen when the target is lost.
void take_loss(const Words& words, ConnectOptions& options) {
  auto& params = options.params;
  auto policy = words.timers.applied_to(params.loss);
  if (!policy) wrong(policy.error().message);
  params.loss = *policy;
  if (std::string note = note_about(params.loss); !note.empty()) {
    options.notes.push_back(std::move(note));
  }
  if (!words.cqt.empty()) {
    auto cqt = parse_seconds("--cqt", words.cqt, kCqtMax);
    if (!cqt) wrong(cqt.error().message);
    params.cqt_unreported = *cqt;
  }
  if (!words.peer_close.empty()) {
    params.trust_peer_close =
        one_of<bool>("--peer-close", words.peer_close, {{"trusted", true}, {"untrusted", false}});
  }
  if (!words.unflushed.empty()) {
    params.unflushed = one_of<host::Unflushed>("--unflushed", words.unflushed,
                                               {{"trust", host::Unflushed::trust},
                                                {"fail", host::Unflushed::fail},
                                                {"replay", host::Unflushed::replay}});
  }
  if (!params.fence) {
    options.notes.push_back(
        "note: --no-fence: a write that was sent before the target was lost may be executed after "
        "what is written later, and undo it");
  } else if (params.keep_alive_ms == 0) {
    options.notes.push_back(
        "note: without a keep-alive timeout (-k 0) a target that falls silent is noticed only when "
        "a command is not answered, and nobody knows for how long it goes on executing what it "
        "got: the places of such writes stay closed to other writes for good");
  }
}

/// Everything that depends on more than one option. Throws what is bad usage; what this machine
/// lacks is an error.
Result<void> complete(const Words& words, ConnectOptions& options) {
  auto& params = options.params;
  take_address(words, params);
  for (const std::string& text : words.nbd) {
    auto endpoint = parse_nbd_endpoint(text);
    if (!endpoint) wrong(endpoint.error().message);
    options.nbd.push_back(std::move(*endpoint));
  }
  if (!params.name.empty()) {
    if (auto good = control::check_name(params.name); !good) wrong(good.error().message);
  }
  if (words.keep_alive_seconds > host::kKeepAliveMsMax / 1000) {
    wrong(fmt::format("The keep-alive timeout is {} s but must be at most {} s",
                      words.keep_alive_seconds, host::kKeepAliveMsMax / 1000));
  }
  params.keep_alive_ms = words.keep_alive_seconds * 1000;
  params.nr_io_queues = words.nr_io_queues.value_or(host::default_io_queues());
  if (params.nr_io_queues == 0 || params.nr_io_queues > host::kIoQueuesMax) {
    wrong(fmt::format("The number of I/O queues (-i) is {} but must be from 1 to {}",
                      params.nr_io_queues, host::kIoQueuesMax));
  }
  for (const auto& [given, name] : {std::pair(words.nr_write_queues, "-W/--nr-write-queues"),
                                    std::pair(words.nr_poll_queues, "-P/--nr-poll-queues")}) {
    if (given) {
      options.notes.push_back(
          fmt::format("note: {} has no effect here: every I/O queue takes reads and writes, and "
                      "none polls",
                      name));
    }
  }
  auto identity =
      host::host_identity(words.hostnqn, words.hostid, host::IdentityPaths::from_environment());
  if (!identity) {
    if (!words.hostnqn.empty() || !words.hostid.empty()) wrong(identity.error().message);
    return std::unexpected(identity.error());
  }
  params.hostnqn = identity->hostnqn;
  params.hostid = identity->hostid;
  take_loss(words, options);
  if (auto valid = params.validate(); !valid) wrong(valid.error().message);
  options.foreground = options.foreground || !options.run.empty();
  return {};
}

}  // namespace

Result<transport::Endpoint> parse_nbd_endpoint(const std::string& text) {
  transport::Endpoint endpoint;
  if (text.starts_with("unix:") && text.size() > 5) {
    std::error_code error;
    endpoint.unix_path = std::filesystem::absolute(text.substr(5), error).string();
    if (error) return fail(fmt::format("{} is no path: {}", text, error.message()), EINVAL);
    if (endpoint.unix_path.size() > kSocketPathBytesMax) {
      return fail(fmt::format("the socket path {} is longer than the {} bytes that the system "
                              "allows: choose a shorter one",
                              endpoint.unix_path, kSocketPathBytesMax),
                  EINVAL);
    }
    return endpoint;
  }
  if (text.starts_with("tcp:")) {
    auto parsed = nvme::HostPort::parse(text.substr(4), 10809);
    if (!parsed) return std::unexpected(parsed.error());
    endpoint.host = parsed->host == "localhost" ? "127.0.0.1" : parsed->host;
    endpoint.port = parsed->port;
    return endpoint;
  }
  return fail(fmt::format("\"{}\" is no place for NBD: give unix:PATH or tcp:ADDR:PORT", text),
              EINVAL);
}

std::optional<int> parse_connect_options(int argc, char** argv, ConnectOptions& options) {
  CLI::App app(kDescription, kProgram);
  app.set_version_flag("--version", std::string(kProgram) + " " NVMF_VERSION);
  app.footer(kFooter);
  options.params.name.clear();
  Words words;
  add_address_options(app, words, options);
  add_queue_options(app, words, options);
  add_loss_options(app, words, options);
  add_local_options(app, words, options);
  add_refused_options(app);
  try {
    app.parse(argc, argv);
    if (auto done = complete(words, options); !done) {
      complain(kProgram, done.error().message);
      return kExitFailure;
    }
  } catch (const CLI::Success& help) {  // --help, --version
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    complain(kProgram, usage_error(app, error));
    fmt::print(stderr, "Run {} --help for usage.\n", kProgram);
    return kExitUsage;
  }
  return std::nullopt;
}

}  // namespace nvmf::tools
