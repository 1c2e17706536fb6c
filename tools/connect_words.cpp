#include "connect_words.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "host/discovery.h"
#include "host/identity.h"
#include "nvme/address.h"
#include "nvme/text.h"
#include "tool_usage.h"

namespace nvmf::tools {

namespace {

/// A controller reports at most 65.5 s; whoever knows better may say up to an hour.
constexpr Duration kCqtMax = std::chrono::hours(1);
constexpr const char* kRefusedGroup = "Of nvme-cli, refused";

/// NVME_DEFAULT_KATO of Linux: between a host and a controller with namespaces.
constexpr std::uint32_t kKeepAliveSeconds = 5;

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
    "knows only \"none\" here: a configuration file has the options of one connection, for "
    "nvmf-connect. Give these options on the command line";

constexpr Refused kRefused[] = {
    {"-S,--dhchap-secret", "SECRET", "There is no authentication yet", kNoAuthentication},
    {"-C,--dhchap-ctrl-secret", "SECRET", "There is no authentication yet", kNoAuthentication},
    {"--tls", nullptr, "There is no TLS yet", kNoTls},
    {"--tls_key", "KEY", "There is no TLS yet", kNoTls},
    {"-O,--dump-config", nullptr, "No configuration file is written",
     "is not possible: a configuration file is written by hand here, with the options of one "
     "connection (man nvmf.conf). `nvmf list -o json` shows how each connection was made"},
};

void take_uri(const ConnectWords& words, ConnectOptions& options) {
  host::ConnectParams& params = options.params;
  if (!words.traddr.empty() || !words.nqn.empty() || !words.trsvcid.empty()) {
    wrong("Give the address either as a URI or with -a, -s and -n, not both");
  }
  auto uri = nvme::TargetUri::parse(words.uri);
  if (!uri) wrong(uri.error().message);
  // Whoever forgets the NQN means no discovery controller.
  if (uri->is_discovery() && !options.discovery &&
      words.uri.find(nvme::kDiscoveryNqn) == std::string::npos) {
    wrong(
        "The address names no subsystem: give nvme+tcp://HOST[:PORT]/SUBNQN; `nvmf discover "
        "nvme+tcp://HOST` lists those that there are, and --discovery stays connected to the "
        "discovery controller itself");
  }
  params.traddr = uri->host;
  params.port = uri->port;
  params.subnqn = uri->subnqn;
  params.namespace_selector = uri->namespace_selector;
}

void take_spelled(const ConnectWords& words, ConnectOptions& options) {
  host::ConnectParams& params = options.params;
  if (words.traddr.empty() || (words.nqn.empty() && !options.discovery)) {
    wrong("Give an address: nvme+tcp://HOST[:PORT]/SUBNQN, or -t tcp -a HOST -s PORT -n SUBNQN");
  }
  params.traddr = words.traddr;
  if (params.traddr.starts_with('[') && params.traddr.ends_with(']')) {
    params.traddr = params.traddr.substr(1, params.traddr.size() - 2);
  }
  params.subnqn = words.nqn.empty() ? std::string(nvme::kDiscoveryNqn) : words.nqn;
  params.port = options.discovery || params.subnqn == nvme::kDiscoveryNqn
                    ? nvme::kDefaultDiscoveryPort
                    : nvme::kDefaultPort;
  if (!words.trsvcid.empty()) {
    auto parsed = nvme::HostPort::parse("[::]:" + words.trsvcid);
    if (!parsed || parsed->port == 0) {
      wrong(fmt::format("\"{}\" is not a port (-s): it must be from 1 to 65535", words.trsvcid));
    }
    params.port = parsed->port;
  }
}

void take_address(const ConnectWords& words, ConnectOptions& options) {
  if (!words.transport.empty() && words.transport != "tcp") {
    wrong(fmt::format("The transport \"{}\" is not known: only tcp is", words.transport));
  }
  if (words.uri.empty()) {
    take_spelled(words, options);
  } else {
    take_uri(words, options);
  }
  if (options.params.subnqn == nvme::kDiscoveryNqn) options.discovery = true;
  if (options.discovery && options.params.namespace_selector.index() != 0) {
    wrong("The address names a namespace, and a discovery controller has none");
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
void take_loss(const ConnectWords& words, ConnectOptions& options) {
  auto& params = options.params;
  // A discovery controller is looked for until somebody says that it is enough.
  if (options.discovery) params.loss.ctrl_loss.reset();
  auto policy = words.timers.applied_to(params.loss);
  if (!policy) wrong(policy.error().message);
  params.loss = *policy;
  if (std::string note = note_about(params.loss); !note.empty() && !options.discovery) {
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
  if (options.discovery) return;  // nothing is written there
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

}  // namespace

[[noreturn]] void wrong(const std::string& sentence) {
  throw CLI::ValidationError(sentence);
}

void add_address_options(CLI::App& app, ConnectWords& words, ConnectOptions& options) {
  app.add_option("address", words.uri, "nvme+tcp://HOST[:PORT]/SUBNQN[/NSID]")->type_name("URI");
  app.add_option("-t,--transport", words.transport, "Transport: tcp")->type_name("STR");
  app.add_option("-a,--traddr", words.traddr, "Target's name or address")->type_name("HOST");
  app.add_option("-s,--trsvcid", words.trsvcid,
                 "Target's port (default 4420, 8009 of a discovery controller)")
      ->type_name("PORT");
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

void add_queue_options(CLI::App& app, ConnectWords& words, ConnectOptions& options,
                       Letters letters) {
  auto& params = options.params;
  app.add_option("-i,--nr-io-queues", words.nr_io_queues,
                 "I/O queues, a thread each (default: CPUs, at most 4)")
      ->type_name("N");
  app.add_option("-Q,--queue-size", params.queue_size, "Entries of an I/O queue (default 128)")
      ->type_name("N");
  app.add_option(
         "-k,--keep-alive-tmo", words.keep_alive_seconds,
         "Keep-alive timeout in seconds, 0 for none (default 5; 30 to a discovery controller)")
      ->type_name("SECONDS");
  app.add_option("-T,--tos", params.tos, "IP type of service, 0 to 255")->type_name("N");
  app.add_flag("-g,--hdr-digest", params.header_digest, "Check PDU headers by CRC32C");
  app.add_flag("-G,--data-digest", params.data_digest, "Check data by CRC32C");
  app.add_flag(letters == Letters::connect ? "-d,--disable-sqflow" : "--disable-sqflow",
               params.disable_sqflow, "Turn SQ flow control off");
  app.add_flag("--read-only", params.read_only, "Refuse everything that changes data");
  app.add_flag("-D,--duplicate-connect", options.duplicate_connect,
               "Connect although there is a connection to the same subsystem and address");
  app.add_option("-W,--nr-write-queues", words.nr_write_queues, "Accepted, without effect")
      ->type_name("N");
  app.add_option("-P,--nr-poll-queues", words.nr_poll_queues, "Accepted, without effect")
      ->type_name("N");
  if (letters == Letters::connect) {
    app.add_option("-J,--config", words.config,
                   "Take the options that are not given here from a file: NAME.conf in /etc/nvmf "
                   "or ~/.config/nvmf, or, with a slash in it, a path; none: from no file")
        ->type_name("NAME")
        ->check(not_empty);
    return;
  }
  app.add_option_function<std::string>(
         "-J,--config",
         [](const std::string& file) {
           if (file != "none") wrong(fmt::format("-J,--config {}", kNoConfigFile));
         },
         "Only \"none\": there is no configuration file")
      ->type_name("FILE");
}

void add_loss_options(CLI::App& app, ConnectWords& words, ConnectOptions& options) {
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

void add_refused_options(CLI::App& app, Letters letters) {
  for (const Refused& option : kRefused) {
    std::string names = option.names;
    // -S is --quiet there.
    if (letters == Letters::discovery && names.starts_with("-S,")) names.erase(0, 3);
    const auto refuse = [&option] { wrong(fmt::format("{} {}", option.names, option.sentence)); };
    if (option.value == nullptr) {
      app.add_flag_callback(names, refuse, option.help)->group(kRefusedGroup);
    } else {
      app.add_option_function<std::string>(
             names, [refuse](const std::string&) { refuse(); }, option.help)
          ->type_name(option.value)
          ->group(kRefusedGroup);
    }
  }
}

Result<void> take_words(const ConnectWords& words, ConnectOptions& options) {
  auto& params = options.params;
  take_address(words, options);
  const std::uint32_t standard =
      options.discovery ? host::kDiscoveryKeepAliveMs / 1000 : kKeepAliveSeconds;
  const std::uint32_t keep_alive_seconds = words.keep_alive_seconds.value_or(standard);
  if (keep_alive_seconds > host::kKeepAliveMsMax / 1000) {
    wrong(fmt::format("The keep-alive timeout is {} s but must be at most {} s", keep_alive_seconds,
                      host::kKeepAliveMsMax / 1000));
  }
  params.keep_alive_ms = keep_alive_seconds * 1000;
  params.nr_io_queues = words.nr_io_queues.value_or(host::default_io_queues());
  if (params.nr_io_queues == 0 || params.nr_io_queues > host::kIoQueuesMax) {
    wrong(fmt::format("The number of I/O queues (-i) is {} but must be from 1 to {}",
                      params.nr_io_queues, host::kIoQueuesMax));
  }
  if (options.discovery) params.nr_io_queues = 0;
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
  return {};
}

std::vector<std::string> given_words(const CLI::App& app,
                                     std::initializer_list<std::string_view> without) {
  std::vector<std::string> words;
  for (const CLI::Option* option : app.get_options()) {
    if (option->count() == 0 || option->get_lnames().empty()) continue;
    const std::string& name = option->get_lnames().front();
    if (std::ranges::find(without, name) != without.end()) continue;
    if (option->get_items_expected_max() == 0) {
      words.push_back("--" + name);
      continue;
    }
    for (const std::string& value : option->results()) {
      words.push_back(fmt::format("--{}={}", name, value));
    }
  }
  return words;
}

}  // namespace nvmf::tools
