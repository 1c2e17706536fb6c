// An I/O queue of an association: its commands' timeouts, and counters.
//
// Made on the control thread; everything else happens on the thread of its loop, its reactor's.
// Nothing is allocated per command.
#pragma once

#include <cstdint>

#include "host/command_queue.h"
#include "host/counters.h"
#include "host/lending.h"
#include "host/overdue.h"
#include "host/queue_link.h"

namespace nvmf::host {

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

class IoQueue final : public QueueLink, public CommandQueue {
 public:
  IoQueue(transport::Loop& loop, std::uint16_t qid, QueueCounters& counters,
          Duration command_timeout, IoQueueEvents events);

  /// After open() and Connect: the pool.
  void prepare();

  void submit(IoCommand& command) override;
  [[nodiscard]] std::uint32_t free_commands() const override {
    return prepared_ && !lending_.borrowers_turn() ? room() : 0;
  }
  [[nodiscard]] std::uint32_t in_flight() const override { return in_flight_; }
  [[nodiscard]] bool live() const override { return QueueLink::live(); }

  /// The association is about to be ended: no more commands are taken. What is still answered
  /// counts, but refusals are for the next association to hear again.
  void quiesce() { quiesced_ = true; }

  // For the LentQueues of other reactors; on this one's.
  /// Until stop_lending_to(), or its lender_down().
  void lend_to(Borrower& borrower) { lending_.add(borrower); }
  void stop_lending_to(Borrower& borrower) { lending_.remove(borrower); }
  /// Whoever waits for room may submit, in turn.
  void share_room();

 private:
  [[nodiscard]] std::uint32_t room() const { return quiesced_ ? 0 : free_slots(); }
  void on_slot() override { share_room(); }
  void on_down(const Error& reason) override;
  void carry(IoCommand& command);
  void link(IoCommand& command);
  void unlink(IoCommand& command);
  void give_up(const IoCommand& command);
  void completed(IoCommand& command);
  void count_outcome(const IoCommand& command);
  void check_timeouts();

  QueueCounters& counters_;
  Duration timeout_;
  IoQueueEvents events_;
  Lending lending_;
  bool unanswered_changes_ = false;
  /// The oldest command has been told on_overdue() of, at this time.
  const IoCommand* aborted_ = nullptr;
  Instant aborted_at_{};
  bool prepared_ = false;
  bool quiesced_ = false;
  IoCommand* oldest_ = nullptr;
  IoCommand* newest_ = nullptr;
  std::uint32_t in_flight_ = 0;
  transport::Timer timeout_check_;
  OwnTimeouts own_timeouts_;
};

}  // namespace nvmf::host
