// A queue for a reactor that has none: its commands travel on an I/O queue of another reactor.
//
// After a reconnect the controller may grant fewer I/O queues than there are reactors with clients.
// Each one that is left over gets a LentQueue, and its devices notice no difference but the time
// that two posts take. A command is posted to the lender's reactor, waits there for room, travels
// on the I/O queue as one of its own (timeouts, counters, Abort), and is posted back with its
// outcome. No lock, and nothing is allocated per command but what Loop::post() needs.
//
// Threads. Home is the reactor whose devices use it; there everything of CommandQueue's happens. A
// command, and what it points to, belongs to the lender's reactor from submit() until it is posted
// back.
//
// Life. constructed → open() → live → close(). When the I/O queue goes down, every command comes
// home with the delivery that it had (not_sent if it waited), and the LentQueue leaves its group;
// to be destroyed before open(), or after close().
#pragma once

#include <cstdint>

#include "host/command_queue.h"
#include "host/io_queue.h"
#include "host/lending.h"
#include "host/task.h"
#include "transport/loop.h"

namespace nvmf::host {

/// Commands of one reactor on its way, at most: enough for the depth that two posts add, few enough
/// to leave the lender's own most of its queue.
inline constexpr std::uint32_t kLentCommands = 32;

class LentQueue final : public CommandQueue, private Borrower {
 public:
  /// `lender` must be there until open() is done, and then until it has gone down in the way that
  /// an I/O queue does: it says so here.
  LentQueue(transport::Loop& home, transport::Loop& lenders_loop, IoQueue& lender);
  ~LentQueue();

  /// On the home loop. Fails (ENOTCONN) if the lender is no longer live. Then it may be put in a
  /// group.
  Task<Result<void>> open();
  /// On the home loop, after open(), whatever that said: takes it out of its group and waits until
  /// every command is home, the devices have been told, and no post is under way. What waits for
  /// room comes back at once, what is in flight with its answer, or the end of the lender. After a
  /// loss, to be done before devices are told settle_losses(): some of a request's parts may still
  /// be on their way home.
  Task<void> close();

  void submit(IoCommand& command) override;
  [[nodiscard]] std::uint32_t free_commands() const override {
    return live_ ? kLentCommands - in_flight_ : 0;
  }
  [[nodiscard]] std::uint32_t in_flight() const override { return in_flight_; }
  [[nodiscard]] bool live() const override { return live_; }
  [[nodiscard]] transport::Loop& home() const { return home_; }

 private:
  // On the lender's reactor.
  bool join();
  void leave();
  void arrive(IoCommand& command);
  void send_home_waiting();
  void carried(IoCommand& command) override;
  void lender_down() override;

  // At home.
  void came_home(IoCommand& command);
  void end();

  transport::Loop& home_;
  transport::Loop& lenders_loop_;
  IoQueue* lender_;  // the lender's reactor's; nullptr from its end on
  bool live_ = false;
  bool opened_ = false;
  std::uint32_t in_flight_ = 0;
  Signal* drained_ = nullptr;  // in close()'s frame
};

}  // namespace nvmf::host
