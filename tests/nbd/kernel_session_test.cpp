// A session of the kernel: in transmission from the start, simple replies, an end that is at once.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "fixtures.h"
#include "frontends/nbd/request.h"
#include "io/reactor.h"
#include "io/socket_pair.h"
#include "kernel_fake.h"
#include "loop_device.h"

namespace nvmf::nbd {
namespace {

using namespace std::chrono_literals;
using test::Bytes;
using test::hex;
using test::to_hex;
using test::operator+;

/// The kernel's end, with a session made for it.
class Kernel final : public SessionOwner {
 public:
  explicit Kernel(test::World& w, std::uint16_t flags = kHasFlags | kSendFlush | kSendFua |
                                                        kSendTrim | kCanMultiConn)
      : world(w) {
    session = std::make_unique<Session>(world.device, flags, 0, world.pool, counters, *this);
    auto owned = std::make_unique<test::TestStream>();
    stream = owned.get();
    session->attach(std::move(owned));
    session->on_open(*stream);
  }
  ~Kernel() {
    if (session != nullptr) session->on_closed(Error{"the test closed it", ECONNRESET});
    while (session != nullptr) world.device.complete(0, EIO);
  }
  void session_gone(Session&, const Error& why) override {
    reason = why.message;
    session.reset();
  }
  void send(const Bytes& bytes) {
    std::size_t sent = 0;
    while (sent < bytes.size()) {
      std::array<iovec, 4> places;
      ASSERT_GT(session->recv_vectors(places), 0u);
      const std::size_t now = std::min(places[0].iov_len, bytes.size() - sent);
      std::memcpy(places[0].iov_base, bytes.data() + sent, now);
      session->recv_advance(now);
      sent += now;
    }
  }
  void request(Command command, std::uint64_t cookie, std::uint64_t offset, std::uint32_t length,
               const Bytes& payload = {}) {
    Bytes bytes(RequestHeader::kBytes);
    RequestHeader{0, command, cookie, offset, length}.encode(bytes.data());
    send(bytes + payload);
  }
  Bytes taken() {
    Bytes all;
    for (;;) {
      std::array<iovec, transport::kStreamVectors> ranges;
      const std::size_t count = session->send_vectors(ranges);
      if (count == 0) return all;
      std::size_t n = 0;
      for (std::size_t i = 0; i < count; n += ranges[i++].iov_len) {
        const auto* p = static_cast<const std::byte*>(ranges[i].iov_base);
        all.insert(all.end(), p, p + ranges[i].iov_len);
      }
      session->send_advance(n);
    }
  }

