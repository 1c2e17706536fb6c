// Queue pairs that carry capsules, whatever the fabric.
//
// A queue pair is one submission queue with its completion queue and, over fabrics, one connection.
// The host's end takes commands with at most one data buffer and completes each exactly once. The
// controller's end delivers commands, moves their data in pieces, and responds.
//
// Threads: everything about a queue pair happens on the thread of its Loop.
// Memory: all slots and rings are allocated when the queue is made; nothing is allocated per
// command.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "nvme/command.h"
#include "nvme/result.h"

namespace nvmf::transport {

enum class DataDirection : std::uint8_t { none, to_controller, from_controller };

/// How far a command got. Only `answered` says anything about its effects.
enum class Delivery : std::uint8_t {
  answered,    // cqe is the controller's word (or ours about its data, see cqe)
  not_sent,    // no byte of the capsule was given to the network: certainly not executed
  unanswered,  // sent at least in part, the connection ended first: may have been executed, may be
               // yet
};

/// A command in flight. The caller owns it, and the buffer, and leaves both alone from submit()
/// until `complete` is called; then it may reuse or free both, also inside the callback.
struct HostCommand {
  nvme::Sqe sqe;  // CID, PSDT and SGL1 are filled in by the queue pair
  DataDirection direction = DataDirection::none;
  std::byte* data = nullptr;
  std::uint32_t data_bytes = 0;
  void (*complete)(HostCommand&) = nullptr;

  // The outcome.
  Delivery delivery = Delivery::not_sent;
  /// With Delivery::answered. A read that the controller called successful but whose data came
  /// short ends as Data Transfer Error, as does a write whose data it never fetched; a read whose
  /// data digest was wrong as Transient Transport Error (NVMe/TCP 1.0 §3.5.1); otherwise as the
  /// controller said.
  nvme::Cqe cqe;
  std::uint32_t received_bytes = 0;

  HostCommand* next = nullptr;  // for whoever holds the command: waiting lists, the queue pair
};

struct HostQpairEvents {
  /// The transport's own handshake is done; Connect may be submitted.
  virtual void on_ready() = 0;
  /// A slot became free after submit() had none. At most once per turn; not from inside submit().
  virtual void on_slot_free() = 0;
  /// The connection is gone and every command has been completed. Last call. The queue pair may be
  /// destroyed in here.
  virtual void on_ended(const Error& reason) = 0;

 protected:
  ~HostQpairEvents() = default;
};

class HostQpair {
 public:
  virtual ~HostQpair() = default;  // only before it was started, or after on_ended()

  /// Commands that submit() takes now.
  [[nodiscard]] virtual std::uint32_t free_slots() const = 0;
  /// Takes the command; needs on_ready() and a free slot. Never completes inside.
  virtual void submit(HostCommand& command) = 0;

  /// Learned from Identify (IOCCSZ) after Connect: write data up to this goes in the capsule.
  virtual void set_in_capsule_bytes(std::uint32_t bytes) = 0;

  /// Ends the connection at once (RST). Commands complete as not_sent or unanswered, then
  /// on_ended(reason). Later calls do nothing.
  virtual void end(Error reason) = 0;
  /// Ends it in order (after a shutdown): FIN; then as above.
  virtual void finish() = 0;

  /// "127.0.0.1:4420 queue 2", for messages.
  [[nodiscard]] virtual std::string describe() const = 0;
  /// The controller's end closed this connection (FIN or RST came), before we did: it will not
  /// fetch anything from it any more.
  [[nodiscard]] virtual bool peer_closed() const = 0;
};

/// A command at the controller's end. The queue pair owns it; the reference is good from
/// on_command() until respond(), the last on_data_sent(), or on_ended().
struct ControllerCommand {
  nvme::Sqe sqe;
  /// Length of the SGL's data, and whether it came with the capsule.
  std::uint32_t data_bytes = 0;
  /// In-capsule data, all of it, already verified; empty otherwise.
  std::span<const std::byte> in_capsule;
  /// Memory of the queue pair's that belongs to this command as long as the reference is good: as
  /// much as a capsule may carry on this queue, empty if this one's capsule carried data.
  std::span<std::byte> spare;
  /// Bytes moved so far by receive_data()/send_data().
  std::uint32_t moved_bytes = 0;
  /// For the session: its own state for this command.
  void* context = nullptr;
  /// Index of the command's slot, below the queue's number of slots: for arrays beside ours.
  std::uint32_t slot = 0;
};

struct ControllerQpairEvents {
  /// A command capsule came. Invalid SGLs have been answered already.
  virtual void on_command(ControllerCommand& command) = 0;
  /// The piece asked for by receive_data() is in its buffer. `digest_ok` false: answer with
  /// Transient Transport Error (NVMe/TCP 1.0 §3.5.1).
  virtual void on_data_received(ControllerCommand& command, bool digest_ok) = 0;
  /// The piece given to send_data() is no longer needed.
  virtual void on_data_sent(ControllerCommand& command) = 0;
  /// The connection has ended (and with it every transfer under way): no more calls for any
  /// command, no buffer used any more. Last call; the queue pair may be destroyed in here.
  virtual void on_ended(const Error& reason) = 0;

 protected:
  ~ControllerQpairEvents() = default;
};

class ControllerQpair {
 public:
  virtual ~ControllerQpair() = default;  // only after on_ended()

  /// After a good Connect: the number of entries of this queue, and the in-capsule data it takes.
  /// Before it, one command (Connect itself) may be outstanding. Once.
  virtual void open_queue(std::uint32_t queue_entries, std::uint32_t in_capsule_bytes,
                          bool sq_flow_control) = 0;

  /// Fetches the next `buffer.size()` bytes of a command whose data is not in the capsule. One
  /// piece at a time per command; pieces follow one another; on_data_received() follows, never
  /// inside. The sum never exceeds data_bytes.
  virtual void receive_data(ControllerCommand& command, std::span<std::byte> buffer) = 0;

  /// Sends the next piece to the host. on_data_sent() follows, never inside. With `last` the
  /// transfer is complete; with `success` too, it stands for a response without an error (SUCCESS
  /// flag) if SQ flow control is off, or for a response sent right behind it; then respond() must
  /// not be called, and on_data_sent() is the last word about this command.
  virtual void send_data(ControllerCommand& command, std::span<const std::byte> piece, bool last,
                         bool success) = 0;

  /// Ends the command. CID, SQHD and SQID are filled in here. The reference is invalid afterwards.
  virtual void respond(ControllerCommand& command, nvme::Status status, std::uint64_t result) = 0;

  virtual void end(Error reason) = 0;
  virtual void finish() = 0;
  [[nodiscard]] virtual std::string peer() const = 0;
  [[nodiscard]] virtual std::string local() const = 0;
};

}  // namespace nvmf::transport
