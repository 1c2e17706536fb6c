// Faults on demand: what a target does wrong because it was told to. For tests of hosts, by hand
// (nvmf-target ctl) and by program (the simulator).
//
// Three kinds:
// - at once, and over: drop(), close_queue(), fatal(), the events, Target::restart();
// - standing, until their time or number is used up or clear() is called: refuse, black hole,
//   delay, late, fail, corrupt, lost keep-alives;
// - what restart() and power loss take with them: everything that is under way, every connection
//   and controller; standing faults stay.
//
// Commands pass three places. Session asks fail_status() and ignores() as a command comes, and
// corrupts() as data goes; FaultyDisk asks plan() before an operation is begun and ghost() when its
// connection is gone; HoleStream stands between the queue pair and its connection.
//
// Owned by its Target; the target's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "controller/disk.h"
#include "nvme/command.h"
#include "nvme/status.h"
#include "transport/timer.h"

namespace nvmf::controller {

class Controller;
class FaultyDisk;
class Session;
class Target;

/// What a fault concerns: everything that no field excludes.
struct FaultScope {
  std::string subnqn;                // empty: every subsystem
  std::uint32_t nsid = 0;            // 0: every namespace. Only for commands and operations
  std::uint16_t cntlid = 0;          // 0: every controller
  std::optional<std::uint16_t> qid;  // none: every queue

  [[nodiscard]] bool everything() const {
    return subnqn.empty() && nsid == 0 && cntlid == 0 && !qid;
  }
};

/// Connections are not accepted, or Connect commands are refused.
struct RefuseFault {
  FaultScope scope;  // of Connect commands; must be everything() without a status
  /// With a status: Connect is answered with it. Without: connections are closed at once.
  std::optional<nvme::Status> status;
  std::optional<std::uint64_t> count;  // none: all
  std::optional<Duration> lasts;       // none: until cleared
};

/// Nothing is read from connections and nothing sent; they stay. The system below us still answers
/// for TCP. A scope of everything() takes in connections that come later. A connection that the
/// target itself wants to end (keep-alive) ends when the hole does, so that the host is not told.
struct BlackholeFault {
  FaultScope scope;  // nsid must be 0
  std::optional<Duration> lasts;
};

/// Each I/O command takes longer, by `before` ahead of its execution and `after` behind it. Writes
/// that wait ahead of their execution when their connection is lost are never executed, unless a
/// LateFault makes ghosts of them.
struct DelayFault {
  FaultScope scope;
  std::optional<std::uint8_t> opcode;  // none: every I/O command
  Duration before{};
  Duration after{};
  std::optional<std::uint64_t> count;
};

/// Ghosts: writes of any kind (Write, Write Zeroes, Dataset Management) that are executed `after`
/// their connection was lost. Of those that a DelayFault makes wait, all; and the next `hold`
/// writes, which are neither executed nor answered as long as the connection lives.
struct LateFault {
  FaultScope scope;
  std::uint64_t hold = 0;
  Duration after{};
  /// Also when the host disables the controller or shuts it down: CSTS then says that nothing is
  /// under way, and lies. Otherwise such writes end unexecuted before CSTS says so.
  bool even_if_stopped = false;
};

/// Commands end with `status` and are not executed. Without scope.qid only those of I/O queues;
/// with qid 0 those of the admin queue, fabrics commands only if `opcode` says 7Fh. CRD is sent
/// only to hosts that have enabled it (Host Behavior Support, ACRE).
struct FailFault {
  FaultScope scope;
  nvme::Status status;
  std::optional<std::uint8_t> opcode;
  /// Commands that touch one of these blocks: Read, Write, Compare, Write Zeroes.
  std::optional<std::uint64_t> first_lba;
  std::uint64_t last_lba = ~std::uint64_t{0};  // inclusive; counts with first_lba only
  std::optional<std::uint64_t> count;          // none: until cleared
};

/// The data digests of the next `count` C2HData PDUs are wrong, on connections that have them on.
struct CorruptFault {
  FaultScope scope;  // nsid must be 0
  std::uint64_t count = 1;
};

/// Keep Alive commands are not noticed, and not answered.
struct KeepAliveFault {
  FaultScope scope;  // nsid must be 0
};

/// What the SMART log says from now on; what is not given stays.
struct HealthChange {
  std::optional<std::uint8_t> critical_warning;      // nvme::kWarning* bits
  std::optional<std::uint16_t> temperature_kelvins;  // 0: not reported
  std::optional<std::uint8_t> spare_percent;
  std::optional<std::uint8_t> used_percent;
};

/// What has happened because of faults.
struct FaultCounters {
  std::uint64_t dropped = 0;    // connections
  std::uint64_t refused = 0;    // connections and Connect commands
  std::uint64_t delayed = 0;    // operations
  std::uint64_t held = 0;       // writes
  std::uint64_t ghosts = 0;     // writes executed late
  std::uint64_t failed = 0;     // commands
  std::uint64_t corrupted = 0;  // PDUs
  std::uint64_t keep_alives = 0;
  std::uint64_t cancelled = 0;  // operations that waited and were never executed
};

class Faults {
 public:
  explicit Faults(Target& target);
  ~Faults();
  Faults(const Faults&) = delete;
  Faults& operator=(const Faults&) = delete;

