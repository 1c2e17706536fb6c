// A remote subsystem as this process uses it: the owner of everything that one connection has.
//
// Threads. loops[0] is the control loop: every method is called there, every event comes there.
// The other loops are reactors, and loops[0] is one of them. device(r, nsid) belongs to reactor r:
// it may be looked up on the control loop and is used on loops[r] only.
//
// Namespaces come, change and go. What the controller has when it is connected to is served, and
// what it has added later; each keeps its devices until the end, so that whoever uses one that was
// removed sees errors, and goes on when the same disk is back under its NSID.
//
// Life. start() → on_live() → on_ended(), or start() → on_ended(); between them any number of
// on_lost() → on_live_again(). A lost association is followed by another one (bring_up(), all its
// queues in the place of the old ones); meanwhile requests wait. on_ended() comes when LossPolicy's
// ctrl_loss has passed, when the target says that it never will have us, or after stop(): what
// waits then ends with EIO (ESHUTDOWN after stop()), what comes later with ESHUTDOWN. Devices stay
// until this object is destroyed: after on_ended(), on the control loop, when no reactor submits
// any more and every completion has been delivered. All loops run until on_ended().
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "host/association.h"
#include "host/block_device.h"
#include "host/bring_up.h"
#include "host/events.h"
#include "host/extents.h"
#include "host/health.h"
#include "host/lent_queue.h"
#include "host/namespace_device.h"
#include "host/params.h"
#include "host/passthrough.h"
#include "host/queue_group.h"
#include "host/reconnect.h"
#include "host/slot_share.h"
#include "host/statistics.h"
#include "host/task.h"

namespace nvmf::host {

struct SubsystemEvents {
  /// All queues are live; namespaces() has what there is. Once.
  virtual void on_live() = 0;
  /// The association is lost and another one will be tried for.
  virtual void on_lost(const Error& /*reason*/) {}
  /// I/O goes on; info() may say other things than before.
  virtual void on_live_again() {}
  // Of namespaces, after on_live(): find(), device(), attached() and io_state() say how it is.
  /// It is there: the controller has a new one, or one that had gone is back (the same devices).
  virtual void on_namespace_attached(std::uint32_t /*nsid*/) {}
  /// The controller has removed it: its devices fail everything.
  virtual void on_namespace_detached(std::uint32_t /*nsid*/) {}
  /// Its size, read_only or io_state() is another one.
  virtual void on_namespace_changed(std::uint32_t /*nsid*/) {}
  /// Something happened; what can be done about it has been done. Also for what the calls above
  /// tell, after these.
  virtual void on_event(const HostEvent& /*event*/) {}
  /// It is over: `reason.code` 0 as asked by stop(), otherwise why it failed. Last call. The
  /// subsystem must not be destroyed in here.
  virtual void on_ended(const Error& reason) = 0;

 protected:
  ~SubsystemEvents() = default;
};

/// stop() takes no longer.
inline constexpr Duration kStopTimeMax = std::chrono::milliseconds(1500);
/// Namespaces that one connection has had, those that have gone included: of each it keeps the
/// devices (some 75 KiB with four reactors), and a controller might rotate identifiers without end.
/// The controller's others are not served.
inline constexpr std::size_t kNamespacesKeptMax = 4096;
/// Those who look for new namespaces and wait for one another: the controller's notices, one
/// rescan, one command of a tool's, a reconnect.
inline constexpr std::size_t kNewcomersWaitersMax = kAsyncEventSlotsMax + 3;

/// Sentences about namespaces that go to the log in ten seconds; see LogLimiter.
inline constexpr unsigned kNamespaceSentences = 40;

/// What becomes of requests to a namespace.
enum class IoState : std::uint8_t {
  live,     // they are carried out
  waiting,  // they wait for the target, or for it to be known as the same disk
  failing,  // likewise, but they fail by now
};

/// What SubsystemEvents was last told of a namespace.
struct NamespaceTold {
  bool attached = false;
  IoState state = IoState::waiting;
  std::uint64_t size_bytes = 0;
  bool read_only = false;
  friend bool operator==(const NamespaceTold&, const NamespaceTold&) = default;
};

struct OwnBarrier;

class RemoteSubsystem final : private ExtentsSource {
 public:
  RemoteSubsystem(ConnectParams params, std::vector<transport::Loop*> loops,
                  SubsystemEvents& events);
  ~RemoteSubsystem();
  RemoteSubsystem(const RemoteSubsystem&) = delete;
  RemoteSubsystem& operator=(const RemoteSubsystem&) = delete;

