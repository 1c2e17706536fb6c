// nvmf-bench: what a remote read or write costs, beside what the bytes alone cost.
//
// Exit status: 0 when it measured, 1 when something failed, 2 for wrong usage.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include "bench_figures.h"
#include "bench_floor.h"
#include "bench_io.h"
#include "host/identity.h"
#include "host/log.h"
#include "nvme/address.h"
#include "tool_log.h"
#include "tool_program.h"
#include "tool_usage.h"

namespace {

using namespace nvmf;
using namespace nvmf::tools;

constexpr const char* kProgram = "nvmf-bench";
constexpr std::uint32_t kDepthMax = 1024;
constexpr std::uint32_t kBlockBytesMax = 1u << 20;
constexpr double kSecondsMax = 3600;

struct Words {
  std::string uri, pattern = "randread", block = "4096", format = "normal";
  std::string hostnqn, hostid;
  std::vector<std::uint32_t> buffer_kib;
  std::uint32_t depth = 1, queues = 1;
  double seconds = 5;
  bool canned = false, spin = false, write = false;
  bool header_digest = false, data_digest = false, disable_sqflow = false;
};

[[noreturn]] void wrong(const std::string& sentence) {
  throw CLI::ValidationError(sentence);
}

void add_workload(CLI::App& verb, Words& words) {
  verb.add_option("--rw", words.pattern,
                  "Pattern: read, write, randread, randwrite; io also randrw (default randread)")
      ->type_name("PATTERN");
  verb.add_option("--bs", words.block, "Bytes of a command's data; K and M count (default 4096)")
      ->type_name("SIZE");
  verb.add_option("--depth", words.depth, "Commands under way on each queue (default 1)")
      ->type_name("N");
  verb.add_option("--time", words.seconds, "How long, in seconds (default 5)")
      ->type_name("SECONDS");
  verb.add_option("-o,--output-format", words.format, "normal or json (default normal)")
      ->type_name("FORMAT");
}

CLI::App* add_floor(CLI::App& app, Words& words) {
  CLI::App* verb = app.add_subcommand(
      "floor", "The same bytes over one loopback connection with nothing in between");
  add_workload(*verb, words);
  verb->add_option("--buffer", words.buffer_kib,
                   "KiB that a receive asks for; may be repeated (default 64, then 256)")
      ->type_name("KIB")
      ->allow_extra_args(false);
  return verb;
}

CLI::App* add_io(CLI::App& app, Words& words) {
  CLI::App* verb =
      app.add_subcommand("io", "Load on the host library, against a target or a canned responder");
  verb->add_option("address", words.uri, "nvme+tcp://HOST[:PORT]/SUBNQN[/NSID]")->type_name("URI");
  verb->add_flag("--canned", words.canned,
                 "Measure the host alone: a child process answers, without a target's work");
  add_workload(*verb, words);
  verb->add_option("--queues", words.queues, "I/O queues, a thread each (default 1)")
      ->type_name("N");
  verb->add_flag("--spin", words.spin, "Never sleep: a core for each queue");
  verb->add_flag("--write", words.write,
                 "Allow patterns that write: what is in the namespace is lost");
  verb->add_flag("-g,--hdr-digest", words.header_digest, "Check PDU headers by CRC32C");
  verb->add_flag("-G,--data-digest", words.data_digest, "Check data by CRC32C");
  verb->add_flag("-d,--disable-sqflow", words.disable_sqflow, "Turn SQ flow control off");
  verb->add_option("-q,--hostnqn", words.hostnqn, "NQN of this host")->type_name("NQN");
  verb->add_option("-I,--hostid", words.hostid, "UUID of this host")->type_name("UUID");
  return verb;
}

std::uint32_t parse_block(const std::string& text) {
  std::size_t end = 0;
  std::uint64_t value = 0;
  try {
    value = std::stoull(text, &end);
  } catch (const std::exception&) {
    end = 0;
  }
  const std::string suffix = end == 0 ? "?" : text.substr(end);
  if (suffix == "K" || suffix == "k") value *= 1024;
  if (suffix == "M" || suffix == "m") value *= 1024 * 1024;
  if ((!suffix.empty() && suffix != "K" && suffix != "k" && suffix != "M" && suffix != "m") ||
      value < 512 || value > kBlockBytesMax) {
    wrong(fmt::format("The block size (--bs) is \"{}\" but must be from 512 to 1M", text));
  }
  return static_cast<std::uint32_t>(value);
}

Workload workload_of(const Words& words) {
  Workload w;
  const auto pattern = parse_pattern(words.pattern);
  if (!pattern) {
    wrong(
        fmt::format("There is no pattern (--rw) \"{}\": give read, write, randread, randwrite or "
                    "randrw",
                    words.pattern));
  }
  w.pattern = *pattern;
  w.block_bytes = parse_block(words.block);
  if (words.depth == 0 || words.depth > kDepthMax) {
    wrong(fmt::format("The depth is {} but must be from 1 to {}", words.depth, kDepthMax));
  }
  if (!(words.seconds > 0 && words.seconds <= kSecondsMax)) {
    wrong(fmt::format("The time is {} s but must be more than 0 and at most {} s", words.seconds,
                      kSecondsMax));
  }
  if (words.queues == 0 || words.queues > host::kIoQueuesMax) {
    wrong(fmt::format("The number of queues is {} but must be from 1 to {}", words.queues,
                      host::kIoQueuesMax));
  }
  if (words.format != "normal" && words.format != "json") {
    wrong(fmt::format("There is no output format \"{}\": give normal or json", words.format));
  }
  w.depth = words.depth;
  w.queues = words.queues;
  w.time = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(words.seconds));
  w.header_digest = words.header_digest;
  w.data_digest = words.data_digest;
  w.disable_sqflow = words.disable_sqflow;
  return w;
}

