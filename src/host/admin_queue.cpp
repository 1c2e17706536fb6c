#include "host/admin_queue.h"

#include <algorithm>
#include <utility>

#include "nvme/admin.h"

namespace nvmf::host {

AdminQueue::AdminQueue(transport::Loop& loop, std::move_only_function<void(const Error&)> on_down)
    : QueueLink(loop, 0), on_down_(std::move(on_down)) {
  keep_alive_.queue = this;
}

std::uint32_t AdminQueue::shared_slots() const {
  return slots() - 1 - kAsyncEventSlotsMax;
}

void AdminQueue::release_slot() {
  --shared_used_;
  if (waiting_.empty()) return;
  // The slot is the waiter's from here on: nobody who comes later can take it.
  ++shared_used_;
  Signal* next = waiting_.front();
  waiting_.pop_front();
  next->fire();
}

Task<Result<CommandOutcome>> AdminQueue::execute(nvme::Sqe sqe, transport::DataDirection direction,
                                                 std::span<std::byte> data, Duration timeout) {
  const Gate::Pass inside(gate());
  if (ended()) co_return std::unexpected(reason());
  if (!live()) co_return fail(describe() + " is not open", ENOTCONN);
  if (shared_used_ < shared_slots()) {
    ++shared_used_;
  } else if (waiting_.size() >= kAdminWaitersMax) {
    co_return fail(describe() + " has too many commands waiting; try again later", EBUSY);
  } else {
    Signal turn(loop());
    waiting_.push_back(&turn);
    co_await turn;
  }
  ++submitted_;
  submitted_at_ = loop().now();
  Result<CommandOutcome> outcome = co_await run(sqe, direction, data, timeout);
  release_slot();
  co_return outcome;
}

Task<Result<CommandOutcome>> AdminQueue::execute_event_request() {
  const Gate::Pass inside(gate());
  ++submitted_;
  submitted_at_ = loop().now();
  co_return co_await run(nvme::async_event_request(), transport::DataDirection::none, {},
                         Duration::zero());
}

void AdminQueue::submit_keep_alive(std::move_only_function<void(nvme::Status)> on_answer) {
  if (keep_alive_.outstanding || free_slots() == 0) return;
  keep_alive_.sqe = nvme::keep_alive();
  keep_alive_.outstanding = true;
  keep_alive_.on_answer = std::move(on_answer);
  keep_alive_.complete = [](transport::HostCommand& c) {
    KeepAlive& ka = static_cast<KeepAlive&>(c);
    ka.outstanding = false;
    if (ka.delivery == transport::Delivery::answered) ka.on_answer(ka.cqe.status);
  };
  qpair().submit(keep_alive_);
}

void AdminQueue::on_down(const Error& reason) {
  if (on_down_) on_down_(reason);
}

Task<Result<CommandOutcome>> read_log_page(AdminQueue& admin, nvme::GetLogPage log,
                                           std::span<std::byte> out, std::uint64_t piece_bytes,
                                           Duration timeout) {
  const bool retain = log.retain_event;
  const std::uint64_t start = log.offset_bytes;
  std::size_t done = 0;
  CommandOutcome outcome;
  while (done < out.size()) {
    const std::span<std::byte> piece =
        out.subspan(done, std::min<std::uint64_t>(piece_bytes, out.size() - done));
    log.offset_bytes = start + done;
    log.length_bytes = piece.size();
    log.retain_event = retain || done + piece.size() < out.size();
    auto result = co_await admin.execute(log.to_sqe(), transport::DataDirection::from_controller,
                                         piece, timeout);
    if (!result || !result->cqe.status.ok()) co_return result;
    outcome = *result;
    done += piece.size();
  }
  outcome.received_bytes = static_cast<std::uint32_t>(done);
  co_return outcome;
}

}  // namespace nvmf::host
