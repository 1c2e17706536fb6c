#include "connect_options.h"

#include <fmt/format.h>
#include <sys/un.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <filesystem>

#include "connect_config.h"
#include "connect_words.h"
#include "control/runtime_dir.h"
#include "frontends/nbd/kernel_sysfs.h"
#include "nvme/address.h"
#include "tool_program.h"
#include "tool_usage.h"

namespace nvmf::tools {

namespace {

constexpr const char* kProgram = "nvmf-connect";
/// What fits in a sockaddr_un, with its NUL.
constexpr std::size_t kSocketPathBytesMax = sizeof(sockaddr_un::sun_path) - 1;
constexpr const char* kDescription =
    "Connects to an NVMe/TCP subsystem and serves its namespaces: over NBD, as files (--fuse), or\n"
    "as block devices of the kernel (--nbd-device).\n"
    "Goes to the background when every export is ready and prints a line for each namespace:\n"
    "  nvmf0n1 nbd+unix:///nvmf0n1?socket=/run/nvmf/nvmf0.nbd.sock\n";
constexpr const char* kFooter =
    "The address is nvme+tcp://HOST[:PORT]/SUBNQN[/NSID], or -t tcp -a HOST -s PORT -n SUBNQN.\n"
    "In the background, what happens is written to NAME.log in the runtime directory\n"
    "($NVMF_RUNTIME_DIR, else /run/nvmf for root, else $XDG_RUNTIME_DIR/nvmf).\n"
    "End a connection with `nvmf disconnect NAME`. `man nvmf-connect` says the rest.\n";

/// Options that are this connection's alone, and not those of others that it makes.
constexpr std::initializer_list<std::string_view> kOwnOptions = {
    "transport", "traddr",      "trsvcid", "nqn",       "nbd",           "nbd-device",
    "fuse",      "allow-other", "name",    "discovery", "pcap",          "connect-all",
    "referred",  "foreground",  "run",     "verbose",   "output-format", "config"};

void add_discovery_options(CLI::App& app, ConnectOptions& options) {
  constexpr const char* kGroup = "With a discovery controller";
  app.add_flag("--discovery", options.discovery,
               "The subsystem is a discovery subsystem, whatever its NQN (default if that is "
               "nqn.2014-08.org.nvmexpress.discovery)")
      ->group(kGroup);
  app.add_flag("--connect-all", options.connect_all,
               "Connect to every subsystem of its log, also to those that come later")
      ->group(kGroup);
  app.add_flag("--referred", options.referred,
               "With --connect-all: discovery controllers that the log refers to are asked, but "
               "get no connection that stays, whatever they wish")
      ->group(kGroup);
}

void add_local_options(CLI::App& app, ConnectWords& words, ConnectOptions& options) {
  app.add_option("--nbd", words.nbd,
                 "Serve NBD at unix:PATH or tcp:ADDR:PORT; may be repeated (default: a unix socket "
                 "in the runtime directory)")
      ->type_name("WHERE")
      ->allow_extra_args(false);
  app.add_option("--fuse", options.fuse,
                 "Mount a file system on this empty directory, with a file for each namespace")
      ->type_name("DIR")
      ->check(not_empty);
  app.add_flag("--allow-other", options.allow_other,
               "With --fuse: let others in than the user who mounts, root for one (wants "
               "user_allow_other in /etc/fuse.conf)");
  app.add_option("--nbd-device", words.nbd_device,
                 "Make block devices of the kernel, as root: auto takes any that are free, "
                 "/dev/nbdN is for the first namespace and those behind it for the others")
      ->type_name("DEVICE");
  app.add_option("--name", options.params.name, "Name of the connection (default nvmf0, nvmf1, …)")
      ->type_name("NAME")
      ->check(not_empty);
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
  app.add_option("--pcap", options.pcap,
                 "Write what goes to the target and comes from it into this file, for Wireshark; "
                 "it has the data that is read and written")
      ->type_name("FILE")
      ->check(not_empty);
  app.add_option("--run", options.run,
                 "Serve while this shell command runs, with $uri, $mountpoint and $device set to "
                 "the first namespace's NBD URI, the folder of --fuse and the device of "
                 "--nbd-device, each where there is one; exit with its status")
      ->type_name("COMMAND")
      ->check(not_empty);
}

/// What has no meaning where there are no namespaces.
void check_discovery(const ConnectOptions& options) {
  if (!options.discovery) {
    if (options.connect_all) {
      wrong("--connect-all needs a discovery controller: give its address and --discovery");
    }
    return;
  }
  if (!options.nbd.empty() || !options.fuse.empty() || options.nbd_device || !options.run.empty()) {
    wrong(
        "a discovery controller has no namespaces to serve: leave --nbd, --nbd-device, --fuse and "
        "--run out");
  }
}

/// As it is to be shown, too: absolute, and with no slash at its end.
std::string mount_point(const std::string& text) {
  std::string path = std::filesystem::absolute(text).lexically_normal().string();
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

Result<void> complete(const ConnectWords& words, ConnectOptions& options) {
  for (const std::string& text : words.nbd) {
    auto endpoint = parse_nbd_endpoint(text);
    if (!endpoint) wrong(endpoint.error().message);
    options.nbd.push_back(std::move(*endpoint));
  }
  if (words.nbd_device) {
    auto device = parse_nbd_device(*words.nbd_device);
    if (!device) wrong(device.error().message);
    options.nbd_device = *device;
  }
  if (!options.params.name.empty()) {
    if (auto good = control::check_name(options.params.name); !good) wrong(good.error().message);
  }
  if (auto taken = take_words(words, options); !taken) return taken;
  check_discovery(options);
  if (options.allow_other && options.fuse.empty()) wrong("--allow-other is about --fuse DIR");
  if (!options.fuse.empty()) options.fuse = mount_point(options.fuse);
  options.foreground = options.foreground || !options.run.empty();
  if (!options.pcap.empty()) options.pcap = std::filesystem::absolute(options.pcap).string();
  return {};
}

/// Once more, with the file's options in front of those of the command line, which were good alone:
/// what is wrong now is the file's.
void parse_with_config(CLI::App& app, int argc, char** argv, const ConnectConfig& config) {
  auto words = words_of(config, app);
  if (!words) wrong(words.error().message);
  words->insert(words->end(), argv + 1, argv + argc);
  std::ranges::reverse(*words);  // as CLI11 wants them
  try {
    app.parse(std::move(*words));
  } catch (const CLI::ParseError& error) {
    const std::string sentence = usage_error(app, error);
    wrong(sentence + place_of(config, sentence));
  }
}

}  // namespace

Result<NbdDeviceOption> parse_nbd_device(const std::string& text) {
  if (text == "auto") return NbdDeviceOption{};
  constexpr std::string_view kPrefix = "/dev/nbd";
  std::uint32_t index = 0;
  const std::string_view digits = text.starts_with(kPrefix)
                                      ? std::string_view(text).substr(kPrefix.size())
                                      : std::string_view();
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
  if (digits.empty() || error != std::errc() || end != digits.data() + digits.size() ||
      index >= nbd::kKernelDevicesMax) {
    return fail(fmt::format("\"{}\" is no NBD device of the kernel: give auto, or /dev/nbdN with N "
                            "up to {}",
                            text, nbd::kKernelDevicesMax - 1),
                EINVAL);
  }
  return NbdDeviceOption{index};
}

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
    // A port alone would be taken for an address.
    if (text.find_first_not_of("0123456789", 4) == std::string::npos) {
      return fail(fmt::format("\"{}\" has no address: give tcp:ADDR:PORT, say tcp:127.0.0.1:{}",
                              text, text.size() > 4 ? text.substr(4) : "10809"),
                  EINVAL);
    }
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
  ConnectWords words;
  add_address_options(app, words, options);
  add_queue_options(app, words, options, Letters::connect);
  add_loss_options(app, words, options);
  add_local_options(app, words, options);
  add_discovery_options(app, options);
  add_refused_options(app, Letters::connect);
  std::optional<ConnectConfig> config;
  try {
    app.parse(argc, argv);
    if (!words.config.empty() && words.config != "none") {
      auto read = read_connect_config(words.config);
      if (!read) wrong(read.error().message);
      parse_with_config(app, argc, argv, *read);
      config = std::move(*read);
      if (options.params.name.empty()) options.params.name = config->name;
    }
    options.words = given_words(app, kOwnOptions);
    if (auto done = complete(words, options); !done) {
      complain(kProgram, done.error().message);
      return kExitFailure;
    }
  } catch (const CLI::Success& help) {  // --help, --version
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    std::string sentence = usage_error(app, error);
    if (config) sentence += place_of(*config, sentence);
    complain(kProgram, sentence);
    fmt::print(stderr, "Run {} --help for usage.\n", kProgram);
    return kExitUsage;
  }
  return std::nullopt;
}

}  // namespace nvmf::tools
