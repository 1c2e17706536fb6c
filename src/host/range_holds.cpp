#include "host/range_holds.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "nvme/check.h"

namespace nvmf::host {

namespace {

/// BlockRequest::arrival of a request in late_: after everything.
constexpr std::uint64_t kLate = std::numeric_limits<std::uint64_t>::max();

}  // namespace

ReactorHolds::ReactorHolds(RangeHolds& all, std::size_t reactor, std::size_t reactors,
                           std::size_t slots)
    : all_(all),
      reactor_(reactor),
      slots_(slots),
      first_fence_(reactors * slots),
      serials_(slots),
      entries_(reactors * (slots + kFenceSlots)),
      active_(entries_.size()),
      fenced_(kFenceSlots) {}

std::uint16_t ReactorHolds::hold_id(std::size_t slot) const {
  return static_cast<std::uint16_t>(reactor_ * slots_ + slot);
}

std::uint16_t ReactorHolds::fence_id(std::size_t index) const {
  return static_cast<std::uint16_t>(first_fence_ + reactor_ * kFenceSlots + index);
}

// ---- requests ----

bool ReactorHolds::admit_unless_held(BlockRequest& request) {
  if (fences_seen_ != all_.fences_told_.load(std::memory_order_acquire)) {
    request.arrival = kLate;
    late_.push_back(request);
    return false;
  }
  const bool held = held_up(request);
  (held ? waiting_ : in_flight_).push_back(request);
  return !held;
}

/// Whatever had been told of when they came has been learnt of.
void ReactorHolds::admit_late() {
  while (BlockRequest* const r = late_.pop_front()) {
    r->arrival = arrivals_;
    const bool may_go = admit_unless_held(*r);
    // Behind again: it is in the list again, with all that were behind it.
    if (r->arrival == kLate) return;
    if (may_go) user_->on_admitted(*r);
  }
}

void ReactorHolds::postpone(BlockRequest& request) {
  in_flight_.erase(request);
  request.postponed = true;
  waiting_.push_back(request);
}

bool ReactorHolds::loss_fenced(ByteRange range) const {
  for (std::size_t i = 0; i < in_force_; ++i) {
    const std::uint16_t id = active_[i];
    if (id < first_fence_ || (id - first_fence_) % kFenceSlots >= kLossFenceSlots) continue;
    if (entries_[id].range.overlaps(range)) return true;
  }
  return false;
}

bool ReactorHolds::held_up(const BlockRequest& request) const {
  const ByteRange range = range_of(request);
  // The fence of its own abandon() among others, and holds that wait for it, do not concern it.
  if (request.postponed) return loss_fenced(range);
  for (std::size_t i = 0; i < in_force_; ++i) {
    const Entry& e = entries_[active_[i]];
    if (e.arrival <= request.arrival && e.range.overlaps(range)) return true;
  }
  return false;
}

void ReactorHolds::finished(BlockRequest& request) {
  in_flight_.erase(request);
  if (request.fence != kNoSlot) lift(std::exchange(request.fence, kNoSlot));
  gone(range_of(request));
}

void ReactorHolds::withdraw(BlockRequest& request) {
  (request.arrival == kLate ? late_ : waiting_).erase(request);
  // It was abandoned before it was postponed.
  if (request.fence != kNoSlot) lift(std::exchange(request.fence, kNoSlot));
  gone(range_of(request));
}

void ReactorHolds::abandon(BlockRequest& request) {
  if (request.fence == kNoSlot) request.fence = fence(range_of(request), Cause::abandoned);
}

/// Requests that came before it, and fences of our own: those of others keep it up on their side.
bool ReactorHolds::something_in_the_way_of(const Entry& entry) const {
  for (const RequestList* list : {&in_flight_, &waiting_}) {
    for (const BlockRequest* r = list->first(); r != nullptr; r = r->newer) {
      if (r->arrival < entry.arrival && entry.range.overlaps(range_of(*r))) return true;
    }
  }
  for (std::size_t i = 0; i < kFenceSlots; ++i) {
    if (fenced_[i] != 0 && entries_[fence_id(i)].range.overlaps(entry.range)) return true;
  }
  return false;
}

/// Something in this range is no more: holds may have waited for it.
void ReactorHolds::gone(ByteRange range) {
  // No entry leaves while this runs: a hold that is granted in here is released later.
  for (std::size_t i = 0; i < in_force_; ++i) {
    const Entry& e = entries_[active_[i]];
    if (e.state != State::draining || !e.range.overlaps(range)) continue;
    if (!something_in_the_way_of(e)) drained(active_[i]);
  }
}

// ---- holds ----

void ReactorHolds::ask(std::size_t slot, ByteRange range) {
  NVMF_CHECK(slot < slots_ && !closed_);
  all_.tell(reactor_, 0, [id = hold_id(slot), range, serial = ++serials_[slot]](RangeHolds& all) {
    all.asked(id, range, serial);
  });
}

void ReactorHolds::release(std::size_t slot) {
  NVMF_CHECK(slot < slots_);
  ++serials_[slot];  // a grant that is on its way finds that nobody waits for it
  all_.tell(reactor_, 0, [id = hold_id(slot)](RangeHolds& all) { all.released(id); });
}

void ReactorHolds::enter(std::uint16_t id, ByteRange range, State state) {
  Entry& e = entries_[id];
  NVMF_CHECK(e.state == State::none);
  e = {.range = range, .arrival = ++arrivals_, .state = state};
  active_[in_force_++] = id;
}

void ReactorHolds::on_hold(std::uint16_t id, ByteRange range, std::uint32_t serial) {
  if (closed_) return;
  enter(id, range, State::draining);
  entries_[id].serial = serial;
  if (!something_in_the_way_of(entries_[id])) drained(id);
}

void ReactorHolds::drained(std::uint16_t id) {
  entries_[id].state = State::drained;
  if (closed_) return;
  all_.tell(reactor_, 0,
            [id, serial = entries_[id].serial](RangeHolds& all) { all.drained(id, serial); });
}

void ReactorHolds::on_hold_granted(std::uint16_t id, std::uint32_t serial) {
  const std::size_t slot = id - hold_id(0);
  if (!closed_ && serials_[slot] == serial) user_->on_granted(slot);
}

void ReactorHolds::on_removed(std::uint16_t id) {
  Entry& e = entries_[id];
  if (e.state == State::none) return;  // it came after close()
  const Entry was = std::exchange(e, Entry{});
  const auto active = active_.begin() + static_cast<std::ptrdiff_t>(in_force_);
  *std::find(active_.begin(), active, id) = *(active - 1);
  --in_force_;
  if (closed_) return;
  BlockRequest* next = nullptr;
  for (BlockRequest* r = waiting_.first(); r != nullptr; r = next) {
    next = r->newer;
    if (!was.range.overlaps(range_of(*r)) || held_up(*r)) continue;
    waiting_.erase(*r);
    r->postponed = false;
    in_flight_.push_back(*r);
    user_->on_admitted(*r);
  }
  if (was.state == State::fence) gone(was.range);
}

// ---- fences ----

std::uint8_t ReactorHolds::fence(ByteRange range, Cause cause) {
  const auto growth = [&](const ByteRange& at) {
    return std::max(at.end, range.end) - std::min(at.begin, range.begin) - (at.end - at.begin);
  };
  const std::size_t first = cause == Cause::lost ? 0 : kLossFenceSlots;
  const std::size_t end = cause == Cause::lost ? kLossFenceSlots : kFenceSlots;
  std::size_t best = first;
  std::uint64_t least = std::numeric_limits<std::uint64_t>::max();
  for (std::size_t i = first; i < end; ++i) {
    // Best is one that is there already, next a free one, then what has to grow least.
    const std::uint64_t grows = fenced_[i] != 0 ? growth(entries_[fence_id(i)].range) : 0;
    const std::uint64_t cost = fenced_[i] == 0 ? 1 : grows == 0 ? 0 : grows + 1;
    if (cost < least) {
      least = cost;
      best = i;
    }
  }
  const std::uint16_t id = fence_id(best);
  ++fenced_[best];
  if (least != 0) {
    const ByteRange at = fenced_[best] == 1 ? range : entries_[id].range;
    const ByteRange now{std::min(at.begin, range.begin), std::max(at.end, range.end)};
    all_.fences_told_.fetch_add(1, std::memory_order_acq_rel);
    for (std::size_t r = 0; r < all_.reactors_.size(); ++r) {
      all_.tell(reactor_, r, [r, id, now](RangeHolds& all) { all.on(r).on_fence(id, now); });
    }
  }
  return static_cast<std::uint8_t>(best);
}

void ReactorHolds::on_fence(std::uint16_t id, ByteRange range) {
  ++fences_seen_;
  if (entries_[id].state == State::none) {
    enter(id, range, State::fence);
  } else {
    // It keeps its place: who waits for the old range waits on.
    entries_[id].range = range;
  }
  if (!closed_) admit_late();
}

void ReactorHolds::lift(std::uint8_t fence, std::uint32_t times) {
  NVMF_CHECK(fence < kFenceSlots && fenced_[fence] >= times);
  fenced_[fence] -= times;
  if (fenced_[fence] != 0) return;
  const std::uint16_t id = fence_id(fence);
  for (std::size_t r = 0; r < all_.reactors_.size(); ++r) {
    all_.tell(reactor_, r, [r, id](RangeHolds& all) { all.on(r).on_removed(id); });
  }
}

// ---- the coordinator ----

std::shared_ptr<RangeHolds> RangeHolds::make(std::vector<transport::Loop*> loops) {
  return std::shared_ptr<RangeHolds>(new RangeHolds(std::move(loops)));
}

RangeHolds::RangeHolds(std::vector<transport::Loop*> loops) : loops_(std::move(loops)) {
  NVMF_CHECK(!loops_.empty() && loops_.size() <= 0x400);  // an id is 16 bits
  const std::size_t slots =
      std::clamp(kHoldsPerNamespace / loops_.size(), kHoldSlotsMin, kHoldSlotsMax);
  for (std::size_t i = 0; i < loops_.size(); ++i) {
    reactors_.push_back(std::make_unique<ReactorHolds>(*this, i, loops_.size(), slots));
  }
  asked_.resize(slots * loops_.size());
  order_.reserve(asked_.size());
}

template <class Do>
void RangeHolds::tell(std::size_t from, std::size_t to, Do what) {
  if (from == to) return what(*this);
  loops_[to]->post([self = shared_from_this(), what] { what(*self); });
}

std::size_t RangeHolds::owner(std::uint16_t id) const {
  return id / reactors_[0]->slots();
}

void RangeHolds::asked(std::uint16_t id, ByteRange range, std::uint32_t serial) {
  if (coordinator_closed()) return;
  asked_[id] = {.range = range, .serial = serial, .missing = reactors_.size()};
  order_.push_back(id);
  for (std::size_t r = 0; r < reactors_.size(); ++r) {
    tell(0, r, [r, id, range, serial](RangeHolds& all) { all.on(r).on_hold(id, range, serial); });
  }
}

void RangeHolds::drained(std::uint16_t id, std::uint32_t serial) {
  // Its owner may have released it meanwhile, and asked again.
  if (coordinator_closed() || std::ranges::find(order_, id) == order_.end()) return;
  if (asked_[id].serial != serial) return;
  if (--asked_[id].missing == 0) grant_what_can_be();
}

void RangeHolds::released(std::uint16_t id) {
  if (coordinator_closed() || std::erase(order_, id) == 0) return;
  for (std::size_t r = 0; r < reactors_.size(); ++r) {
    tell(0, r, [r, id](RangeHolds& all) { all.on(r).on_removed(id); });
  }
  grant_what_can_be();
}

void RangeHolds::grant_what_can_be() {
  // Nothing is asked for or released inside on_granted(): the list stays as it is.
  for (std::size_t i = 0; i < order_.size(); ++i) {
    const std::uint16_t id = order_[i];
    Asked& a = asked_[id];
    if (a.granted || a.missing != 0) continue;
    const bool first = std::none_of(
        order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(i),
        [&](std::uint16_t earlier) { return asked_[earlier].range.overlaps(a.range); });
    if (!first) continue;
    a.granted = true;
    tell(0, owner(id), [to = owner(id), id, serial = a.serial](RangeHolds& all) {
      all.on(to).on_hold_granted(id, serial);
    });
  }
}

}  // namespace nvmf::host
