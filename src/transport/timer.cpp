#include "transport/timer.h"

#include <utility>

#include "nvme/check.h"

namespace nvmf::transport {

Timer::Timer(TimerQueue& queue, std::move_only_function<void()> on_expire)
    : queue_(queue), on_expire_(std::move(on_expire)) {}

void Timer::arm(Instant at) {
  cancel();
  at_ = at;
  queue_.insert(*this);
}

void Timer::cancel() {
  if (armed()) queue_.remove(*this);
}

std::optional<Instant> TimerQueue::next() const {
  if (heap_.empty()) return std::nullopt;
  return heap_.front()->at_;
}

std::size_t TimerQueue::run(Instant now) {
  // Timers armed by a callback get an order at or after this one: they wait for the next call.
  const std::uint64_t first_new = next_order_;
  std::size_t ran = 0;
  while (!heap_.empty() && heap_.front()->at_ <= now && heap_.front()->order_ < first_new) {
    Timer& t = *heap_.front();
    remove(t);
    ++ran;
    t.on_expire_();  // may destroy t
  }
  return ran;
}

bool TimerQueue::before(const Timer& a, const Timer& b) {
  return a.at_ != b.at_ ? a.at_ < b.at_ : a.order_ < b.order_;
}

void TimerQueue::place(std::size_t i, Timer* t) {
  heap_[i] = t;
  t->index_ = i;
}

void TimerQueue::insert(Timer& t) {
  t.order_ = next_order_++;
  heap_.push_back(&t);
  t.index_ = heap_.size() - 1;
  sift_up(t.index_);
}

void TimerQueue::remove(Timer& t) {
  const std::size_t i = t.index_;
  NVMF_CHECK(i < heap_.size() && heap_[i] == &t);
  t.index_ = Timer::kNotQueued;
  Timer* last = heap_.back();
  heap_.pop_back();
  if (last == &t) return;
  place(i, last);
  sift_up(i);
  sift_down(last->index_);
}

void TimerQueue::sift_up(std::size_t i) {
  while (i > 0) {
    const std::size_t parent = (i - 1) / 2;
    if (!before(*heap_[i], *heap_[parent])) return;
    Timer* t = heap_[i];
    place(i, heap_[parent]);
    place(parent, t);
    i = parent;
  }
}

void TimerQueue::sift_down(std::size_t i) {
  for (;;) {
    std::size_t least = i;
    for (std::size_t child = 2 * i + 1; child <= 2 * i + 2 && child < heap_.size(); ++child) {
      if (before(*heap_[child], *heap_[least])) least = child;
    }
    if (least == i) return;
    Timer* t = heap_[i];
    place(i, heap_[least]);
    place(least, t);
    i = least;
  }
}

}  // namespace nvmf::transport
