// The ends of simulated connections, and who holds them. Inside tests/sim only.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "nvme/check.h"
#include "sim/virtual_loop.h"

namespace nvmf::sim {

/// One end of a connection, or an attempt to make one.
struct End : std::enable_shared_from_this<End> {
  enum class State : std::uint8_t { connecting, opening, open, closed };

  VirtualLoop* loop = nullptr;
  transport::Stream* stream = nullptr;
  transport::StreamUser* user = nullptr;  // null while an accepted connection has no owner
  std::shared_ptr<Link> link;
  Side side = Side::client;
  State state = State::connecting;
  Instant open_at{};
  std::string peer;
  std::string local;
  bool marked = false;
  bool finishing = false;
  bool fin_sent = false;
  bool eof_seen = false;
  std::optional<Error> reset;        // the user asked for it: the peer is told
  std::optional<Error> failure;      // it happened: the peer is not told
  std::optional<Farewell> farewell;  // with a failure: but the peer is told this
  std::unique_ptr<transport::Timer> deadline;
  std::vector<iovec> posted;  // places named and not advanced over
  std::vector<iovec> named;   // ranges named and not advanced over
  std::optional<Instant> hold_until;

  Link::Flow& outgoing() { return link->flows_[Link::index(side)]; }
  Link::Flow& incoming() { return link->flows_[1 - Link::index(side)]; }

  void expire_with(Duration after, Error error) {
    deadline = std::make_unique<transport::Timer>(loop->timers(), [this, error = std::move(error)] {
      if (state == State::connecting) {
        failure = error;
      } else {
        reset = error;
      }
      loop->mark(shared_from_this());
    });
    deadline->arm(loop->now() + after);
  }
};

class VirtualStream final : public transport::Stream {
 public:
  explicit VirtualStream(std::shared_ptr<End> end) : end_(std::move(end)) { end_->stream = this; }
  ~VirtualStream() override { NVMF_CHECK(end_->state == End::State::closed); }

  void wake() override {
    if (end_->state != End::State::closed) end_->loop->mark(end_);
  }
  void reset(Error reason) override {
    if (end_->state == End::State::closed || end_->reset) return;
    end_->reset = std::move(reason);
    end_->loop->mark(end_);
  }
  void finish(std::chrono::nanoseconds linger) override {
    if (end_->state == End::State::closed || end_->finishing) return;
    end_->finishing = true;
    if (end_->state == End::State::connecting) {
      end_->reset =
          Error{"the connection to " + end_->peer + " was given up before it was open", ECANCELED};
    } else {
      end_->expire_with(linger,
                        Error{end_->peer + " did not close the connection in time", ETIMEDOUT});
    }
    end_->loop->mark(end_);
  }
  [[nodiscard]] std::string peer() const override { return end_->peer; }
  [[nodiscard]] std::string local() const override { return end_->local; }

 private:
  std::shared_ptr<End> end_;
};

class VirtualIncoming final : public transport::Incoming {
 public:
  explicit VirtualIncoming(std::shared_ptr<End> end) : end_(std::move(end)) {}
  ~VirtualIncoming() override {
    if (!end_ || end_->state == End::State::closed) return;
    end_->loop->send_segment(*end_->link, end_->side, Link::What::rst, {});
    end_->loop->close(*end_, Error{});
  }
  [[nodiscard]] std::string peer() const override { return end_->peer; }
  [[nodiscard]] std::optional<std::uint32_t> peer_uid() const override {
    return end_->loop->client_uid;
  }
  std::shared_ptr<End> take() { return std::exchange(end_, nullptr); }

 private:
  std::shared_ptr<End> end_;
};

class VirtualListener final : public transport::Listener {
 public:
  VirtualListener(VirtualLoop& loop, transport::Endpoint at,
                  std::move_only_function<void(std::unique_ptr<transport::Incoming>)> on_accept)
      : loop_(&loop), at_(std::move(at)), on_accept_(std::move(on_accept)) {
    loop.listeners_[at_.to_string()] = this;
  }
  ~VirtualListener() override {
    if (loop_ != nullptr) loop_->listeners_.erase(at_.to_string());
  }
  [[nodiscard]] transport::Endpoint local() const override { return at_; }
  void accept(std::unique_ptr<transport::Incoming> incoming) { on_accept_(std::move(incoming)); }
  void orphan() { loop_ = nullptr; }

 private:
  VirtualLoop* loop_;
  transport::Endpoint at_;
  std::move_only_function<void(std::unique_ptr<transport::Incoming>)> on_accept_;
};

}  // namespace nvmf::sim
