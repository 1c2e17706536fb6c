// BLOCK_STATUS: where there is data in an export, in compact and in extended replies.
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

/// The error of the one reply in `bytes`; 0 for none, ~0 for what is no error chunk.
std::uint32_t error_of(const Bytes& bytes) {
  if (bytes.size() < ChunkHeader::kBytes) return ~0u;
  const auto chunk = ChunkHeader::decode(bytes.data());
  if (!chunk) return ~0u;
  return static_cast<std::uint16_t>(chunk->type) >= 0x8000 ? load_be32(&bytes[20]) : 0;
}

TEST(NbdStatus, IsSaidInDescriptors) {
  World world;
  world.device.map = {{4096, false}, {8192, true}, {1 << 20, false}};
  Client client(world);
  client.go_with_contexts(false);
  client.request(Command::block_status, 7, 0, 65536);
  EXPECT_EQ(shown(client.taken()),
            golden("668e33ef 0001 0005 0000000000000007 0000001c 00000001"
                   "00001000 00000000  00002000 00000003  0000d000 00000000"));
  client.request(Command::block_status, 8, 4608, 1024);
  EXPECT_EQ(shown(client.taken()),
            golden("668e33ef 0001 0005 0000000000000008 0000000c 00000001 00000400 00000003"));
  // Of one extent only, which is no longer than what was asked for.
  client.request(Command::block_status, 9, 100, 65536, kReqOne);
  EXPECT_EQ(shown(client.taken()),
            golden("668e33ef 0001 0005 0000000000000009 0000000c 00000001 00000f9c 00000000"));
}

TEST(NbdStatus, IsRefusedAsTheDocumentSays) {
  World world;
  Client client(world);
  client.go_with_contexts(false);
  client.request(Command::block_status, 7, (1 << 20) - 512, 1024);
  EXPECT_EQ(error_of(client.taken()), 22u);
  client.request(Command::block_status, 7, 0, 0);
  EXPECT_EQ(error_of(client.taken()), 22u);
  client.request(Command::block_status, 7, 0, 512, kDf);
  EXPECT_EQ(error_of(client.taken()), 22u);
  client.request(Command::block_status, 7, 0, 512, kPayloadLen);  // of extended headers
  EXPECT_EQ(error_of(client.taken()), 22u);
  EXPECT_EQ(world.device.asked, 0u);
  // FUA is accepted on every command.
  client.request(Command::block_status, 7, 0, 512, kFua);
  EXPECT_EQ(error_of(client.taken()), 0u);
  world.device.extents_error = ESHUTDOWN;
  client.request(Command::block_status, 7, 0, 512);
  EXPECT_EQ(error_of(client.taken()), 108u);
}

TEST(NbdStatus, NeedsAContextThatIsSelectedForThisExport) {
  const std::string set = "49484156454f5054 0000000a ";
  const std::string go = "49484156454f5054 00000007 00000006 00000000 0000";
  const std::string structured = "00000003 49484156454f5054 00000008 00000000";
  const Bytes query = hex("00000000 00000001 0000000f") + text("base:allocation");
  const Bytes good = hex(set + "0000001b") + query;
  struct Case {
    const char* what;
    Bytes options;
    std::uint32_t error;
  };
  const Case cases[] = {
      {"selected", good, 0},
      {"never", {}, 22},
      {"replaced by none", good + hex(set + "00000008 00000000 00000000"), 22},
      {"replaced by what fails", good + hex(set + "00000004 00000000"), 22},
      {"replaced by that of no export", good + hex(set + "00000009 00000001 7a 00000000"), 22},
      {"listed only", hex("49484156454f5054 00000009 0000001b") + query, 22},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    World world;
    Client client(world);
    client.send(hex(structured) + c.options + hex(go));
    client.taken();
    client.request(Command::block_status, 7, 0, 512);
    EXPECT_EQ(error_of(client.taken()), c.error);
  }
  // For another export than the one that is chosen.
  World world;
  test::MemoryDevice other;
  other.change().name = "nvmf0n2";
  other.change().nsid = 2;
  world.exports.add(make_export({&other}));
  Client client(world);
  client.send(hex(structured) + good + hex("49484156454f5054 00000007 00000007 00000001 32 0000"));
  client.taken();
  client.request(Command::block_status, 7, 0, 512);
  EXPECT_EQ(error_of(client.taken()), 22u);
}

TEST(NbdStatus, AnAnswerIsBounded) {
  World world;
  for (int i = 0; i < 1000; ++i) world.device.map.push_back({512, i % 2 == 0});
  Client client(world);
  client.go_with_contexts(false);
  client.request(Command::block_status, 7, 0, 512000);
  const Bytes answer = client.taken();
  EXPECT_EQ(answer.size(), ChunkHeader::kBytes + 4 + kStatusExtentsMax * 8);
  EXPECT_EQ(ChunkHeader::decode(answer.data())->length, 4 + kStatusExtentsMax * 8);
  EXPECT_EQ(world.pool.used_bytes(), 0u);
}

TEST(NbdStatus, ManyAtOnceWaitForMemoryAndSlots) {
  World world(2 << 20);
  world.device.extents_later = true;
  Client client(world);
  client.go_with_contexts(false);
  Bytes all;
  for (std::uint64_t i = 0; i < 300; ++i) {
    Bytes bytes(RequestHeader::kBytes);
    RequestHeader{0, Command::block_status, i, 0, 512}.encode(bytes.data());
    all = all + bytes;
  }
  client.send(all);
  EXPECT_LE(world.device.queries.size(), kRequestsMax);
  EXPECT_TRUE(client.session->stalled());
  std::size_t answered = 0;
  while (!world.device.queries.empty()) {
    world.device.answer_query();
    client.receive();
    ++answered;
  }
  EXPECT_EQ(answered, 300u);
  EXPECT_EQ(client.taken().size(), 300 * (ChunkHeader::kBytes + 12));
  EXPECT_EQ(world.pool.used_bytes(), 0u);
}

TEST(NbdStatus, ASessionWaitsForItsAnswersAtTheEnd) {
  World world;
  world.device.extents_later = true;
  {
    Client client(world);
    client.go_with_contexts(false);
    client.request(Command::block_status, 7, 0, 512);
    client.close();
    EXPECT_FALSE(client.gone);
    world.device.answer_query();
    EXPECT_TRUE(client.gone);
  }
  {
    Client client(world);
    client.go_with_contexts(false);
    client.request(Command::block_status, 7, 0, 512);
    client.session->stop();
    EXPECT_FALSE(client.stream->finished);
    world.device.answer_query();
    EXPECT_EQ(error_of(client.taken()), 0u);
    EXPECT_TRUE(client.stream->finished);
  }
  {
    Client client(world);
    client.go_with_contexts(false);
    client.request(Command::block_status, 7, 0, 512);
    client.session->stop();
    client.session->cut();
    EXPECT_EQ(error_of(client.taken()), 108u);
    world.device.answer_query();
    EXPECT_TRUE(client.taken().empty());
  }
  EXPECT_EQ(world.pool.used_bytes(), 0u);
}

}  // namespace
}  // namespace nvmf::nbd