void print(const Figures& figures, const Words& words) {
  fmt::print("{}", words.format == "json" ? to_json(figures) + "\n" : to_text(figures));
  std::fflush(stdout);
}

Result<void> measure_floor(const Words& words, const Workload& workload) {
  std::vector<std::uint32_t> sizes = words.buffer_kib;
  if (sizes.empty()) sizes = {64, 256};
  for (const std::uint32_t kib : sizes) {
    if (kib == 0 || kib > 4096) {
      wrong(fmt::format("The buffer is {} KiB but must be from 1 to 4096", kib));
    }
  }
  for (const std::uint32_t kib : sizes) {
    auto figures = run_floor(workload, std::size_t{kib} * 1024);
    if (!figures) return std::unexpected(figures.error());
    print(*figures, words);
  }
  return {};
}

IoBench io_bench(const Words& words, const Workload& workload) {
  IoBench bench{.workload = workload, .params = {}, .spin = words.spin, .canned = words.canned};
  host::ConnectParams& params = bench.params;
  if (words.canned != words.uri.empty()) {
    wrong(
        "Say what to measure against: either a namespace, nvme+tcp://HOST[:PORT]/SUBNQN[/NSID], "
        "or --canned");
  }
  if (!words.canned) {
    auto uri = nvme::TargetUri::parse(words.uri);
    if (!uri) wrong(uri.error().message);
    params.traddr = uri->host;
    params.port = uri->port;
    params.subnqn = uri->subnqn;
    params.namespace_selector = uri->namespace_selector;
    const bool writes = workload.pattern != Pattern::read && workload.pattern != Pattern::randread;
    if (writes && !words.write) {
      wrong(
          fmt::format("The pattern {} overwrites what is in the namespace: give --write as well "
                      "if that is meant",
                      pattern_name(workload.pattern)));
    }
  }
  auto identity =
      host::host_identity(words.hostnqn, words.hostid, host::IdentityPaths::from_environment());
  if (!identity) wrong(identity.error().message);
  params.name = "bench";
  // A measurement with a hole in it is none.
  params.loss.ctrl_loss = Duration::zero();
  params.hostnqn = identity->hostnqn;
  params.hostid = identity->hostid;
  params.nr_io_queues = workload.queues;
  params.queue_size = std::max(workload.depth + 1, 128u);
  params.header_digest = workload.header_digest;
  params.data_digest = workload.data_digest;
  params.disable_sqflow = workload.disable_sqflow;
  return bench;
}

Result<void> measure_io(const Words& words, IoBench bench) {
  auto figures = run_io(std::move(bench));
  if (!figures) return std::unexpected(figures.error());
  print(*figures, words);
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  raise_file_limit();
  log_to_stderr(kProgram);
  CLI::App app("Measures what NVMe/TCP costs on this machine.\n", kProgram);
  app.set_version_flag("--version", std::string(kProgram) + " " NVMF_VERSION);
  app.require_subcommand(1);
  Words words;
  const CLI::App* floor_verb = add_floor(app, words);
  add_io(app, words);
  Result<void> done;
  try {
    app.parse(argc, argv);
    const Workload workload = workload_of(words);
    done = floor_verb->parsed() ? measure_floor(words, workload)
                                : measure_io(words, io_bench(words, workload));
  } catch (const CLI::Success& help) {  // --help, --version
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    complain(kProgram, usage_error(app, error));
    fmt::print(stderr, "Run {} --help for usage.\n", kProgram);
    return kExitUsage;
  }
  if (!done) {
    complain(kProgram, done.error().message);
    return kExitFailure;
  }
  return kExitSuccess;
}
