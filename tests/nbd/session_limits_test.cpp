// Full means wait: slots, a session's share, the pool. And nothing is allocated per request.
#include <gtest/gtest.h>

#include "fixtures.h"
#include "sim/alloc_count.h"

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

/// Every command, every kind of reply and of refusal, whole and in pieces.
void serve_a_round(World& world, Client& client, const std::vector<Bytes>& requests) {
  int errors = 0;
  for (const Bytes& b : requests) {
    std::size_t sent = client.send(b);
    while (sent < b.size() || !world.device.pending.empty()) {
      if (!world.device.pending.empty()) world.device.complete(0, ++errors % 7 == 0 ? EIO : 0);
      if (client.stream->was_reset) return;
      client.receive();
      sent += client.send(std::span(b).subspan(sent));
    }
  }
  client.receive();
  client.received.clear();
}

TEST(Limits, NothingIsAllocatedPerRequest) {
  for (const bool structured : {true, false}) {
    World world(5 * kMiB, 16 * kMiB);
    Client client(world);
    client.go(structured);
    std::vector<Bytes> requests = {
        request(Command::write, 1, 0, 4096, 4096),
        request(Command::write, 2, 100, 65000, 65000),
        request(Command::write, 3, 0, 5 * kMiB, 5 * kMiB),
        request(Command::read, 4, 0, 65536),
        request(Command::read, 5, 512, 2 * kMiB),
        request(Command::read, 6, 1 << 30, 512),
        request(Command::write, 7, 1 << 30, 70000, 70000),
        request(Command::flush, 8, 0, 0),
        request(Command::trim, 9, 0, 1 << 20),
        request(Command::write_zeroes, 10, 0, 1 << 20),
        request(Command::cache, 11, 0, 1 << 20),
        request(static_cast<Command>(99), 12, 0, 1),
    };
    if (structured) {
      requests.push_back(request(Command::read, 13, 512, 9 * kMiB));
      Bytes whole(RequestHeader::kBytes);
      RequestHeader{kDf, Command::read, 14, 0, 9 * kMiB}.encode(whole.data());
      requests.push_back(whole);
    }
    client.received.reserve(32 * kMiB);
    serve_a_round(world, client, requests);
    const std::size_t before = sim::allocations();
    for (int i = 0; i < 100; ++i) serve_a_round(world, client, requests);
    EXPECT_EQ(sim::allocations(), before);
    EXPECT_FALSE(client.stream->was_reset);
    EXPECT_GE(client.counters.requests.load(), 101u * 8);
    EXPECT_GT(client.counters.errors.load(), 101u * 3);
    EXPECT_EQ(world.pool.used_bytes(), 0u);
  }
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

TEST(Limits, TheLargestRequestsAreServedWithinAClientsShare) {
  World world(kBufferBytesMax, 64 * kMiB);
  Client client(world);
  client.go();
  const Bytes write = request(Command::write, 1, 0, kPayloadBytesMax, kPayloadBytesMax);
  std::size_t most = 0;
  const auto serve = [&](const Bytes& bytes) {
    std::size_t sent = client.send(bytes);
    while (sent < bytes.size() || !world.device.pending.empty()) {
      ASSERT_FALSE(world.device.pending.empty());
      most = std::max(most, world.pool.used_bytes());
      world.device.complete();
      sent += client.send(std::span(bytes).subspan(sent));
    }
  };
  serve(write);
  EXPECT_EQ(client.taken().size(), 16u);
  serve(request(Command::read, 2, 0, kPayloadBytesMax));
  EXPECT_EQ(client.taken().size(), 16u + kPayloadBytesMax);
  EXPECT_EQ(most, kSessionBufferBytesMax);
  EXPECT_EQ(world.pool.used_bytes(), 0u);
}

TEST(Limits, NobodyTakesMoreThanWhatIsLeftForTheOthers) {
  World world(33 * kMiB, kMiB);
  std::vector<std::unique_ptr<Client>> rude;
  for (int i = 0; i < 9; ++i) {
    rude.push_back(std::make_unique<Client>(world));
    rude.back()->go();
    rude.back()->reading = false;
    for (std::uint64_t n = 0; n < kRequestsMax; ++n) {
      if (rude.back()->send(request(Command::read, n, 0, 256 * 1024)) == 0) break;
    }
    EXPECT_TRUE(rude.back()->session->stalled());
  }
  EXPECT_GE(world.pool.free_bytes(), 4 * kMiB);
  EXPECT_LE(world.pool.free_bytes(), 5 * kMiB);
  const std::size_t stuck = world.device.pending.size();
  Client polite(world);
  polite.go();
  for (int i = 0; i < 20; ++i) {
    polite.request(Command::read, 1, 0, 256 * 1024);
    ASSERT_EQ(world.device.pending.size(), stuck + 1);
    world.device.complete(stuck);
    EXPECT_EQ(polite.taken().size(), 16u + 256 * 1024);
  }
}

TEST(Limits, EachClientHasItsReserveWhenAllElseIsTaken) {
  World world(2 * kMiB, 4 * kMiB);  // one chunk, and the reserves
  const Buffer all = world.pool.take(kMiB, kMiB);
  ASSERT_TRUE(all);
  for (const bool structured : {false, true}) {
    Client client(world);
    client.go(structured);
    // Small ones side by side, as far as it reaches.
    Bytes small;
    for (std::uint64_t i = 0; i < 20; ++i) small = small + request(Command::read, i, 0, 4096);
    client.send(small);
    EXPECT_EQ(world.device.pending.size(), kReserveBytes / 4096);
    for (int i = 0; i < 20; ++i) {
      world.device.complete();
      client.receive();
    }
    EXPECT_EQ(client.taken().size(), 20u * (structured ? 28 + 4096 : 16 + 4096));
    // A large one of each kind piece by piece.
    client.send(request(Command::read, 20, 0, 3 * kMiB) + request(Command::read, 21, 0, kMiB));
    for (int i = 0; i < 64; ++i) {
      ASSERT_EQ(world.device.pending.size(), 1u);
      EXPECT_EQ(world.device.pending[0]->length_bytes, kReserveBytes);
      world.device.complete();
      client.receive();
    }
    EXPECT_EQ(client.received.size(), structured ? 4 * kMiB + 64 * 28 : 4 * kMiB + 32);
    client.received.clear();
    // In one chunk all the same, where that was asked for: with its end behind it.
    if (structured) {
      client.request(Command::read, 23, 0, kMiB, kDf);
      while (!world.device.pending.empty()) {
        world.device.complete();
        client.receive();
      }
      const Bytes reply = client.taken();
      ASSERT_EQ(reply.size(), 28 + kMiB + 20);
      EXPECT_EQ(ChunkHeader::decode(reply.data())->length, 8 + kMiB);
      EXPECT_EQ(ChunkHeader::decode(reply.data())->flags, 0);
      EXPECT_EQ(ChunkHeader::decode(reply.data() + 28 + kMiB)->type, ChunkType::none);
    }
    const Bytes write = request(Command::write, 22, 0, kMiB, kMiB);
    std::size_t sent = client.send(write);
    while (!world.device.pending.empty()) {
      world.device.complete();
      sent += client.send(std::span(write).subspan(sent));
    }
    EXPECT_EQ(sent, write.size());
    EXPECT_EQ(client.taken().size(), 16u);
  }
  world.pool.put(all);
}

TEST(Limits, WhoFindsNothingWaitsUntilThereIsSomething) {
  World world(3 * kMiB);
  const Buffer one = world.pool.take(kMiB, kMiB);
  const Buffer other = world.pool.take(kMiB, kMiB);
  Client a(world);
  Client b(world);
  for (Client* client : {&a, &b}) {
    client->go();
    const Bytes read = request(Command::read, 1, 0, kReserveBytes);
    client->send(read + read);
    EXPECT_TRUE(client->session->stalled());
  }
  EXPECT_EQ(world.device.pending.size(), 2u);
  EXPECT_TRUE(world.loop.timers().next());
  world.pool.put(one);
  world.pool.notify();
  EXPECT_FALSE(a.session->stalled() || b.session->stalled());
  EXPECT_EQ(world.device.pending.size(), 4u);
  EXPECT_FALSE(world.loop.timers().next());
  world.pool.put(other);
}

TEST(Limits, AWaitingClientThatGoesLeavesNoTrace) {
  World world(2 * kMiB);
  const Buffer all = world.pool.take(kMiB, kMiB);
  Client client(world);
  client.go();
  client.send(request(Command::read, 1, 0, kReserveBytes) + request(Command::read, 2, 0, kMiB));
  EXPECT_TRUE(client.session->stalled());
  client.close();
  EXPECT_FALSE(world.loop.timers().next());
  world.device.complete();
  EXPECT_TRUE(client.gone);
  world.pool.put(all);
  EXPECT_EQ(world.arena.used_chunks(), 0u);
}

TEST(Limits, TheHandshakeHasADeadlineAndNothingAfterIt) {
  World world;
  Client silent(world);
  Client slow(world);
  Client idle(world);
  idle.go();
  slow.send(test::hex("00000003 49484156454f5054 00000001 00000fff"));
  for (int i = 0; i < 100; ++i) {
    slow.send(test::text("x"));
    world.loop.advance(kHandshakeMax / 200);
  }
  EXPECT_FALSE(silent.stream->was_reset || slow.stream->was_reset);
  world.loop.advance(kHandshakeMax);
  EXPECT_TRUE(silent.stream->was_reset);
  EXPECT_TRUE(slow.stream->was_reset);
  EXPECT_NE(silent.stream->reason_given.message.find("handshake"), std::string::npos);
  EXPECT_TRUE(silent.session->dismissed());
  world.loop.advance(1000 * kHandshakeMax);
  EXPECT_FALSE(idle.stream->was_reset);
  idle.request(Command::flush, 1, 0, 0);
  EXPECT_EQ(world.device.pending.size(), 1u);
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
