// One controller: what a host sees from Connect to the end of their association (the dynamic
// controller model, NVMe Base 2.1 §3.1.2). Properties, keep-alive, asynchronous events, error log;
// the commands themselves are in admin_commands and io_commands.
//
// How an association ends (Base 2.1 §3.1.2, §3.3.2.4):
// - the admin connection is lost, or Keep Alive expires: every connection is reset at once;
// - an I/O connection is lost: that queue ends. Where the host can delete queues one by one (CATTR
//   bit 3 of its Connect) the others live on. Otherwise the association ends too, but only
//   kQueueLossGrace later: Linux closes its I/O connections before it shuts the controller down
//   over the admin queue, and an orderly shutdown must not be taken for a loss;
// - CC.EN = 0: the I/O connections are reset;
// - CC.SHN: I/O queues refuse commands from then on and are closed by the host, or by us
//   kShutdownGrace after the shutdown is complete: a host must not see a loss before it has read
//   CSTS.
// CSTS.RDY = 0, or SHST complete, is shown only when no operation of this controller is under way
// on any disk, so that a host may rely on it that nothing it wrote before will still happen; a
// shutdown flushes the disks first.
//
// After the end of an association no command is begun any more that was not begun before it (Base
// 2.2 §9.6); what a disk has begun is brought to its end.
//
// One thread, the target's loop. Owned by the target, which destroys it after controller_gone().
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "controller/admin_reply.h"
#include "controller/config.h"
#include "controller/disk.h"
#include "controller/events.h"
#include "controller/features.h"
#include "controller/format.h"
#include "controller/lba_status.h"
#include "controller/subsystem.h"
#include "nvme/admin.h"
#include "nvme/fabrics.h"
#include "nvme/log_pages.h"
#include "transport/loop.h"
#include "transport/qpair.h"

namespace nvmf::controller {

class Controller;
class DiscoveryService;
class Session;

/// How long an association survives the loss of an I/O connection: see above.
inline constexpr std::chrono::seconds kQueueLossGrace{2};
/// How long I/O connections of a controller that was shut down may stay open.
inline constexpr std::chrono::seconds kShutdownGrace{2};

class ControllerOwner {
 public:
  /// No connection is left and no disk operation is under way: it may be destroyed, but not in
  /// this call.
  virtual void controller_gone(Controller& controller) = 0;
  virtual void log(const std::string& line) = 0;

 protected:
  ~ControllerOwner() = default;
};

class Controller {
 public:
  struct Identity {
    std::uint16_t cntlid = 0;
    std::string hostnqn;
    nvme::HostId hostid{};
    std::uint32_t keep_alive_ms = 0;
    std::uint16_t port_id = 0;         // by which its admin queue came
    bool individual_deletion = false;  // the host can delete I/O queues one by one
  };

  /// `discovery` only for a controller of the discovery subsystem.
  Controller(transport::Loop& loop, ControllerOwner& owner, Subsystem& subsystem,
             const TargetConfig& config, const DiscoveryService* discovery, Identity identity);
  ~Controller();
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;

  [[nodiscard]] std::uint16_t cntlid() const { return identity_.cntlid; }
  [[nodiscard]] const Identity& identity() const { return identity_; }
  [[nodiscard]] Subsystem& subsystem() const { return subsystem_; }
  [[nodiscard]] const TargetConfig& config() const { return config_; }
  [[nodiscard]] const DiscoveryService* discovery() const { return discovery_; }
  [[nodiscard]] Session* admin_session() const { return admin_; }
  [[nodiscard]] Instant now() const { return loop_.now(); }
  /// "controller 3 of nqn…", for messages.
  [[nodiscard]] std::string describe() const;

  // Connections. A session is told of by attach_*, and stays until session_gone().
  void attach_admin(Session& session);
  void attach_io(std::uint16_t qid, Session& session);
  [[nodiscard]] bool has_queue(std::uint16_t qid) const { return io_.contains(qid); }
  [[nodiscard]] std::size_t io_queue_count() const { return io_.size(); }
  /// The largest QID that may be created.
  [[nodiscard]] std::uint32_t io_queue_limit() const;
  /// The connection has ended; its disk operations may still be under way.
  void connection_lost(Session& session, const Error& reason);
  /// Nothing is left of it; the last word about it.
  void session_gone(Session& session);
  /// No operation of an I/O queue is under way any more; its connection lives.
  void io_idle() {
    if (stopping_) continue_stop();
  }
  /// CC.EN = 0 or CC.SHN has been set, and not all is at rest yet.
  [[nodiscard]] bool stopping() const { return stopping_; }
  /// Ends the whole association.
  void end(const Error& reason);
  [[nodiscard]] bool ended() const { return ended_; }

  // Properties. Base 2.1 §3.1.4.
  [[nodiscard]] std::optional<std::uint64_t> property_get(const nvme::PropertyCommand& get) const;
  nvme::Status property_set(const nvme::PropertyCommand& set);
  /// CSTS.CFS: nothing but property commands is executed or answered until the host resets us.
  void set_fatal() {
    cfs_ = true;
    fatal_ = true;
  }
  [[nodiscard]] bool fatal() const { return fatal_; }
  /// A command that is neither executed nor answered, because of a fatal error.
  [[nodiscard]] bool mute(const nvme::Sqe& sqe) const { return fatal_ && !sqe.is_fabrics(); }
  /// CC.EN and CSTS.RDY are set and no shutdown is under way: commands are executed.
  [[nodiscard]] bool ready() const {
    return cc_.en && rdy_ && !cfs_ && shst_ == nvme::kShstNone && !ended_;
  }