  // ---- at once. How many were concerned.
  /// Resets connections. A scope of everything() takes in those that are not connected yet.
  std::size_t drop(const FaultScope& scope = {});
  /// Ends I/O queues `qid`, with FIN or RST; their controllers and other queues live on.
  std::size_t close_queue(std::uint16_t qid, bool reset, FaultScope scope = {});
  /// CSTS.CFS: controllers execute and answer nothing but property commands until they are reset.
  std::size_t fatal(const FaultScope& scope = {});
  /// SMART's health of subsystems; hosts that have enabled it are told of new warnings.
  std::size_t health(const FaultScope& scope, const HealthChange& change);
  /// Enabled controllers have an error of their own, in the log and as an event.
  std::size_t error_event(const FaultScope& scope, nvme::Status status, bool persistent);
  /// Firmware Activation Starting; the firmware stays what it is.
  std::size_t firmware_event(const FaultScope& scope);

  // ---- standing
  void refuse(RefuseFault fault);
  void blackhole(const BlackholeFault& fault);
  void delay(DelayFault fault);
  void late(LateFault fault);
  void fail(FailFault fault);
  void corrupt(CorruptFault fault);
  void ignore_keep_alive(KeepAliveFault fault);
  /// Ends them all. What waited is executed now and answered; ghosts to come are forgotten.
  void clear();

  [[nodiscard]] const FaultCounters& counters() const { return counters_; }
  /// {"faults": […], "counters": {…}, "ghosts": n, "listening": b, "connections": […],
  ///  "controllers": […], "subsystems": […], "referrals": […], "generation": n}
  [[nodiscard]] nlohmann::json show() const;
  /// Ghosts that wait for their time.
  [[nodiscard]] std::size_t ghosts() const;

  // ---- for Target, Session and HoleStream
  [[nodiscard]] bool refuses_connection();
  [[nodiscard]] std::optional<nvme::Status> refuses_connect(std::string_view subnqn,
                                                            std::uint16_t qid);
  /// A connection was accepted: whether it is black-holed from the start.
  [[nodiscard]] bool swallows_new() const;
  /// A session has become a queue of a controller.
  void connected(Session& session);
  [[nodiscard]] std::optional<nvme::Status> fail_status(const Session& session,
                                                        const nvme::Sqe& sqe);
  [[nodiscard]] bool ignores(const Session& session, const nvme::Sqe& sqe);
  [[nodiscard]] bool corrupts(const Session& session);

  // ---- for FaultyDisk
  struct Plan {
    bool hold = false;
    Duration before{};
    Duration after{};
    [[nodiscard]] bool plain() const {
      return !hold && before == Duration::zero() && after == Duration::zero();
    }
  };
  [[nodiscard]] bool touches_disks() const { return !delays_.empty() || !lates_.empty(); }
  [[nodiscard]] Plan plan(std::string_view subnqn, std::uint32_t nsid, const DiskOp& op);
  /// How long after the loss of its connection an operation that was not executed is to be.
  [[nodiscard]] std::optional<Duration> ghost(std::string_view subnqn, std::uint32_t nsid,
                                              const DiskOp& op, Disk::Abandoned why) const;
  void add(FaultyDisk& disk) { disks_.push_back(&disk); }
  void remove(FaultyDisk& disk) { std::erase(disks_, &disk); }
  void executed_late(const std::string& what);
  void cancelled() { ++counters_.cancelled; }
  /// A ghost that was being executed has ended: stop() may have waited for it.
  void ghost_ended();
  /// No ghost is being executed.
  [[nodiscard]] bool idle() const;
  /// At the target's end: forgets ghosts, lets go of what waits, lifts black holes.
  void stop();
  void power_loss();

 private:
  struct Hole {
    FaultScope scope;
    std::uint64_t id = 0;
    transport::Timer timer;
    Hole(Target& target, FaultScope s, std::uint64_t number);
  };
  struct Refusal {
    RefuseFault fault;
    std::optional<Instant> until;
  };

  [[nodiscard]] nlohmann::json standing() const;
  [[nodiscard]] bool covers(const FaultScope& scope, const Session& session) const;
  [[nodiscard]] bool in_hole(const Session& session) const;
  void update_holes();
  void lift(std::uint64_t hole);
  Refusal* refusal(bool connect, std::string_view subnqn, std::uint16_t qid);
  std::vector<Session*> sessions_in(const FaultScope& scope) const;
  /// Enabled ones, of subsystems with namespaces.
  std::vector<Controller*> controllers_in(const FaultScope& scope) const;

  Target& target_;
  std::vector<Refusal> refusals_;
  std::vector<std::unique_ptr<Hole>> holes_;
  std::uint64_t next_hole_ = 1;
  std::vector<DelayFault> delays_;
  std::vector<LateFault> lates_;
  std::vector<FailFault> fails_;
  std::vector<CorruptFault> corrupts_;
  std::vector<KeepAliveFault> keep_alives_;
  std::vector<FaultyDisk*> disks_;
  FaultCounters counters_;
};

}  // namespace nvmf::controller
