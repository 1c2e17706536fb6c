// Full means wait: slots, a session's share, the pool. And nothing is allocated per request.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

#include "fixtures.h"

namespace {

std::size_t g_allocations = 0;

void* counted(std::size_t bytes, std::size_t alignment) {
  ++g_allocations;
  void* p = alignment <= alignof(std::max_align_t)
                ? std::malloc(bytes)
                : std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (p == nullptr) std::abort();
  return p;
}

}  // namespace

void* operator new(std::size_t bytes) {
  return counted(bytes, 1);
}
void* operator new(std::size_t bytes, std::align_val_t a) {
  return counted(bytes, static_cast<std::size_t>(a));
}
void operator delete(void* p) noexcept {
  std::free(p);
}
void operator delete(void* p, std::size_t) noexcept {
  std::free(p);
}
void operator delete(void* p, std::align_val_t) noexcept {
  std::free(p);
}
void operator delete(void* p, std::size_t, std::align_val_t) noexcept {
  std::free(p);
}

namespace nvmf::nbd {
namespace {

using test::Bytes;
using test::Client;
using test::operator+;
using test::World;

constexpr std::size_t kMiB = std::size_t{1} << 20;

Bytes request(Command command, std::uint64_t cookie, std::uint64_t offset, std::uint32_t length,
              std::size_t payload = 0) {
  Bytes bytes(RequestHeader::kBytes + payload);
  RequestHeader{0, command, cookie, offset, length}.encode(bytes.data());
  return bytes;
}

TEST(Limits, NothingIsAllocatedPerRequest) {
  World world;
  Client client(world);
  client.go(true);
  const Bytes write = request(Command::write, 1, 0, 65536, 65536);
  const Bytes read = request(Command::read, 2, 0, 65536);
  const Bytes bad = request(Command::read, 3, 1 << 30, 512);
  const Bytes flush = request(Command::flush, 4, 0, 0);
  client.received.reserve(4 * kMiB);
  const auto round = [&] {
    for (const Bytes* b : {&write, &read, &bad, &flush}) ASSERT_EQ(client.send(*b), b->size());
    while (!world.device.pending.empty()) world.device.complete();
    client.receive();
    client.received.clear();
  };
  round();
  const std::size_t before = g_allocations;
  for (int i = 0; i < 1000; ++i) round();
  EXPECT_EQ(g_allocations, before);
  EXPECT_EQ(client.counters.requests.load(), 3003u);
}

TEST(Limits, AtMostSoManyRequestsOfOneClient) {
  World world;
  Client client(world);
  client.go();
  Bytes many;
  for (std::size_t i = 0; i < 10 * kRequestsMax; ++i) {
    many = many + request(Command::flush, i, 0, 0);
  }
  std::size_t sent = client.send(many);
  EXPECT_EQ(world.device.pending.size(), kRequestsMax);
  EXPECT_TRUE(client.session->stalled());
  EXPECT_LE(sent, kRequestsMax * RequestHeader::kBytes + kStagingBytes);
  // Each completion lets exactly one more in, and in the end all were served.
  world.device.complete(7);
  client.receive();
  EXPECT_EQ(world.device.pending.size(), kRequestsMax);
  while (!world.device.pending.empty()) {
    world.device.complete();
    client.receive();
    if (sent < many.size()) sent += client.send(std::span(many).subspan(sent));
  }
  EXPECT_EQ(client.received.size(), 10 * kRequestsMax * SimpleReply::kBytes);
  EXPECT_FALSE(client.session->stalled());
}

TEST(Limits, AClientThatDoesNotReadStallsOnlyItself) {
  World world(kBufferBytesMax, 64 * kMiB);
  Client rude(world);
  Client polite(world);
  rude.go();
  polite.go();
  rude.reading = false;
  for (std::size_t i = 0; i < kRequestsMax; ++i) {
    if (rude.send(request(Command::read, i, 0, 1 << 20)) == 0) break;
    while (!world.device.pending.empty()) world.device.complete();
  }
  EXPECT_TRUE(rude.session->stalled());
  EXPECT_EQ(world.pool.used_bytes(), kSessionBufferBytesMax);
  for (int i = 0; i < 50; ++i) {
    polite.request(Command::read, 1, 0, 1 << 20);
    ASSERT_EQ(world.device.pending.size(), 1u);
    world.device.complete();
    EXPECT_EQ(polite.taken().size(), 16u + (1 << 20));
  }
  // When it reads after all, it goes on.
  const std::size_t got = rude.taken().size();
  EXPECT_EQ(got % (16 + (1 << 20)), 0u);
  EXPECT_FALSE(rude.session->stalled());
}

TEST(Limits, TheLargestRequestIsServed) {
  World world(kBufferBytesMax, 64 * kMiB);
  Client client(world);
  client.go();
  ASSERT_EQ(client.send(request(Command::write, 1, 0, kPayloadBytesMax, kPayloadBytesMax)),
            RequestHeader::kBytes + kPayloadBytesMax);
  client.send(request(Command::read, 2, 0, kPayloadBytesMax));  // waits for the first
  EXPECT_EQ(world.device.pending.size(), 1u);
  world.device.complete();
  EXPECT_EQ(client.taken().size(), 16u);
  ASSERT_EQ(world.device.pending.size(), 1u);
  world.device.complete();
  EXPECT_EQ(client.taken().size(), 16u + kPayloadBytesMax);
  EXPECT_EQ(world.pool.used_bytes(), 0u);
}

TEST(Limits, WhoFindsThePoolEmptyWaitsItsTurn) {
  World world(4 * kMiB);  // the most that one request may have is 3 MiB
  Client a(world);
  Client b(world);
  Client c(world);
  for (Client* client : {&a, &b, &c}) client->go();
  for (int i = 0; i < 4; ++i) a.request(Command::read, 1, 0, 1 << 20);
  EXPECT_EQ(world.device.pending.size(), 4u);
  EXPECT_EQ(b.request(Command::read, 2, 0, 1 << 20), RequestHeader::kBytes);
  // A write whose payload nobody can take is left in the socket.
  const Bytes write = request(Command::write, 3, 0, 1 << 20, 1 << 20);
  EXPECT_LE(c.send(write), RequestHeader::kBytes + kStagingBytes);
  EXPECT_TRUE(b.session->stalled() && c.session->stalled());
  EXPECT_EQ(world.device.pending.size(), 4u);
  EXPECT_TRUE(world.loop.timers().next());

  world.device.complete();
  a.receive();
  EXPECT_FALSE(b.session->stalled());
  EXPECT_TRUE(c.session->stalled());
  EXPECT_EQ(world.device.pending.size(), 4u);
  world.device.complete();
  a.receive();
  EXPECT_FALSE(c.session->stalled());
  EXPECT_FALSE(world.loop.timers().next());
  while (!world.device.pending.empty()) world.device.complete();
  EXPECT_EQ(b.taken().size(), 16u + (1 << 20));
}

TEST(Limits, AWaitingClientThatGoesLeavesNoTrace) {
  World world(kMiB);
  Client a(world);
  Client b(world);
  a.go();
  b.go();
  a.request(Command::read, 1, 0, 1 << 20);
  b.request(Command::read, 2, 0, 1 << 20);
  EXPECT_TRUE(b.session->stalled());
  b.close();
  EXPECT_TRUE(b.gone);
  EXPECT_FALSE(world.loop.timers().next());
  world.device.complete();
  a.close();
  EXPECT_EQ(world.arena.used_chunks(), 0u);
}

TEST(Limits, EofWhileStalledIsServedToTheLastRequest) {
  World world;
  Client client(world);
  client.go();
  Bytes many;
  for (std::size_t i = 0; i < kRequestsMax + 5; ++i) {
    many = many + request(Command::flush, i, 0, 0);
  }
  EXPECT_EQ(client.send(many), many.size());
  client.session->on_eof();
  EXPECT_FALSE(client.stream->finished);
  while (!world.device.pending.empty()) {
    world.device.complete();
    client.receive();
  }
  EXPECT_EQ(client.received.size(), (kRequestsMax + 5) * SimpleReply::kBytes);
  EXPECT_TRUE(client.stream->finished);
}

TEST(Limits, AStoppedStalledClientIsClosed) {
  World world;
  Client client(world);
  client.go();
  client.reading = false;
  for (std::size_t i = 0; i < kRequestsMax + 5; ++i) {
    client.send(request(Command::flush, i, 0, 0));
  }
  while (!world.device.pending.empty()) world.device.complete();
  EXPECT_TRUE(client.session->stalled());
  client.session->stop();
  EXPECT_TRUE(client.stream->finished);
  std::array<iovec, 4> places;
  EXPECT_GT(client.session->recv_vectors(places), 0u);  // so that its FIN is seen
}

}  // namespace
}  // namespace nvmf::nbd
