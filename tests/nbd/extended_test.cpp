// Extended headers (proto.md, NBD_OPT_EXTENDED_HEADERS). No client on Debian 12 speaks them: what
// is expected here are the document's own bytes.
#include <gtest/gtest.h>

#include "fixtures.h"

namespace nvmf::nbd {
namespace {

using test::Bytes;
using test::Client;
using test::hex;
using test::operator+;
using test::text;
using test::to_hex;
using test::World;

std::string shown(const Bytes& bytes) {
  return to_hex(bytes);
}
std::string golden(std::string_view words) {
  return to_hex(hex(words));
}

Bytes request(std::uint16_t flags, Command command, std::uint64_t offset, std::uint64_t length,
              const Bytes& payload = {}) {
  Bytes bytes(RequestHeader::kExtendedBytes);
  RequestHeader{flags, command, 7, offset, length}.encode_extended(bytes.data());
  return bytes + payload;
}

/// The error in the one chunk that `bytes` are; 0 for NONE, ~0 for anything else.
std::uint32_t error_of(const Bytes& bytes) {
  if (bytes.size() < ExtendedChunkHeader::kBytes) return ~0u;
  const auto chunk = ExtendedChunkHeader::decode(bytes.data());
  if (!chunk || chunk->flags != kChunkDone || chunk->cookie != 7) return ~0u;
  if (bytes.size() != ExtendedChunkHeader::kBytes + chunk->length) return ~0u;
  if (chunk->type == ChunkType::none) return 0;
  return static_cast<std::uint16_t>(chunk->type) >= 0x8000 ? load_be32(&bytes[32]) : ~0u;
}

class NbdExtended : public testing::Test {
 protected:
  NbdExtended() { client.go_with_contexts(true); }
  /// The answer to one request that needs nothing of the device but to be done.
  Bytes answer(const Bytes& words) {
    client.send(words);
    while (!world.device.pending.empty()) world.device.complete();
    return client.taken();
  }
  /// Whatever came before, the stream is in step.
  void expect_in_step() {
    EXPECT_EQ(shown(answer(request(0, Command::flush, 0, 0))),
              golden("6e8a278c 0001 0000 0000000000000007 0000000000000000 0000000000000000"));
  }
  World world;
  Client client{world};
};

TEST_F(NbdExtended, RequestsAndRepliesAreAsTheDocumentHasThem) {
  EXPECT_EQ(shown(answer(hex("21e41c71 0020 0001 0000000000000007 0000000000001000"
                             "0000000000000004 64617461"))),
            golden("6e8a278c 0001 0000 0000000000000007 0000000000001000 0000000000000000"));
  EXPECT_EQ(shown(answer(hex("21e41c71 0000 0000 0000000000000007 0000000000001000"
                             "0000000000000004"))),
            golden("6e8a278c 0001 0001 0000000000000007 0000000000001000 000000000000000c"
                   "0000000000001000 64617461"));
  const Bytes refused =
      answer(hex("21e41c71 0000 0000 0000000000000007 0000000000100000"
                 "0000000000000004"));
  EXPECT_EQ(shown(refused).substr(0, 64 + 8),
            golden("6e8a278c 0001 8002 0000000000000007 0000000000100000") +
                shown(refused).substr(48, 16) + golden("00000016"));
  world.device.map = {{4096, true}, {1 << 20, false}};
  EXPECT_EQ(shown(answer(hex("21e41c71 0000 0007 0000000000000007 0000000000000800"
                             "0000000000002000"))),
            golden("6e8a278c 0001 0006 0000000000000007 0000000000000800 0000000000000028"
                   "00000001 00000002 0000000000000800 0000000000000003"
                   "0000000000001800 0000000000000000"));
}

TEST_F(NbdExtended, LengthsHave64Bits) {
  constexpr std::uint64_t kTib = std::uint64_t{1} << 40;
  world.device.change().size_bytes = 8 * kTib;
  for (const Command command : {Command::trim, Command::write_zeroes}) {
    client.send(request(0, command, kTib, 5 * kTib));
    ASSERT_EQ(world.device.pending.size(), 1u);
    EXPECT_EQ(world.device.pending[0]->offset_bytes, kTib);
    EXPECT_EQ(world.device.pending[0]->length_bytes, 5 * kTib);
    world.device.complete(0, EIO);
    EXPECT_EQ(error_of(client.taken()), 5u);
  }
  EXPECT_EQ(error_of(answer(request(0, Command::cache, 0, 8 * kTib))), 0u);
  EXPECT_EQ(error_of(answer(request(0, Command::trim, kTib, 8 * kTib))), 22u);
  EXPECT_EQ(error_of(answer(request(0, Command::trim, kTib, ~0ull))), 22u);
  const Bytes status = answer(request(0, Command::block_status, 0, 8 * kTib));
  ASSERT_EQ(status.size(), 32u + 8 + 16);
  EXPECT_EQ(load_be64(&status[40]), 8 * kTib);
  // What has a payload has not: 2^32 + 512 bytes are not 512.
  EXPECT_EQ(error_of(answer(request(0, Command::read, 0, (1ull << 32) + 512))), 22u);
  expect_in_step();
}

TEST_F(NbdExtended, PayloadsAreThereWhenTheFlagSaysSo) {
  const Bytes data(512);
  struct Case {
    const char* what;
    Bytes sent;
    std::uint32_t error;
  };
  const Case cases[] = {
      {"a write that has one", request(kPayloadLen, Command::write, 0, 512, data), 0},
      {"a write that says it has none", request(0, Command::write, 0, 512), 22},
      {"a write of nothing", request(kPayloadLen, Command::write, 0, 0), 0},
      {"a read that has one", request(kPayloadLen, Command::read, 0, 512, data), 22},
      {"a trim that has one", request(kPayloadLen, Command::trim, 0, 512, data), 22},
      {"a flush that has one", request(kPayloadLen, Command::flush, 0, 512, data), 22},
      {"zeroes that have one", request(kPayloadLen, Command::write_zeroes, 0, 512, data), 22},
      {"what nobody knows", request(kPayloadLen, static_cast<Command>(99), 0, 512, data), 22},
      {"a long one is skipped",
       request(kPayloadLen, Command::write, 0, kPayloadBytesMax + 1, Bytes(kPayloadBytesMax + 1)),
       22},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    EXPECT_EQ(error_of(answer(c.sent)), c.error);
    expect_in_step();
  }
  EXPECT_EQ(world.pool.used_bytes(), 0u);
  // Nobody waits for the end of this.
  client.send(request(kPayloadLen, Command::write, 0, std::uint64_t{1} << 32));
  EXPECT_TRUE(client.stream->was_reset);
}

TEST_F(NbdExtended, BlockStatusMayNameItsContexts) {
  const auto payload = [](std::string_view length, std::string_view ids) {
    return hex(length) + hex(ids);
  };
  const auto status = [&](const Bytes& p) {
    return request(kPayloadLen, Command::block_status, 512, p.size(), p);
  };
  const Bytes one = payload("0000000000000400", "00000001");
  EXPECT_EQ(shown(answer(status(one))),
            golden("6e8a278c 0001 0006 0000000000000007 0000000000000200 0000000000000018"
                   "00000001 00000001 0000000000000400 0000000000000000"));
  // Byte by byte, too.
  client.send(status(one), 1);
  EXPECT_EQ(client.taken().size(), 56u);
  EXPECT_EQ(error_of(answer(status(payload("0000000000000400", "")))), 0u);  // of none
  for (const Bytes& bad :
       {payload("0000000000000400", "00000002"), payload("0000000000000400", "0000000100000001"),
        payload("0000000000000400", "0001"), payload("00000400", ""),
        payload("0000000000000000", "00000001"), payload("0000000000100000", "00000001"),
        Bytes(4000)}) {
    EXPECT_EQ(error_of(answer(status(bad))), 22u) << shown(bad);
    expect_in_step();
  }
}

TEST_F(NbdExtended, HeadersOfTheOtherKindAreNoRequests) {
  client.send(hex("25609513 0000 0003 0000000000000007 0000000000000000 00000000 00000000"));
  EXPECT_TRUE(client.stream->was_reset);
  World other;
  Client compact(other);
  compact.go(true);
  compact.send(request(0, Command::flush, 0, 0));
  EXPECT_TRUE(compact.stream->was_reset);
}

TEST_F(NbdExtended, DisconnectHasNoReply) {
  client.send(request(0, Command::disconnect, 0, 0));
  EXPECT_TRUE(client.stream->finished);
  EXPECT_TRUE(client.session->said_goodbye());
  EXPECT_TRUE(client.taken().empty());
}

TEST(NbdExtendedOptions, FlagsTellOfThePayloadOfBlockStatus) {
  for (const bool extended : {false, true}) {
    for (const bool contexts : {false, true}) {
      World world;
      Client client(world);
      client.taken();
      const std::string option = "49484156454f5054 ";
      client.send(
          hex("00000003 " + option + (extended ? "0000000b 00000000" : "00000008 00000000")));
      if (contexts) {
        client.send(hex(option + "0000000a 0000001b 00000000 00000001 0000000f") +
                    text("base:allocation"));
      }
      client.taken();
      client.send(hex(option + "00000006 00000006 00000000 0000"));
      const Bytes info = client.taken();
      const std::uint16_t flags = load_be16(&info[20 + 10]);
      EXPECT_EQ((flags & kBlockStatusPayload) != 0, extended && contexts);
      EXPECT_NE(flags & kSendDf, 0);
    }
  }
}

/// A session of every kind of message, cut at every byte: the client says no more, or has gone.
TEST(NbdEveryByte, MayBeTheLastOne) {
  for (const bool extended : {false, true}) {
    Bytes words = hex("00000003 49484156454f5054") +
                  hex(extended ? "0000000b 00000000" : "00000008 00000000") +
                  hex("49484156454f5054 00000003 00000000") +
                  hex("49484156454f5054 0000000a 0000001b 00000000 00000001 0000000f") +
                  text("base:allocation") +
                  hex("49484156454f5054 00000006 00000008 00000000 0001 0003") +
                  hex("49484156454f5054 00000007 00000006 00000000 0000");
    const auto add = [&](Command command, std::uint64_t length, const Bytes& payload = {}) {
      const auto flags = extended && !payload.empty() ? kPayloadLen : std::uint16_t{0};
      const RequestHeader header{flags, command, 7, 0, length};
      Bytes bytes(extended ? RequestHeader::kExtendedBytes : RequestHeader::kBytes);
      extended ? header.encode_extended(bytes.data()) : header.encode(bytes.data());
      words = words + bytes + payload;
    };
    add(Command::write, 100, Bytes(100));
    add(Command::read, 100);
    add(Command::block_status, 4096);
    add(Command::write_zeroes, 1000);
    add(Command::disconnect, 0);
    for (std::size_t length = 0; length <= words.size(); ++length) {
      for (const bool gone : {false, true}) {
        SCOPED_TRACE(length);
        World world;
        world.device.extents_later = true;
        Client client(world);
        ASSERT_EQ(client.send(std::span(words).first(length)), length);
        if (gone) {
          client.close();
        } else {
          client.session->on_eof();
        }
        while (!world.device.queries.empty()) world.device.answer_query();
        while (!world.device.pending.empty()) world.device.complete();
        if (gone) {
          EXPECT_TRUE(client.gone);
        } else {
          client.taken();
          EXPECT_TRUE(client.stream->finished);
          EXPECT_FALSE(client.stream->was_reset);
          client.close();
        }
        EXPECT_TRUE(client.gone);
        EXPECT_EQ(world.pool.used_bytes(), 0u);
      }
    }
  }
}

}  // namespace
}  // namespace nvmf::nbd
