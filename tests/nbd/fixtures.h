// What the NBD tests drive a Session with: a loop with a clock of its own, a stream that the test
// pumps by hand, and a device in memory that completes when, and in the order, it is told.
#pragma once

#include <algorithm>
#include <cstring>
#include <deque>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "frontends/nbd/session.h"
#include "nvme/check.h"
#include "transport/loop.h"

namespace nvmf::nbd::test {

using Bytes = std::vector<std::byte>;

/// "4e 42 44" to bytes; white space is free.
inline Bytes hex(std::string_view text) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : (c | 32) - 'a' + 10; };
  Bytes out;
  std::string digits;
  for (const char c : text) {
    if (c > ' ') digits += c;
  }
  for (std::size_t i = 0; i + 1 < digits.size(); i += 2) {
    out.push_back(static_cast<std::byte>(digit(digits[i]) * 16 + digit(digits[i + 1])));
  }
  return out;
}

inline std::string to_hex(std::span<const std::byte> bytes) {
  std::string out;
  for (const std::byte b : bytes) {
    out += "0123456789abcdef"[static_cast<int>(b) >> 4];
    out += "0123456789abcdef"[static_cast<int>(b) & 15];
  }
  return out;
}

inline Bytes text(std::string_view s) {
  Bytes out(s.size());
  if (!s.empty()) std::memcpy(out.data(), s.data(), s.size());
  return out;
}

inline Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// Only time and timers.
class TestLoop final : public transport::Loop {
 public:
  [[nodiscard]] Instant now() const override { return now_; }
  [[nodiscard]] transport::TimerQueue& timers() override { return timers_; }
  void advance(Duration d) {
    now_ += d;
    timers_.run(now_);
  }

  void post(std::move_only_function<void()>) override { NVMF_CHECK(false); }
  std::unique_ptr<transport::Stream> connect(const transport::Endpoint&,
                                             const transport::ConnectOptions&,
                                             transport::StreamUser&) override {
    return nullptr;
  }
  Result<std::unique_ptr<transport::Listener>> listen(
      const transport::Endpoint&,
      std::move_only_function<void(std::unique_ptr<transport::Incoming>)>) override {
    return fail("no");
  }
  std::unique_ptr<transport::Stream> adopt(std::unique_ptr<transport::Incoming>,
                                           transport::StreamUser&) override {
    return nullptr;
  }
  void resolve(const std::string&,
               std::move_only_function<void(Result<std::vector<std::string>>)>) override {}
  Result<std::unique_ptr<transport::File>> open_file(const std::string&, bool) override {
    return fail("no");
  }
  Result<std::unique_ptr<transport::FdWatch>> watch(int, bool, bool,
                                                    std::move_only_function<void()>) override {
    return fail("no");
  }

 private:
  Instant now_{};
  transport::TimerQueue timers_;
};

/// A namespace in memory. Requests wait in `pending` until the test completes them, unless
/// `automatic`: then run() does.
class MemoryDevice final : public host::BlockDevice {
 public:
  explicit MemoryDevice(std::uint64_t size_bytes = 1 << 20) : bytes(size_bytes) {
    info_.name = "nvmf0n1";
    info_.description = "a disk";
    info_.nsid = 1;
    info_.size_bytes = size_bytes;
    info_.write_zeroes = true;
    info_.deallocate = true;
    pending.reserve(1024);
  }

  [[nodiscard]] const host::BlockInfo& info() const override { return info_; }
  host::BlockInfo& change() { return info_; }

  void abandon(host::BlockRequest& r) override { abandoned.push_back(&r); }

  void submit(host::BlockRequest& r) override {
    ++submitted;
    last = r;
    pending.push_back(&r);
  }

  /// As `map` says, which begins at 0; all data if that is empty.
  bool extents(host::ExtentsRequest& r) override {
    ++asked;
    if (extents_later) {
      queries.push_back(&r);
      return false;
    }
    answer(r);
    return true;
  }
  void answer(host::ExtentsRequest& r) const {
    r.answer_data();
    r.error = extents_error;
    if (map.empty() || r.error != 0) return;
    r.count = 0;
    std::uint64_t at = 0;
    for (const host::Extent& e : map) {
      const std::uint64_t begin = std::max(at, r.offset_bytes);
      at += e.length_bytes;
      const std::uint64_t end = std::min(at, r.offset_bytes + r.length_bytes);
      if (begin < end && r.count < r.extents.size()) r.extents[r.count++] = {end - begin, e.zeroes};
    }
  }
  void answer_query() {
    host::ExtentsRequest& r = *queries.front();
    queries.erase(queries.begin());
    answer(r);
    r.complete(r);
  }

  /// Completes the `index`th of those that wait.
  void complete(std::size_t index = 0, int error = 0) {
    NVMF_CHECK(index < pending.size());
    host::BlockRequest& r = *pending[index];
    pending.erase(pending.begin() + static_cast<std::ptrdiff_t>(index));
    r.error = error;
    if (error == 0) apply(r);
    r.complete(r);
  }

  std::vector<std::byte> bytes;
  std::vector<host::BlockRequest*> pending;
  std::vector<host::BlockRequest*> abandoned;
  std::vector<host::Extent> map;
  std::vector<host::ExtentsRequest*> queries;
  bool extents_later = false;
  int extents_error = 0;
  std::size_t asked = 0;
  host::BlockRequest last;
  std::size_t submitted = 0;

 private:
  void apply(host::BlockRequest& r) {
    std::byte* at = bytes.data() + r.offset_bytes;
    if (r.op == host::BlockOp::read) std::memcpy(r.data, at, r.length_bytes);
    if (r.op == host::BlockOp::write) std::memcpy(at, r.data, r.length_bytes);
    if (r.op == host::BlockOp::write_zeroes) std::memset(at, 0, r.length_bytes);
  }
  host::BlockInfo info_;
};

