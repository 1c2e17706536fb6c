#include "host/admin_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "host/awaited_command.h"
#include "nvme/admin.h"

namespace nvmf::host {

namespace {

std::string seconds_text(Duration d) {
  return fmt::format("{:g} s", std::chrono::duration<double>(d).count());
}

}  // namespace

AdminQueue::AdminQueue(transport::Loop& loop, QueueCounters& counters,
                       std::move_only_function<void(const Error&)> on_down)
    : QueueLink(loop, 0),
      counters_(counters),
      on_down_(std::move(on_down)),
      own_(loop, kAdminWaitersMax),
      passthrough_(loop, kPassthroughWaitersMax) {
  keep_alive_.queue = this;
}

/// How many there are is known once the queue is open.
void AdminQueue::share_slots() {
  if (std::exchange(slots_shared_, true)) return;
  const std::uint32_t shared = slots() - 1 - kAsyncEventSlotsMax;
  passthrough_.set_slots(shared / 2);
  own_.set_slots(shared - shared / 2);
}

Task<Result<CommandOutcome>> AdminQueue::execute(nvme::Sqe sqe, transport::DataDirection direction,
                                                 std::span<std::byte> data, Duration timeout) {
  const Gate::Pass inside(gate());
  if (ended()) co_return std::unexpected(reason());
  if (!live()) co_return fail(describe() + " is not open", ENOTCONN);
  share_slots();
  if (co_await own_.take() != SlotShare::Took::yes) {
    co_return fail(describe() + " has too many commands waiting; try again later", EBUSY);
  }
  ++submitted_;
  submitted_at_ = loop().now();
  const Instant began = submitted_at_;
  count(counters_.commands);
  Result<CommandOutcome> outcome = co_await run(sqe, direction, data, timeout);
  count_outcome(direction, data.size(), loop().now() - began, outcome ? &*outcome : nullptr);
  own_.give_back();
  co_return outcome;
}

Task<PassedThrough> AdminQueue::pass(nvme::Sqe sqe, transport::DataDirection direction,
                                     std::span<std::byte> data, Duration timeout, bool changes_data,
                                     std::move_only_function<void(std::uint16_t cid)> on_overdue) {
  const Gate::Pass inside(gate());
  if (!live()) {
    co_return PassedThrough{.why = ended() ? reason() : Error{describe() + " is not open"}};
  }
  share_slots();
  switch (co_await passthrough_.take(loop().now() + timeout)) {
    case SlotShare::Took::yes:
      break;
    case SlotShare::Took::too_many_wait:
      co_return PassedThrough{
          .why = {fmt::format("{} commands wait to be passed through already; try again later",
                              kPassthroughWaitersMax),
                  EBUSY}};
    case SlotShare::Took::too_late:
      co_return PassedThrough{.why = {fmt::format("others that are passed through left it no room "
                                                  "within {}; try again later",
                                                  seconds_text(timeout)),
                                      EBUSY}};
  }
  // Without a slot although one is ours: its end is under way.
  if (!live() || free_slots() == 0) {
    passthrough_.give_back();
    co_await wait_ended();
    co_return PassedThrough{.why = reason()};
  }
  ++submitted_;
  submitted_at_ = loop().now();
  const Instant began = submitted_at_;
  count(counters_.commands);
  AwaitedCommand command(sqe, direction, data);
  bool told = false;
  std::optional<transport::Timer> deadline;
  deadline.emplace(loop().timers(), [&] {
    if (std::exchange(told, true)) {
      return end(Error{fmt::format("{} did not answer the command {} within {}, nor when it was "
                                   "told to abort it",
                                   describe(), nvme::opcode_name(sqe, true), seconds_text(timeout)),
                       ETIMEDOUT});
    }
    // Of one that is not out yet, the controller knows nothing.
    if (command.delivery == transport::Delivery::unanswered) {
      count(counters_.timeouts);
      on_overdue(command.sqe.cid);
    }
    deadline->arm(loop().now() + kAbortGrace);
  });
  deadline->arm(loop().now() + timeout);
  co_await SubmitAwaiter{qpair(), command};
  deadline.reset();
  passthrough_.give_back();
  const bool answered = command.delivery == transport::Delivery::answered;
  const CommandOutcome outcome{command.cqe, command.received_bytes};
  count_outcome(direction, data.size(), loop().now() - began, answered ? &outcome : nullptr);
  if (answered) co_return PassedThrough{.outcome = outcome};
  const bool sent = command.delivery == transport::Delivery::unanswered;
  if (sent && changes_data) unanswered_changes_ = true;
  // The reason of the queue's end follows the commands' completions.
  co_await wait_ended();
  co_return PassedThrough{.sent = sent, .overdue = told, .why = reason()};
}

void AdminQueue::count_outcome(transport::DataDirection direction, std::size_t bytes,
                               Duration latency, const CommandOutcome* outcome) {
  if (outcome != nullptr) counters_.latencies.record(LatencyKind::other, latency);
  if (outcome == nullptr || !outcome->cqe.status.ok()) {
    count(counters_.errors);
  } else if (direction == transport::DataDirection::from_controller) {
    count(counters_.read_bytes, bytes);
  } else if (direction == transport::DataDirection::to_controller) {
    count(counters_.written_bytes, bytes);
  }
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
  peer_closed_ = qpair().peer_closed();
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
