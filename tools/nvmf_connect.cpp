// nvmf-connect: one connection to a remote NVMe subsystem, served over NBD.
//
// Exit status: 0 when it serves in the background, or was asked to end; the command's with --run; 1
// when something was refused or the connection was lost; 2 for bad usage.
#include <fmt/format.h>
#include <malloc.h>
#include <unistd.h>

#include <csignal>
#include <cstring>

#include "connect_options.h"
#include "connection.h"
#include "control/runtime_dir.h"
#include "io/reactor_pool.h"
#include "io/signals.h"
#include "tool_background.h"
#include "tool_log.h"
#include "tool_program.h"

namespace {

using namespace nvmf;
using namespace nvmf::tools;

/// What a client's session needs (frontends/nbd) is a mapping of its own, which goes back to the
/// system with the client: two hundred that came and went leave no holes behind.
constexpr int kMappedFromBytes = 32 * 1024;

/// Takes the name, and refuses a second connection of this host to the same controller's address:
/// two of them would be two writers.
Result<control::Claim> claim_name(const control::RuntimeDir& runtime,
                                  const ConnectOptions& options) {
  control::Connection wanted;
  wanted.name = options.params.name;
  wanted.address = options.params.traddr;
  wanted.port = options.params.port;
  wanted.subnqn = options.params.subnqn;
  wanted.hostnqn = options.params.hostnqn;
  return runtime.claim(wanted, [&](const control::Connection& other) -> Result<void> {
    if (options.duplicate_connect || other.subnqn != wanted.subnqn ||
        other.address != wanted.address || other.port != wanted.port ||
        other.hostnqn != wanted.hostnqn) {
      return {};
    }
    return fail(fmt::format("{} (process {}) is connected to {} at {} already: use that one, or "
                            "give --duplicate-connect for another",
                            other.name, other.pid, other.subnqn, options.params.address()),
                EALREADY);
  });
}

Result<int> serve(ConnectOptions options, Reporter& reporter) {
  if (auto blocked = io::block_signals({SIGTERM, SIGINT, SIGHUP}); !blocked) {
    return std::unexpected(blocked.error());
  }
  auto runtime = control::RuntimeDir::open();
  if (!runtime) return std::unexpected(runtime.error());
  auto claim = claim_name(*runtime, options);
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

  auto pool = io::ReactorPool::make(options.params.nr_io_queues);
  if (!pool) return std::unexpected(pool.error());
  Connection connection(std::move(options), *runtime, *claim, **pool, reporter);
  auto signals =
      io::SignalWatch::make((*pool)->at(0), {SIGTERM, SIGINT, SIGHUP}, [&connection](int signal) {
        connection.ask_end(fmt::format("ended by SIG{}", ::sigabbrev_np(signal)));
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
