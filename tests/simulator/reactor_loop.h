// The virtual loop as one reactor of one process sees it: what is posted to it comes late and in
// order, and when its process is dead it reaches nobody any more.
#pragma once

#include <algorithm>
#include <deque>
#include <memory>
#include <string>
#include <utility>

#include "sim/virtual_loop.h"
#include "simulator/random.h"

namespace nvmf::simulator {

class ReactorLoop final : public transport::Loop {
 public:
  struct Owner {
    /// A connection is about to be tried for; false: nobody answers, ever.
    virtual bool may_connect() = 0;
    /// It has this local address.
    virtual void connecting(const std::string& local) = 0;

   protected:
    ~Owner() = default;
  };

  ReactorLoop(sim::VirtualLoop& loop, Owner& owner, Random random, Duration delay)
      : loop_(loop), owner_(owner), random_(random), delay_(delay), deliver_(loop.timers(), [this] {
          deliver();
        }) {}

  void post(std::move_only_function<void()> task) override {
    last_ = std::max(last_, loop_.now() + random_.between(Duration{}, delay_));
    tasks_.emplace_back(last_, std::move(task));
    if (!deliver_.armed()) deliver_.arm(last_);
  }
  [[nodiscard]] Instant now() const override { return loop_.now(); }
  [[nodiscard]] transport::TimerQueue& timers() override { return loop_.timers(); }
  std::unique_ptr<transport::Stream> connect(const transport::Endpoint& to,
                                             const transport::ConnectOptions& options,
                                             transport::StreamUser& user) override {
    const auto before = loop_.on_connect;
    if (!owner_.may_connect()) {
      loop_.on_connect = [](const transport::Endpoint&) {
        return sim::ConnectFate{.kind = sim::ConnectFate::Kind::ignore};
      };
    }
    auto stream = loop_.connect(to, options, user);
    loop_.on_connect = before;
    owner_.connecting(stream->local());
    return stream;
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

 private:
  /// What has been posted before this turn.
  void deliver() {
    for (std::size_t n = tasks_.size(); n > 0 && tasks_.front().first <= loop_.now(); --n) {
      auto task = std::move(tasks_.front().second);
      tasks_.pop_front();
      task();
    }
    if (!tasks_.empty()) deliver_.arm(tasks_.front().first);
  }

  sim::VirtualLoop& loop_;
  Owner& owner_;
  Random random_;
  Duration delay_;
  transport::Timer deliver_;
  Instant last_{};
  std::deque<std::pair<Instant, std::move_only_function<void()>>> tasks_;
};

}  // namespace nvmf::simulator