class TestStream final : public transport::Stream {
 public:
  void wake() override { ++wakes; }
  void reset(Error reason) override {
    was_reset = true;
    reason_given = std::move(reason);
  }
  void finish(std::chrono::nanoseconds) override { finished = true; }
  [[nodiscard]] std::string peer() const override { return "test client"; }
  [[nodiscard]] std::string local() const override { return "test server"; }

  int wakes = 0;
  bool was_reset = false;
  bool finished = false;
  Error reason_given;
};

/// One export of one MemoryDevice, named "nvmf0n1", "1" and "".
struct World {
  explicit World(std::size_t arena_bytes = kBufferBytesMax, std::uint64_t device_bytes = 1 << 20)
      : device(device_bytes), arena(arena_bytes, 16) {
    exports.add(make_export({&device}));
  }
  MemoryDevice device;
  ExportList exports;
  TestLoop loop;
  BufferArena arena;
  BufferPool pool{arena, loop};
};

/// A session with its surroundings, and the client's end of it.
class Client final : public SessionOwner {
 public:
  explicit Client(World& world) : Client(world, world.exports) {}
  Client(World& world, const ExportList& exports) : world_(world) {
    session = std::make_unique<Session>(exports, 0, world.pool, counters, *this);
    auto owned = std::make_unique<TestStream>();
    stream = owned.get();
    session->attach(std::move(owned));
    session->on_open(*stream);
  }
  ~Client() {
    if (session != nullptr && stream != nullptr) close();
    while (session != nullptr && !world_.device.pending.empty()) world_.device.complete(0, EIO);
    while (session != nullptr && !world_.device.queries.empty()) world_.device.answer_query();
  }

  void session_gone(Session&, const Error& why) override {
    gone_reason = why;
    gone = true;
    session.reset();
    stream = nullptr;
  }

  /// As much of `bytes` as the session takes, in pieces of at most `piece`. Replies are taken
  /// meanwhile if `reading`. Returns how many were taken.
  std::size_t send(std::span<const std::byte> bytes, std::size_t piece = SIZE_MAX) {
    std::size_t sent = 0;
    while (sent < bytes.size()) {
      if (reading) receive(piece);
      std::array<iovec, 4> places;
      std::size_t count = session->recv_vectors(places);
      // A stream may ask twice: the places stay the same.
      std::array<iovec, 4> again;
      NVMF_CHECK(session->recv_vectors(again) == count);
      if (count == 0) break;
      std::size_t now = 0;
      const std::size_t most = std::min(piece, bytes.size() - sent);
      for (std::size_t i = 0; i < count && now < most; ++i) {
        NVMF_CHECK(places[i].iov_base == again[i].iov_base);
        const std::size_t n = std::min(places[i].iov_len, most - now);
        std::memcpy(places[i].iov_base, bytes.data() + sent + now, n);
        now += n;
      }
      sent += now;
      session->recv_advance(now);
      if (session == nullptr || stream->was_reset) break;
    }
    if (reading && session != nullptr) receive(piece);
    return sent;
  }

  /// Takes what the session wants to send into `received`.
  void receive(std::size_t piece = SIZE_MAX) {
    while (session != nullptr) {
      std::array<iovec, transport::kStreamVectors> ranges;
      const std::size_t count = session->send_vectors(ranges);
      if (count == 0) return;
      std::size_t now = 0;
      for (std::size_t i = 0; i < count && now < piece; ++i) {
        const std::size_t n = std::min(ranges[i].iov_len, piece - now);
        const auto* p = static_cast<const std::byte*>(ranges[i].iov_base);
        received.insert(received.end(), p, p + n);
        now += n;
      }
      session->send_advance(now);
    }
  }

  /// What has come since the last call.
  Bytes taken() {
    receive();
    return std::exchange(received, {});
  }

  /// Handshake and GO for the default export; what came is dropped.
  void go(bool structured = false) {
    Bytes words = hex("00000003");
    if (structured) words = words + hex("49484156454f5054 00000008 00000000");
    words = words + hex("49484156454f5054 00000007 00000006 00000000 0000");
    NVMF_CHECK(send(words) == words.size());
    taken();
  }

  /// The same with structured replies or extended headers, and base:allocation.
  void go_with_contexts(bool extended) {
    const Bytes words = hex("00000003") +
                        hex(extended ? "49484156454f5054 0000000b 00000000"
                                     : "49484156454f5054 00000008 00000000") +
                        hex("49484156454f5054 0000000a 0000001b 00000000 00000001 0000000f") +
                        text("base:allocation") +
                        hex("49484156454f5054 00000007 00000006 00000000 0000");
    NVMF_CHECK(send(words) == words.size());
    taken();
  }

  std::size_t request(Command command, std::uint64_t cookie, std::uint64_t offset,
                      std::uint32_t length, std::uint16_t flags = 0, const Bytes& payload = {}) {
    Bytes bytes(RequestHeader::kBytes);
    RequestHeader{flags, command, cookie, offset, length}.encode(bytes.data());
    return send(bytes + payload);
  }

  void close() {
    Session* s = session.get();
    s->on_closed(Error{"the test closed it", ECONNRESET});
    stream = nullptr;
  }

  std::unique_ptr<Session> session;
  TestStream* stream = nullptr;
  Counters counters;
  Bytes received;
  bool reading = true;
  bool gone = false;
  Error gone_reason;

 private:
  World& world_;
};

}  // namespace nvmf::nbd::test
