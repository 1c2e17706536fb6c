// A loop and streams that a fuzzer drives by hand: it decides when bytes come, how many are taken,
// and when a connection ends. It watches over the buffer contract of transport/stream.h as well.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "nvme/check.h"
#include "sim/alloc_count.h"
#include "transport/loop.h"

namespace nvmf::fuzz {

using Bytes = std::vector<std::byte>;

class HandStream;

/// Who holds a stream's user end. A HandStream belongs to its user; its state is here.
struct Wire {
  transport::StreamUser* user = nullptr;
  HandStream* stream = nullptr;
  bool open = false;
  bool closed = false;
  bool reset = false;     // reset() was called: on_closed() is due
  bool finished = false;  // finish() was called
  Error reason;

  // What the user named and has not been told about yet.
  std::vector<iovec> places;
  Bytes named;  // copies of the bytes to be sent
  Bytes sent;   // all that has been released
  /// Allocations inside the user's calls. A user whose callbacks allocate takes those off.
  std::size_t allocations = 0;

  void do_open();
  /// Asks for places, as a ring does before anything comes.
  void post();
  /// Gives all of `bytes`, at most `chunk` at a time, or as much as is wanted. Returns how many.
  std::size_t receive(std::span<const std::byte> bytes, std::size_t chunk = SIZE_MAX);
  /// Asks for `vectors` ranges to be sent. Returns how many bytes are named now.
  std::size_t name(std::size_t vectors = transport::kStreamVectors);
  /// Releases the first `bytes` of what is named.
  void release(std::size_t bytes);
  /// Sends all there is.
  void flush();
  void eof() {
    if (alive()) user->on_eof();
  }
  void close(const char* why = "the fuzzer closed it");
  [[nodiscard]] bool alive() const { return open && !closed; }
  /// Nobody has said that the connection is to end.
  [[nodiscard]] bool well() const { return alive() && !reset && !finished; }

 private:
  template <class Call>
  auto counted(Call&& call) {
    struct Counter {
      std::size_t& into;
      std::size_t before = sim::allocations();
      ~Counter() { into += sim::allocations() - before; }
    } counter{allocations};
    return call();
  }
};

class HandStream final : public transport::Stream {
 public:
  explicit HandStream(std::shared_ptr<Wire> wire) : wire_(std::move(wire)) {}
  ~HandStream() override { NVMF_CHECK(wire_->closed); }
  void wake() override { NVMF_CHECK(wire_->alive()); }
  void reset(Error reason) override {
    NVMF_CHECK(!wire_->closed);
    if (!wire_->reset) wire_->reason = std::move(reason);
    wire_->reset = true;
  }
  void finish(std::chrono::nanoseconds) override {
    NVMF_CHECK(!wire_->closed);
    wire_->finished = true;
  }
  [[nodiscard]] std::string peer() const override { return "192.0.2.1:4420"; }
  [[nodiscard]] std::string local() const override { return "192.0.2.2:50000"; }

 private:
  std::shared_ptr<Wire> wire_;
};

inline void Wire::do_open() {
  open = true;
  user->on_open(*stream);
}

inline void Wire::post() {
  if (!alive() || reset) return;
  std::array<iovec, transport::kStreamVectors> out;
  const std::size_t n = counted([&] { return user->recv_vectors(out); });
  NVMF_CHECK(n >= places.size());
  for (std::size_t i = 0; i < places.size(); ++i) {
    NVMF_CHECK(out[i].iov_base == places[i].iov_base && out[i].iov_len >= places[i].iov_len);
  }
  places.assign(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(n));
}

inline std::size_t Wire::receive(std::span<const std::byte> bytes, std::size_t chunk) {
  std::size_t taken = 0;
  while (taken < bytes.size() && alive() && !reset) {
    if (places.empty()) post();
    if (places.empty()) break;
    std::size_t now = 0;
    const std::size_t most = std::min(std::max<std::size_t>(chunk, 1), bytes.size() - taken);
    for (const iovec& place : places) {
      const std::size_t n = std::min(place.iov_len, most - now);
      if (n == 0) break;
      std::memcpy(place.iov_base, bytes.data() + taken + now, n);
      now += n;
    }
    places.clear();
    taken += now;
    counted([&] { user->recv_advance(now); });
  }
  return taken;
}

inline std::size_t Wire::name(std::size_t vectors) {
  if (!alive() || reset) return 0;
  std::array<iovec, transport::kStreamVectors> out;
  const auto asked = std::span(out).first(std::clamp<std::size_t>(vectors, 1, out.size()));
  const std::size_t n = counted([&] { return user->send_vectors(asked); });
  NVMF_CHECK(n <= out.size());
  // What was named before is still there, unchanged; more may follow it.
  std::size_t at = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const auto* p = static_cast<const std::byte*>(out[i].iov_base);
    NVMF_CHECK(out[i].iov_len != 0);
    const std::size_t old = std::min(out[i].iov_len, named.size() - std::min(at, named.size()));
    NVMF_CHECK(old == 0 || std::memcmp(p, named.data() + at, old) == 0);
    named.insert(named.end(), p + old, p + out[i].iov_len);
    at += out[i].iov_len;
  }
  return named.size();
}

