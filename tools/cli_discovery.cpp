// The command line of the verbs about discovery: discover, connect-all, connect; and
// discovery.conf, whose lines are command lines.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "cli.h"
#include "connect_words.h"
#include "control/runtime_dir.h"
#include "host/identity.h"
#include "nvme/address.h"
#include "nvme/text.h"
#include "nvmf_discover.h"
#include "tool_program.h"

namespace nvmf::tools {

namespace {

/// Beyond this it is no list of discovery controllers.
constexpr std::uintmax_t kConfBytesMax = 1024 * 1024;

enum class Verb : std::uint8_t { discover, connect_all };

/// Options that are not those of the connections that are made.
constexpr std::initializer_list<std::string_view> kOwnOptions = {
    "transport",  "traddr", "trsvcid", "nqn",     "device", "output-format", "raw",
    "persistent", "quiet",  "force",   "verbose", "config", "no-nbft"};

/// What a look at a log does not need. It is taken all the same: nvme-cli's discover takes what its
/// connect-all does, and so does a line of discovery.conf, which is for both.
constexpr const char* kNotForDiscover[] = {"--nr-io-queues",
                                           "--queue-size",
                                           "--duplicate-connect",
                                           "--disable-sqflow",
                                           "--nr-write-queues",
                                           "--nr-poll-queues",
                                           "--read-only",
                                           "--fast_io_fail_tmo",
                                           "--cqt",
                                           "--no-fence",
                                           "--peer-close",
                                           "--unflushed",
                                           "--weak-identity",
                                           "--tos"};

void hide(CLI::App& app) {
  for (const char* name : kNotForDiscover) app.get_option(name)->group("");
}

/// One command line: the program's, or one of discovery.conf's.
class Line {
 public:
  void add_to(CLI::App& app, Verb verb) {
    request_.connect.discovery = true;
    add_address_options(app, words_, request_.connect);
    app.get_option("address")->type_name("TARGET")->description(
        "nvme+tcp://HOST[:PORT], or a connection to a discovery controller");
    app.get_option("--nqn")->description(
        "NQN of the discovery subsystem, if it has one of its own");
    app.get_option("--trsvcid")->description("Its port (default 8009)");
    app.get_option("--traddr")->description("Discovery controller's name or address");
    app.add_option("-d,--device", device_, "A connection to a discovery controller: ask that one")
        ->type_name("NAME")
        ->check(not_empty);
    add_format(app, request_.format, verb == Verb::discover);
    if (verb == Verb::discover) {
      app.add_option("-r,--raw", request_.raw_file, "Write the log as it came to this file")
          ->type_name("FILE")
          ->check(not_empty);
    }
    app.add_flag("-p,--persistent", request_.persistent,
                 verb == Verb::discover
                     ? "Stay connected to the discovery controller"
                     : "Stay connected to it, and connect to what comes later, too");
    app.add_flag("-S,--quiet", request_.quiet, "Say nothing of what is skipped");
    app.add_flag("--force", request_.force,
                 "With -p: a new connection although there is one already");
    app.add_flag_callback("--no-nbft", [] {}, "Accepted: no boot firmware table is read anyway");
    app.add_flag_callback(
           "--nbft",
           [] {
             wrong(
                 "--nbft is not possible: the boot firmware's table is read by nobody here. Give "
                 "the "
                 "address");
           },
           "Refused: the boot firmware's table is not read")
        ->group("Of nvme-cli, refused");
    accept_verbose(app);
    // What belongs to the connections that are made.
    add_queue_options(app, words_, request_.connect, Letters::discovery);
    add_loss_options(app, words_, request_.connect);
    add_refused_options(app, Letters::discovery);
    if (verb == Verb::discover) hide(app);
  }

  [[nodiscard]] bool names_somebody() const {
    return !words_.uri.empty() || !words_.traddr.empty() || !device_.empty();
  }

  /// Once, when `app` has been read. Throws what is bad usage.
  Result<DiscoverRequest> take(const CLI::App& app) {
    request_.connect.words = given_words(app, kOwnOptions);
    if (!words_.uri.empty() && !nvme::looks_like_uri(words_.uri)) {
      if (!device_.empty()) wrong("Give one connection, not two");
      device_ = std::exchange(words_.uri, {});
    }
    if (!device_.empty()) {
      if (!words_.uri.empty() || !words_.traddr.empty()) {
        wrong("Give either a connection or an address, not both");
      }
      if (auto found = take_device(); !found) return std::unexpected(found.error());
    }
    if (auto taken = take_words(words_, request_.connect); !taken) {
      return std::unexpected(taken.error());
    }
    return request_;
  }

  /// Of what was given, the options that a line of the file has, too.
  static std::vector<std::string> for_every_line(const CLI::App& app) {
    return given_words(app, {"device"});
  }

