// Words about a connection that more than one command line has: nvmf-connect's, and those of the
// verbs of nvmf that make connections. For the files that know CLI11.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "connect_options.h"
#include "tool_timers.h"

namespace CLI {
class App;
}  // namespace CLI

namespace nvmf::tools {

/// What a command line says, before it is checked as a whole.
struct ConnectWords {
  std::string uri, transport, traddr, trsvcid, nqn, hostnqn, hostid;
  std::string config;
  std::vector<std::string> nbd;
  std::optional<std::string> nbd_device;
  std::optional<std::uint32_t> nr_io_queues, nr_write_queues, nr_poll_queues;
  std::optional<std::uint32_t> keep_alive_seconds;
  TimerWords timers;
  std::string cqt;
  std::string peer_close;
  std::string unflushed;
};

/// Letters that mean something else to the verbs about discovery, as in nvme-cli.
enum class Letters : std::uint8_t { connect, discovery };

// Each adds options to `app` that fill in `words` or, where nothing has to be looked at twice,
// `options`. All must live until the command line has been read.
void add_address_options(CLI::App& app, ConnectWords& words, ConnectOptions& options);
void add_queue_options(CLI::App& app, ConnectWords& words, ConnectOptions& options,
                       Letters letters);
void add_loss_options(CLI::App& app, ConnectWords& words, ConnectOptions& options);
/// Those of nvme-cli that are refused by name.
void add_refused_options(CLI::App& app, Letters letters);

/// Everything that depends on more than one option: fills in options.params and the rest that
/// `words` have. Throws CLI::ValidationError for bad usage; what this machine lacks is an error.
Result<void> take_words(const ConnectWords& words, ConnectOptions& options);

/// The options that were given to `app`, each as one word "--name=value", for another program;
/// without those of these names, and without positional ones.
std::vector<std::string> given_words(const CLI::App& app,
                                     std::initializer_list<std::string_view> without);

/// Bad usage, as an exception of CLI11's.
[[noreturn]] void wrong(const std::string& sentence);

}  // namespace nvmf::tools