  test::World& world;
  Counters counters;
  std::unique_ptr<Session> session;
  test::TestStream* stream = nullptr;
  std::string reason;
};

TEST(KernelSession, SaysNothingUntilItIsAsked) {
  test::World world;
  Kernel kernel(world);
  EXPECT_EQ(to_hex(kernel.taken()), "");
  world.loop.advance(kHandshakeMax * 2);  // there is no handshake that could be late
  EXPECT_FALSE(kernel.stream->was_reset);
  kernel.request(Command::write, 7, 512, 4, hex("01020304"));
  world.device.complete();
  kernel.request(Command::read, 8, 512, 4);
  world.device.complete();
  EXPECT_EQ(to_hex(kernel.taken()),
            "67446698000000000000000000000007"
            "6744669800000000000000000000000801020304");
}

TEST(KernelSession, EndOfTheKernelsEndIsTheEnd) {
  test::World world;
  Kernel kernel(world);
  kernel.request(Command::write, 7, 0, 4, hex("01020304"));
  kernel.request(Command::read, 8, 0, 4);
  ASSERT_EQ(world.device.pending.size(), 2u);
  kernel.session->on_eof();
  EXPECT_TRUE(kernel.stream->was_reset);
  EXPECT_TRUE(world.device.abandoned.empty());
  kernel.session->on_closed(kernel.stream->reason_given);
  // The write keeps its range until the device is done; the kernel asks it again elsewhere.
  ASSERT_EQ(world.device.abandoned.size(), 1u);
  EXPECT_EQ(world.device.abandoned[0]->op, host::BlockOp::write);
  ASSERT_NE(kernel.session, nullptr);
  EXPECT_FALSE(kernel.session->said_goodbye());
  world.device.complete();
  world.device.complete();
  EXPECT_EQ(kernel.session, nullptr);
  EXPECT_EQ(kernel.reason, "the kernel has closed the connection");
}

TEST(KernelSession, GoodbyeIsNoticed) {
  test::World world;
  Kernel kernel(world);
  kernel.request(Command::disconnect, 0, 0, 0);
  EXPECT_TRUE(kernel.session->said_goodbye());
  EXPECT_TRUE(kernel.stream->finished);
  EXPECT_FALSE(kernel.session->dismissed());
}

TEST(KernelSession, WhatTakesTooLongIsAnsweredAndKeepsItsRange) {
  test::World world;
  Kernel kernel(world);
  kernel.request(Command::write, 7, 0, 4, hex("01020304"));
  kernel.request(Command::read, 8, 0, 1 << 20);
  world.loop.advance(10s);
  kernel.request(Command::trim, 9, 0, 4096);
  kernel.session->answer_older_than(11s);
  EXPECT_EQ(to_hex(kernel.taken()), "");
  kernel.session->answer_older_than(5s);
  EXPECT_EQ(to_hex(kernel.taken()),
            "67446698000000050000000000000007"
            "67446698000000050000000000000008");
  ASSERT_EQ(world.device.abandoned.size(), 1u);
  kernel.session->answer_older_than(5s);  // once is enough
  EXPECT_EQ(to_hex(kernel.taken()), "");
  // What the device says of them later is of no interest; others go on.
  while (!world.device.pending.empty()) world.device.complete();
  EXPECT_EQ(to_hex(kernel.taken()), "67446698000000000000000000000009");
  kernel.request(Command::read, 10, 0, 4);
  world.device.complete();
  EXPECT_EQ(to_hex(kernel.taken()), "6744669800000000000000000000000a01020304");
}

TEST(KernelSession, LongReadOfWhichSomeIsThereIsAnsweredWhole) {
  test::World world(kBufferBytesMax, 8 << 20);
  Kernel kernel(world);
  for (int round = 0; round < 100; ++round) {  // nothing is lost of slots and memory
    kernel.request(Command::read, 8, 0, 2 << 20);
    ASSERT_EQ(world.device.pending.size(), 2u);
    world.device.complete();
    world.loop.advance(10s);
    kernel.session->answer_older_than(5s);
    EXPECT_EQ(to_hex(kernel.taken()), "67446698000000050000000000000008");
    world.device.complete();
  }
  EXPECT_EQ(kernel.session->under_way(), 0u);
  EXPECT_FALSE(kernel.session->stalled());
}

/// Over a pair of sockets, on a reactor: this test is the kernel.
TEST(KernelSession, OverAPairOfSockets) {
  auto reactor = io::make_reactor({});
  ASSERT_TRUE(reactor);
  auto disk = std::make_shared<test::Disk>(1 << 20);
  test::LoopDevice device(**reactor, disk);
  BufferArena arena(kBufferBytesMax, 1);
  BufferPool pool(arena, **reactor);
  Counters counters;
  struct Owner final : SessionOwner {
    std::unique_ptr<Session> session;
    std::string reason;
    io::Reactor* reactor = nullptr;
    void session_gone(Session&, const Error& why) override {
      reason = why.message;
      session.reset();
      reactor->stop();
    }
  } owner;
  owner.reactor = reactor->get();
  auto pair = io::make_socket_pair(1 << 20);
  ASSERT_TRUE(pair);
  EXPECT_FALSE(io::is_deserted(pair->ours.get()));
  const int kernel = pair->theirs.get();
  // As for each connection of the kernel, the beginning of its first reply comes before.
  ASSERT_EQ(::write(pair->ours.get(), "gDf\x98", 4), 4);
  EXPECT_FALSE(io::is_read(pair->ours.get()));
  owner.session = std::make_unique<Session>(device, transmission_flags(device.info(), false), 4,
                                            pool, counters, owner);
  (*reactor)->post([&] {
    owner.session->attach(
        (*reactor)->adopt(io::incoming_of(std::move(pair->ours), "the kernel"), *owner.session));
  });
  std::thread thread([&] {
    (*reactor)->run();
    (*reactor)->end();
  });
  Bytes data(300000, std::byte{0x5a});
  Bytes request(RequestHeader::kBytes);
  RequestHeader{0, Command::write, 1, 4096, 300000}.encode(request.data());
  const Bytes all = request + data;
  for (std::size_t sent = 0; sent < all.size();) {
    const ssize_t n = ::send(kernel, all.data() + sent, all.size() - sent, MSG_NOSIGNAL);
    ASSERT_GT(n, 0);
    sent += static_cast<std::size_t>(n);
  }
  Bytes reply(SimpleReply::kBytes);
  ASSERT_TRUE(test::receive(kernel, reply.data(), reply.size()));
  EXPECT_EQ(to_hex(reply), "67446698000000000000000000000001");
  EXPECT_EQ(disk->bytes[4096], std::byte{0x5a});
  ::shutdown(kernel, SHUT_RDWR);  // as the kernel does it
  thread.join();
  EXPECT_EQ(owner.reason, "the kernel has closed the connection");
}

TEST(KernelSession, DesertedPairIsKnown) {
  auto pair = io::make_socket_pair(1 << 20);
  ASSERT_TRUE(pair);
  pair->theirs.reset();
  EXPECT_TRUE(io::is_deserted(pair->ours.get()));
}

}  // namespace
}  // namespace nvmf::nbd
