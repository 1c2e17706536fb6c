// nvmf-target: serves memory, files and NBD exports as NVMe namespaces over TCP.
//
// One reactor, one thread; `nvmf-target ctl` talks to one that runs. Exit status 0 after SIGTERM or
// SIGINT, 1 if something could not be had (a file, a server, a port), 2 for wrong usage.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "control/server.h"
#include "controller/config.h"
#include "controller/nbd_open.h"
#include "controller/target.h"
#include "io/reactor.h"
#include "io/signals.h"
#include "nvme/address.h"
#include "nvmf_target_control.h"
#include "tool_program.h"
#include "tool_usage.h"

namespace {

using nvmf::Result;
using nvmf::controller::ConfigFile;
using nvmf::controller::NamespaceConfig;

using nvmf::tools::kExitFailure;
using nvmf::tools::kExitUsage;

/// A thousand namespaces need 100 KiB; whatever is larger is another file.
constexpr std::size_t kConfigBytesMax = 16 * 1024 * 1024;

void complain(const std::string& sentence) {
  nvmf::tools::complain("nvmf-target", sentence);
}

std::string read_file(const std::string& path) {
  const auto refuse = [&path](const std::string& why) {
    throw CLI::ValidationError(
        fmt::format("The configuration file {} cannot be read: {}", path, why));
  };
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> in(std::fopen(path.c_str(), "re"),
                                                           &std::fclose);
  if (!in) refuse(std::strerror(errno));
  std::string text;
  std::array<char, 65536> piece{};
  while (std::feof(in.get()) == 0 && std::ferror(in.get()) == 0) {
    text.append(piece.data(), std::fread(piece.data(), 1, piece.size(), in.get()));
    if (text.size() > kConfigBytesMax) refuse("it is longer than 16 MiB");
  }
  if (std::ferror(in.get()) != 0) refuse(std::strerror(errno));
  return text;
}

/// Adds what a file says to what the command line has said so far.
void read_config_file(const std::string& path, ConfigFile& wanted) {
  const std::string text = read_file(path);
  auto parsed = nvmf::controller::parse_config(text);
  if (!parsed) {
    throw CLI::ValidationError(fmt::format("{} ({})", parsed.error().message, path));
  }
  auto subsystems = std::move(wanted.target.subsystems);
  auto listen = std::move(wanted.listen);
  auto referrals = std::move(wanted.target.referrals);
  wanted = std::move(*parsed);
  wanted.target.subsystems.insert(wanted.target.subsystems.begin(),
                                  std::make_move_iterator(subsystems.begin()),
                                  std::make_move_iterator(subsystems.end()));
  wanted.listen.insert(wanted.listen.begin(), listen.begin(), listen.end());
  auto& all = wanted.target.referrals;
  all.insert(all.begin(), referrals.begin(), referrals.end());
}

nvmf::controller::SubsystemConfig& last_subsystem(ConfigFile& wanted, const char* option) {
  if (wanted.target.subsystems.empty()) {
    throw CLI::ValidationError(
        fmt::format("{} belongs to a subsystem: give --subsystem NQN before it", option));
  }
  return wanted.target.subsystems.back();
}

/// The options whose order matters: each acts at the moment at which it is read.
void add_ordered_options(CLI::App& app, ConfigFile& wanted) {
  const auto ordered = [&app](const char* name, const char* value, const char* help,
                              const std::function<void(const std::string&)>& act) {
    app.add_option_function<std::string>(name, act, help)
        ->type_name(value)
        ->trigger_on_parse()
        ->allow_extra_args(false)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  };
  ordered("--listen", "ADDR:PORT",
          "Accept connections there; may be repeated. Port 0 picks a free one. [::]:4420 for IPv6",
          [&wanted](const std::string& text) {
            auto parsed = nvmf::nvme::HostPort::parse(text);
            if (!parsed) throw CLI::ValidationError(parsed.error().message);
            if (parsed->host == "localhost") parsed->host = "127.0.0.1";
            wanted.listen.push_back(std::move(*parsed));
          });
  ordered("--subsystem", "NQN",
          "Begin a subsystem; --namespace, --host and --ana after it are its own",
          [&wanted](const std::string& nqn) { wanted.target.subsystems.emplace_back().nqn = nqn; });
  ordered("--namespace", "SPEC",
          "Add a namespace (NSIDs from 1): memory:SIZE[,cache=volatile], file:PATH or "
          "nbd:URI[,timeout=SECONDS][,unflushed=trust|fail], each with ,block=512 or ,block=4096, "
          ",uuid=UUID and ,anagrp=GROUP after it. SIZE takes K, M, G, T",
          [&wanted](const std::string& text) {
            auto& subsystem = last_subsystem(wanted, "--namespace");
            auto parsed = NamespaceConfig::parse(text);
            if (!parsed) throw CLI::ValidationError(parsed.error().message);
            subsystem.namespaces.push_back(std::move(*parsed));
          });
  ordered(
      "--host", "NQN", "Allow this host to connect; without any, every host may",
      [&wanted](const std::string& nqn) { last_subsystem(wanted, "--host").hosts.push_back(nqn); });
  ordered("--ana", "GROUPS",
          "Report asymmetric namespace access for the subsystem, with that many groups",
          [&wanted](const std::string& text) {
            auto& subsystem = last_subsystem(wanted, "--ana");
            const auto groups = nvmf::controller::parse_size(text);
            if (!groups || *groups == 0 || *groups > nvmf::controller::kAnaGroupsMax) {
              throw CLI::ValidationError(fmt::format("'{}' is no number of ANA groups: 1 to {} are",
                                                     text, nvmf::controller::kAnaGroupsMax));
            }
            subsystem.ana_groups = static_cast<std::uint32_t>(*groups);
          });
  ordered("--referral", "ADDRESS",
          "Refer hosts to the discovery service at tcp://ADDR:PORT; may be repeated",
          [&wanted](const std::string& text) {
            auto parsed = nvmf::controller::parse_referral(text);
            if (!parsed) throw CLI::ValidationError(parsed.error().message);
            wanted.target.referrals.push_back(std::move(*parsed));
          });
  ordered("--config", "FILE", "Read subsystems, addresses and limits from a JSON file",
          [&wanted](const std::string& path) { read_config_file(path, wanted); });
}

/// ctl is listed in the help; main() has taken it away where it stands first.
void add_ctl(CLI::App& app) {
  app.add_subcommand("ctl", "Change a running target: faults on demand, namespaces")
      ->prefix_command()
      ->preparse_callback([](std::size_t) {
        throw CLI::ValidationError("ctl stands first: nvmf-target ctl SOCKET VERB");
      });
}

/// What the command line asks for besides the target itself.
struct Wanted : ConfigFile {
  std::string control;  // a unix socket's path, or empty
};

/// Exit status of a usage error, or nothing to go on with.
std::optional<int> parse_arguments(int argc, char** argv, Wanted& wanted) {
  CLI::App app(
      "Serves memory, files and NBD exports as NVMe namespaces over TCP, until SIGTERM or SIGINT.\n"
      "Prints nvme+tcp://ADDR:PORT/NQN for each subsystem once it accepts connections.\n",
      "nvmf-target");
  app.set_version_flag("--version", "nvmf-target " NVMF_VERSION);
  app.footer(
      "Example: nvmf-target --listen 127.0.0.1:4420 --subsystem nqn.2024-05.org.example:disks "
      "--namespace memory:1G\n`man nvmf-target` says the rest.\n");
  add_ctl(app);
  add_ordered_options(app, wanted);
  auto& target = wanted.target;
  // Given here, they win over those of a configuration file, wherever that stands.
  std::optional<std::uint32_t> max_queues;
  std::optional<std::uint32_t> queue_size;
  std::optional<std::uint32_t> in_capsule;
  std::optional<std::uint16_t> cqt;
  app.add_option("--max-queues", max_queues,
                 fmt::format("I/O queues of a controller (default {})", target.max_queues))
      ->type_name("N");
  app.add_option("--queue-size", queue_size,
                 fmt::format("Entries of an I/O queue (default {})", target.queue_entries))
      ->type_name("N");
  app.add_option("--in-capsule", in_capsule,
                 fmt::format("Bytes of data that a command may carry with it (default {})",
                             target.in_capsule_bytes))
      ->type_name("BYTES");
  app.add_option("--cqt", cqt, "Command Quiesce Time to report, in milliseconds (default 0: none)")
      ->type_name("MS");
  app.add_option("--control", wanted.control, "Take the orders of `nvmf-target ctl SOCKET` there")
      ->type_name("SOCKET");
  try {
    app.parse(argc, argv);
    if (max_queues) target.max_queues = *max_queues;
    if (queue_size) target.queue_entries = *queue_size;
    if (in_capsule) target.in_capsule_bytes = *in_capsule;
    if (cqt) target.cqt_ms = *cqt;
    if (wanted.listen.empty()) {
      throw CLI::ValidationError("Give at least one --listen ADDR:PORT, such as 127.0.0.1:4420");
    }
    // Without one it can still refer, and be given some by ctl.
    if (target.subsystems.empty() && target.referrals.empty() && wanted.control.empty()) {
      throw CLI::ValidationError("Give at least one --subsystem NQN with a --namespace after it");
    }
    if (auto checked = nvmf::controller::check_config(target); !checked) {
      throw CLI::ValidationError(checked.error().message);
    }
  } catch (const CLI::Success& help) {  // --help, --version
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    complain(nvmf::tools::usage_error(app, error));
    fmt::print(stderr, "Run nvmf-target --help for usage.\n");
    return kExitUsage;
  }
  return std::nullopt;
}

/// A port that is in use may still be that of a target that was killed a moment ago: the kernel
/// takes its time to give back the sockets of an io_uring. Whoever starts it again at once
/// (systemd) wants it to listen, not to fail.
Result<nvmf::transport::Endpoint> listen_soon(nvmf::controller::Target& target,
                                              const nvmf::nvme::HostPort& at) {
  constexpr int kTries = 40;
  constexpr timespec kPause{.tv_sec = 0, .tv_nsec = 50'000'000};
  for (int tries = 1;; ++tries) {
    auto place = target.listen({.host = at.host, .port = at.port, .unix_path = {}});
    if (place || place.error().code != EADDRINUSE || tries == kTries) return place;
    ::nanosleep(&kPause, nullptr);
  }
}

Result<void> listen_everywhere(nvmf::controller::Target& target, const ConfigFile& wanted) {
  std::vector<nvmf::transport::Endpoint> places;
  for (const nvmf::nvme::HostPort& at : wanted.listen) {
    auto place = listen_soon(target, at);
    if (!place) return std::unexpected(std::move(place.error()));
    places.push_back(std::move(*place));
  }
  for (const auto& place : places) {
    for (const auto& subsystem : target.config().subsystems) {
      const nvmf::nvme::TargetUri uri{.host = place.host,
                                      .port = place.port,
                                      .subnqn = subsystem.nqn,
                                      .namespace_selector = {}};
      std::puts(uri.to_string().c_str());
    }
  }
  nvmf::tools::flush_stdout("nvmf-target");  // it serves all the same
  return {};
}

/// Whoever may connect to the socket may do anything with the target: only its owner.
Result<void> listen_for_orders(nvmf::control::Server& server, const std::string& path) {
  const mode_t before = ::umask(0177);
  auto listening = server.listen({.host = {}, .port = 0, .unix_path = path});
  ::umask(before);
  return listening;
}

/// Those namespaces whose disks answer later than at once. A status to exit with, or nothing.
std::optional<int> open_nbd(nvmf::io::Reactor& loop, nvmf::controller::NbdOpener& opener,
                            nvmf::controller::TargetConfig& target) {
  std::vector<NamespaceConfig> all;
  for (const auto& subsystem : target.subsystems) {
    all.insert(all.end(), subsystem.namespaces.begin(), subsystem.namespaces.end());
  }
  if (!nvmf::controller::NbdOpener::needed(all)) return std::nullopt;
  std::optional<int> status;
  auto signals = nvmf::io::SignalWatch::make(loop, {SIGTERM, SIGINT}, [&](int) {
    status = 0;
    loop.stop();
  });
  if (!signals) {
    complain(signals.error().message);
    return kExitFailure;
  }
  opener.open(std::move(all), [&](Result<std::vector<NamespaceConfig>> opened) {
    if (opened) {
      auto next = opened->begin();
      for (auto& subsystem : target.subsystems) {
        for (NamespaceConfig& ns : subsystem.namespaces) ns = std::move(*next++);
      }
    } else {
      complain(opened.error().message);
      status = kExitFailure;
    }
    loop.stop();
  });
  loop.run();
  return status;
}

int serve(Wanted& wanted) {
  auto reactor = nvmf::io::make_reactor();
  if (!reactor) {
    complain(reactor.error().message);
    return kExitFailure;
  }
  nvmf::io::Reactor& loop = **reactor;
  wanted.target.log = complain;
  nvmf::controller::NbdOpener opener(loop, complain);
  nvmf::controller::TargetConfig config = wanted.target;  // its disks may not outlive the loop
  config.crdt[0] = nvmf::controller::kNotReadyRetryUnits;
  if (const auto status = open_nbd(loop, opener, config)) return *status;
  auto target = nvmf::controller::Target::create(loop, std::move(config));
  if (!target) {
    complain(target.error().message);
    return kExitFailure;
  }
  nvmf::control::Server orders(loop);
  orders.admit_only(::geteuid());
  nvmf::tools::add_target_verbs(orders, **target, opener);
  bool stopping = false;
  Result<void> outcome;
  auto signals = nvmf::io::SignalWatch::make(loop, {SIGTERM, SIGINT}, [&](int) {
    if (std::exchange(stopping, true)) return;
    orders.stop([&] {
      (*target)->stop([&](Result<void> stopped) {
        outcome = std::move(stopped);
        loop.stop();
      });
    });
  });
  if (!signals) {
    complain(signals.error().message);
    return kExitFailure;
  }
  if (!wanted.control.empty()) {
    if (auto listening = listen_for_orders(orders, nvmf::tools::orders_socket(wanted.control));
        !listening) {
      complain(listening.error().message);
      return kExitFailure;
    }
  }
  if (auto listening = listen_everywhere(**target, wanted); !listening) {
    complain(listening.error().message);
    return kExitFailure;
  }
  loop.run();
  if (!outcome) {
    // A disk still works on our buffers: nothing may be taken down in order.
    complain(outcome.error().message);
    std::_Exit(kExitFailure);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  if (argc > 1 && std::strcmp(argv[1], "ctl") == 0) {
    return nvmf::tools::target_ctl(argc - 1, argv + 1);
  }
  if (auto blocked = nvmf::io::block_signals({SIGTERM, SIGINT}); !blocked) {
    complain(blocked.error().message);
    return kExitFailure;
  }
  Wanted wanted;
  if (const auto status = parse_arguments(argc, argv, wanted)) return *status;
  return serve(wanted);
}
