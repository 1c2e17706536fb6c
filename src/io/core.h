// What both backends share: the turn of the loop, posted tasks, timers, and who is to be served at
// the end of a turn. Inside io/ only.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_set>
#include <vector>

#include "io/backend.h"
#include "io/reactor.h"
#include "io/unique_fd.h"

namespace nvmf::io {

class SocketStream;
class ReactorCore;

/// Something that lives on a loop and must hear of its end.
class LoopChild {
 public:
  /// Lets go of the loop and the kernel. After it the loop is not touched again. May destroy
  /// itself.
  virtual void loop_ended() = 0;

 protected:
  ~LoopChild() = default;
};

/// How another thread reaches a loop that may be gone.
struct LoopHandle {
  std::mutex mutex;
  ReactorCore* core = nullptr;  // null once the loop has ended
};

class ReactorCore final : public Reactor {
 public:
  ReactorCore() = default;
  ~ReactorCore() override;
  /// The other half of construction, which can fail.
  Result<void> start(const ReactorOptions& options);

  // Reactor
  void run() override;
  void stop() override;
  void end() override;
  [[nodiscard]] const char* backend_name() const override { return backend_->name(); }

  // transport::Loop
  [[nodiscard]] Instant now() const override { return now_; }
  [[nodiscard]] transport::TimerQueue& timers() override { return timers_; }
  void post(std::move_only_function<void()> task) override;
  std::unique_ptr<transport::Stream> connect(const transport::Endpoint& to,
                                             const transport::ConnectOptions& options,
                                             transport::StreamUser& user) override;
  Result<std::unique_ptr<transport::Listener>> listen(
      const transport::Endpoint& at,
      std::move_only_function<void(std::unique_ptr<transport::Incoming>)> on_accept) override;
  std::unique_ptr<transport::Stream> adopt(std::unique_ptr<transport::Incoming> incoming,
                                           transport::StreamUser& user) override;
  void resolve(const std::string& host,
               std::move_only_function<void(Result<std::vector<std::string>>)> done) override;
  Result<std::unique_ptr<transport::File>> open_file(const std::string& path,
                                                     bool writable) override;
  Result<std::unique_ptr<transport::FdWatch>> watch(
      int fd, bool readable, bool writable, std::move_only_function<void()> on_ready) override;

  // For streams, listeners and watches.
  /// The time right now, for deadlines that must not start in the past of a long turn.
  [[nodiscard]] static Instant clock();
  Backend& backend() { return *backend_; }
  void enlist(LoopChild& child) { children_.insert(&child); }
  void dismiss(LoopChild& child) { children_.erase(&child); }
  /// serve() is called at the end of this turn, or of the next if it is being called now.
  void queue(SocketStream& stream) { dirty_.push_back(&stream); }
  /// It will not be served any more.
  void forget(const SocketStream& stream);

 private:
  using Resolved = std::move_only_function<void(Result<std::vector<std::string>>)>;
  class Wakeup final : public Pollable {
   public:
    void on_ready(std::uint32_t) override {}  // to be awake is all
  };

  void turn();
  [[nodiscard]] Duration patience();
  void run_tasks();
  void serve_dirty();
  void notify();
  void resolved(std::uint64_t id, Result<std::vector<std::string>> answer);

  std::unique_ptr<Backend> backend_;
  std::shared_ptr<Backend*> backend_handle_;  // for files, which may outlive the loop
  std::shared_ptr<LoopHandle> handle_ = std::make_shared<LoopHandle>();
  UniqueFd wake_fd_;
  Wakeup wakeup_;
  Instant now_{};
  transport::TimerQueue timers_;
  std::atomic<std::thread::id> thread_{};
  std::atomic<bool> stop_{false};
  bool ended_ = false;
  bool spin_ = false;

  std::mutex tasks_mutex_;
  std::vector<std::move_only_function<void()>> tasks_;
  std::vector<std::move_only_function<void()>> running_tasks_;
  std::atomic<bool> has_tasks_{false};

  std::vector<SocketStream*> dirty_;
  std::vector<SocketStream*> serving_;
  std::unordered_set<LoopChild*> children_;
  std::map<std::uint64_t, Resolved> resolving_;
  std::uint64_t next_resolve_ = 0;
};

}  // namespace nvmf::io