  // Keep-alive. Base 2.1 §3.9.
  /// A command was fetched from one of the queues: traffic-based keep-alive.
  void command_fetched() { traffic_ = true; }
  void keep_alive();
  void set_keep_alive(std::uint32_t ms);

  // Asynchronous events. Base 2.1 §5.1.2.
  AdminReply take_async_event_request(transport::ControllerCommand& command);
  /// Ends the request with this CID as aborted; false if there is none.
  bool abort_async_event_request(std::uint16_t cid);
  /// The same for a command of an I/O queue that its disk has not begun.
  bool abort_io(std::uint16_t qid, std::uint16_t cid);
  void namespace_changed(std::uint32_t nsid);
  void discovery_changed() { raise(EventKind::discovery, nvme::kNoticeDiscoveryChange); }
  void ana_changed() { raise(EventKind::ana, nvme::kNoticeAnaChange); }
  void firmware_activation() { raise(EventKind::firmware, nvme::kNoticeFirmwareActivation); }
  /// The subsystem's health has changed, or a threshold: tells of warnings that are new.
  void health_changed();
  /// SMART's critical warnings, those included that follow from this controller's thresholds.
  [[nodiscard]] std::uint8_t critical_warnings() const;
  /// An error that belongs to no command: an entry in the log, and an event of that `info`.
  void internal_error(nvme::Status status, std::uint8_t info);
  /// The log page was read without Retain Asynchronous Event.
  void log_page_read(nvme::LogPage page);
  [[nodiscard]] const nvme::ChangedNamespaces& changed_namespaces() const { return changed_; }

  /// What a command that uses the namespace is to be answered with: success, or why the way to it
  /// is closed. Base 2.1 §8.1.1.
  [[nodiscard]] nvme::Status path_status(const Namespace& ns) const;

  // Format NVM.
  void start_format(Namespace& ns, std::uint32_t block_bytes,
                    transport::ControllerCommand& command);
  /// From the job, which is destroyed. Answers the command and tells of the change.
  void format_ended(FormatJob& job, nvme::Status status);
  void start_lba_status(Namespace& ns, const nvme::GetLbaStatus& wanted, std::uint64_t end_lba,
                        transport::ControllerCommand& command);
  void lba_status_ended(LbaStatusJob& job, AdminReply reply);

  // Error Information log, the newest first.
  void record_error(std::uint16_t sqid, const nvme::Sqe& sqe, nvme::Status status, bool has_lba);
  [[nodiscard]] const std::deque<nvme::ErrorEntry>& errors() const { return errors_; }

  [[nodiscard]] Features& features() { return features_; }
  [[nodiscard]] const Features& features() const { return features_; }

 private:
  /// The flush of one disk before a shutdown is complete.
  struct FlushOp : DiskOp {
    Controller* controller = nullptr;
  };

  void set_configuration(const nvme::ControllerConfiguration& next);
  [[nodiscard]] bool configuration_valid(const nvme::ControllerConfiguration& cc) const;
  void end_io(const char* why);
  void stop();
  void continue_stop();
  [[nodiscard]] bool io_at_rest() const;
  void reset_state();
  void flush_next();
  static void on_flushed(DiskOp& op);
  void arm_timer();
  void on_timer();
  void raise(EventKind kind, std::uint8_t info);
  void deliver();
  void keep_error(nvme::ErrorEntry entry);
  void check_gone();

  transport::Loop& loop_;
  ControllerOwner& owner_;
  Subsystem& subsystem_;
  const TargetConfig& config_;
  const DiscoveryService* discovery_;
  Identity identity_;

  nvme::ControllerConfiguration cc_;
  bool rdy_ = false;
  bool cfs_ = false;
  bool fatal_ = false;  // cfs_ on demand
  std::uint8_t shst_ = nvme::kShstNone;
  bool stopping_ = false;  // I/O queues and disks are being brought to rest
  bool flushing_ = false;
  bool flushed_ = false;
  bool flush_inside_ = false;
  bool flush_complete_ = false;
  Namespace* flushing_ns_ = nullptr;
  FlushOp flush_op_;
  std::vector<std::unique_ptr<FormatJob>> formats_;
  std::vector<std::unique_ptr<LbaStatusJob>> lookups_;

  Session* admin_ = nullptr;
  bool admin_lost_ = false;
  std::map<std::uint16_t, Session*> io_;
  bool ended_ = false;
  bool gone_ = false;

  Features features_;
  bool traffic_ = false;
  transport::Timer timer_;
  transport::Timer grace_;

  std::vector<transport::ControllerCommand*> async_requests_;
  AsyncEvents events_;
  std::uint8_t known_warnings_ = 0;  // those of which the host was told, or does not want to be
  nvme::ChangedNamespaces changed_;
  std::deque<nvme::ErrorEntry> errors_;
  std::uint64_t error_count_ = 0;
};

}  // namespace nvmf::controller