  /// Once. No event inside.
  void start();
  /// Ends it, in any state, within kStopTimeMax whatever the target does: what waits ends with
  /// ESHUTDOWN, what is in flight gets half a second, the controller is told. With `force` nothing
  /// is waited for: everything ends now. on_ended() follows.
  void stop(bool force = false);

  /// Ends the live association (the controller is disabled first) and makes another one, as after
  /// a loss. ENOTCONN unless live.
  Result<void> reset();
  [[nodiscard]] Health health() const;
  /// Also while there is no association. EINVAL with a sentence if a value is out of its limits.
  Result<void> set_policy(const LossPolicy& policy);
  /// What each namespace does; asks every reactor.
  Task<std::vector<NamespaceHealth>> namespace_health();
  /// The user says that what is there now under this NSID is the disk: I/O goes on with it. ENOENT
  /// if there is no such namespace or nothing to accept.
  Result<void> accept(std::uint32_t nsid);
  /// After on_ended(): how long from now something that was sent to the controller may still be
  /// executed: zero after an orderly end, nothing if that cannot be known.
  [[nodiscard]] std::optional<Duration> still_executing_for() const;

  /// There is an association now.
  [[nodiscard]] bool live() const { return state_ == State::live; }
  [[nodiscard]] const ConnectParams& params() const { return params_; }
  /// From on_live() on: first what there was then, by rising NSID, then what was added, in that
  /// order; also those that have gone.
  [[nodiscard]] const std::vector<std::shared_ptr<const Namespace>>& namespaces() const {
    return namespaces_;
  }
  /// Namespaces that cannot be served, a sentence each.
  [[nodiscard]] const std::vector<std::string>& refused_namespaces() const {
    return refused_namespaces_;
  }
  /// Reactors that have a queue: 0 to reactors() - 1. Fewer than loops if fewer queues were
  /// granted.
  [[nodiscard]] std::size_t reactors() const { return groups_.size(); }
  /// As it is now, or was when it was last seen; nullptr if there never was one.
  [[nodiscard]] const Namespace* find(std::uint32_t nsid) const;
  /// Stays the same; nullptr if there never was such a namespace.
  [[nodiscard]] BlockDevice* device(std::size_t reactor, std::uint32_t nsid);
  /// The controller has it, as far as is known.
  [[nodiscard]] bool attached(std::uint32_t nsid) const;
  [[nodiscard]] IoState io_state(std::uint32_t nsid) const;
  /// What the controller said of itself; nullptr unless live.
  [[nodiscard]] const AssociationInfo* info() const;
  /// In any state.
  [[nodiscard]] ConnectionStatistics statistics() const;
  /// For what is done on behalf of tools; on the control loop.
  [[nodiscard]] ConnectionCounters& counters() { return *counters_; }

  /// Events so far, by kind: those that on_event() was told.
  [[nodiscard]] const EventCounts& event_counts() const { return event_counts_; }

  /// A tool's command through the live association, on slots of its own; passthrough.h says what is
  /// refused and what is done around it. A controller's status, also a bad one, is an outcome.
  /// Errors, with sentences: ENOTCONN if there is no association, or it ended before the command
  /// was sent; EBUSY if too many wait, or it had to wait for longer than its timeout (nothing was
  /// sent); EPERM, EINVAL, EOPNOTSUPP, EROFS as plan_passthrough(); ESTALE for an I/O command to a
  /// namespace that is stopped, with the reason; ETIMEDOUT and ECONNRESET: it was sent and not
  /// answered, so it may have been executed. It is never sent twice.
  Task<Result<CommandOutcome>> passthrough(PassthroughCommand command);
  /// Asks the controller again which namespaces it has and what they are; acts on what has changed
  /// (as after its own notice), and says what. ENOTCONN unless live; EBUSY if kRescanWaitersMax
  /// wait already; otherwise why it ended.
  Task<Result<RescanReport>> rescan();

  /// A log page of any length for this host's own use, in pieces that MDTS allows. `out` must stay
  /// until the task is done; a piece that is not answered within the connection's own timeout ends
  /// the connection. ENOTCONN unless live. What a user asks for goes by passthrough().
  Task<Result<CommandOutcome>> log_page(nvme::GetLogPage log, std::span<std::byte> out);

 private:
  enum class State : std::uint8_t { idle, connecting, live, lost, stopping, ended };

