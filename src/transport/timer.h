// Time, timers, and the queue that orders them: the same for the real and the virtual clock.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace nvmf {

/// A monotonic clock that only a Loop can read, so that no code reads the machine's by accident.
struct Clock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<Clock>;
  static constexpr bool is_steady = true;
};
using Duration = Clock::duration;
using Instant = Clock::time_point;

namespace transport {

class TimerQueue;

/// One deadline with one callback. Owned by whoever waits; must live where it was made (the queue
/// points at it). Destroying it cancels it. Loop's thread only.
class Timer {
 public:
  Timer(TimerQueue& queue, std::move_only_function<void()> on_expire);
  ~Timer() { cancel(); }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  /// Expires at `at`, or at the next turn of the loop if that has passed. Re-arming moves it.
  void arm(Instant at);
  void cancel();
  [[nodiscard]] bool armed() const { return index_ != kNotQueued; }
  [[nodiscard]] Instant deadline() const { return at_; }

 private:
  friend class TimerQueue;
  static constexpr std::size_t kNotQueued = ~std::size_t{0};
  TimerQueue& queue_;
  std::move_only_function<void()> on_expire_;
  Instant at_{};
  std::uint64_t order_ = 0;  // first armed first run, when deadlines are equal
  std::size_t index_ = kNotQueued;
};

/// A binary heap of armed timers. Not thread-safe.
class TimerQueue {
 public:
  [[nodiscard]] std::optional<Instant> next() const;
  /// Runs every timer whose deadline is not after `now`, each at most once per call, so that a
  /// timer which re-arms itself in the past cannot starve the loop. Returns how many ran.
  std::size_t run(Instant now);

 private:
  friend class Timer;
  static bool before(const Timer& a, const Timer& b);
  void insert(Timer& t);
  void remove(Timer& t);
  void sift_up(std::size_t i);
  void sift_down(std::size_t i);
  void place(std::size_t i, Timer* t);

  std::vector<Timer*> heap_;
  std::uint64_t next_order_ = 0;
};

}  // namespace transport
}  // namespace nvmf