inline void Wire::release(std::size_t bytes) {
  if (!alive() || reset || named.empty()) return;
  bytes = std::min(bytes, named.size());
  // The kernel reads it only now: it must be what was named.
  std::array<iovec, transport::kStreamVectors> out;
  const std::size_t n = user->send_vectors(out);
  std::size_t at = 0;
  for (std::size_t i = 0; i < n && at < bytes; ++i) {
    const std::size_t length = std::min(out[i].iov_len, bytes - at);
    NVMF_CHECK(std::memcmp(out[i].iov_base, named.data() + at, length) == 0);
    at += length;
  }
  bytes = at;
  const auto end = named.begin() + static_cast<std::ptrdiff_t>(bytes);
  sent.insert(sent.end(), named.begin(), end);
  named.erase(named.begin(), end);
  if (bytes != 0) counted([&] { user->send_advance(bytes); });
}

inline void Wire::flush() {
  while (name() != 0) release(named.size());
}

inline void Wire::close(const char* why) {
  if (closed) return;
  closed = true;
  places.clear();
  named.clear();
  user->on_closed(reset ? reason : Error{why, ECONNRESET});
}

/// Time stands still unless advance() moves it.
class HandLoop final : public transport::Loop {
 public:
  class HandIncoming final : public transport::Incoming {
   public:
    [[nodiscard]] std::string peer() const override { return "192.0.2.1:50000"; }
  };

  [[nodiscard]] Instant now() const override { return now_; }
  [[nodiscard]] transport::TimerQueue& timers() override { return timers_; }
  void advance(Duration d) {
    now_ += d;
    timers_.run(now_);
    run_tasks();
  }
  void post(std::move_only_function<void()> task) override { tasks_.push_back(std::move(task)); }
  void run_tasks() {
    while (!tasks_.empty()) {
      auto task = std::move(tasks_.front());
      tasks_.pop_front();
      task();
    }
  }

  /// The state of the stream that was made last.
  std::shared_ptr<Wire> wire;

  std::unique_ptr<transport::Stream> make(transport::StreamUser& user) {
    wire = std::make_shared<Wire>();
    auto made = std::make_unique<HandStream>(wire);
    wire->user = &user;
    wire->stream = made.get();
    return made;
  }
  std::unique_ptr<transport::Stream> connect(const transport::Endpoint&,
                                             const transport::ConnectOptions&,
                                             transport::StreamUser& user) override {
    return make(user);
  }
  std::unique_ptr<transport::Stream> adopt(std::unique_ptr<transport::Incoming>,
                                           transport::StreamUser& user) override {
    return make(user);
  }
  Result<std::unique_ptr<transport::Listener>> listen(
      const transport::Endpoint&,
      std::move_only_function<void(std::unique_ptr<transport::Incoming>)>) override {
    return fail("nothing listens here");
  }
  void resolve(const std::string&,
               std::move_only_function<void(Result<std::vector<std::string>>)>) override {}
  Result<std::unique_ptr<transport::File>> open_file(const std::string&, bool) override {
    return fail("there are no files");
  }
  Result<std::unique_ptr<transport::FdWatch>> watch(int, bool, bool,
                                                    std::move_only_function<void()>) override {
    return fail("there are no descriptors");
  }

 private:
  Instant now_{};
  transport::TimerQueue timers_;
  std::deque<std::move_only_function<void()>> tasks_;
};

}  // namespace nvmf::fuzz
