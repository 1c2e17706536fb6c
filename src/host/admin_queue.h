// The admin queue of an association: admin commands as awaitables.
//
// Slots. One is kept for Keep Alive and kAsyncEventSlotsMax for Asynchronous Event Requests. Half
// of the rest is for passthrough, the other half for the association's own commands: neither kind
// ever waits behind the other. Each waits in order.
//
// A command that is not answered in time ends the association with a reason: the state of the
// controller is unknown then, and it is most probably gone.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "host/counters.h"
#include "host/passthrough.h"
#include "host/queue_link.h"
#include "host/slot_share.h"
#include "nvme/log_pages.h"

namespace nvmf::host {

/// AERL is seldom more; with one outstanding, events queue up at the controller meanwhile.
inline constexpr std::uint32_t kAsyncEventSlotsMax = 4;
/// The association's own commands that wait for a slot; more are refused as EBUSY.
inline constexpr std::size_t kAdminWaitersMax = 256;

/// What became of a passthrough command.
struct PassedThrough {
  /// The controller's answer; nothing: there was none.
  std::optional<CommandOutcome> outcome;
  /// Without an answer: whether any of it was given to the network. If so it may have been
  /// executed.
  bool sent = false;
  bool overdue = false;
  /// Without an answer: why. EBUSY if it had to wait too long, or too many wait; otherwise why the
  /// queue ended.
  Error why;
};

class AdminQueue final : public QueueLink {
 public:
  /// `on_down`: see QueueLink; called on the loop's thread. `counters` must outlive it.
  AdminQueue(transport::Loop& loop, QueueCounters& counters,
             std::move_only_function<void(const Error&)> on_down);

  /// One admin or fabrics command. `data` is the caller's until then; `timeout` counts from
  /// submission, waiting for a slot not included (that ends with the commands before). An Error
  /// means: not executed, or nobody knows; the message says why the queue ended.
  Task<Result<CommandOutcome>> execute(nvme::Sqe sqe, transport::DataDirection direction,
                                       std::span<std::byte> data, Duration timeout);
  Task<Result<CommandOutcome>> execute(nvme::Sqe sqe, Duration timeout) {
    return execute(sqe, transport::DataDirection::none, {}, timeout);
  }

  /// A tool's command, on the slots for these. It waits for one, and then for its answer, `timeout`
  /// each. When it is overdue `on_overdue` is told (to abort it); when it is not answered within
  /// kAbortGrace after that, the queue is ended. `changes_data`: see unanswered_changes().
  Task<PassedThrough> pass(nvme::Sqe sqe, transport::DataDirection direction,
                           std::span<std::byte> data, Duration timeout, bool changes_data,
                           std::move_only_function<void(std::uint16_t cid)> on_overdue);
  /// A passthrough command that may change data was sent and not answered.
  [[nodiscard]] bool unanswered_changes() const { return unanswered_changes_; }
  /// FIN or RST came before we ended it; after its end.
  [[nodiscard]] bool peer_closed() const { return peer_closed_; }

  /// An Asynchronous Event Request, on a slot of its own; at most kAsyncEventSlotsMax at a time.
  /// Answered when there is an event, maybe never.
  Task<Result<CommandOutcome>> execute_event_request();
  /// Submits a Keep Alive on its own slot, if the queue is live and none is outstanding.
  /// `on_answer` is called once with the status, or not at all if the queue ends first.
  void submit_keep_alive(std::move_only_function<void(nvme::Status)> on_answer);
  [[nodiscard]] bool keep_alive_outstanding() const { return keep_alive_.outstanding; }

  /// Commands given to the network, apart from Keep Alive: traffic in the sense of CTRATT.TBKAS.
  [[nodiscard]] std::uint64_t submitted() const { return submitted_; }
  /// When the last of them was.
  [[nodiscard]] Instant submitted_at() const { return submitted_at_; }

 private:
  struct KeepAlive : transport::HostCommand {
    AdminQueue* queue = nullptr;
    bool outstanding = false;
    std::move_only_function<void(nvme::Status)> on_answer;
  };

  void on_down(const Error& reason) override;
  void share_slots();
  /// `outcome` nullptr: it was never answered.
  void count_outcome(transport::DataDirection direction, std::size_t bytes, Duration latency,
                     const CommandOutcome* outcome);

  QueueCounters& counters_;
  std::move_only_function<void(const Error&)> on_down_;
  KeepAlive keep_alive_;
  SlotShare own_;
  SlotShare passthrough_;
  bool slots_shared_ = false;
  bool unanswered_changes_ = false;
  bool peer_closed_ = false;
  std::uint64_t submitted_ = 0;
  Instant submitted_at_{};
};

/// Reads `out.size()` bytes (a multiple of 4) of a log page, in pieces of at most `piece_bytes`,
/// which must be a multiple of 4 and come from MDTS. A status other than success ends it and is
/// the outcome. Retains the event for all pieces but the last, unless `log.retain_event`.
Task<Result<CommandOutcome>> read_log_page(AdminQueue& admin, nvme::GetLogPage log,
                                           std::span<std::byte> out, std::uint64_t piece_bytes,
                                           Duration timeout);

}  // namespace nvmf::host
