// What a reactor's devices put their commands into: an I/O queue of its own (io_queue.h), or one of
// another reactor's that is lent to it (lent_queue.h). It has a fixed pool of commands.
//
// Thread: the reactor's whose devices use it. Nothing is allocated per command.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "host/block_device.h"
#include "nvme/admin.h"
#include "transport/qpair.h"
#include "transport/timer.h"

namespace nvmf::host {

class NamespaceDevice;
class QueueGroup;
class CommandQueue;
class IoQueue;
class Borrower;
struct PartOutcome;
struct QueueCounters;

/// Ranges of a Dataset Management command that has more than one. Few are needed: with none free,
/// commands of a single range do the same.
struct DsmRanges {
  std::array<std::byte, nvme::kMaxDsmRanges * nvme::kDsmRangeBytes> bytes;
  DsmRanges* next = nullptr;
};
inline constexpr std::size_t kDsmRangesPerQueue = 4;

/// One command of a pool, one part of a BlockRequest.
struct IoCommand : transport::HostCommand {
  CommandQueue* queue = nullptr;  // whose pool it is from
  NamespaceDevice* device = nullptr;
  BlockRequest* request = nullptr;
  DsmRanges* ranges = nullptr;
  std::array<std::byte, nvme::kDsmRangeBytes> range{};

  // For the I/O queue that it travels on, on that one's reactor.
  IoQueue* carrier = nullptr;
  QueueCounters* counters = nullptr;  // the carrier's; they outlive it
  bool answered_late = false;         // when the association was about to be ended
  Borrower* borrower = nullptr;  // who is told of its outcome instead of the device, if not null
  Instant submitted_at{};
  Duration timeout{};          // its own; 0: the queue's
  bool overdue = false;        // with a timeout of its own: it has passed
  IoCommand* older = nullptr;  // in flight, in the order of submission
  IoCommand* newer = nullptr;
};

class CommandQueue {
 public:
  CommandQueue() = default;
  CommandQueue(const CommandQueue&) = delete;
  CommandQueue& operator=(const CommandQueue&) = delete;

  /// A command to fill in, or nullptr if there is no room. What the caller does not set has to be
  /// as in a fresh HostCommand: it is.
  IoCommand* take();
  /// Ranges for a Dataset Management command, or nullptr; returned with the command.
  DsmRanges* take_ranges();
  /// Submits what take() gave: device, request, sqe, direction and data are set. The device is told
  /// the outcome, later.
  virtual void submit(IoCommand& command) = 0;

  /// Commands that it takes now.
  [[nodiscard]] virtual std::uint32_t free_commands() const = 0;
  /// Submitted, and not answered yet.
  [[nodiscard]] virtual std::uint32_t in_flight() const = 0;
  /// False from its end on.
  [[nodiscard]] virtual bool live() const = 0;
  /// Set by the group that it is in.
  QueueGroup* group = nullptr;

 protected:
  ~CommandQueue() = default;
  /// The pool. Once.
  void make_commands(std::uint32_t count);
  /// The outcome of a command of the pool: tells its device. It may be taken again from in here on.
  PartOutcome tell_device(IoCommand& command);

 private:
  std::unique_ptr<IoCommand[]> commands_;
  std::unique_ptr<DsmRanges[]> ranges_;
  transport::HostCommand* free_ = nullptr;  // IoCommands, linked by HostCommand::next
  DsmRanges* free_ranges_ = nullptr;
};

}  // namespace nvmf::host
