// Coroutines for the control path: bring-up, shutdown, administration. The data path has none.
//
// Task<T> is lazy: nothing runs until it is awaited, and then it runs on the awaiter's thread until
// it first waits. Ends and starts are symmetric transfers, so a loop of a million awaits needs no
// more stack than one. A Task is owned by whoever awaits it, usually as a temporary of the co_await
// expression, and its frame goes with it. spawn() starts one that owns itself.
//
// Threads. A coroutine is on one loop's thread at a time; switch_to() moves it. Everything else
// here resumes on the thread that the coroutine waited on.
//
// Ends. A loop that ends destroys what was posted to it and never run. If that was a coroutine's
// continuation, the whole chain of coroutines is destroyed from its outermost frame on, with its
// locals, instead of leaking. A coroutine that waits for a timer or a Signal is not reached that
// way: its owner brings it to its end while the loops still run (RemoteSubsystem::stop()).
//
// Lambda coroutines: a capture lives in the lambda object, not in the frame. A lambda that is a
// coroutine captures nothing and takes what it needs as arguments, by value where the caller may be
// gone first. Arguments by reference must outlive the Task.
//
// No exceptions: one that escapes a coroutine ends the program.
#pragma once

#include <coroutine>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "nvme/check.h"
#include "transport/loop.h"

namespace nvmf::host {

namespace detail {

/// What all promises have in common: the way to the frame that waits for this one.
struct PromiseBase {
  std::coroutine_handle<> self;
  std::coroutine_handle<> continuation;  // empty for the outermost
  PromiseBase* caller = nullptr;

  [[nodiscard]] PromiseBase& outermost() {
    PromiseBase* p = this;
    while (p->caller != nullptr) p = p->caller;
    return *p;
  }
  static std::suspend_always initial_suspend() noexcept { return {}; }
  [[noreturn]] static void unhandled_exception() noexcept { std::terminate(); }
};

struct FinalAwaiter {
  static bool await_ready() noexcept { return false; }
  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> h) noexcept {
    return h.promise().continuation;
  }
  static void await_resume() noexcept {}
};

template <class T>
struct Promise : PromiseBase {
  std::optional<T> value;

  auto get_return_object() {
    const auto h = std::coroutine_handle<Promise>::from_promise(*this);
    self = h;
    return h;
  }
  static FinalAwaiter final_suspend() noexcept { return {}; }
  template <class U>
  void return_value(U&& v) {
    value.emplace(std::forward<U>(v));
  }
  T take() { return std::move(*value); }
};

template <>
struct Promise<void> : PromiseBase {
  auto get_return_object() {
    const auto h = std::coroutine_handle<Promise>::from_promise(*this);
    self = h;
    return h;
  }
  static FinalAwaiter final_suspend() noexcept { return {}; }
  static void return_void() noexcept {}
  static void take() noexcept {}
};

}  // namespace detail

template <class T = void>
class [[nodiscard]] Task {
 public:
  using promise_type = detail::Promise<T>;

  Task(std::coroutine_handle<promise_type> h) : handle_(h) {}  // NOLINT: for the promise
  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  Task& operator=(Task&&) = delete;
  ~Task() {
    if (handle_) handle_.destroy();
  }

  struct Awaiter {
    std::coroutine_handle<promise_type> handle;

    static bool await_ready() noexcept { return false; }
    template <class P>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<P> caller) noexcept {
      handle.promise().continuation = caller;
      handle.promise().caller = &caller.promise();
      return handle;
    }
    T await_resume() { return handle.promise().take(); }
  };
  Awaiter operator co_await() && {
    NVMF_CHECK(static_cast<bool>(handle_));
    return Awaiter{handle_};
  }

 private:
  std::coroutine_handle<promise_type> handle_;
};

/// A suspended coroutine that must be resumed, or, if this is destroyed before, ended. Move-only;
/// for what may be thrown away without being called, such as a posted task.
class Resumption {
 public:
  template <class P>
  explicit Resumption(std::coroutine_handle<P> h) : handle_(h), promise_(&h.promise()) {}
  Resumption(Resumption&& other) noexcept
      : handle_(std::exchange(other.handle_, {})), promise_(other.promise_) {}
  Resumption& operator=(Resumption&&) = delete;
  ~Resumption() {
    if (handle_) promise_->outermost().self.destroy();
  }
  void resume() { std::exchange(handle_, {}).resume(); }

 private:
  std::coroutine_handle<> handle_;
  detail::PromiseBase* promise_;
};

namespace detail {

/// The frame that owns a spawned task: it goes when the task is done.
struct Detached {
  struct promise_type : PromiseBase {
    Detached get_return_object() {
      self = std::coroutine_handle<promise_type>::from_promise(*this);
      return {};
    }
    static std::suspend_never initial_suspend() noexcept { return {}; }
    static std::suspend_never final_suspend() noexcept { return {}; }
    static void return_void() noexcept {}
  };
};

inline Detached run_detached(Task<void> task) {
  co_await std::move(task);
}

}  // namespace detail

/// Runs `task` at once, until it first waits; it owns itself from there on.
inline void spawn(Task<void> task) {
  detail::run_detached(std::move(task));
}

