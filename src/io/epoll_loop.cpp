// The backend for kernels and containers without io_uring: epoll for readiness, a few threads for
// files, which epoll cannot wait for.
#include <fmt/format.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "io/backend.h"
#include "io/error_words.h"
#include "io/file.h"
#include "io/unique_fd.h"

namespace nvmf::io {

using transport::FileOp;

namespace {

constexpr std::size_t kEventsPerTurn = 256;
/// Two calls may block at once, so that a flush does not hold up a read.
constexpr int kWorkers = 2;

/// Performs file operations in order of submission, kWorkers at a time.
class FileWorkers {
 public:
  explicit FileWorkers(std::function<void()> notify) : notify_(std::move(notify)) {}
  ~FileWorkers() {
    {
      const std::scoped_lock lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void submit(FileOp& op) {
    {
      const std::scoped_lock lock(mutex_);
      waiting_.push_back(&op);
    }
    ++under_way_;
    if (threads_.empty()) start();
    changed_.notify_one();
  }

  /// Completes what the threads have finished.
  void complete() {
    if (under_way_ == 0) return;
    {
      const std::scoped_lock lock(mutex_);
      completing_.swap(finished_);
    }
    for (FileOp* op : completing_) {
      --under_way_;
      op->complete(*op);
    }
    completing_.clear();
  }
  [[nodiscard]] std::size_t under_way() const { return under_way_; }

 private:
  void start() {
    for (int i = 0; i < kWorkers; ++i) threads_.emplace_back([this] { work(); });
  }

  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      FileOp* op = waiting_.front();
      waiting_.pop_front();
      lock.unlock();
      for (;;) {
        const FileStep step = FileStep::next(*op);
        if (FileStep::finish(*op, step.call, step.perform())) break;
      }
      lock.lock();
      finished_.push_back(op);
      if (finished_.size() == 1) notify_();
    }
  }

  std::function<void()> notify_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<FileOp*> waiting_;
  std::vector<FileOp*> finished_;
  std::vector<FileOp*> completing_;
  bool stop_ = false;
  std::size_t under_way_ = 0;  // the loop's thread only
  std::vector<std::thread> threads_;
};

class EpollBackend final : public Backend {
 public:
  EpollBackend(UniqueFd fd, std::function<void()> notify)
      : fd_(std::move(fd)), workers_(std::move(notify)) {}

  [[nodiscard]] const char* name() const override { return "epoll"; }

  Result<void> add(Pollable& user, int fd, std::uint32_t events, Trigger trigger) override {
    const PollTable::Key key = table_.insert(user, fd, events, trigger);
    epoll_event event{};
    event.events = events | (trigger == Trigger::edge ? static_cast<std::uint32_t>(EPOLLET) : 0U);
    event.data.u64 = (std::uint64_t{key.generation} << 32) | key.index;
    if (::epoll_ctl(fd_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
      const int code = errno;
      table_.erase(user);
      return fail(fmt::format("cannot wait for a file descriptor: {}", std::strerror(code)), code);
    }
    return {};
  }

  void remove(Pollable& user) override {
    if (!table_.contains(user)) return;
    ::epoll_ctl(fd_.get(), EPOLL_CTL_DEL, table_.find(table_.key(user))->fd, nullptr);
    table_.erase(user);
  }

  void collect(Duration timeout) override {
    const auto most = static_cast<int>(events_.size());
    const auto whole = std::chrono::duration_cast<std::chrono::seconds>(timeout);
    const timespec ts{whole.count(), static_cast<long>((timeout - whole).count())};
    int n = has_pwait2_ ? ::epoll_pwait2(fd_.get(), events_.data(), most,
                                         timeout < Duration::zero() ? nullptr : &ts, nullptr)
                        : -1;
    if (n < 0 && (!has_pwait2_ || errno == ENOSYS || errno == EPERM)) {
      has_pwait2_ = false;  // Linux before 5.11, or a seccomp filter that does not know it
      const auto ms = std::chrono::ceil<std::chrono::milliseconds>(timeout).count();
      n = ::epoll_wait(fd_.get(), events_.data(), most,
                       timeout < Duration::zero()
                           ? -1
                           : static_cast<int>(std::min<std::int64_t>(ms, INT32_MAX)));
    }
    count_ = n > 0 ? static_cast<std::size_t>(n) : 0;
  }

  void dispatch() override {
    for (std::size_t i = 0; i < count_; ++i) {
      const std::uint64_t data = events_[i].data.u64;
      const PollTable::Key key{static_cast<std::uint32_t>(data),
                               static_cast<std::uint32_t>(data >> 32)};
      if (PollTable::Slot* slot = table_.find(key)) slot->user->on_ready(events_[i].events);
    }
    count_ = 0;
    workers_.complete();
  }

  void submit(FileOp& op) override { workers_.submit(op); }
  [[nodiscard]] std::size_t files_under_way() const override { return workers_.under_way(); }

 private:
  UniqueFd fd_;
  FileWorkers workers_;
  PollTable table_;
  std::array<epoll_event, kEventsPerTurn> events_{};
  std::size_t count_ = 0;
  bool has_pwait2_ = true;
};

}  // namespace

Result<std::unique_ptr<Backend>> make_epoll_backend(std::function<void()> notify) {
  UniqueFd fd(::epoll_create1(EPOLL_CLOEXEC));
  if (!fd.valid()) {
    const int code = errno;
    return fail(
        fmt::format("cannot make an event loop: {}{}", std::strerror(code), try_words(code)), code);
  }
  return std::make_unique<EpollBackend>(std::move(fd), std::move(notify));
}

}  // namespace nvmf::io
