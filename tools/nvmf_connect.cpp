// nvmf-connect: one connection to a remote NVMe subsystem, served over NBD.
//
// Exit status: 0 when it serves in the background, or was asked to end; the command's with --run; 1
// when something was refused or the connection was lost for good; 2 for bad usage.
#include <fmt/format.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>

#include "connect_options.h"
#include "connection.h"
#include "control/crash_record.h"
#include "control/runtime_dir.h"
#include "host/log.h"
#include "io/reactor_pool.h"
#include "io/signals.h"
#include "memory_pressure.h"
#include "tool_background.h"
#include "tool_log.h"
#include "tool_program.h"
#include "tool_service.h"
#include "tool_timers.h"

namespace {

using namespace nvmf;
using namespace nvmf::tools;

/// What a client's session needs (frontends/nbd) is a mapping of its own, which goes back to the
/// system with the client: two hundred that came and went leave no holes behind.
constexpr int kMappedFromBytes = 32 * 1024;

/// Takes the name, and what killed connections to the same subsystem left. Refuses a second
/// connection of this host to the same controller's address: two of them would be two writers.
Result<control::Claim> claim_name(const control::RuntimeDir& runtime, const ConnectOptions& options,
                                  control::OwnCrashRecord& crash_record,
                                  control::Inheritance& inherited) {
  control::Connection wanted;
  wanted.name = options.params.name;
  wanted.address = options.params.traddr;
  wanted.port = options.params.port;
  wanted.subnqn = options.params.subnqn;
  wanted.hostnqn = options.params.hostnqn;
  const auto admit = [&](const control::Connection& other) -> Result<void> {
    if (options.duplicate_connect || other.subnqn != wanted.subnqn ||
        other.address != wanted.address || other.port != wanted.port ||
        other.hostnqn != wanted.hostnqn) {
      return {};
    }
    return fail(fmt::format("{} (process {}) is connected to {} at {} already: use that one, or "
                            "give --duplicate-connect for another",
                            other.name, other.pid, other.subnqn, options.params.address()),
                EALREADY);
  };
  return runtime.claim(wanted, admit, [&](const std::string& name) -> Result<void> {
    if (options.discovery) return {};
    auto taken = crash_record.take_over(runtime, name);
    if (!taken) return std::unexpected(taken.error());
    inherited = std::move(*taken);
    return {};
  });
}

/// Why writes wait, and for how long; or that they do not although they should.
std::string about_hold(const control::Inheritance& inherited, const host::ConnectParams& params) {
  const std::string because =
      fmt::format("the connection {} {} something may still be executed that it had sent",
                  inherited.owner, inherited.killed ? "was killed, and" : "has ended, but");
  const bool for_ever = inherited.hold == control::kForEver;
  if (!params.fence) {
    return fmt::format(
        "--no-fence: writes to {} are not held{}, although {}", params.subnqn,
        for_ever ? std::string() : fmt::format(" for {}", show_duration(inherited.hold)), because);
  }
  if (!for_ever) {
    return fmt::format("writes to {} are held for {} because {}; reads are served at once",
                       params.subnqn, show_duration(inherited.hold), because);
  }
  return fmt::format(
      "writes to {} are held for good because {}, and nobody knows until when: it had no "
      "keep-alive "
      "timeout. Reads are served. When you know that the target has been restarted since, end this "
      "connection and connect again with --no-fence",
      params.subnqn, because);
}

void take_inheritance(const control::Inheritance& inherited, host::ConnectParams& params,
                      control::OwnCrashRecord& crash_record, Reporter& reporter) {
  const auto say = [&reporter](const std::string& sentence) {
    if (reporter.background()) host::log(host::LogLevel::info, sentence);
    reporter.complain("note: " + sentence);
  };
  for (const std::string& sentence : inherited.complaints) say(sentence);
  if (inherited.hold == Duration::zero()) return;
  if (!params.read_only) say(about_hold(inherited, params));
  if (params.fence) {
    params.hold_writes = inherited.hold;
  } else {
    crash_record.waive();
  }
}

Result<int> serve(ConnectOptions options, Reporter& reporter) {
  if (auto blocked = io::block_signals({SIGTERM, SIGINT, SIGHUP}); !blocked) {
    return std::unexpected(blocked.error());
  }
  auto runtime = control::RuntimeDir::open();
  if (!runtime) return std::unexpected(runtime.error());
  control::OwnCrashRecord crash_record(*runtime, options.params.subnqn, options.params.address());
  control::Inheritance inherited;
  auto claim = claim_name(*runtime, options, crash_record, inherited);
  if (!claim) return std::unexpected(claim.error());
  options.params.name = claim->name();
  if (reporter.background()) {
    if (auto logging = log_to_file(runtime->log_file(claim->name())); !logging) {
      return std::unexpected(logging.error());
    }
  } else {
    log_to_stderr("nvmf-connect", options.verbose);
  }
  for (const std::string& note : options.notes) reporter.complain(note);
  take_inheritance(inherited, options.params, crash_record, reporter);

  if (options.nbd_device) {
    for (const std::string& sentence : guard_against_memory_pressure()) {
      host::log(host::LogLevel::warning, sentence);
      if (reporter.background()) reporter.complain("note: " + sentence);
    }
  }
  auto pool = io::ReactorPool::make(std::max(options.params.nr_io_queues, 1u));
  if (!pool) return std::unexpected(pool.error());
  Connection connection(std::move(options), *runtime, *claim, crash_record, **pool, reporter);
  auto signals =
      io::SignalWatch::make((*pool)->at(0), {SIGTERM, SIGINT, SIGHUP}, [&connection](int signal) {
        connection.end_by_signal(fmt::format("ended by SIG{}", ::sigabbrev_np(signal)));
      });
  if (!signals) return std::unexpected(signals.error());
  if (auto threads = (*pool)->start(); !threads) return std::unexpected(threads.error());
  if (auto started = connection.start(); !started) return std::unexpected(started.error());
  auto ran = (*pool)->run();
  (*pool)->join();
  if (!ran) return std::unexpected(ran.error());
  // Nobody wants to read of an end that was asked for. While the name is ours, so is the file.
  if (reporter.background() && connection.exit_status() == kExitSuccess && log_is_quiet()) {
    ::unlink(runtime->log_file(claim->name()).c_str());
  }
  return connection.exit_status();
}

}  // namespace

int main(int argc, char** argv) {
  ::mallopt(M_MMAP_THRESHOLD, kMappedFromBytes);
  ConnectOptions options;
  if (const auto status = parse_connect_options(argc, argv, options)) return *status;
  auto handed = handed_sockets();
  if (handed && !handed->empty() && options.discovery) {
    handed = fail(
        "A discovery controller has no namespaces to serve on the sockets of the service "
        "manager",
        EINVAL);
  }
  if (!handed) {
    complain("nvmf-connect", handed.error().message);
    return kExitFailure;
  }
  options.nbd.insert(options.nbd.end(), handed->begin(), handed->end());
  std::signal(SIGPIPE, SIG_IGN);
  raise_file_limit();
  Reporter reporter("nvmf-connect");
  if (!options.foreground) {
    const auto parent = reporter.go_to_background();
    if (!parent) {
      complain("nvmf-connect", parent.error().message);
      return kExitFailure;
    }
    if (*parent) return **parent;
  }
  const Result<int> status = serve(std::move(options), reporter);
  if (!status) reporter.complain(status.error().message);
  const int code = status ? *status : kExitFailure;
  reporter.failed(code);
  return code;
}
