#include "host/association.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "host/log.h"
#include "nvme/admin.h"
#include "nvme/check.h"
#include "nvme/explain.h"

namespace nvmf::host {

namespace {

constexpr Duration kShutdownWait = std::chrono::milliseconds(700);
constexpr Duration kAbortPoll = std::chrono::milliseconds(100);
constexpr Duration kCloseWait = std::chrono::milliseconds(200);
constexpr Duration kStatusPoll = std::chrono::milliseconds(5);
// Answers that are waited for before a controller is disabled.
constexpr Duration kAnswerTime = std::chrono::milliseconds(500);
constexpr std::uint64_t kAdminPieceBytesMax = 64 * 1024;

std::string context(const Association& a) {
  return fmt::format("{} ({} at {})", a.params().name, a.params().subnqn,
                     a.info.endpoint.to_string());
}

}  // namespace

Association::Association(ConnectParams params, std::vector<transport::Loop*> loops,
                         std::shared_ptr<ConnectionCounters> counters)
    : params_(std::move(params)),
      loops_(std::move(loops)),
      counters_(counters ? std::move(counters) : std::make_shared<ConnectionCounters>()),
      ended_(*loops_.at(0)),
      tasks_(*loops_[0]),
      effects_turn_(*loops_[0], kEffectsWaitersMax),
      keep_alive_timer_(loops_[0]->timers(), [this] { check_keep_alive(); }) {
  renew_admin();
}

Association::~Association() {
  for (const QueueSlot& slot : queues_) NVMF_CHECK(slot.queue == nullptr);
}

void Association::renew_admin() {
  // An admin queue that fails to open is bring_up()'s affair; later its end is everyone's.
  admin_ =
      std::make_unique<AdminQueue>(control(), counters_->queue(0), [this](const Error& reason) {
        if (info.cntlid != 0) lose(reason);
      });
}

Association::QueueSlot& Association::add_queue() {
  NVMF_CHECK(queues_.size() < queues_.capacity());
  const std::size_t index = queues_.size();
  QueueSlot& slot = queues_.emplace_back();
  slot.reactor = index % loops_.size();
  // Both come on the reactor, before close_queue() goes on there; so does what they post here.
  IoQueueEvents events;
  events.on_down = [this, &slot, &loop = control()](const QueueDown& down) {
    loop.post([this, &slot, down] { queue_down(slot, down); });
  };
  const auto qid = static_cast<std::uint16_t>(index + 1);
  slot.counters = &counters_->queue(qid);
  events.on_overdue = [this, qid, &loop = control()](std::uint16_t cid) {
    loop.post([this, qid, cid] { spawn(abort(qid, cid)); });
  };
  slot.queue = std::make_unique<IoQueue>(*loops_[slot.reactor], qid, *slot.counters,
                                         params_.command_timeout, std::move(events));
  return slot;
}

void Association::queue_down(QueueSlot& slot, const QueueDown& down) {
  slot.down = down;
  if (!shutting_down_) lose(down.reason);
}

/// What it answers is of no interest: the command itself is answered, or its queue given up.
Task<void> Association::abort(std::uint16_t qid, std::uint16_t cid) {
  const Gate::Pass inside(tasks_);
  // Base 2.1 §5.1.1: not more at a time than ACL allows.
  const Instant until = control().now() + kAbortGrace;
  while (aborts_ > info.controller.acl && !ending() && control().now() < until) {
    co_await sleep(control(), kAbortPoll);
  }
  if (ending() || !admin_->live() || aborts_ > info.controller.acl) co_return;
  ++aborts_;
  count(counters_->aborts);
  log(LogLevel::warning, fmt::format("{}: command {} on queue {} is overdue and is aborted",
                                     context(*this), cid, qid));
  (void)co_await admin_->execute(nvme::abort_command(qid, cid), params_.admin_timeout);
  --aborts_;
}

Task<PassedThrough> Association::pass(nvme::Sqe sqe, transport::DataDirection direction,
                                      std::span<std::byte> data, Duration timeout,
                                      bool changes_data) {
  const Gate::Pass inside(tasks_);
  count(counters_->passthrough_commands);
  co_return co_await admin_->pass(sqe, direction, data, timeout, changes_data,
                                  [this](std::uint16_t cid) { spawn(abort(0, cid)); });
}

Task<PassedThrough> Association::ask(nvme::Sqe sqe, std::span<std::byte> data, Duration timeout) {
  const Gate::Pass inside(tasks_);
  co_return co_await admin_->pass(sqe, transport::DataDirection::from_controller, data, timeout,
                                  false, [this](std::uint16_t cid) { spawn(abort(0, cid)); });
}

Task<Result<const nvme::EffectsLog*>> Association::effects() {
  const Gate::Pass inside(tasks_);
  if (effects_asked_ || (info.controller.lpa & nvme::kLpaEffects) == 0) co_return effects_.get();
  // One asks, the others wait: a crowd of tools must not take what the association's own commands
  // need.
  if (co_await effects_turn_.take() != SlotShare::Took::yes) {
    co_return fail("too many wait for the effects log; try again later", EBUSY);
  }
  Result<void> asked;
  if (!effects_asked_) asked = co_await read_effects();
  effects_turn_.give_back();
  if (!asked) co_return std::unexpected(asked.error());
  co_return effects_.get();
}

Task<Result<void>> Association::read_effects() {
  std::vector<std::byte> page(nvme::kEffectsBytes);
  const auto read = co_await read_log_page(*admin_, {.page = nvme::LogPage::effects}, page,
                                           admin_piece_bytes(info), params_.admin_timeout);
  if (!read) co_return std::unexpected(read.error());
  effects_asked_ = true;
  if (read->cqe.status.ok()) {
    effects_ = std::make_unique<nvme::EffectsLog>(nvme::EffectsLog::decode(page));
  }
  co_return Result<void>{};
}

void Association::lose(Error reason) {
  if (!made_) return end(std::move(reason));
  if (end_reason_) return;
  end_reason_ = std::move(reason);
  keep_alive_timer_.cancel();
  ended_.fire();
}

void Association::end(Error reason) {
  if (!end_reason_) end_reason_ = std::move(reason);
  if (std::exchange(reset_, true)) return;
  keep_alive_timer_.cancel();
  admin_->end(*end_reason_);
  for (QueueSlot& slot : queues_) {
    loops_[slot.reactor]->post([queue = slot.queue.get(), why = *end_reason_] { queue->end(why); });
  }
  ended_.fire();
}

bool Association::all_down() const {
  return admin_->ended() &&
         std::ranges::all_of(queues_, [](const QueueSlot& slot) { return slot.down.has_value(); });
}

/// Reads CSTS until `reached` holds of it; false if it does not by then, or cannot be read.
Task<bool> Association::wait_status(bool (*reached)(const nvme::ControllerStatus&), Instant until) {
  while (!reset_ && control().now() < until) {
    auto csts =
        co_await admin_->execute(nvme::property_get(nvme::Property::csts), until - control().now());
    if (!csts || !csts->cqe.status.ok()) co_return false;
    const auto status = nvme::ControllerStatus::decode(csts->cqe.dw0());
    if (reached(status)) co_return true;
    if (status.cfs) co_return false;
    co_await sleep(control(), kStatusPoll);
  }
  co_return false;
}

/// No queue takes any more commands; what is under way may still be answered.
Task<void> Association::quiesce() {
  for (QueueSlot& slot : queues_) {
    co_await switch_to(*loops_[slot.reactor]);
    slot.queue->quiesce();
    co_await switch_to(control());
  }
}

/// Commands under way on queues that live.
Task<std::uint32_t> Association::count_in_flight() {
  std::uint32_t sum = 0;
  for (QueueSlot& slot : queues_) {
    co_await switch_to(*loops_[slot.reactor]);
    if (slot.queue->live()) sum += slot.queue->in_flight();
    co_await switch_to(control());
  }
  co_return sum;
}

Task<void> Association::settle() {
  const Gate::Pass inside(tasks_);
  const Instant begin = control().now();
  // Whatever waits in here, a slot of the admin queue for one, ends then.
  transport::Timer limit(control().timers(), [this] { end(*end_reason_); });
  limit.arm(begin + kDisableWait);
  co_await quiesce();
  // A target that has gone closes all connections at about the same time; one that has not answers
  // what is under way, and then nothing of it has to be fenced.
  while (!reset_ && !all_down()) {
    const Duration waited = control().now() - begin;
    if (waited >= kSettleTime && !admin_->live()) break;
    if (waited >= kSettleTime && (co_await count_in_flight() == 0 || waited >= kAnswerTime)) break;
    co_await sleep(control(), kStatusPoll);
  }
  if (reset_ || !admin_->live()) co_return;
  nvme::ControllerConfiguration cc = info.cc;
  cc.en = false;
  const Instant until = begin + kDisableWait;
  auto set =
      co_await admin_->execute(nvme::property_set(nvme::Property::cc, cc.encode()), kDisableWait);
  if (!set || !set->cqe.status.ok()) co_return;
  disabled_ = co_await wait_status([](const nvme::ControllerStatus& s) { return !s.rdy; }, until);
}

AssociationEnd Association::how_it_ended() const {
  AssociationEnd e;
  e.ended_at = ended_at_;
  bool any = false;
  e.peer_closed = true;
  Instant command_at = admin_->submitted_at();
  for (const QueueSlot& slot : queues_) {
    const Instant at{Duration(slot.counters->submitted_at_ns.load(std::memory_order_relaxed))};
    command_at = std::max(command_at, at);
    if (!slot.down || !slot.down->unanswered_changes) continue;
    any = true;
    if (!slot.down->peer_closed) e.peer_closed = false;
  }
  if (admin_->unanswered_changes()) {
    any = true;
    if (!admin_->peer_closed()) e.peer_closed = false;
  }
  e.nothing_unanswered = !any;
  e.controller_disabled = disabled_;
  e.keep_alive_at = keep_alive_sent_at_;
  e.command_at = std::max(command_at, keep_alive_sent_at_);
  e.katt_ms = info.katt_ms;
  e.traffic_based = info.traffic_based_keep_alive;
  e.cqt_ms = info.controller.cqt;
  return e;
}

Task<void> Association::close_queue(QueueSlot& slot) {
  co_await switch_to(*loops_[slot.reactor]);
  co_await slot.queue->close(Error{"the association was closed", ECANCELED});
  slot.queue.reset();
  co_await switch_to(control());
}

Task<void> Association::finish_queue(QueueSlot& slot) {
  co_await switch_to(*loops_[slot.reactor]);
  // What is still under way must not be sent any more by what is left of the connection.
  if (slot.queue->in_flight() != 0) {
    slot.queue->end(Error{"the connection was shut down", 0});
  } else {
    slot.queue->finish();
  }
  co_await slot.queue->wait_ended();
  co_await switch_to(control());
}

Task<void> Association::close(Error reason) {
  end(std::move(reason));
  std::vector<Task<void>> closing;
  closing.reserve(queues_.size());
  for (QueueSlot& slot : queues_) closing.push_back(close_queue(slot));
  co_await when_all(std::move(closing));
  co_await admin_->close(*end_reason_);
  ended_at_ = control().now();
  co_await tasks_.wait_empty();
}

Task<void> Association::shut_down() {
  const Gate::Pass inside(tasks_);
  keep_alive_timer_.cancel();
  if (ending() || !admin_->live()) co_return;
  // CC has the values that bring-up gave it, and nobody else changes it. Base 2.1 §3.6.1. A
  // controller may end the I/O queues by itself as soon as it has been told.
  const Instant until = control().now() + kShutdownWait;
  shutting_down_ = true;
  // Whatever waits in here, a slot of the admin queue or a peer that does not close, ends then.
  transport::Timer limit(control().timers(),
                         [this] { end(Error{"the connection was shut down", 0}); });
  limit.arm(until + kCloseWait);
  nvme::ControllerConfiguration cc = info.cc;
  cc.shn = nvme::kShnNormal;
  auto set =
      co_await admin_->execute(nvme::property_set(nvme::Property::cc, cc.encode()), kShutdownWait);
  if (set && set->cqe.status.ok()) {
    disabled_ = co_await wait_status(
        [](const nvme::ControllerStatus& s) { return s.shst == nvme::kShstComplete; }, until);
  }
  if (ending()) co_return;
  // From here on the ends of queues are what we want, and no reason for anybody.
  end_reason_ = Error{"the connection was shut down", 0};
  admin_->finish();
  std::vector<Task<void>> finishing;
  finishing.reserve(queues_.size());
  for (QueueSlot& slot : queues_) finishing.push_back(finish_queue(slot));
  co_await when_all(std::move(finishing));
  co_await admin_->wait_ended();
  ended_.fire();
}

void Association::start_keep_alive() {
  const std::uint32_t asked = params_.keep_alive_ms;
  if (asked == 0) return;
  const std::uint32_t ms = info.katt_ms != 0 ? std::min(asked, info.katt_ms) : asked;
  keep_alive_timeout_ = std::chrono::milliseconds(ms);
  // Where traffic counts, a check that finds some sends nothing: twice as many keep the distance.
  keep_alive_interval_ = keep_alive_timeout_ / (info.traffic_based_keep_alive ? 4 : 2);
  submitted_at_check_ = commands_submitted();
  keep_alive_sent_at_ = control().now();
  keep_alive_timer_.arm(control().now() + keep_alive_interval_);
}

std::uint64_t Association::commands_submitted() const {
  std::uint64_t sum = admin_->submitted();
  for (const QueueSlot& slot : queues_) {
    sum += slot.counters->commands.load(std::memory_order_relaxed);
  }
  return sum;
}

/// Only commands that the controller fetches keep it waiting (Base 2.1 §3.9.4.1), neither data nor
/// what we receive; so only submitted commands may take a Keep Alive's place.
void Association::check_keep_alive() {
  const Instant now = control().now();
  if (admin_->keep_alive_outstanding()) {
    if (now - keep_alive_sent_at_ >= keep_alive_timeout_) {
      // Nothing that the admin queue could still say is waited for: lose() comes with its end.
      return admin_->end(Error{
          fmt::format("{} did not answer a Keep Alive within {} ms; try its log, and `ping` for "
                      "the network",
                      admin_->describe(), keep_alive_timeout_ / std::chrono::milliseconds(1)),
          ETIMEDOUT});
    }
  } else {
    const std::uint64_t submitted = commands_submitted();
    const bool traffic = submitted != std::exchange(submitted_at_check_, submitted);
    if (!traffic || !info.traffic_based_keep_alive) {
      keep_alive_sent_at_ = now;
      count(counters_->keep_alives);
      admin_->submit_keep_alive([this](nvme::Status status) {
        if (status.ok()) return;
        lose(Error{fmt::format("{} refused a Keep Alive: {}", admin_->describe(),
                               nvme::explain(status, nvme::StatusContext::admin)),
                   EIO});
      });
    }
  }
  keep_alive_timer_.arm(now + keep_alive_interval_);
}

std::uint64_t admin_piece_bytes(const AssociationInfo& info) {
  const auto most = info.controller.max_transfer_bytes(info.cap.mpsmin);
  return std::min(most.value_or(kAdminPieceBytesMax), kAdminPieceBytesMax);
}

}  // namespace nvmf::host
