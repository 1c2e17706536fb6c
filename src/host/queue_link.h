// One queue of an association while it is brought up, and the way it ends: what admin and I/O
// queues have in common. It owns the transport's queue pair and turns its events into awaitables.
//
// Threads: everything happens on the thread of the queue's loop; construction may happen elsewhere.
// Life: constructed → open() → live → ended. end() and finish() may be called in any state; before
// open() they make it fail at once. To be destroyed before open(), or after close().
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "host/task.h"
#include "nvme/command.h"
#include "transport/qpair.h"
#include "transport/tcp/host_qpair.h"

namespace nvmf::host {

/// After its deadline a command is to be aborted; this much later, or after as much as the deadline
/// itself if that is less, the queue is given up. Passthrough commands, whose deadline may be as
/// short as a user likes, have all of it.
inline constexpr Duration kAbortGrace = std::chrono::seconds(5);

/// What a controller answered. The status is data: a refused command is an answer too.
struct CommandOutcome {
  nvme::Cqe cqe;
  std::uint32_t received_bytes = 0;
};

class QueueLink : private transport::HostQpairEvents {
 public:
  QueueLink(transport::Loop& loop, std::uint16_t qid);
  virtual ~QueueLink();
  QueueLink(const QueueLink&) = delete;
  QueueLink& operator=(const QueueLink&) = delete;

  /// Opens the connection and does the transport's handshake. Fails when the connection ends before
  /// that, and ends it when it takes longer than `timeout`. Error codes as
  /// tcp::HostQpair::start().
  Task<Result<void>> open(transport::Endpoint to, transport::ConnectOptions options,
                          tcp::HostQpairOptions qpair, Duration timeout);

  /// Sends one command, which needs a free slot (else EBUSY), and waits for its answer. When that
  /// takes longer than `timeout` (0: for ever) the queue is ended: whether the command was executed
  /// can no longer be known. An Error is the reason of the queue's end. `data` is the caller's and
  /// must stay until then.
  Task<Result<CommandOutcome>> run(nvme::Sqe sqe, transport::DataDirection direction,
                                   std::span<std::byte> data, Duration timeout);

  /// Ends the queue at once (RST) or in order (FIN). The first reason stays.
  void end(Error reason);
  void finish();
  /// Until the connection is gone and every command completed.
  Task<void> wait_ended();
  /// end(reason), and waits until the queue may be destroyed: nobody is inside its methods any
  /// more.
  Task<void> close(Error reason);

  [[nodiscard]] bool live() const { return state_ == State::live; }
  [[nodiscard]] bool ended() const { return state_ == State::ended; }
  /// Why it ended.
  [[nodiscard]] const Error& reason() const { return reason_; }
  [[nodiscard]] std::uint16_t qid() const { return qid_; }
  [[nodiscard]] std::string describe() const;
  [[nodiscard]] transport::Loop& loop() const { return loop_; }

 protected:
  [[nodiscard]] transport::HostQpair& qpair() { return *qpair_; }
  [[nodiscard]] std::uint32_t free_slots() const { return qpair_ ? qpair_->free_slots() : 0; }
  /// Commands that fit at most, once open() was called.
  [[nodiscard]] std::uint32_t slots() const { return slots_; }
  /// For every coroutine that uses this object.
  [[nodiscard]] Gate& gate() { return gate_; }

 private:
  enum class State : std::uint8_t { idle, opening, live, ended };

  // For the kinds of queue. on_down() comes after the last command was completed, once, if open()
  // was called; the queue must not be destroyed in it.
  virtual void on_slot() {}
  virtual void on_down(const Error& /*reason*/) {}

  void on_ready() override;
  void on_slot_free() override { on_slot(); }
  void on_ended(const Error& reason) override;

  transport::Loop& loop_;
  std::uint16_t qid_;
  State state_ = State::idle;
  Error reason_;
  std::uint32_t slots_ = 0;    // of the queue pair
  std::uint32_t running_ = 0;  // taken by run()
  std::unique_ptr<tcp::HostQpair> qpair_;
  Gate gate_;
  Signal opened_;
  Signal ended_;
};

}  // namespace nvmf::host
