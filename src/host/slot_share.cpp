#include "host/slot_share.h"

#include <optional>

namespace nvmf::host {

Task<SlotShare::Took> SlotShare::take(Instant until) {
  if (used_ < slots_) {
    ++used_;
    co_return Took::yes;
  }
  if (waiting_.size() >= waiters_max_) co_return Took::too_many_wait;
  Signal turn(loop_);
  Waiter waiter{.turn = &turn};
  std::optional<transport::Timer> limit;
  if (until != Instant::max()) {
    limit.emplace(loop_.timers(), [this, &waiter] {
      if (std::erase(waiting_, &waiter) == 0) return;  // it has its turn already
      waiter.late = true;
      waiter.turn->fire();
    });
    limit->arm(until);
  }
  waiting_.push_back(&waiter);
  co_await turn;
  co_return waiter.late ? Took::too_late : Took::yes;
}

void SlotShare::give_back() {
  if (waiting_.empty()) {
    --used_;
    return;
  }
  Waiter* const next = waiting_.front();
  waiting_.pop_front();
  next->turn->fire();
}

}  // namespace nvmf::host
