// Transmission: golden exchanges for each command, errors, order, and the end of a session.
#include "frontends/nbd/session.h"

#include <gtest/gtest.h>

#include <random>

#include "fixtures.h"

namespace nvmf::nbd {
namespace {

using test::Bytes;
using test::Client;
using test::hex;
using test::operator+;
using test::to_hex;
using test::World;

Bytes pattern(std::size_t size, unsigned seed = 1) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

std::string simple(std::uint32_t error, std::uint64_t cookie) {
  Bytes b(SimpleReply::kBytes);
  SimpleReply{static_cast<WireError>(error), cookie}.encode(b.data());
  return to_hex(b);
}

class Transmit : public testing::Test {
 protected:
  void SetUp() override { client.go(); }
  std::string replies() { return to_hex(client.taken()); }

  World world;
  Client client{world};
};

class TransmitStructured : public Transmit {
 protected:
  void SetUp() override { client.go(true); }
};

TEST_F(Transmit, Read) {
  world.device.bytes = pattern(1 << 20);
  client.request(Command::read, 0x77, 4096, 512);
  ASSERT_EQ(world.device.pending.size(), 1u);
  EXPECT_EQ(replies(), "");
  world.device.complete();
  EXPECT_EQ(replies(), simple(0, 0x77) + to_hex({world.device.bytes.data() + 4096, 512}));
  EXPECT_EQ(client.counters.read_bytes.load(), 512u);
}

TEST_F(Transmit, ReadRepliesComeStraightFromTheRequestsBuffer) {
  client.request(Command::read, 1, 0, 65536);
  const std::byte* buffer = world.device.pending[0]->data;
  world.device.complete();
  std::array<iovec, 4> ranges;
  ASSERT_EQ(client.session->send_vectors(ranges), 2u);
  EXPECT_EQ(ranges[1].iov_base, buffer);
  EXPECT_EQ(ranges[1].iov_len, 65536u);
}

TEST_F(Transmit, WritePayloadIsReceivedStraightIntoTheRequestsBuffer) {
  Bytes header(RequestHeader::kBytes);
  RequestHeader{0, Command::write, 1, 0, 65536}.encode(header.data());
  client.send(header);
  std::array<iovec, 4> places;
  ASSERT_EQ(client.session->recv_vectors(places), 2u);
  EXPECT_EQ(places[0].iov_len, 65536u);
  const void* buffer = places[0].iov_base;
  const Bytes data = pattern(65536);
  client.send(data);
  ASSERT_EQ(world.device.pending.size(), 1u);
  EXPECT_EQ(world.device.pending[0]->data, buffer);
  world.device.complete();
  EXPECT_EQ(replies(), simple(0, 1));
  EXPECT_TRUE(std::equal(data.begin(), data.end(), world.device.bytes.begin()));
  EXPECT_EQ(client.counters.written_bytes.load(), 65536u);
}

class TransmitPieces : public testing::TestWithParam<std::size_t> {};
INSTANTIATE_TEST_SUITE_P(Pieces, TransmitPieces, testing::Values(1, 3, 29, 1000, 40000, SIZE_MAX));

TEST_P(TransmitPieces, AnyDivisionOfTheBytesIsTheSame) {
  World world;
  Client client(world);
  client.go(true);
  Bytes sent;
  Bytes expected_disk(1 << 20);
  std::mt19937 random(3);
  std::uint64_t cookie = 0;
  for (int i = 0; i < 40; ++i) {
    const auto length = static_cast<std::uint32_t>(512 * (1 + random() % 150));
    const std::uint64_t offset = 512 * (random() % (2048 - length / 512 + 1));
    const Bytes data = pattern(length, static_cast<unsigned>(i));
    Bytes header(RequestHeader::kBytes);
    RequestHeader{0, Command::write, ++cookie, offset, length}.encode(header.data());
    sent = sent + header + data;
    std::ranges::copy(data, expected_disk.begin() + static_cast<std::ptrdiff_t>(offset));
  }
  EXPECT_EQ(client.send(sent, GetParam()), sent.size());
  while (!world.device.pending.empty()) world.device.complete();
  std::string expected;
  for (std::uint64_t c = 1; c <= cookie; ++c) expected += simple(0, c);
  EXPECT_EQ(to_hex(client.taken()), expected);
  EXPECT_EQ(world.device.bytes, expected_disk);

  client.request(Command::read, 99, 512, 512 * 1024);
  world.device.complete();
  client.receive(GetParam());
  const Bytes head = hex("668e33ef 0001 0001 0000000000000063 00080008 0000000000000200");
  ASSERT_EQ(client.received.size(), head.size() + 512 * 1024);
  EXPECT_TRUE(std::equal(head.begin(), head.end(), client.received.begin()));
  EXPECT_TRUE(
      std::equal(client.received.begin() + 28, client.received.end(), expected_disk.begin() + 512));
  EXPECT_EQ(world.pool.used_bytes(), 0u);
}

TEST_F(Transmit, CommandsAndTheirFlagsReachTheDevice) {
  const auto submit = [&](Command c, std::uint16_t flags) {
    client.request(c, 5, 4096, 8192, flags);
    EXPECT_EQ(world.device.pending.size(), 1u);
    const host::BlockRequest r = world.device.last;
    EXPECT_EQ(r.offset_bytes, 4096u);
    EXPECT_EQ(r.length_bytes, 8192u);
    world.device.complete();
    EXPECT_EQ(replies(), simple(0, 5));
    return r;
  };
  auto r = submit(Command::trim, 0);
  EXPECT_TRUE(r.op == host::BlockOp::deallocate && !r.fua);
  r = submit(Command::trim, kFua);
  EXPECT_TRUE(r.op == host::BlockOp::deallocate && r.fua);
  r = submit(Command::write_zeroes, 0);
  EXPECT_TRUE(r.op == host::BlockOp::write_zeroes && !r.fua && !r.no_hole && !r.fast_only);
  r = submit(Command::write_zeroes, kFua | kNoHole | kFastZero);
  EXPECT_TRUE(r.op == host::BlockOp::write_zeroes && r.fua && r.no_hole && r.fast_only);

  client.request(Command::write, 6, 512, 512, kFua, pattern(512));
  EXPECT_TRUE(world.device.last.op == host::BlockOp::write && world.device.last.fua);
  world.device.complete();
  client.request(Command::write, 6, 512, 512, 0, pattern(512));
  EXPECT_FALSE(world.device.last.fua);  // no trace of the slot's last use
  world.device.complete();
  client.request(Command::flush, 7, 0, 0);
  EXPECT_TRUE(world.device.last.op == host::BlockOp::flush);
  world.device.complete();
  EXPECT_EQ(replies(), simple(0, 6) + simple(0, 6) + simple(0, 7));
}

TEST_F(Transmit, EffectsMayBeLargerThanAPayload) {
  world.device.change().size_bytes = 1ull << 40;
  client.request(Command::trim, 5, 0, 0xfffffe00);
  EXPECT_EQ(world.device.pending.size(), 1u);
  world.device.complete();
}

TEST_F(Transmit, EachFlushIsARequestOfItsOwn) {
  client.request(Command::flush, 1, 0, 0);
  client.request(Command::flush, 2, 0, 0);
  EXPECT_EQ(world.device.pending.size(), 2u);
  world.device.complete(1);
  EXPECT_EQ(replies(), simple(0, 2));
  world.device.complete(0);
  EXPECT_EQ(replies(), simple(0, 1));
}

TEST_F(Transmit, RepliesComeInTheOrderOfCompletion) {
  for (std::uint64_t i = 0; i < 4; ++i) client.request(Command::read, i, i * 512, 512);
  for (std::size_t i = 0; i < 4; ++i) world.device.bytes[i * 512] = static_cast<std::byte>(i + 1);
  world.device.complete(2);
  world.device.complete(0);
  world.device.complete(1);
  world.device.complete(0);
  const Bytes got = client.taken();
  ASSERT_EQ(got.size(), 4 * (16u + 512u));
  const std::uint64_t order[] = {2, 0, 3, 1};
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(SimpleReply::decode(got.data() + i * 528)->cookie, order[i]);
    EXPECT_EQ(load_u8(got.data() + i * 528 + 16), order[i] + 1);
  }
}

TEST_F(Transmit, RefusalsAreSimpleErrorsAndReachNoDevice) {
  const auto refused = [&](Command c, std::uint64_t offset, std::uint32_t length,
                           std::uint16_t flags, std::uint32_t error, const Bytes& payload = {}) {
    const std::size_t sent = client.request(c, 9, offset, length, flags, payload);
    EXPECT_EQ(sent, RequestHeader::kBytes + payload.size());
    EXPECT_EQ(replies(), simple(error, 9));
  };
  refused(Command::read, 1 << 20, 512, 0, 22);
  refused(Command::read, 0, kPayloadBytesMax + 1, 0, 22);
  refused(Command::read, 0, 512, kDf, 22);  // DF without structured replies
  refused(Command::read, 0, 512, 1 << 7, 22);
  refused(Command::write, (1 << 20) - 512, 1024, 0, 28, Bytes(1024));
  refused(Command::write, 0, 512, kNoHole, 22, Bytes(512));
  refused(Command::trim, (1 << 20) - 512, 1024, 0, 22);
  refused(Command::write_zeroes, (1 << 20) - 512, 1024, 0, 28);
  refused(Command::flush, 1, 0, 0, 22);
  refused(Command::cache, 1 << 20, 512, 0, 22);
  refused(Command::block_status, 0, 512, 0, 22);
  refused(static_cast<Command>(0xffff), 0, 0, 0, 22);
  EXPECT_EQ(world.device.submitted, 0u);
  EXPECT_EQ(client.counters.errors.load(), 12u);
  // And the stream is still in step.
  client.request(Command::read, 10, 0, 512);
  world.device.complete();
  EXPECT_EQ(replies().substr(0, 32), simple(0, 10));
}

TEST_F(Transmit, AnOversizeWriteIsDrainedAndAnsweredAfterItsPayload) {
  const Bytes payload(kPayloadBytesMax + 512);
  Bytes header(RequestHeader::kBytes);
  RequestHeader{0, Command::write, 3, 0, kPayloadBytesMax + 512}.encode(header.data());
  client.send(header);
  client.send({payload.data(), payload.size() - 1});
  EXPECT_EQ(replies(), "");
  client.send({payload.data(), 1});
  EXPECT_EQ(replies(), simple(22, 3));
  EXPECT_EQ(world.pool.used_bytes(), 0u);
}

TEST_F(Transmit, NothingToDoIsDone) {
  client.request(Command::read, 1, 512, 0);
  client.request(Command::write, 2, 512, 0);
  client.request(Command::trim, 3, 512, 0);
  client.request(Command::write_zeroes, 4, 512, 0);
  EXPECT_EQ(replies(), simple(0, 1) + simple(0, 2) + simple(0, 3) + simple(0, 4));
  EXPECT_EQ(world.device.submitted, 0u);
}

TEST_F(Transmit, DeviceErrorsAreTranslated) {
  const std::pair<int, std::uint32_t> cases[] = {{EIO, 5},      {EINVAL, 22},  {ENOSPC, 28},
                                                 {EPERM, 1},    {ENOTSUP, 95}, {ESHUTDOWN, 108},
                                                 {ETIMEDOUT, 5}};
  for (const auto& [error, wire] : cases) {
    client.request(Command::read, 1, 0, 512);
    world.device.complete(0, error);
    EXPECT_EQ(replies(), simple(wire, 1));
  }
}

TEST_F(Transmit, BadMagicDisconnects) {
  client.request(Command::read, 1, 0, 512);
  client.send(Bytes(RequestHeader::kBytes));
  EXPECT_TRUE(client.stream->was_reset);
  client.close();
  EXPECT_FALSE(client.gone);
  world.device.complete();
  EXPECT_TRUE(client.gone);
  EXPECT_EQ(client.gone_reason.code, EPROTO);
}

TEST(TransmitReadOnly, WritesAreRefusedAndNotAdvertised) {
  World world;
  world.device.change().read_only = true;
  Client client(world);
  client.go();
  for (const Command c : {Command::trim, Command::write_zeroes}) {
    client.request(c, 1, 0, 512);
    EXPECT_EQ(to_hex(client.taken()), simple(1, 1));
  }
  client.request(Command::write, 2, 0, 512, 0, Bytes(512));
  EXPECT_EQ(to_hex(client.taken()), simple(1, 2));
  EXPECT_EQ(world.device.submitted, 0u);
  client.request(Command::read, 3, 0, 512);
  client.request(Command::flush, 4, 0, 0);
  EXPECT_EQ(world.device.submitted, 2u);
  world.device.complete();
  world.device.complete();
}

TEST_F(TransmitStructured, ReadIsOneChunk) {
  world.device.bytes = pattern(1 << 20);
  client.request(Command::read, 0x42, 1024, 512, kDf);
  world.device.complete();
  EXPECT_EQ(replies(),
            "668e33ef"
            "0001"
            "0001"
            "0000000000000042"
            "00000208"
            "0000000000000400" +
                to_hex({world.device.bytes.data() + 1024, 512}));
  client.request(Command::read, 0x43, 1024, 0);
  EXPECT_EQ(replies(),
            "668e33ef"
            "0001"
            "0000"
            "0000000000000043"
            "00000000");
}

TEST_F(TransmitStructured, ErrorsAreChunksWithAMessage) {
  client.request(Command::read, 1, 0, 512);
  world.device.complete(0, EIO);
  Bytes got = client.taken();
  ASSERT_GE(got.size(), 26u);
  auto chunk = ChunkHeader::decode(got.data());
  EXPECT_EQ(chunk->type, ChunkType::error);
  EXPECT_EQ(chunk->flags, kChunkDone);
  EXPECT_EQ(got.size(), 20u + chunk->length);
  EXPECT_EQ(load_be32(got.data() + 20), 5u);
  EXPECT_EQ(load_be16(got.data() + 24), chunk->length - 6);
  EXPECT_GT(chunk->length, 6u);

  // Past the end: the offset says where the export ends.
  client.request(Command::read, 2, (1 << 20) - 512, 1024);
  got = client.taken();
  chunk = ChunkHeader::decode(got.data());
  EXPECT_EQ(chunk->type, ChunkType::error_offset);
  EXPECT_EQ(got.size(), 20u + chunk->length);
  EXPECT_EQ(load_be64(got.data() + got.size() - 8), 1u << 20);
  client.request(Command::read, 3, 2 << 20, 1024);
  got = client.taken();
  EXPECT_EQ(load_be64(got.data() + got.size() - 8), 2u << 20);

  client.request(Command::write, 4, 1 << 20, 512, 0, Bytes(512));
  got = client.taken();
  EXPECT_EQ(ChunkHeader::decode(got.data())->type, ChunkType::error);
  EXPECT_EQ(load_be32(got.data() + 20), 28u);

  client.request(Command::read, 5, 0, kPayloadBytesMax + 512, kDf);
  got = client.taken();
  EXPECT_EQ(load_be32(got.data() + 20), 75u);
  client.request(Command::read, 6, 0, 512, kReqOne);
  got = client.taken();
  EXPECT_EQ(ChunkHeader::decode(got.data())->type, ChunkType::error);
  EXPECT_EQ(load_be32(got.data() + 20), 22u);
}

TEST_F(Transmit, DisconnectHandlesWhatIsOutstandingFirst) {
  client.request(Command::write, 1, 0, 512, 0, Bytes(512));
  client.request(Command::read, 2, 0, 512);
  client.request(Command::disconnect, 3, 0, 0);
  client.request(Command::read, 4, 0, 512);  // ignored
  EXPECT_EQ(world.device.pending.size(), 2u);
  EXPECT_FALSE(client.stream->finished);
  world.device.complete();
  EXPECT_FALSE(client.stream->finished);
  world.device.complete();
  EXPECT_TRUE(client.stream->finished);
  EXPECT_EQ(replies(), simple(0, 1) + simple(0, 2) + std::string(1024, '0'));
  client.close();
  EXPECT_TRUE(client.gone);
}

TEST_F(Transmit, EofIsADisconnectAlsoInTheMiddleOfARequest) {
  client.request(Command::read, 1, 0, 512);
  client.request(Command::write, 2, 0, 65536, 0, Bytes(1000));
  client.session->on_eof();
  EXPECT_FALSE(client.stream->finished);
  world.device.complete();
  EXPECT_TRUE(client.stream->finished);
  EXPECT_EQ(replies().substr(0, 32), simple(0, 1));
  client.close();
  EXPECT_TRUE(client.gone);
  EXPECT_EQ(world.pool.used_bytes(), 0u);
}

TEST_F(Transmit, AClosedSessionLivesUntilTheDeviceIsDone) {
  client.request(Command::read, 1, 0, 4096);
  client.request(Command::write, 2, 0, 4096, 0, Bytes(4096));
  client.request(Command::read, 3, 0, 4096);
  client.request(Command::write, 4, 0, 4096, 0, Bytes(100));  // payload still to come
  client.reading = false;
  world.device.complete(2);  // a reply that nobody will read
  client.close();
  EXPECT_FALSE(client.gone);
  EXPECT_EQ(world.pool.used_bytes(), 8192u);
  world.device.complete(1);
  EXPECT_FALSE(client.gone);
  world.device.complete(0, EIO);
  EXPECT_TRUE(client.gone);
  EXPECT_EQ(world.pool.used_bytes(), 0u);
}

TEST_F(Transmit, StopAnswersWhatIsUnderWayAndRefusesWhatIsNew) {
  client.request(Command::read, 1, 0, 512);
  client.session->stop();
  EXPECT_FALSE(client.stream->finished);
  client.request(Command::read, 2, 0, 512);
  client.request(Command::write, 3, 0, 512, 0, Bytes(512));
  EXPECT_EQ(replies(), simple(108, 2) + simple(108, 3));
  world.device.complete();
  EXPECT_TRUE(client.stream->finished);
  EXPECT_EQ(replies(), simple(0, 1) + std::string(1024, '0'));
}

TEST_F(Transmit, CutAnswersForTheDeviceAndTheBufferStaysItsOwn) {
  client.request(Command::read, 1, 0, 4096);
  client.request(Command::flush, 2, 0, 0);
  client.session->stop();
  client.session->cut();
  EXPECT_TRUE(client.stream->finished);
  EXPECT_EQ(replies(), simple(108, 1) + simple(108, 2));
  EXPECT_EQ(world.pool.used_bytes(), 4096u);
  world.device.complete(0);  // late, before the close
  EXPECT_EQ(replies(), "");
  EXPECT_EQ(world.pool.used_bytes(), 0u);
  client.close();
  EXPECT_FALSE(client.gone);
  world.device.complete(0);
  EXPECT_TRUE(client.gone);
}

TEST_F(Transmit, CutWhileItsAnswersAreNotReadYet) {
  client.request(Command::read, 1, 0, 4096);
  client.session->stop();
  client.reading = false;
  client.session->cut();
  world.device.complete(0);
  EXPECT_EQ(replies(), simple(108, 1));
  EXPECT_EQ(world.pool.used_bytes(), 0u);
  client.close();
  EXPECT_TRUE(client.gone);
}

TEST_F(Transmit, StopWithNothingUnderWayEndsAtOnce) {
  client.session->stop();
  EXPECT_TRUE(client.stream->finished);
  client.session->cut();
  client.close();
  EXPECT_TRUE(client.gone);
}

TEST_F(Transmit, TheSizeIsTheDevicesOfNow) {
  world.device.change().size_bytes = 4096;
  client.request(Command::read, 1, 4096, 512);
  EXPECT_EQ(replies(), simple(22, 1));
}

}  // namespace
}  // namespace nvmf::nbd
