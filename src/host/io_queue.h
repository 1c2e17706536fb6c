// An I/O queue of an association: a fixed pool of commands, their timeouts, and counters.
//
// Made on the control thread; everything else happens on the thread of its loop, its reactor's.
// Nothing is allocated per command.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "host/block_device.h"
#include "host/queue_link.h"
#include "nvme/admin.h"

namespace nvmf::host {

class NamespaceDevice;
class QueueGroup;
class IoQueue;

/// What a queue has done. Written on its reactor, read from anywhere.
struct QueueCounters {
  std::atomic<std::uint64_t> commands{0};  // given to the network
  std::atomic<std::uint64_t> read_bytes{0};
  std::atomic<std::uint64_t> written_bytes{0};
  std::atomic<std::uint64_t> errors{0};  // refused by the controller, or never answered
  /// When the last command was submitted, in the loops' time.
  std::atomic<std::int64_t> submitted_at_ns{0};

  /// For the one thread that writes: no locked instruction.
  static void add(std::atomic<std::uint64_t>& counter, std::uint64_t n) {
    counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
};

/// How a queue went down.
struct QueueDown {
  Error reason;
  bool peer_closed = false;         // FIN or RST came, before we ended it
  bool unanswered_changes = false;  // commands that change data were sent and not answered
};

/// What a queue tells of itself, on its reactor.
struct IoQueueEvents {
  /// It went down, after its commands were completed.
  std::move_only_function<void(const QueueDown&)> on_down;
  /// A command is overdue: the controller is to be told to abort it (Base 2.1 §5.1.1).
  std::move_only_function<void(std::uint16_t cid)> on_overdue;
};

/// After its deadline a command is to be aborted; this much later, or after as much as the deadline
/// itself if that is less, the queue is given up.
inline constexpr Duration kAbortGrace = std::chrono::seconds(5);

/// Ranges of a Dataset Management command that has more than one. Few are needed: with none free,
/// commands of a single range do the same.
struct DsmRanges {
  std::array<std::byte, nvme::kMaxDsmRanges * nvme::kDsmRangeBytes> bytes;
  DsmRanges* next = nullptr;
};
inline constexpr std::size_t kDsmRangesPerQueue = 4;

/// One command of the pool, one part of a BlockRequest.
struct IoCommand : transport::HostCommand {
  IoQueue* queue = nullptr;
  NamespaceDevice* device = nullptr;
  BlockRequest* request = nullptr;
  Instant submitted_at{};
  IoCommand* older = nullptr;  // in flight, in the order of submission
  IoCommand* newer = nullptr;
  DsmRanges* ranges = nullptr;
  std::array<std::byte, nvme::kDsmRangeBytes> range{};
};

class IoQueue final : public QueueLink {
 public:
  IoQueue(transport::Loop& loop, std::uint16_t qid, QueueCounters& counters,
          Duration command_timeout, IoQueueEvents events);

  /// After open() and Connect: the pool.
  void prepare();

  /// A command to fill in, or nullptr if no slot is free or the queue is ending. What the caller
  /// does not set has to be as in a fresh HostCommand: it is.
  IoCommand* take();
  /// Ranges for a Dataset Management command, or nullptr; returned with the command.
  DsmRanges* take_ranges();
  /// Submits what take() gave: device, request, sqe, direction and data are set.
  void submit(IoCommand& command);

  [[nodiscard]] std::uint32_t free_commands() const { return prepared_ ? free_slots() : 0; }
  [[nodiscard]] std::uint32_t in_flight() const { return in_flight_; }
  /// Set by the group that it is in.
  QueueGroup* group = nullptr;

 private:
  void on_slot() override;
  void on_down(const Error& reason) override;
  void completed(IoCommand& command);
  void check_timeouts();

  QueueCounters& counters_;
  Duration timeout_;
  IoQueueEvents events_;
  bool unanswered_changes_ = false;
  /// The oldest command has been told on_overdue() of, at this time.
  const IoCommand* aborted_ = nullptr;
  Instant aborted_at_{};
  bool prepared_ = false;
  std::unique_ptr<IoCommand[]> commands_;
  std::unique_ptr<DsmRanges[]> ranges_;
  transport::HostCommand* free_ = nullptr;  // IoCommands, linked by HostCommand::next
  DsmRanges* free_ranges_ = nullptr;
  IoCommand* oldest_ = nullptr;
  IoCommand* newest_ = nullptr;
  std::uint32_t in_flight_ = 0;
  transport::Timer timeout_check_;
};

}  // namespace nvmf::host
