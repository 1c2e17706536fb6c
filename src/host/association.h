// A complete set of live queues to one controller, and what keeps it alive.
//
// bring_up() makes one; it is used as a whole and ends as a whole: the end of any queue ends all.
// Whoever owns it waits for ended(), then calls settle() and close(), and asks how_it_ended(). To
// survive a loss is to bring up another one and to put its queues in the place of these.
//
// While it is being made, and when it is ended on purpose, end() resets everything at once. The
// loss of a live one is gentler, lose(): the other queues stay for the moments of settle(), in
// which the controller is disabled over the admin queue, if that lives, or those connections that
// the controller's end has closed, too, say so. Both shorten what has to be waited for afterwards.
//
// Threads: the control loop's, loops[0]; each I/O queue is used on its own reactor. Nothing here
// touches an I/O queue from elsewhere than by a post to its reactor, and the owner's posts arrive
// in order: that is why a queue is still there when end() reaches it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "host/admin_queue.h"
#include "host/counters.h"
#include "host/events.h"
#include "host/fence_time.h"
#include "host/io_queue.h"
#include "host/log.h"
#include "host/namespace.h"
#include "host/params.h"
#include "host/passthrough.h"
#include "host/retry_rules.h"
#include "host/slot_share.h"
#include "nvme/fabrics.h"
#include "nvme/identify.h"
#include "nvme/log_pages.h"

namespace nvmf::host {

/// What was learnt while the association was made.
struct AssociationInfo {
  transport::Endpoint endpoint;
  std::uint16_t cntlid = 0;
  nvme::ControllerCapabilities cap;
  std::uint32_t vs = 0;
  nvme::ControllerConfiguration cc;  // as it was enabled
  nvme::IdentifyController controller;
  std::optional<nvme::IdentifyNvmController> nvm_controller;
  /// KATT: the controller's keep-alive timeout as read back, 0 if it has none.
  std::uint32_t katt_ms = 0;
  bool traffic_based_keep_alive = false;
  bool sq_flow_control = true;
  std::uint32_t io_queue_entries = 0;
  std::uint32_t r2t_max = 1;
  /// CRDT1 to CRDT3, if the controller took ACRE (Set Features 16h); otherwise zero.
  RetryDelays retry_delays{};
  /// There is a volatile write cache, and it is enabled (VWC, Get Features 06h).
  bool volatile_write_cache = false;
  /// Bits of Asynchronous Event Configuration that were set.
  std::uint32_t events_configured = 0;
};

/// See Association::settle().
inline constexpr Duration kSettleTime = std::chrono::milliseconds(50);
inline constexpr Duration kDisableWait = std::chrono::seconds(2);
/// Passthrough commands that wait to be planned while the effects log is read: more than may wait
/// for their turn afterwards, of whatever kind.
inline constexpr std::size_t kEffectsWaitersMax = 4 * kPassthroughWaitersMax;

class Association {
 public:
  /// loops[0] is the control loop. I/O queue i (from 0) lives on loops[i % loops.size()].
  /// `counters` are those of the connection; nullptr: of its own.
  Association(ConnectParams params, std::vector<transport::Loop*> loops,
              std::shared_ptr<ConnectionCounters> counters = nullptr);
  ~Association();  // before open(), or after close()
  Association(const Association&) = delete;
  Association& operator=(const Association&) = delete;

  struct QueueSlot {
    std::size_t reactor = 0;            // index of its loop
    QueueCounters* counters = nullptr;  // of its number
    std::unique_ptr<IoQueue> queue;     // its reactor's, until close() is done
    std::optional<QueueDown> down;
  };

  AssociationInfo info;
  std::vector<std::shared_ptr<const Namespace>> namespaces;  // by rising NSID
  /// Why namespaces that the controller has are not among them, one sentence each.
  std::vector<std::string> refused_namespaces;
  /// Of these the controller did not say that they are gone, only that it cannot tell of them now.
  std::vector<std::uint32_t> unsure_namespaces;

  [[nodiscard]] const ConnectParams& params() const { return params_; }
  [[nodiscard]] AdminQueue& admin() { return *admin_; }
  [[nodiscard]] transport::Loop& control() { return *loops_[0]; }
  [[nodiscard]] const std::vector<QueueSlot>& queues() const { return queues_; }

  // For bring_up().
  /// A fresh admin queue in the place of one that never opened and is closed.
  void renew_admin();
  void reserve_queues(std::size_t count) { queues_.reserve(count); }
  /// Makes the next I/O queue; not opened. At most as many as were reserved.
  QueueSlot& add_queue();
  /// Starts to send Keep Alive, by info.katt_ms or the interval asked for, whichever is shorter.
  void start_keep_alive();
  /// Puts up Asynchronous Event Requests.
  void start_events();

