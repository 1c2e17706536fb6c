// The NBD server of a process: listeners, and a share of the clients for each reactor.
//
// It listens on loops[0] and spreads accepted connections over all loops in turn; a session then
// lives wholly on its loop's thread. Everything else belongs to loops[0]'s thread.
//
// Namespaces. What comes and goes is there for whom asks from then on, on all loops: a client that
// is accepted after attached() or detached() has returned sees it so. Who has an export that is
// gone keeps it, and gets the device's errors. NBD has no word for a new size: new clients are told
// of it, those that are there keep the one they were told, and the device refuses what is out of
// its range by now.
//
// Places. There is room for clients_max. Who comes when all are taken waits for a few seconds while
// those that have not finished their handshake are given less time for it; a client that has
// finished it keeps its place for as long as it stays connected, however idle.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "frontends/frontend.h"
#include "frontends/nbd/buffer_pool.h"
#include "frontends/nbd/export.h"
#include "frontends/nbd/limits.h"
#include "nvme/result.h"
#include "transport/loop.h"
#include "transport/timer.h"

namespace nvmf::nbd {

struct ServerOptions {
  std::uint32_t clients_max = kClientsMax;  // 1 to kClientsMax
  /// At stop(): how long requests under way may take before they are answered with ESHUTDOWN.
  Duration grace{std::chrono::seconds(2)};
  /// The clients' reserves (kReserveBytes each), and 1 to 64 MiB more: this face's share
  /// (frontends/buffer_shares.h).
  std::size_t buffer_bytes = kBufferBytesMax;
  /// Gets memory that has not been used for a while; without it, what was used once stays ours.
  DiscardPages discard = nullptr;
  /// Told, on any of the threads, why we disconnected a client. May be empty.
  std::function<void(const std::string&)> on_misbehaviour = {};
};

/// Since the start, all threads together.
struct ServerTotals {
  std::uint32_t clients = 0;  // now
  std::uint64_t accepted = 0;
  std::uint64_t refused = 0;  // because of clients_max, at once or after a while
  std::uint64_t requests = 0;
  std::uint64_t read_bytes = 0;
  std::uint64_t written_bytes = 0;
  std::uint64_t errors = 0;
};

class Server final : public frontends::Frontend {
 public:
  /// Each Export and each Disk has a device for each of the loops, in the same order. Loops and
  /// devices outlive the server.
  Server(std::vector<transport::Loop*> loops, ExportList exports, ServerOptions options = {});
  /// Only when nothing was accepted yet, or after on_stopped.
  ~Server() override;
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// May be called several times. Returns where it listens: the port that 0 became.
  Result<transport::Endpoint> listen(const transport::Endpoint& at);

  void attached(const frontends::Disk& disk) override;
  void detached(std::uint32_t nsid) override;
  /// Nothing to do: who asks is told what the device says.
  void changed(const frontends::Disk& /*disk*/) override {}
  /// Stops listening and ends every session: what is under way may finish within the grace, what
  /// comes new sees ESHUTDOWN, and every connection is closed at most a second after the grace.
  /// `on_stopped` is called once, on loops[0], when the last session is gone; that also waits for
  /// the devices to complete what they have, which is theirs to bound.
  void stop(std::move_only_function<void()> on_stopped) override;

  /// From any thread.
  [[nodiscard]] ServerTotals totals() const;

 private:
  class Worker;
  struct Waiting {
    std::unique_ptr<transport::Incoming> incoming;
    Instant until;
  };

  void accepted(std::unique_ptr<transport::Incoming> incoming);
  void admit(std::unique_ptr<transport::Incoming> incoming);
  void admit_waiting();
  void place_freed();
  void worker_stopped();
  template <class Change>
  void change_exports(const Change& change);

  std::vector<transport::Loop*> loops_;
  ServerOptions options_;
  BufferArena arena_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::unique_ptr<transport::Listener>> listeners_;
  std::size_t next_worker_ = 0;
  std::deque<Waiting> waiting_;
  std::atomic<std::size_t> waiting_count_{0};  // of waiting_, for the other threads
  transport::Timer place_timer_;
  std::atomic<std::uint32_t> clients_{0};
  std::atomic<std::uint64_t> accepted_{0};
  std::atomic<std::uint64_t> refused_{0};
  bool stopping_ = false;
  std::size_t workers_left_ = 0;
  std::move_only_function<void()> on_stopped_;
};

}  // namespace nvmf::nbd