 private:
  Result<void> take_device() {
    if (auto good = control::check_name(device_); !good) return good;
    const auto runtime = control::RuntimeDir::open();
    if (!runtime) return std::unexpected(runtime.error());
    const auto found = runtime->find(device_);
    if (!found) {
      return fail(fmt::format("there is no connection {} in {}: `nvmf list` shows those that there "
                              "are",
                              device_, runtime->path()),
                  ENOENT);
    }
    words_.traddr = found->address;
    words_.trsvcid = std::to_string(found->port);
    words_.nqn = found->subnqn;
    return {};
  }

  ConnectWords words_;
  DiscoverRequest request_;
  std::string device_;
};

/// The user's own list before the system's.
std::filesystem::path conf_path() {
  const auto paths = host::IdentityPaths::from_environment();
  std::error_code error;
  if (!paths.user.empty()) {
    std::filesystem::path own = paths.user / "discovery.conf";
    if (std::filesystem::exists(own, error)) return own;
  }
  return paths.system / "discovery.conf";
}

Result<std::string> read_conf(const std::filesystem::path& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error) {
    return fail(
        fmt::format("no discovery controller is given, and there is no list of them: {}: {}; give "
                    "-t tcp -a HOST, or nvme+tcp://HOST",
                    path.string(), error.message()),
        ENOENT);
  }
  if (size > kConfBytesMax) {
    return fail(
        fmt::format("{} has {} bytes, and at most {} are read", path.string(), size, kConfBytesMax),
        EFBIG);
  }
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in) return fail(fmt::format("cannot read {}", path.string()), EIO);
  return text.str();
}

/// Words are what blanks separate, as nvme-cli has it; it takes "--traddr 1.2.3.4" and
/// "--traddr=1.2.3.4".
std::vector<std::string> words_of(const std::string& line) {
  std::vector<std::string> words;
  std::istringstream in(line);
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

Result<DiscoverRequest> parse_line(std::vector<std::string> words, Verb verb) {
  CLI::App app("", "nvmf");
  Line line;
  line.add_to(app, verb);
  // What the line says counts more than what stands before it, the command line's.
  for (CLI::Option* option : app.get_options()) {
    option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  }
  std::ranges::reverse(words);
  try {
    app.parse(std::move(words));
    if (!line.names_somebody()) return fail("it names no address (-a)", EINVAL);
    return line.take(app);
  } catch (const CLI::ParseError& error) {
    return fail(usage_error(app, error), EINVAL);
  }
}

/// The requests of discovery.conf, those of its lines that can be understood.
Result<std::vector<DiscoverRequest>> read_requests(const std::vector<std::string>& before,
                                                   Verb verb) {
  const std::filesystem::path path = conf_path();
  auto text = read_conf(path);
  if (!text) return std::unexpected(text.error());
  std::vector<DiscoverRequest> requests;
  std::istringstream lines(*text);
  std::size_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    std::vector<std::string> own = words_of(line);
    if (own.empty() || own.front().starts_with('#')) continue;
    std::vector<std::string> words = before;
    words.insert(words.end(), own.begin(), own.end());
    auto request = parse_line(std::move(words), verb);
    if (request) {
      requests.push_back(std::move(*request));
    } else {
      complain("nvmf", fmt::format("{}, line {}: {}", path.string(), number,
                                   nvme::printable(request.error().message)));
    }
  }
  if (requests.empty()) {
    return fail(fmt::format("no discovery controller is given, and {} names none; give -t tcp -a "
                            "HOST, or nvme+tcp://HOST",
                            path.string()),
                ENOENT);
  }
  return requests;
}

int run_lines(const std::vector<std::string>& before, Verb verb,
              int (*run)(const std::vector<DiscoverRequest>&)) {
  const auto requests = read_requests(before, verb);
  if (requests) return run(*requests);
  complain("nvmf", requests.error().message);
  return kExitFailure;
}

void add_verb(CLI::App& app, Chosen& chosen, const char* name, const char* help, Verb which,
              int (*run)(const std::vector<DiscoverRequest>&)) {
  auto* verb = app.add_subcommand(name, help);
  auto line = std::make_shared<Line>();
  line->add_to(*verb, which);
  verb->final_callback([&chosen, verb, line, which, run] {
    if (!line->names_somebody()) {
      chosen = [before = Line::for_every_line(*verb), which, run] {
        return run_lines(before, which, run);
      };
      return;
    }
    chosen = [request = line->take(*verb), run] {
      if (request) return run({*request});
      complain("nvmf", request.error().message);
      return kExitFailure;
    };
  });
}

}  // namespace

void add_discovery_verbs(CLI::App& app, Chosen& chosen) {
  add_verb(app, chosen, "discover", "Show what a discovery controller knows of", Verb::discover,
           &discover);
  add_verb(app, chosen, "connect-all", "Connect to all that discovery controllers know of",
           Verb::connect_all, &connect_all);
  auto* verb = app.add_subcommand("connect", "Make a connection: the same as nvmf-connect");
  // Whatever stands after it is nvmf-connect's, --help as well.
  verb->set_help_flag();
  verb->allow_extras();
  verb->prefix_command();
  verb->final_callback(
      [&chosen, verb] { chosen = [words = verb->remaining()] { return connect(words); }; });
}

}  // namespace nvmf::tools
