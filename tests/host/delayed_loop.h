// A virtual loop as one reactor of several sees it: what is posted to it comes late, in order.
#pragma once

#include <algorithm>
#include <deque>
#include <utility>

#include "sim/virtual_loop.h"

namespace nvmf::test {

class DelayedLoop final : public transport::Loop {
 public:
  explicit DelayedLoop(sim::VirtualLoop& loop, Duration delay_max = {})
      : delay_max_(delay_max), loop_(loop), deliver_(loop.timers(), [this] { deliver(); }) {}

  void post(std::move_only_function<void()> task) override {
    ++posts;
    // Up to delay_max_, by the loop's seed; never before what was posted earlier.
    const auto most = static_cast<std::uint64_t>(delay_max_.count()) + 1;
    last_ =
        std::max(last_, loop_.now() + Duration(static_cast<std::int64_t>(loop_.random()() % most)));
    tasks_.emplace_back(last_, std::move(task));
    if (!deliver_.armed()) deliver_.arm(last_);
  }
  [[nodiscard]] Instant now() const override { return loop_.now(); }
  [[nodiscard]] transport::TimerQueue& timers() override { return loop_.timers(); }
  std::unique_ptr<transport::Stream> connect(const transport::Endpoint& to,
                                             const transport::ConnectOptions& options,
                                             transport::StreamUser& user) override {
    return loop_.connect(to, options, user);
  }
  Result<std::unique_ptr<transport::Listener>> listen(
      const transport::Endpoint& at,
      std::move_only_function<void(std::unique_ptr<transport::Incoming>)> on_accept) override {
    return loop_.listen(at, std::move(on_accept));
  }
  std::unique_ptr<transport::Stream> adopt(std::unique_ptr<transport::Incoming> incoming,
                                           transport::StreamUser& user) override {
    return loop_.adopt(std::move(incoming), user);
  }
  void resolve(const std::string& host,
               std::move_only_function<void(Result<std::vector<std::string>>)> done) override {
    loop_.resolve(host, std::move(done));
  }
  Result<std::unique_ptr<transport::File>> open_file(const std::string& path,
                                                     bool writable) override {
    return loop_.open_file(path, writable);
  }
  Result<std::unique_ptr<transport::FdWatch>> watch(
      int fd, bool readable, bool writable, std::move_only_function<void()> on_ready) override {
    return loop_.watch(fd, readable, writable, std::move(on_ready));
  }

  std::size_t posts = 0;

 private:
  void deliver() {
    while (!tasks_.empty() && tasks_.front().first <= loop_.now()) {
      auto task = std::move(tasks_.front().second);
      tasks_.pop_front();
      task();
    }
    if (!tasks_.empty()) deliver_.arm(tasks_.front().first);
  }

  Duration delay_max_;
  sim::VirtualLoop& loop_;
  transport::Timer deliver_;
  Instant last_{};
  std::deque<std::pair<Instant, std::move_only_function<void()>>> tasks_;
};

}  // namespace nvmf::test