  /// What is known of one of namespaces_ beside what it is.
  struct NamespaceState {
    std::shared_ptr<NamespaceShared> shared;
    /// By reactor: each is used on its own; the vector stays as it was when this was made.
    std::vector<std::unique_ptr<NamespaceDevice>> devices;
    bool attached = false;
    bool failing = false;  // although the connection is live: it was stopped for too long
    NamespaceTold told;
    std::string stopped;  // why its I/O waits or fails; empty: it goes on
    /// What is there instead, if the user may accept it.
    std::shared_ptr<const Namespace> found;
    Instant fails_at = Instant::max();  // when what waits for it fails
    /// Unflushed::replay: writes again what may be lost, while the devices of clients are paused.
    std::unique_ptr<NamespaceDevice> replayer;
    bool must_replay = false;
    bool replaying = false;
  };

  Task<void> run();
  Task<void> wind_down();
  void make_devices();
  [[nodiscard]] NamespaceState new_state(const Namespace& ns);
  [[nodiscard]] std::shared_ptr<RangeHolds> holds_of_all() const;
  void add_replayer(NamespaceState& s, const std::shared_ptr<const Namespace>& ns);
  Task<void> attach_queues();
  Task<void> return_lent_queues();
  Task<void> shut_groups(int waiting_error, int later_error, Duration drain);
  Task<void> shut_group(QueueGroup& group, int waiting_error, int later_error, Duration drain);
  /// For those who leave this loop: they must not look at states_.
  [[nodiscard]] std::vector<NamespaceDevice*> devices_on(std::size_t reactor) const;
  /// `what(device)` on each reactor, soon; in the order of the calls.
  template <class Do>
  void on_devices(std::size_t index, const Do& what) {
    for (std::size_t r = 0; r < groups_.size(); ++r) {
      loops_[r]->post([device = states_[index].devices[r].get(), what] { what(*device); });
    }
  }
  /// Likewise for each namespace, with one post to a reactor.
  template <class Do>
  void on_all_devices(const Do& what) {
    for (std::size_t r = 0; r < groups_.size(); ++r) {
      loops_[r]->post([devices = devices_on(r), what] {
        for (NamespaceDevice* device : devices) what(*device);
      });
    }
  }
  Task<void> describe_on(std::size_t reactor, std::vector<NamespaceHealth>& all);

  // subsystem_passthrough.cpp
  /// A request of passthrough's own, in the frame of who waits for it.
  struct OwnRequest {
    NamespaceDevice* device = nullptr;
    BlockRequest* request = nullptr;
    int error = 0;  // why it was cancelled
  };
  Task<Result<PassthroughPlan>> plan(const PassthroughCommand& command);
  Task<Result<CommandOutcome>> send(const PassthroughCommand& command, const PassthroughPlan& plan);
  Task<Result<CommandOutcome>> send_admin(const PassthroughCommand& command,
                                          const PassthroughPlan& plan, bool& lost);
  Task<Result<CommandOutcome>> send_io(NamespaceDevice& device, const PassthroughCommand& command,
                                       const PassthroughPlan& plan, bool& lost);
  [[nodiscard]] std::unexpected<Error> not_issued(const PassthroughCommand& command, int error,
                                                  std::uint64_t losses) const;
  Task<Result<CommandOutcome>> send_alone(const PassthroughCommand& command,
                                          const PassthroughPlan& plan);
  Task<Result<void>> stand_still(std::vector<std::unique_ptr<OwnBarrier>>& barriers, Instant until);
  Task<Result<void>> flush_own(std::size_t index, Instant until);
  Task<bool> drained(std::size_t index);
  Task<Result<RescanReport>> look_again();
  Task<void> identify_again(const PassthroughPlan& plan);
  [[nodiscard]] std::vector<std::size_t> reached(Scope scope, std::uint32_t nsid) const;
  /// How many of them are.
  [[nodiscard]] std::ptrdiff_t stopped_of(const std::vector<std::size_t>& indexes) const;
  [[nodiscard]] Result<void> check_not_stopped(const PassthroughCommand& command) const;
  /// From where a coroutine waited: there is still the association that there was.
  [[nodiscard]] bool still(std::uint64_t losses) const {
    return live() && !stop_asked_ && losses == losses_;
  }
  void cancel_own(OwnRequest& own, int error);
  /// What passthrough has waiting, nothing of it sent: on one device, or (nullptr) on all.
  void cancel_passthrough(const NamespaceDevice* device, int error);

  // subsystem_extents.cpp
  void look_up(transport::Loop& home, std::uint32_t nsid, ExtentsRequest& request) override;
  [[nodiscard]] bool tells_extents(std::uint32_t nsid) const;
  Task<void> find_extents(transport::Loop& home, std::uint32_t nsid, ExtentsRequest& request);

