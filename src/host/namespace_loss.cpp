// NamespaceDevice: what becomes of requests when their queue is lost, and of those that wait.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "host/namespace_device.h"
#include "host/request_state.h"
#include "nvme/check.h"

namespace nvmf::host {

namespace {

constexpr Duration kPatienceMin = std::chrono::seconds(30);
constexpr Duration kPatienceCheck = std::chrono::seconds(1);

}  // namespace

int NamespaceDevice::stop_error() const {
  return group_.shut_error() != 0 ? group_.waiting_error() : failing_;
}

/// The end of a queue is told once, by its owner.
PartOutcome NamespaceDevice::lost(const IoCommand& command) {
  const BlockRequest& r = *command.request;
  const bool changes = changes_data(r.op) && !is_flush(r) && r.stage != kStageReadEnds;
  PartOutcome o;
  o.maybe_executed = changes && command.delivery == transport::Delivery::unanswered;
  if (is_flush(r) && !shared_->rules.repeat_flush) return o;
  o.error = stop_error();
  o.again = o.error == 0;
  return o;
}

/// A change of data that was answered and was to be flushed is done again, too: its flush comes to
/// a target that may have lost its cache.
void NamespaceDevice::restart(BlockRequest& r) {
  r.again = false;
  r.issued_bytes = 0;
  if (r.stage == kStageFlush && r.op != BlockOp::flush) r.stage = kStageFirst;
  if (r.stage == kStageReadEnds) {
    const BlockCover c = cover(r);
    r.issued_bytes = c.head() ? 0 : c.whole() << ns_->block_shift;
  } else if (r.op == BlockOp::deallocate && r.stage == kStageFirst) {
    prepare_deallocate(r);
  }
}

void NamespaceDevice::park(BlockRequest& r) {
  const Instant now = group_.loop().now();
  restart(r);
  if (r.tries != 0xff && r.retry_at_ns != 0) ++r.tries;
  if (r.maybe_executed && r.loss_fence == kNoSlot) fence_lost(r);
  // Nothing of it can be executed late: it goes on as soon as there is a queue.
  if (r.loss_fence == kNoSlot && r.retry_at_ns <= now.time_since_epoch().count()) {
    return enqueue(r);  // the caller pumps
  }
  r.next = nullptr;
  BlockRequest** at = &parked_;
  while (*at != nullptr) at = &(*at)->next;
  *at = &r;
  begin_wait(r);
  if (r.loss_fence != kNoSlot) return;
  const Instant due{Duration(r.retry_at_ns)};
  if (!retry_timer_.armed() || retry_timer_.deadline() > due) retry_timer_.arm(due);
}

void NamespaceDevice::unpark(BlockRequest& r) {
  BlockRequest** at = &parked_;
  while (*at != &r) at = &(*at)->next;
  *at = r.next;
  r.next = nullptr;
}

void NamespaceDevice::retry_due() {
  const Instant now = group_.loop().now();
  std::int64_t next_ns = 0;
  BlockRequest* following = nullptr;
  for (BlockRequest* r = parked_; r != nullptr; r = following) {
    following = r->next;
    if (r->loss_fence != kNoSlot) continue;
    if (r->retry_at_ns <= now.time_since_epoch().count()) {
      unpark(*r);
      enqueue(*r);
    } else if (next_ns == 0 || r->retry_at_ns < next_ns) {
      next_ns = r->retry_at_ns;
    }
  }
  if (next_ns != 0) retry_timer_.arm(Instant{Duration(next_ns)});
  group_.pump();
}

// ---- fences ----

/// It was admitted before the fence; nothing of it is on its way.
bool NamespaceDevice::postponed() {
  BlockRequest& r = *first_;
  if (r.whereabouts != kAdmitted || r.parts != 0 || is_flush(r)) return false;
  if (holds_.in_force() == 0 || !holds_.loss_fenced(range_of(r))) return false;
  dequeue_front();
  r.whereabouts = kWaitsForHolds;
  begin_wait(r);
  holds_.postpone(r);
  return true;
}

/// A request with a bounce slot has its range held already: the hold takes the fence's place.
void NamespaceDevice::fence_lost(BlockRequest& r) {
  r.loss_fence = r.whereabouts == kHasBounce ? static_cast<std::uint8_t>(kFenceSlots + r.slot)
                                             : holds_.fence(range_of(r));
  losses_.add(r.loss_fence);
}

void NamespaceDevice::fence_all(Instant lifts_at) {
  losses_.add_until(holds_.fence({0, ~std::uint64_t{0}}), lifts_at);
  arm_lift();
}

void NamespaceDevice::settle_losses(Instant lifts_at) {
  losses_.settle(lifts_at);
  if (group_.shut_error() == 0) lift_due();
}

void NamespaceDevice::arm_lift() {
  lift_timer_.cancel();
  if (group_.shut_error() != 0) return;
  if (const auto next = losses_.next()) lift_timer_.arm(*next);
}

void NamespaceDevice::lift_due() {
  while (const auto due = losses_.take_due(group_.loop().now())) lifted(due->number, due->times);
  arm_lift();
  group_.pump();
}

/// Nothing of what was fenced under this number can be executed any more. Who waited to do it again
/// goes before those who waited for the fence.
void NamespaceDevice::lifted(std::uint8_t number, std::uint32_t times) {
  BlockRequest* following = nullptr;
  for (BlockRequest* r = parked_; r != nullptr; r = following) {
    following = r->next;
    if (r->loss_fence != number) continue;
    unpark(*r);
    r->loss_fence = kNoSlot;
    r->maybe_executed = false;
    enqueue(*r);
  }
  if (number < kFenceSlots) return holds_.lift(number, times);
  // A hold: if its request has ended meanwhile, it and the slot are free now.
  const auto slot = static_cast<std::uint8_t>(number - kFenceSlots);
  if (!writes_.regain(slot)) return;
  holds_.release(slot);
  if (stop_error() != 0) return;
  if (BlockRequest* const next = writes_.waiting.pop_front()) submit_unaligned(*next);
}

// ---- waiting ----

void NamespaceDevice::begin_wait(BlockRequest& r) {
  r.waiting_since_ns = group_.loop().now().time_since_epoch().count();
  if (!patience_timer_.armed()) arm_patience();
}

bool NamespaceDevice::waits_for_loss(const BlockRequest& r) const {
  if (r.loss_fence != kNoSlot || holds_.loss_fenced(range_of(r))) return true;
  // Or for a hold of ours that has become a fence. Those of other reactors are not known here.
  for (std::size_t i = 0; losses_.any() && i < writes_.size(); ++i) {
    if (!losses_.in_force(static_cast<std::uint8_t>(kFenceSlots + i))) continue;
    if (holds_.held_range(i).overlaps(cover(r).bytes(ns_->block_shift))) return true;
  }
  return false;
}

/// What waits for others, that nothing has happened to, waits as long as a command may take.
Duration NamespaceDevice::patience_for(const BlockRequest& r, Duration patience) const {
  return waits_for_loss(r) ? patience : std::max(patience, kPatienceMin);
}

void NamespaceDevice::check_patience() {
  patience_timer_.cancel();
  arm_patience();
}

void NamespaceDevice::arm_patience() {
  const auto patience = group_.patience();
  if (!patience || group_.shut_error() != 0) return;
  const Instant now = group_.loop().now();
  Instant first = Instant::max();
  for_each_waiting([&](const BlockRequest& r) {
    first = std::min(first, Instant{Duration(r.waiting_since_ns)} + patience_for(r, *patience));
  });
  if (first == Instant::max()) return;
  // Looked at again before: it may come to wait for something that was lost.
  patience_timer_.arm(std::min(first, now + kPatienceCheck));
}

void NamespaceDevice::expire() {
  const auto patience = group_.patience();
  if (!patience) return;
  const Instant now = group_.loop().now();
  const auto too_long = [&](const BlockRequest& r) {
    return Instant{Duration(r.waiting_since_ns)} + patience_for(r, *patience) <= now;
  };
  std::uint64_t count = 0;
  while (BlockRequest* const r = take_waiting(too_long)) {
    ++count;
    r->error = EIO;
    end(*r);
  }
  if (count != 0) {
    log(LogLevel::warning,
        fmt::format("{}: {} requests failed: they had waited for {:g} s or longer, for blocks with "
                    "a write that may still be executed, or for another try",
                    info_.name, count, std::chrono::duration<double>(*patience).count()));
  }
  check_patience();
  group_.pump();
}

template <class Each>
void NamespaceDevice::for_each_waiting(Each each) const {
  for (BlockRequest* r = parked_; r != nullptr; r = r->next) each(*r);
  holds_.for_each_waiting(each);
  for (const RequestList* list : {&reads_.waiting, &writes_.waiting}) {
    for (BlockRequest* r = list->first(); r != nullptr; r = r->newer) each(*r);
  }
  for (std::size_t i = 0; i < writes_.size(); ++i) {
    BlockRequest* const r = writes_.request(i);
    if (r != nullptr && r->stage == kStageHold) each(*r);
  }
}

template <class Pick>
BlockRequest* NamespaceDevice::take_waiting(Pick pick) {
  BlockRequest* found = nullptr;
  for_each_waiting([&](BlockRequest& r) {
    if (found == nullptr && pick(r)) found = &r;
  });
  if (found == nullptr) return nullptr;
  BlockRequest& r = *found;
  if (r.whereabouts == kWaitsForHolds) {
    r.whereabouts = kPlain;
    holds_.withdraw(r);
  } else if (r.whereabouts == kWaitsForBounce) {
    r.whereabouts = kPlain;
    slots_for(r).waiting.erase(r);
  } else if (r.stage != kStageHold) {
    unpark(r);
  }
  return found;
}

bool NamespaceDevice::take_out(BlockRequest& request) {
  return take_waiting([&request](const BlockRequest& r) { return &r == &request; }) != nullptr;
}

void NamespaceDevice::fail_waiting(int error) {
  const auto any = [](const BlockRequest&) { return true; };
  for (;;) {
    // The end of one may let another go on to where it waits for a queue.
    while (first_ != nullptr) fail_front(error);
    BlockRequest* const r = take_waiting(any);
    if (r == nullptr) return;
    r->error = error;
    end(*r);
  }
}

void NamespaceDevice::shut(int waiting_error) {
  holds_.close();
  lift_timer_.cancel();
  retry_timer_.cancel();
  patience_timer_.cancel();
  fail_waiting(waiting_error);
}

void NamespaceDevice::set_failing(int error) {
  failing_ = error;
  if (error != 0 && group_.shut_error() == 0) fail_waiting(error);
}

void NamespaceDevice::hold_back(bool paused, std::uint32_t quiesced) {
  const bool before = held_back();
  paused_ = paused;
  quiesced_ = quiesced;
  if (before == held_back() || first_ == nullptr) return;
  if (held_back()) return group_.delist(*this);
  group_.enlist(*this);
  group_.pump();
}

void NamespaceDevice::resume(std::shared_ptr<const Namespace> ns, bool go) {
  NVMF_CHECK(ns->block_shift == ns_->block_shift);
  ns_ = std::move(ns);
  info_.size_bytes = ns_->info.size_bytes;
  info_.write_zeroes = ns_->info.write_zeroes;
  info_.deallocate = ns_->info.deallocate;
  info_.read_only = ns_->info.read_only;
  hold_back(!go, quiesced_);
}

void NamespaceDevice::describe(NamespaceHealth& health) const {
  const Instant now = group_.loop().now();
  for (std::size_t i = 0; i < LossFences::kNumbers; ++i) {
    const auto number = static_cast<std::uint8_t>(i);
    if (!losses_.in_force(number)) continue;
    FenceInfo f;
    ByteRange range;
    if (i < kFenceSlots) {
      range = holds_.fenced_range(number);
    } else {
      range = holds_.held_range(i - kFenceSlots);
    }
    range.end = std::min(range.end, info_.size_bytes);
    f.offset_bytes = range.begin;
    f.length_bytes = range.end - std::min(range.begin, range.end);
    const Instant lifts_at = losses_.lifts_at(number);
    f.never = !losses_.pending(number) && lifts_at == Instant::max();
    if (!losses_.pending(number) && !f.never) {
      f.lifts_in = std::max(lifts_at - now, Duration::zero());
    }
    health.fences.push_back(f);
  }
  for_each_waiting([&](const BlockRequest& r) {
    ++health.waiting;
    if (r.tries == 0) return;
    ++health.refused;
    health.refusal = refusal_;
  });
  for (const BlockRequest* r = first_; r != nullptr; r = r->next) ++health.waiting;
}

}  // namespace nvmf::host