namespace detail {

struct SwitchAwaiter {
  transport::Loop& loop;
  static bool await_ready() noexcept { return false; }
  template <class P>
  void await_suspend(std::coroutine_handle<P> h) {
    // The coroutine may run, and end, on the other thread before post() returns.
    loop.post([r = Resumption(h)]() mutable { r.resume(); });
  }
  static void await_resume() noexcept {}
};

struct SleepAwaiter {
  transport::Loop& loop;
  Duration duration;
  std::coroutine_handle<> waiter;
  std::optional<transport::Timer> timer;
  static bool await_ready() noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) {
    waiter = h;
    timer.emplace(loop.timers(), [this] { waiter.resume(); });
    timer->arm(loop.now() + duration);
  }
  static void await_resume() noexcept {}
};

template <class T, class Start>
struct CallbackAwaiter {
  Start start;
  std::optional<T> value;
  static bool await_ready() noexcept { return false; }
  template <class P>
  void await_suspend(std::coroutine_handle<P> h) {
    start(std::move_only_function<void(T)>([this, r = Resumption(h)](T v) mutable {
      value.emplace(std::move(v));
      r.resume();
    }));
  }
  T await_resume() { return std::move(*value); }
};

}  // namespace detail

/// Goes on on `loop`'s thread, in a later turn of it; also when it is there already. Nothing of the
/// coroutine may be touched by the thread it leaves.
inline detail::SwitchAwaiter switch_to(transport::Loop& loop) {
  return {loop};
}

/// Waits `d` on `loop`, which is the one the coroutine is on.
inline detail::SleepAwaiter sleep(transport::Loop& loop, Duration d) {
  return {loop, d, {}, std::nullopt};
}

/// `T t = co_await callback<T>([&](auto done) { start(std::move(done)); })`: waits for a function
/// that reports by calling `done(T)` once, on this thread, after it has returned. A `done` that is
/// destroyed without having been called ends the coroutine.
template <class T, class Start>
detail::CallbackAwaiter<T, Start> callback(Start start) {
  return {std::move(start), std::nullopt};
}

/// Something that happens once, on one loop, and that coroutines may wait for, before or after.
/// They go on in a later turn, never inside fire(), in the order in which they came.
class Signal {
 public:
  explicit Signal(transport::Loop& loop) : loop_(loop) {}
  Signal(const Signal&) = delete;
  Signal& operator=(const Signal&) = delete;

  [[nodiscard]] bool fired() const { return fired_; }
  void fire() {
    fired_ = true;
    // A waiter's continuation is only posted here, so nothing happens to us meanwhile.
    for (std::move_only_function<void()>& resume : waiters_) resume();
    waiters_.clear();
  }

  struct Awaiter {
    Signal& signal;
    [[nodiscard]] bool await_ready() const noexcept { return signal.fired_; }
    template <class P>
    void await_suspend(std::coroutine_handle<P> h) {
      // Not a Resumption yet: the signal usually lives in a frame that waits for it.
      signal.waiters_.emplace_back(
          [&loop = signal.loop_, h] { loop.post([r = Resumption(h)]() mutable { r.resume(); }); });
    }
    static void await_resume() noexcept {}
  };
  Awaiter operator co_await() { return Awaiter{*this}; }

 private:
  transport::Loop& loop_;
  bool fired_ = false;
  std::vector<std::move_only_function<void()>> waiters_;
};

/// Counts the coroutines that are using something, so that its end can wait for theirs.
class Gate {
 public:
  explicit Gate(transport::Loop& loop) : loop_(loop) {}
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  ~Gate() { NVMF_CHECK(inside_ == 0); }

  /// Inside for as long as this lives: the first local of a coroutine.
  class Pass {
   public:
    explicit Pass(Gate& gate) : gate_(gate) { ++gate_.inside_; }
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;
    ~Pass() {
      if (--gate_.inside_ == 0 && gate_.waiter_ != nullptr) gate_.waiter_->fire();
    }

   private:
    Gate& gate_;
  };

  /// One waiter. Whoever may enter anew is the owner's affair.
  Task<void> wait_empty() {
    while (inside_ != 0) {
      Signal empty(loop_);
      waiter_ = &empty;
      co_await empty;
      waiter_ = nullptr;
    }
  }

 private:
  transport::Loop& loop_;
  std::size_t inside_ = 0;
  Signal* waiter_ = nullptr;
};

namespace detail {

struct Countdown {
  std::size_t left;
  std::optional<Resumption> waiter;
};

inline Task<void> count_down(Task<void> task, std::shared_ptr<Countdown> countdown) {
  co_await std::move(task);
  if (--countdown->left == 0 && countdown->waiter) countdown->waiter->resume();
}

struct WhenAllAwaiter {
  std::vector<Task<void>> tasks;
  [[nodiscard]] bool await_ready() const noexcept { return tasks.empty(); }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> h) {
    // One more than there are tasks: those that don't wait must not resume us in here.
    auto countdown = std::make_shared<Countdown>(tasks.size() + 1, std::nullopt);
    std::vector<Task<void>> running = std::move(tasks);
    for (Task<void>& task : running) spawn(count_down(std::move(task), countdown));
    if (--countdown->left == 0) return false;
    countdown->waiter.emplace(h);
    return true;
  }
  static void await_resume() noexcept {}
};

}  // namespace detail

/// Runs all of them at the same time, as far as they wait, and goes on when the last is done. Each
/// ends on the thread that all started on.
inline detail::WhenAllAwaiter when_all(std::vector<Task<void>> tasks) {
  return {std::move(tasks)};
}

}  // namespace nvmf::host