  // subsystem_recovery.cpp
  void take(std::unique_ptr<Association> association);
  Task<void> end_association();
  Task<bool> reconnect();
  Task<std::optional<Error>> try_once();
  Task<void> wait_until(Instant at);
  void wake();
  void begin_loss(const Error& reason);
  Task<void> resume_all();
  void hold_writes();
  void arm_timers();
  void on_timer();
  void fail_stopped();
  [[nodiscard]] std::optional<Duration> patience() const;
  // subsystem_namespaces.cpp
  void judge(std::size_t index, const std::shared_ptr<const Namespace>& found);
  void stop_namespace(std::size_t index, std::string why, bool fail_now);
  void resume_namespace(std::size_t index, std::shared_ptr<const Namespace> found);
  Task<Result<std::shared_ptr<const Namespace>>> identify_surely(std::uint32_t nsid);
  Task<bool> check_known(std::size_t index);
  Task<void> check_namespaces(std::vector<std::uint32_t> nsids);
  Task<Result<std::vector<std::uint32_t>>> check_all_namespaces();
  Task<Result<std::vector<std::uint32_t>>> look_for_new(std::vector<std::uint32_t> nsids);
  Task<void> look_at_new(std::uint32_t nsid);
  Task<void> serve_found();
  Task<void> serve(std::shared_ptr<const Namespace> ns);
  [[nodiscard]] std::vector<std::uint32_t> not_served_of(
      const std::vector<std::uint32_t>& active) const;
  void tell_not_served(const std::vector<std::uint32_t>& active);
  [[nodiscard]] IoState io_state_at(std::size_t index) const;
  [[nodiscard]] NamespaceTold to_be_told(std::size_t index) const;
  void log_namespace(LogLevel level, const std::string& sentence);
  void tell_users(std::size_t index);
  void tell_all_users();
  // subsystem_replay.cpp
  void count_unflushed();
  void begin_replay(std::size_t index);
  Task<void> replay(std::size_t index);
  Task<std::vector<ReplayLog::Entry>> replay_entries(std::size_t index);
  Task<int> write_again(NamespaceDevice& to, std::vector<ReplayLog::Entry> entries);

  /// Stamps, counts and tells it.
  void emit(HostEvent event);
  static constexpr std::size_t kNoIndex = ~std::size_t{0};
  [[nodiscard]] std::size_t index_of(std::uint32_t nsid) const;

  ConnectParams params_;
  std::vector<transport::Loop*> loops_;
  SubsystemEvents& events_;
  State state_ = State::idle;
  Instant started_at_{};
  bool stop_asked_ = false;
  bool forced_ = false;
  BringUpControl bring_up_control_;
  std::shared_ptr<ConnectionCounters> counters_ = std::make_shared<ConnectionCounters>();
  std::unique_ptr<Association> association_;
  std::vector<std::shared_ptr<const Namespace>> namespaces_;
  std::vector<std::string> refused_namespaces_;
  std::vector<std::unique_ptr<QueueGroup>> groups_;  // by reactor
  std::deque<NamespaceState> states_;                // as namespaces_; references stay
  std::map<std::uint32_t, std::size_t> by_nsid_;     // the index of each
  bool told_live_ = false;                           // on_live() was called
  /// For the last groups, when there are fewer queues than there were.
  std::vector<std::unique_ptr<LentQueue>> lent_;
  /// For tools' I/O commands that belong to no namespace's device: they are let through while
  /// those stand still, or go to namespaces that are not served.
  std::unique_ptr<NamespaceDevice> bare_;
  SlotShare io_share_;         // of the I/O queues' commands, for passthrough
  SlotShare alone_;            // one: who has frontends stand still
  SlotShare look_;             // one: who looks at the namespaces for rescan()
  SlotShare newcomers_;        // one: who serves namespaces that are new
  SlotShare extents_share_;    // of the admin queue's commands, for find_extents()
  bool extents_slow_ = false;  // this association's controller is not asked any more
  std::vector<OwnRequest*> own_requests_;
  Gate tasks_;  // those that use association_
  Gate replays_;

  Reconnect reconnect_;
  bool failing_ = false;           // fast_io_fail has passed
  std::optional<Error> given_up_;  // the end of all attempts
  std::string last_loss_;
  std::string last_attempt_;
  std::uint64_t losses_ = 0;
  EventCounts event_counts_{};
  std::vector<std::uint32_t> not_served_;  // told of; rising
  LogLimiter namespace_log_{kNamespaceSentences};
  Instant safe_at_{};  // from then on nothing of associations before is executed
  Signal* waiter_ = nullptr;
  transport::Timer timer_;
};

}  // namespace nvmf::host
