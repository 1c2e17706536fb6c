// The I/O queues that one reactor has, and what waits for them.
//
// The devices of a reactor share its queues: each has a FIFO of requests, and they take turns, a
// command at a time. While there is no queue, requests wait. shut() answers all that waits, in the
// devices too (for held ranges, for memory), and everything that comes later. Of the reactors that
// share a namespace, all are shut or none.
//
// Thread: the reactor's. Constructed elsewhere; destroyed after shut(), when the reactor has
// delivered the completions that followed, or runs no more.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "host/block_device.h"
#include "host/command_queue.h"
#include "host/counters.h"
#include "host/log.h"
#include "host/retry_rules.h"
#include "transport/loop.h"

namespace nvmf::host {

class QueueGroup {
 public:
  explicit QueueGroup(transport::Loop& loop);
  ~QueueGroup();
  QueueGroup(const QueueGroup&) = delete;
  QueueGroup& operator=(const QueueGroup&) = delete;

  /// A queue that is live and prepared; it leaves by remove() when it goes down. A queue that has
  /// gone down already is not taken.
  void add(CommandQueue& queue);
  void remove(CommandQueue& queue);
  /// Requests that wait end with `waiting_error`, those in part in flight when their commands have
  /// ended, and all that come from now on with `later_error`. The first call counts.
  void shut(int waiting_error, int later_error);
  [[nodiscard]] int shut_error() const { return shut_error_; }
  /// For requests that shut() found between two commands.
  [[nodiscard]] int waiting_error() const { return waiting_error_; }

  /// How long a request may wait for a fence, or for another try, before it fails; nothing: for
  /// ever.
  void set_patience(std::optional<Duration> patience);
  /// Of the controller that the queues lead to.
  void set_retry_delays(const RetryDelays& delays) { retry_delays_ = delays; }
  /// For each of its devices.
  template <class Each>
  void for_each_device(Each each) {
    for (NamespaceDevice* device : devices_) each(*device);
  }

  // For NamespaceDevice.
  [[nodiscard]] const std::optional<Duration>& patience() const { return patience_; }
  [[nodiscard]] const RetryDelays& retry_delays() const { return retry_delays_; }
  /// It shares the queues from its construction to its destruction, both maybe elsewhere.
  void adopt(NamespaceDevice& device) { devices_.push_back(&device); }
  void forget(NamespaceDevice& device) { std::erase(devices_, &device); }
  /// A command on the queue with most room, or nullptr.
  IoCommand* take();
  /// The device has requests to issue. Not while it is enlisted already.
  void enlist(NamespaceDevice& device);
  void delist(NamespaceDevice& device);
  /// Completes the request with `error` in the loop's next turn.
  void complete_later(BlockRequest& request, int error);
  /// Issues what waits, as far as there is room.
  void pump();

  [[nodiscard]] std::uint32_t in_flight() const;
  [[nodiscard]] transport::Loop& loop() const { return loop_; }
  [[nodiscard]] LogLimiter& log_limiter() { return log_limiter_; }
  /// A request of one of its devices has ended, `complete` not called yet.
  void count_request(const BlockRequest& request);
  /// To be read anywhere.
  [[nodiscard]] const RequestCounters& counters() const { return counters_; }

 private:
  void deliver();

  transport::Loop& loop_;
  std::vector<CommandQueue*> queues_;
  std::vector<NamespaceDevice*> devices_;
  NamespaceDevice* first_ = nullptr;  // devices with requests to issue, in turn
  NamespaceDevice* last_ = nullptr;
  int shut_error_ = 0;
  int waiting_error_ = 0;
  BlockRequest* due_first_ = nullptr;  // to be completed in the next turn
  BlockRequest* due_last_ = nullptr;
  transport::Timer deliver_;
  std::optional<Duration> patience_;
  RetryDelays retry_delays_{};
  LogLimiter log_limiter_;
  RequestCounters counters_;
};

}  // namespace nvmf::host
