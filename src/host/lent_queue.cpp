#include "host/lent_queue.h"

#include <utility>

#include "host/namespace_device.h"
#include "host/queue_group.h"
#include "nvme/check.h"

namespace nvmf::host {

LentQueue::LentQueue(transport::Loop& home, transport::Loop& lenders_loop, IoQueue& lender)
    : home_(home), lenders_loop_(lenders_loop), lender_(&lender) {}

LentQueue::~LentQueue() {
  NVMF_CHECK(!opened_ && in_flight_ == 0 && group == nullptr);
}

Task<Result<void>> LentQueue::open() {
  make_commands(kLentCommands);
  opened_ = true;
  co_await switch_to(lenders_loop_);
  const bool joined = join();
  co_await switch_to(home_);
  if (!joined) co_return fail("the I/O queue to be shared has ended", ENOTCONN);
  live_ = true;
  co_return Result<void>{};
}

Task<void> LentQueue::close() {
  if (!opened_) co_return;
  end();
  // Our posts arrive in order: afterwards the lender has had every command, and we every word of
  // its end.
  co_await switch_to(lenders_loop_);
  leave();
  co_await switch_to(home_);
  if (in_flight_ != 0) {
    Signal drained(home_);
    drained_ = &drained;
    co_await drained;
    drained_ = nullptr;
  }
  opened_ = false;
}

void LentQueue::submit(IoCommand& command) {
  NVMF_CHECK(in_flight_ < kLentCommands);
  ++in_flight_;
  command.delivery = transport::Delivery::not_sent;
  lenders_loop_.post([this, &command] { arrive(command); });
}

// ---- on the lender's reactor ----

bool LentQueue::join() {
  if (lender_->live()) {
    lender_->lend_to(*this);
  } else {
    lender_ = nullptr;
  }
  return lender_ != nullptr;
}

void LentQueue::leave() {
  if (lender_ != nullptr) lender_->stop_lending_to(*this);
  lender_ = nullptr;
  send_home_waiting();
}

void LentQueue::arrive(IoCommand& command) {
  if (lender_ == nullptr) return carried(command);
  push(command);
  lender_->share_room();
}

void LentQueue::send_home_waiting() {
  while (IoCommand* command = pop()) carried(*command);
}

void LentQueue::carried(IoCommand& command) {
  home_.post([this, &command] { came_home(command); });
}

void LentQueue::lender_down() {
  lender_ = nullptr;
  send_home_waiting();
  home_.post([this] { end(); });
}

// ---- at home ----

void LentQueue::came_home(IoCommand& command) {
  --in_flight_;
  QueueGroup* const waiting = group;
  QueueCounters* const counters = command.counters;
  if (tell_device(command).again && counters != nullptr) {
    counters->retries.fetch_add(1, std::memory_order_relaxed);
  }
  if (waiting != nullptr) waiting->pump();
  if (in_flight_ == 0 && drained_ != nullptr) drained_->fire();
}

void LentQueue::end() {
  live_ = false;
  if (group != nullptr) group->remove(*this);
}

}  // namespace nvmf::host