  /// From bring_up(): it is complete.
  void made() { made_ = true; }
  /// It is lost, for a reason; the first one stays. Before made() the same as end(). Safe from any
  /// callback on the control loop, as is end(): nothing is destroyed in here.
  void lose(Error reason);
  /// Ends all queues at once.
  void end(Error reason);
  [[nodiscard]] bool ending() const { return end_reason_.has_value(); }
  [[nodiscard]] const Error& end_reason() const { return *end_reason_; }
  /// Fires when lose() or end() was called, by us or because a queue was lost.
  [[nodiscard]] Signal& ended() { return ended_; }

  /// After ended(), before close(): lets no more commands go, gives those under way a moment to be
  /// answered if the admin queue lives, and disables the controller, if it can be told to (CC.EN =
  /// 0 until CSTS.RDY = 0, Base 2.1 §3.1.4.5), otherwise waits kSettleTime for connections that end
  /// by themselves. At most kDisableWait; end() makes it return soon.
  Task<void> settle();
  /// After close(). What is known about the end of the queues that carried unanswered changes; if
  /// there was none of them, nothing can be executed any more (nothing_unanswered).
  [[nodiscard]] AssociationEnd how_it_ended() const;

  /// The namespaces that the controller says have changed; empty: any may have. In a coroutine of
  /// the association's, which close() waits for.
  std::function<Task<void>(std::vector<std::uint32_t>)> on_namespaces_changed;

  /// What the controller reported, after it was acted on; without its time.
  std::function<void(HostEvent)> on_event;

  /// A tool's admin command (AdminQueue::pass()), aborted when it is overdue.
  Task<PassedThrough> pass(nvme::Sqe sqe, transport::DataDirection direction,
                           std::span<std::byte> data, Duration timeout, bool changes_data);
  /// An admin command of our own that only asks for something that can be done without: on the
  /// slots of passthrough, and aborted when it is overdue, so that a slow answer ends no
  /// connection.
  Task<PassedThrough> ask(nvme::Sqe sqe, std::span<std::byte> data, Duration timeout);
  /// Commands Supported and Effects, of the NVM command set: read once; nullptr if the controller
  /// has none, or does not tell. It stays as long as this. EBUSY if too many wait for it already;
  /// otherwise an error is why the association ended. Without it nothing must be sent: it may say
  /// what a command does.
  Task<Result<const nvme::EffectsLog*>> effects();

  /// Tells the controller that we go (CC.SHN) and waits until it is ready, less than a second;
  /// then ends the queues in order. For an association that nobody uses any more. close() follows.
  Task<void> shut_down();
  /// end(), and waits until every queue is gone and destroyed.
  Task<void> close(Error reason);

 private:
  void queue_down(QueueSlot& slot, const QueueDown& down);
  Task<void> abort(std::uint16_t qid, std::uint16_t cid);
  Task<bool> wait_status(bool (*reached)(const nvme::ControllerStatus&), Instant until);
  [[nodiscard]] bool all_down() const;
  Task<void> quiesce();
  Task<std::uint32_t> count_in_flight();
  Task<void> close_queue(QueueSlot& slot);
  Task<void> finish_queue(QueueSlot& slot);
  void check_keep_alive();
  [[nodiscard]] std::uint64_t commands_submitted() const;
  Task<void> serve_events();
  void log_event(LogLevel level, const std::string& sentence);
  Task<void> handle_event(std::uint32_t dw0);
  Task<void> read_event_page(nvme::LogPage page, HostEvent& told);
  void take_event_page(nvme::LogPage page, std::span<const std::byte> bytes, HostEvent& told);
  void take_new_errors(std::span<const std::byte> bytes, HostEvent& told);
  Task<void> report_changed_namespaces(HostEvent& told);
  Task<Result<nvme::ChangedNamespaces>> read_changed_namespaces();
  Task<Result<void>> read_effects();

  ConnectParams params_;
  std::vector<transport::Loop*> loops_;
  std::shared_ptr<ConnectionCounters> counters_;
  std::unique_ptr<AdminQueue> admin_;
  std::vector<QueueSlot> queues_;
  std::optional<Error> end_reason_;
  Signal ended_;
  Gate tasks_;
  SlotShare effects_turn_;  // one: who reads effects_
  std::unique_ptr<nvme::EffectsLog> effects_;
  bool effects_asked_ = false;  // and answered

  transport::Timer keep_alive_timer_;
  Duration keep_alive_timeout_{};
  Duration keep_alive_interval_{};
  Instant keep_alive_sent_at_{};
  bool made_ = false;
  bool reset_ = false;          // end() was called
  bool shutting_down_ = false;  // queues may end
  bool disabled_ = false;       // the controller said so itself
  std::size_t aborts_ = 0;      // Abort commands under way
  Instant ended_at_{};
  std::uint64_t submitted_at_check_ = 0;
  LogLimiter event_log_;
  std::optional<std::uint64_t> last_error_;  // error count of the latest entry known
};

/// The largest log or identify transfer to ask for at once: MDTS, and never more than 64 KiB.
std::uint64_t admin_piece_bytes(const AssociationInfo& info);

}  // namespace nvmf::host
