// Large READs and WRITEs in pieces: what the device gets, what the client gets, and what becomes of
// an error in the middle. And the end of a session at every byte of it.
#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "fixtures.h"
#include "sim/byte_user.h"

namespace nvmf::nbd {
namespace {

using test::Bytes;
using test::Client;
using test::hex;
using test::operator+;
using test::World;

constexpr std::uint32_t kMiB = 1 << 20;
constexpr std::uint64_t kDiskBytes = 48 * kMiB;

Bytes request(Command command, std::uint64_t cookie, std::uint64_t offset, std::uint32_t length,
              std::uint16_t flags = 0, const Bytes& payload = {}) {
  Bytes bytes(RequestHeader::kBytes);
  RequestHeader{flags, command, cookie, offset, length}.encode(bytes.data());
  return bytes + payload;
}

struct Chunk {
  ChunkHeader header;
  std::span<const std::byte> payload;
};

std::vector<Chunk> chunks_of(const Bytes& bytes) {
  std::vector<Chunk> chunks;
  for (std::size_t at = 0; at < bytes.size();) {
    const auto header = ChunkHeader::decode(bytes.data() + at);
    if (!header || at + 20 + header->length > bytes.size()) return {};
    chunks.push_back({*header, {bytes.data() + at + 20, header->length}});
    at += 20 + header->length;
  }
  return chunks;
}

class Pieces : public testing::Test {
 protected:
  Pieces() {
    const Bytes part = sim::pattern(100'003, 3);
    for (std::size_t at = 0; at < kDiskBytes; at += part.size()) {
      std::copy_n(part.begin(), std::min<std::size_t>(part.size(), kDiskBytes - at),
                  world.device.bytes.begin() + static_cast<std::ptrdiff_t>(at));
    }
  }

  /// Completes what the device has, and what it gets meanwhile, in an order of its own.
  /// `fails` says which pieces end with EIO.
  template <class Fails>
  void serve(Client& of, Fails fails, bool shuffled = true) {
    while (of.session != nullptr && !world.device.pending.empty()) {
      const std::size_t at = shuffled ? random_() % world.device.pending.size() : 0;
      world.device.complete(at, fails(*world.device.pending[at]) ? EIO : 0);
      if (!of.stream->was_reset) of.receive();
    }
  }
  static bool never(const host::BlockRequest&) { return false; }

  World world{kBufferBytesMax, kDiskBytes};
  Client client{world};
  std::mt19937 random_{5};
};

TEST_F(Pieces, AStructuredReadIsAChunkForEachPiece) {
  client.go(true);
  for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{512}, std::uint64_t{77}}) {
    const std::uint32_t length = 20 * kMiB + 100;
    client.send(request(Command::read, 7, offset, length));
    EXPECT_LE(world.pool.used_bytes(), kSessionBufferBytesMax);
    serve(client, never);
    const Bytes reply = client.taken();
    Bytes got(length);
    std::size_t total = 0;
    const auto chunks = chunks_of(reply);
    ASSERT_GE(chunks.size(), 20u);
    EXPECT_LE(chunks.size(), 23u);
    for (const Chunk& c : chunks) {
      EXPECT_EQ(c.header.type, ChunkType::offset_data);
      EXPECT_EQ(c.header.flags, &c == &chunks.back() ? kChunkDone : 0);
      EXPECT_EQ(c.header.cookie, 7u);
      const std::uint64_t at = load_be64(c.payload.data());
      const std::size_t bytes = c.payload.size() - 8;
      ASSERT_GE(at, offset);
      ASSERT_LE(at + bytes, offset + length);
      // No border between two pieces within a block.
      EXPECT_TRUE(at == offset || at % 4096 == 0);
      std::copy(c.payload.begin() + 8, c.payload.end(),
                got.begin() + static_cast<std::ptrdiff_t>(at - offset));
      total += bytes;
    }
    EXPECT_EQ(total, length);
    EXPECT_TRUE(std::equal(got.begin(), got.end(),
                           world.device.bytes.begin() + static_cast<std::ptrdiff_t>(offset)));
  }
}

TEST_F(Pieces, AnErrorInAStructuredReadNamesItsPlace) {
  client.go(true);
  client.send(request(Command::read, 7, 0, 20 * kMiB));
  const auto bad = [](const host::BlockRequest& r) { return r.offset_bytes == 5 * kMiB; };
  serve(client, bad, false);
  const Bytes reply = client.taken();
  const auto chunks = chunks_of(reply);
  ASSERT_EQ(chunks.size(), 13u);  // those under way by then; the rest is left alone
  std::size_t errors = 0;
  for (const Chunk& c : chunks) {
    EXPECT_EQ(c.header.flags, &c == &chunks.back() ? kChunkDone : 0);
    if (c.header.type == ChunkType::offset_data) {
      EXPECT_NE(load_be64(c.payload.data()), 5 * kMiB);
      continue;
    }
    ++errors;
    EXPECT_EQ(c.header.type, ChunkType::error_offset);
    EXPECT_EQ(load_be32(c.payload.data()), 5u);
    EXPECT_EQ(load_be64(c.payload.data() + c.payload.size() - 8), 5 * kMiB);
  }
  EXPECT_EQ(errors, 1u);
  EXPECT_EQ(world.pool.used_bytes(), 0u);
  client.request(Command::read, 8, 0, 512);
  EXPECT_EQ(world.device.pending.size(), 1u);
}

TEST_F(Pieces, ASimpleReadIsGatheredInOrderOrRefusedAsAWhole) {
  client.go();
  client.send(request(Command::read, 7, 100, kGatherBytesMax));
  client.send(request(Command::read, 8, 0, 512));
  EXPECT_EQ(world.device.pending.size(), 4u);
  world.device.complete(1);
  world.device.complete(2);  // the small one: another reply may come first
  Bytes reply = client.taken();
  EXPECT_EQ(reply.size(), 16u + 512u);
  serve(client, never);
  reply = client.taken();
  ASSERT_EQ(reply.size(), 16u + kGatherBytesMax);
  EXPECT_EQ(SimpleReply::decode(reply.data())->cookie, 7u);
  EXPECT_TRUE(std::equal(reply.begin() + 16, reply.end(), world.device.bytes.begin() + 100));

  client.send(request(Command::read, 9, 0, kGatherBytesMax));
  world.device.complete(1, EIO);
  EXPECT_TRUE(client.taken().empty());
  world.device.complete(0);
  EXPECT_EQ(test::to_hex(client.taken()), "67446698000000050000000000000009");
  EXPECT_EQ(world.pool.used_bytes(), 0u);
}

TEST_F(Pieces, AHugeSimpleReadIsSentAsItComesAndAlone) {
  client.go();
  client.send(request(Command::read, 6, 0, 512) + request(Command::read, 7, 77, 30 * kMiB) +
              request(Command::read, 8, 0, 512));
  EXPECT_EQ(world.device.pending.size(), 1u);
  serve(client, never);
  const Bytes reply = client.taken();
  ASSERT_EQ(reply.size(), 3 * 16u + 2 * 512u + 30 * kMiB);
  EXPECT_EQ(SimpleReply::decode(&reply[528])->cookie, 7u);
  EXPECT_TRUE(std::equal(reply.begin() + 544, reply.begin() + 544 + 30 * kMiB,
                         world.device.bytes.begin() + 77));
  EXPECT_EQ(SimpleReply::decode(&reply[544 + 30 * kMiB])->cookie, 8u);
}

TEST_F(Pieces, AnErrorAfterASimpleReplyHasBegunIsAHardDisconnect) {
  client.go();
  client.request(Command::read, 7, 0, 30 * kMiB);
  serve(client, [](const host::BlockRequest& r) { return r.offset_bytes >= 12 * kMiB; }, false);
  EXPECT_TRUE(client.stream->was_reset);
  EXPECT_TRUE(client.session->dismissed());
  EXPECT_EQ(client.stream->reason_given.code, EIO);
  EXPECT_LE(client.received.size(), 16u + 12 * kMiB);
  client.close();
  serve(client, never);
  EXPECT_TRUE(client.gone);
  EXPECT_EQ(world.pool.used_bytes(), 0u);
}

TEST_F(Pieces, AnUnfragmentedReadIsOneChunkWhateverItsSize) {
  client.go(true);
  for (const std::uint32_t length : {kMiB, kGatherBytesMax, 30 * kMiB}) {
    client.send(request(Command::read, 7, 512, length, kDf));
    serve(client, never);
    const Bytes reply = client.taken();
    const auto chunks = chunks_of(reply);
    ASSERT_GE(chunks.size(), 1u);
    EXPECT_EQ(chunks[0].header.type, ChunkType::offset_data);
    ASSERT_EQ(chunks[0].payload.size(), 8u + length);
    EXPECT_TRUE(std::equal(chunks[0].payload.begin() + 8, chunks[0].payload.end(),
                           world.device.bytes.begin() + 512));
    // Where an error could still have come, the end is said behind the data.
    ASSERT_EQ(chunks.size(), length > kGatherBytesMax ? 2u : 1u);
    EXPECT_EQ(chunks.back().header.flags, kChunkDone);
    if (chunks.size() == 2) {
      EXPECT_EQ(chunks[0].header.flags, 0);
      EXPECT_EQ(chunks[1].header.type, ChunkType::none);
    }
  }
}

TEST_F(Pieces, AnErrorInAnUnfragmentedReadFollowsItsData) {
  client.go(true);
  client.send(request(Command::read, 7, 0, 30 * kMiB, kDf));
  serve(client, [](const host::BlockRequest& r) {
    return r.offset_bytes == 12 * kMiB || r.offset_bytes == 10 * kMiB;
  });
  Bytes reply = client.taken();
  auto chunks = chunks_of(reply);
  ASSERT_EQ(chunks.size(), 2u);
  ASSERT_EQ(chunks[0].payload.size(), 8u + 30 * kMiB);
  const auto data = chunks[0].payload.subspan(8);
  EXPECT_TRUE(std::all_of(data.begin() + 10 * kMiB, data.begin() + 11 * kMiB,
                          [](std::byte b) { return b == std::byte{0}; }));
  EXPECT_TRUE(
      std::equal(data.begin() + 13 * kMiB, data.end(), world.device.bytes.begin() + 13 * kMiB));
  EXPECT_EQ(chunks[1].header.type, ChunkType::error_offset);
  EXPECT_EQ(chunks[1].header.flags, kChunkDone);
  EXPECT_EQ(load_be64(&reply[reply.size() - 8]), 10 * kMiB);

  client.send(request(Command::read, 8, 0, kMiB, kDf));
  serve(client, [](const auto&) { return true; });
  reply = client.taken();
  chunks = chunks_of(reply);
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_EQ(chunks[0].header.type, ChunkType::error);
}

TEST_F(Pieces, AWriteIsInTheDeviceWhileItsRestStillComes) {
  client.go();
  const Bytes data = sim::pattern(5 * kMiB, 9);
  const Bytes whole = request(Command::write, 7, 100, 5 * kMiB, kFua, data);
  std::size_t sent = client.send(std::span(whole).first(2 * kMiB - 200));
  ASSERT_EQ(world.device.pending.size(), 1u);
  EXPECT_TRUE(world.device.pending[0]->fua);
  EXPECT_EQ(world.device.pending[0]->offset_bytes, 100u);
  EXPECT_EQ((world.device.pending[0]->offset_bytes + world.device.pending[0]->length_bytes) % 4096,
            0u);
  EXPECT_TRUE(client.taken().empty());
  sent += client.send(std::span(whole).subspan(sent));
  EXPECT_EQ(sent, whole.size());
  EXPECT_EQ(world.device.pending.size(), 6u);
  for (const auto* r : world.device.pending) EXPECT_TRUE(r->fua);
  serve(client, never);
  EXPECT_EQ(test::to_hex(client.taken()), "67446698000000000000000000000007");
  EXPECT_TRUE(std::equal(data.begin(), data.end(), world.device.bytes.begin() + 100));
  EXPECT_EQ(client.counters.requests.load(), 1u);
  EXPECT_EQ(client.counters.written_bytes.load(), 5 * kMiB);
}

TEST_F(Pieces, AfterAnErrorTheRestOfAWriteIsSkipped) {
  client.go();
  const Bytes whole = request(Command::write, 7, 0, 20 * kMiB, 0, Bytes(20 * kMiB)) +
                      request(Command::flush, 8, 0, 0);
  std::size_t sent = client.send(std::span(whole).first(3 * kMiB + 1000));
  ASSERT_EQ(world.device.pending.size(), 3u);
  world.device.complete(1, EIO);
  sent += client.send(std::span(whole).subspan(sent));
  EXPECT_EQ(sent, whole.size());
  // The two that it had, and the flush.
  ASSERT_EQ(world.device.pending.size(), 3u);
  EXPECT_TRUE(client.taken().empty());
  world.device.complete(0);
  world.device.complete(0);
  EXPECT_EQ(test::to_hex(client.taken()), "67446698000000050000000000000007");
  world.device.complete(0);
  EXPECT_EQ(client.taken().size(), 16u);
  EXPECT_EQ(world.pool.used_bytes(), 0u);
}

TEST_F(Pieces, StopDuringALargeWriteAndALargeRead) {
  client.go(true);
  client.send(std::span<const std::byte>(request(Command::write, 7, 0, 20 * kMiB, 0, Bytes(kMiB))));
  Client reader(world);
  reader.go(true);
  reader.reading = false;
  reader.request(Command::read, 8, 0, 30 * kMiB);
  EXPECT_EQ(world.device.pending.size(), 9u);
  client.session->stop();
  reader.session->stop();
  EXPECT_FALSE(client.stream->finished || reader.stream->finished);
  while (!world.device.pending.empty()) world.device.complete();
  EXPECT_TRUE(client.stream->finished);  // the rest of its payload never comes
  EXPECT_FALSE(reader.stream->finished);
  reader.reading = true;
  while (!reader.stream->finished) {
    reader.receive();
    ASSERT_TRUE(!world.device.pending.empty() || reader.stream->finished);
    while (!world.device.pending.empty()) world.device.complete();
  }
  const Bytes reply = reader.taken();
  ASSERT_FALSE(chunks_of(reply).empty());
  EXPECT_EQ(chunks_of(reply).back().header.flags, kChunkDone);
}

// What the stop waited for is over when the last piece has been sent: nobody need be cut off then.
TEST_F(Pieces, StopDuringAReadThatIsOneMessageEndsWithIt) {
  client.go();
  client.request(Command::read, 7, 0, 30 * kMiB);
  world.device.complete(0);
  client.session->stop();
  EXPECT_FALSE(client.stream->finished);
  serve(client, never);
  EXPECT_EQ(client.taken().size(), 16u + 30 * kMiB);
  EXPECT_TRUE(client.stream->finished);
}

TEST_F(Pieces, CutBreaksOffWhatHasBegunAndAnswersTheRest) {
  client.go();
  client.request(Command::read, 7, 0, 30 * kMiB);
  Client gatherer(world);
  gatherer.go();
  gatherer.request(Command::read, 8, 0, kGatherBytesMax);
  world.device.complete(0);
  for (Client* c : {&client, &gatherer}) {
    c->session->stop();
    c->session->cut();
    EXPECT_TRUE(c->stream->finished);
  }
  EXPECT_EQ(client.taken().size(), 16u + kMiB);
  EXPECT_EQ(test::to_hex(gatherer.taken()), "674466980000006c0000000000000008");
  while (!world.device.pending.empty()) world.device.complete();
  EXPECT_EQ(client.taken().size(), 0u);
  client.close();
  gatherer.close();
  EXPECT_TRUE(client.gone && gatherer.gone);
  EXPECT_EQ(world.pool.used_bytes(), 0u);
}

// The device holds what a request covers that is not whole blocks: so the ends come by themselves.
TEST_F(Pieces, ZeroesThatBeginAndEndWithinABlockComeInParts) {
  world.device.change().block_bytes = 4096;
  client.go();
  client.request(Command::write_zeroes, 7, 1000, 40 * kMiB, kFua | kNoHole | kFastZero);
  ASSERT_EQ(world.device.pending.size(), 3u);
  const std::array<std::uint64_t, 4> borders{1000, 4096, 40 * kMiB, 40 * kMiB + 1000};
  for (std::size_t i = 0; i < 3; ++i) {
    const host::BlockRequest& part = *world.device.pending[i];
    EXPECT_EQ(part.offset_bytes, borders[i]);
    EXPECT_EQ(part.offset_bytes + part.length_bytes, borders[i + 1]);
    EXPECT_TRUE(part.fua && part.no_hole);
    EXPECT_EQ(part.fast_only, i == 1);
  }
  world.device.complete(1);
  world.device.complete(1);
  EXPECT_TRUE(client.taken().empty());
  world.device.complete(0);
  EXPECT_EQ(test::to_hex(client.taken()), "67446698000000000000000000000007");

  client.request(Command::write_zeroes, 8, 1, 8192);
  world.device.complete(0, EIO);
  world.device.complete(0);
  world.device.complete(0);
  EXPECT_EQ(test::to_hex(client.taken()), "67446698000000050000000000000008");
}

TEST_F(Pieces, ZeroesWithoutAWholeBlockOrWithAllWholeAreOnePart) {
  world.device.change().block_bytes = 4096;
  client.go();
  for (const auto& [offset, length] : {std::pair{100u, 5000u}, {4096u, 8192u}, {5u, 6u}}) {
    client.request(Command::write_zeroes, 9, offset, length);
    ASSERT_EQ(world.device.pending.size(), 1u);
    EXPECT_EQ(world.device.pending[0]->offset_bytes, offset);
    EXPECT_EQ(world.device.pending[0]->length_bytes, length);
    world.device.complete();
  }
  // Nothing is done where it could not be done fast.
  world.device.change().write_zeroes = false;
  client.request(Command::write_zeroes, 9, 100, kMiB, kFastZero);
  ASSERT_EQ(world.device.pending.size(), 1u);
  EXPECT_TRUE(world.device.pending[0]->fast_only);
  world.device.complete(0, ENOTSUP);
}

TEST_F(Pieces, WhatMayStillChangeDataIsAbandonedWhenTheClientIsGone) {
  client.go();
  client.request(Command::read, 1, 0, 4096);
  client.request(Command::flush, 2, 0, 0);
  client.request(Command::write, 3, 0, 4096, 0, Bytes(4096));
  client.request(Command::write_zeroes, 4, 0, 4096);
  client.request(Command::trim, 5, 0, 4096);
  client.request(Command::write, 6, 8192, 4096, 0, Bytes(4096));
  client.request(Command::write, 7, 0, 3 * kMiB, 0, Bytes(2 * kMiB + 5));  // two pieces there
  world.device.complete(5);
  ASSERT_EQ(world.device.pending.size(), 7u);
  EXPECT_TRUE(world.device.abandoned.empty());
  client.close();
  std::vector<host::BlockRequest*> expected;
  for (host::BlockRequest* r : world.device.pending) {
    if (r->op != host::BlockOp::read && r->op != host::BlockOp::flush) expected.push_back(r);
  }
  EXPECT_EQ(expected.size(), 5u);
  std::ranges::sort(expected);
  std::ranges::sort(world.device.abandoned);
  EXPECT_EQ(world.device.abandoned, expected);
  EXPECT_FALSE(client.gone);
  while (!world.device.pending.empty()) world.device.complete();
  EXPECT_TRUE(client.gone);
}

/// A session of every kind of message; cut off after each of its bytes, in each of the ways that
/// there are.
TEST(EveryByte, ASessionMayEndThere) {
  World world(3 * kMiB, 4 * kMiB);
  const Bytes hello =
      hex("00000003"
          "49484156454f5054 00000003 00000000"
          "49484156454f5054 00000008 00000000"
          "49484156454f5054 00000006 00000008 00000000 0001 0003"
          "49484156454f5054 00000007 00000006 00000000 0000");
  const Bytes session =
      hello + request(Command::write, 1, 100, 700, kFua, Bytes(700)) +
      request(Command::read, 2, 0, 1000) + request(Command::write_zeroes, 3, 0, 4096) +
      request(Command::read, 4, 0, 3 * kMiB) + request(Command::write, 5, 0, 40, kDf, Bytes(40)) +
      request(Command::trim, 6, 0, 4096) + request(Command::flush, 7, 0, 0) +
      request(Command::disconnect, 8, 0, 0);
  enum class How : std::uint8_t { eof, closed, closed_unread, stopped };
  for (const How how : {How::eof, How::closed, How::closed_unread, How::stopped}) {
    for (std::size_t end = 0; end <= session.size(); ++end) {
      SCOPED_TRACE(end);
      world.device.abandoned.clear();
      {
        Client client(world);
        client.reading = how != How::closed_unread || end < hello.size() + 28;
        const Bytes part(session.begin(), session.begin() + static_cast<std::ptrdiff_t>(end));
        client.send(std::span(part).first(std::min(end, hello.size())));
        client.send(std::span(part).subspan(std::min(end, hello.size())));
        if (end % 3 == 1 && !world.device.pending.empty()) world.device.complete();
        if (how == How::eof) client.session->on_eof();
        if (how == How::stopped) {
          client.session->stop();
          client.session->cut();
        }
        if (how == How::closed || how == How::closed_unread) {
          client.close();
          for (const auto* r : world.device.abandoned) EXPECT_NE(r->op, host::BlockOp::read);
        }
        while (client.session != nullptr && !world.device.pending.empty()) {
          world.device.complete();
          if (client.stream != nullptr) client.receive();
        }
        if (client.session != nullptr) {
          EXPECT_TRUE(client.stream->finished);
          client.close();
        }
        EXPECT_TRUE(client.gone);
      }
      ASSERT_TRUE(world.device.pending.empty());
      ASSERT_EQ(world.pool.used_bytes(), 0u);
      ASSERT_EQ(world.arena.used_chunks(), 0u);
      ASSERT_FALSE(world.loop.timers().next());
    }
  }
}

}  // namespace
}  // namespace nvmf::nbd
