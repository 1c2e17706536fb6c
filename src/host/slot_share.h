// A number of slots that coroutines take in turn: first come, first served, with a bounded list of
// those that wait. Thread: the loop's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>

#include "host/task.h"
#include "transport/timer.h"

namespace nvmf::host {

class SlotShare {
 public:
  SlotShare(transport::Loop& loop, std::size_t waiters_max)
      : loop_(loop), waiters_max_(waiters_max) {}
  SlotShare(const SlotShare&) = delete;
  SlotShare& operator=(const SlotShare&) = delete;

  /// Before the first take(). At least 1.
  void set_slots(std::uint32_t slots) { slots_ = slots; }

  enum class Took : std::uint8_t { yes, too_many_wait, too_late };
  /// A slot, to be given back; or none: there are too many waiting already, or there was none free
  /// by `until`.
  Task<Took> take(Instant until = Instant::max());
  /// The one who waits longest has it from here on: nobody who comes later can take it.
  void give_back();

 private:
  struct Waiter {
    Signal* turn = nullptr;
    bool late = false;
  };

  transport::Loop& loop_;
  const std::size_t waiters_max_;
  std::uint32_t slots_ = 1;
  std::uint32_t used_ = 0;
  std::deque<Waiter*> waiting_;  // each in the frame that waits
};

}  // namespace nvmf::host
