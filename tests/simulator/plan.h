// One run of the simulator, drawn from its seed: the sizes of everything, how the network and the
// controller behave, what the clients do, and what is going to go wrong.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host/params.h"
#include "sim/virtual_loop.h"
#include "simulator/random.h"

namespace nvmf::simulator {

/// A rule that is broken on purpose, to see that it is noticed.
enum class Mutant : std::uint8_t {
  none,
  no_fence,           // nothing is fenced after a loss
  cqt_zero_no_wait,   // a CQT that is not reported is taken as none
  one_katt,           // silence is over after one KATT
  close_not_reset,    // sockets are closed, not reset
  restart_no_wait,    // a process that follows a killed one writes at once
  no_fence_on_error,  // the fence is forgotten when the request ends with EIO
  retries_unordered,  // what a client that went away had sent does not keep its place
  no_identity_check,  // whatever disk is there is used
  flush_made_up,      // a flush that was lost counts as done
};
inline constexpr std::size_t kMutants = 10;
const char* name_of(Mutant mutant);
std::optional<Mutant> mutant_named(std::string_view name);

/// What goes wrong, or is done by people, at one point of a run.
enum class Trouble : std::uint8_t {
  none,
  // The network, towards the connections there are.
  cut_all,       // both ends see a reset
  cut_one,       // of one connection
  black_hole,    // nothing passes for a while, then all of it
  deaf,          // what the host sends passes, nothing comes back
  late_dark,     // bytes take nearly a KATT; later ones never arrive
  trickle,       // the host's bytes wait, and pass one by one
  host_timeout,  // the host's system gives the connections up, the target does not hear of it
  false_reset,   // a forwarder resets the host's end only
  // The target.
  crash,             // its process dies and comes back
  power_loss,        // its machine does, and the volatile cache is lost
  other_limits,      // it is restarted with other queues
  swap_disk,         // it comes back with other disks, and later with the right ones
  stall,             // operations hang until their association ends
  refuse_commands,   // some commands end with a status, to be retried or not
  fatal_status,      // CSTS.CFS
  keep_alives_lost,  // none is noticed any more
  close_queue,       // one I/O queue is closed, in order or not
  remove_namespace,  // and put back
  // The host.
  kill_host,   // kill -9, and another process
  stop_host,   // an orderly end, and another process
  reset_host,  // the association is made anew
  new_policy,  // timers are changed
  // Clients.
  leave,  // a client goes away, another one comes
};
const char* name_of(Trouble trouble);

struct Plan {
  std::uint64_t seed = 0;
  Mutant mutant = Mutant::none;

  std::size_t reactors = 1;
  std::uint32_t queues = 1;
  std::uint32_t queue_size = 32;
  std::uint32_t target_queues = 4;
  std::uint32_t target_entries = 64;
  std::uint32_t in_capsule_bytes = 8192;
  bool header_digest = false;
  bool data_digest = false;
  std::size_t namespaces = 1;
  std::uint32_t block_bytes = 512;
  std::size_t blocks = 64;
  bool volatile_cache = false;
  std::uint32_t keep_alive_ms = 1000;
  bool retry_delays = false;  // CRDT1 to 3 are reported
  std::uint16_t cqt_ms = 0;   // as reported
  Duration linger{};  // how long the controller really takes: within CQT, or what stands for it

  std::optional<Duration> fast_io_fail;
  std::optional<Duration> ctrl_loss;
  Duration reconnect_delay{};
  Duration command_timeout{};
  host::Unflushed unflushed = host::Unflushed::trust;
  bool trust_peer_close = true;

  sim::PipeOptions pipe;
  Duration post_delay{};      // from reactor to reactor, at most
  Duration disk_lag{};        // of an ordinary operation, at most
  unsigned hang_percent = 0;  // operations that are not executed before their association ends

  std::size_t clients = 1;
  std::size_t depth = 1;
  std::size_t requests = 50;
  std::size_t hot_blocks = 8;  // where most requests go
  Duration think{};            // between two requests of one slot, at most
  unsigned flush_percent = 5;
  unsigned fua_percent = 5;
  unsigned unaligned_percent = 20;
  unsigned read_percent = 30;

  std::vector<Trouble> troubles;

  /// What times are measured in where there is no keep-alive, too.
  [[nodiscard]] Duration katt() const {
    return std::chrono::milliseconds(keep_alive_ms != 0 ? keep_alive_ms : 1000);
  }
};

Plan make_plan(std::uint64_t seed, Mutant mutant);
std::string describe(const Plan& plan);

}  // namespace nvmf::simulator
