// Commands of an I/O queue that have a timeout of their own: passthrough. They are few; the others
// share one and are looked at by their order (io_queue.h).
//
// When one is overdue the controller is to be told to abort it; kAbortGrace later the queue is to
// be given up. Thread: the queue's reactor's. Nothing is allocated per command.
#pragma once

#include <cstdint>
#include <functional>

#include "host/command_queue.h"
#include "transport/loop.h"

namespace nvmf::host {

class OwnTimeouts {
 public:
  struct Events {
    std::move_only_function<void(IoCommand&)> on_overdue;  // it is out: abort it
    /// Nothing is done after it: it may end everything.
    std::move_only_function<void(IoCommand&)> on_given_up;
  };
  OwnTimeouts(transport::Loop& loop, Events events);

  /// In flight from now on, with its `timeout`; linked by `older` and `newer`.
  void add(IoCommand& command);
  void remove(IoCommand& command);
  void cancel() { timer_.cancel(); }

 private:
  void check();
  [[nodiscard]] static Instant due(const IoCommand& command);
  void arm();

  transport::Loop& loop_;
  Events events_;
  IoCommand* newest_ = nullptr;
  transport::Timer timer_;
};

}  // namespace nvmf::host
