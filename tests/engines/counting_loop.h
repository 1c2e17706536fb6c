// A loop that counts what the users of its streams allocate: each call into a StreamUser is
// measured, what the loop itself allocates meanwhile (it is a simulator) is taken off.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "sim/alloc_count.h"
#include "transport/loop.h"

namespace nvmf::sim {

class CountingLoop final : public transport::Loop {
 public:
  explicit CountingLoop(transport::Loop& inner) : inner_(inner) {}

  /// Allocations inside calls into users, and inside counted(), so far.
  [[nodiscard]] std::size_t counted_allocations() const { return count_; }
  [[nodiscard]] std::size_t calls() const { return calls_; }

  /// For calls that do not come through a stream: a submit().
  template <class Call>
  auto counted(Call&& call) {
    struct Scope {
      CountingLoop& loop;
      std::size_t before = allocations();
      ~Scope() { loop.count_ += allocations() - before; }
    } scope{*this};
    ++calls_;
    return call();
  }

  [[nodiscard]] Instant now() const override { return inner_.now(); }
  [[nodiscard]] transport::TimerQueue& timers() override { return inner_.timers(); }
  void post(std::move_only_function<void()> task) override { inner_.post(std::move(task)); }
  std::unique_ptr<transport::Stream> connect(const transport::Endpoint& to,
                                             const transport::ConnectOptions& options,
                                             transport::StreamUser& user) override {
    User& proxy = wrap(user);
    return std::make_unique<Stream>(*this, inner_.connect(to, options, proxy));
  }
  Result<std::unique_ptr<transport::Listener>> listen(
      const transport::Endpoint& at,
      std::move_only_function<void(std::unique_ptr<transport::Incoming>)> on_accept) override {
    return inner_.listen(at, std::move(on_accept));
  }
  std::unique_ptr<transport::Stream> adopt(std::unique_ptr<transport::Incoming> incoming,
                                           transport::StreamUser& user) override {
    User& proxy = wrap(user);
    return std::make_unique<Stream>(*this, inner_.adopt(std::move(incoming), proxy));
  }
  void resolve(const std::string& host,
               std::move_only_function<void(Result<std::vector<std::string>>)> done) override {
    inner_.resolve(host, std::move(done));
  }
  Result<std::unique_ptr<transport::File>> open_file(const std::string& path,
                                                     bool writable) override {
    return inner_.open_file(path, writable);
  }
  Result<std::unique_ptr<transport::FdWatch>> watch(
      int fd, bool readable, bool writable, std::move_only_function<void()> on_ready) override {
    return inner_.watch(fd, readable, writable, std::move(on_ready));
  }

 private:
  class Stream final : public transport::Stream {
   public:
    Stream(CountingLoop& loop, std::unique_ptr<transport::Stream> inner)
        : loop_(loop), inner_(std::move(inner)) {}
    void wake() override {
      const std::size_t before = allocations();
      inner_->wake();
      loop_.count_ -= allocations() - before;
    }
    void reset(Error reason) override { inner_->reset(std::move(reason)); }
    void finish(std::chrono::nanoseconds linger) override { inner_->finish(linger); }
    [[nodiscard]] std::string peer() const override { return inner_->peer(); }
    [[nodiscard]] std::string local() const override { return inner_->local(); }

   private:
    CountingLoop& loop_;
    std::unique_ptr<transport::Stream> inner_;
  };

  class User final : public transport::StreamUser {
   public:
    User(CountingLoop& loop, transport::StreamUser& inner) : loop_(loop), inner_(inner) {}
    void on_open(transport::Stream& stream) override { inner_.on_open(stream); }
    std::size_t recv_vectors(std::span<iovec> out) override {
      return loop_.counted([&] { return inner_.recv_vectors(out); });
    }
    void recv_advance(std::size_t bytes) override {
      loop_.counted([&] { inner_.recv_advance(bytes); });
    }
    std::size_t send_vectors(std::span<iovec> out) override {
      return loop_.counted([&] { return inner_.send_vectors(out); });
    }
    void send_advance(std::size_t bytes) override {
      loop_.counted([&] { inner_.send_advance(bytes); });
    }
    void on_eof() override { inner_.on_eof(); }
    void on_closed(const Error& reason) override { inner_.on_closed(reason); }

   private:
    CountingLoop& loop_;
    transport::StreamUser& inner_;
  };

  User& wrap(transport::StreamUser& user) {
    users_.push_back(std::make_unique<User>(*this, user));
    return *users_.back();
  }

  transport::Loop& inner_;
  std::vector<std::unique_ptr<User>> users_;  // as long as the loop
  std::size_t count_ = 0;
  std::size_t calls_ = 0;
};

}  // namespace nvmf::sim
