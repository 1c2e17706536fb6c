// Golden exchanges of the negotiation, whole and in pieces of one byte.
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

const char* const kGreeting =
    "4e42444d41474943"
    "49484156454f5054"
    "0003";
const char* const kOption = "49484156454f5054";
const char* const kReply = "0003e889045565a9";
// Size 1 MiB; flags, flush, FUA, trim, write zeroes, multi-conn, cache, fast zero.
const char* const kExport =
    "0000000000100000"
    "0d6d";

std::string ack(const char* option) {
  return std::string(kReply) + option +
         "00000001"
         "00000000";
}

std::string infos(const char* option) {
  return std::string(kReply) + option +
         "00000003"
         "0000000c"
         "0000" +
         kExport +  //
         kReply + option +
         "00000003"
         "0000000e"
         "0003"
         "00000001"
         "00001000"
         "02000000";
}

/// A refusal, whatever its message: the header without the length.
std::string refusal(const char* option, const char* type) {
  return std::string(kReply) + option + type;
}

class Negotiate : public testing::TestWithParam<std::size_t> {
 protected:
  /// What the server says to `bytes` after its greeting.
  std::string say(const Bytes& bytes) {
    EXPECT_EQ(to_hex(client.taken()), greeted ? "" : kGreeting);
    greeted = true;
    EXPECT_EQ(client.send(bytes, GetParam()), bytes.size());
    return client.session ? to_hex(client.taken()) : "";
  }
  std::string say_option(const char* option, const Bytes& data) {
    Bytes length(4);
    store_be32(length.data(), static_cast<std::uint32_t>(data.size()));
    return say(hex(kOption) + hex(option) + length + data);
  }

  World world;
  Client client{world};
  bool greeted = false;
};

INSTANTIATE_TEST_SUITE_P(Pieces, Negotiate, testing::Values(1, 7, SIZE_MAX));

TEST_P(Negotiate, ExportNameWithoutZeroes) {
  say(hex("00000003"));
  EXPECT_EQ(say_option("00000001", text("nvmf0n1")), kExport);
  EXPECT_EQ(say(hex("25609513 0000 0000 0000000000000001 0000000000000000 00000000")),
            "6744669800000000"
            "0000000000000001");
}

TEST_P(Negotiate, ExportNameWithZeroes) {
  say(hex("00000001"));
  EXPECT_EQ(say_option("00000001", text("1")), kExport + std::string(248, '0'));
}

TEST_P(Negotiate, ExportNameFromAClientThatKnowsNoOptions) {
  say(hex("00000000"));
  EXPECT_EQ(say_option("00000001", {}), kExport + std::string(248, '0'));
}

TEST_P(Negotiate, UnknownExportNameEndsTheSession) {
  say(hex("00000003"));
  EXPECT_EQ(say_option("00000001", text("nvmf9n9")), "");
  EXPECT_TRUE(client.stream->finished);
}

TEST_P(Negotiate, UnknownClientFlagsEndTheSession) {
  say(hex("00000007"));
  EXPECT_TRUE(client.stream->was_reset);
  EXPECT_EQ(client.stream->reason_given.code, EPROTO);
  EXPECT_NE(client.stream->reason_given.message.find("test client"), std::string::npos);
}

TEST_P(Negotiate, Go) {
  say(hex("00000003"));
  EXPECT_EQ(say_option("00000007", hex("00000007") + text("nvmf0n1") + hex("0000")),
            infos("00000007") + ack("00000007"));
  EXPECT_EQ(say(hex("25609513 0000 0003 0000000000000001 0000000000000000 00000000")), "");
  world.device.complete();
  EXPECT_EQ(to_hex(client.taken()),
            "6744669800000000"
            "0000000000000001");
}

TEST_P(Negotiate, GoWithStructuredRepliesOffersDf) {
  say(hex("00000003"));
  EXPECT_EQ(say_option("00000008", {}), ack("00000008"));
  const std::string answer = say_option("00000007", hex("00000000 0000"));
  EXPECT_EQ(answer.substr(40, 24),
            "0000"
            "0000000000100000"
            "0ded");
}

TEST_P(Negotiate, InfoWithNameAndDescription) {
  say(hex("00000003"));
  EXPECT_EQ(say_option("00000006", hex("00000001") + text("1") + hex("0003 0001 0002 0003")),
            infos("00000006") +  //
                std::string(kReply) +
                "00000006"
                "00000003"
                "00000009"
                "0001" +
                to_hex(text("nvmf0n1")) +  //
                kReply +
                "00000006"
                "00000003"
                "00000008"
                "0002" +
                to_hex(text("a disk")) + ack("00000006"));
  // Still negotiating.
  EXPECT_EQ(say_option("00000008", {}), ack("00000008"));
}

TEST_P(Negotiate, List) {
  test::MemoryDevice second;
  second.change().name = "nvmf0n2";
  second.change().nsid = 2;
  second.change().description = "";
  world.exports.add(make_export({&second}));
  say(hex("00000003"));
  EXPECT_EQ(say_option("00000003", {}),
            std::string(kReply) +
                "00000003"
                "00000002"
                "00000011"
                "00000007" +
                to_hex(text("nvmf0n1a disk")) +  //
                kReply +
                "00000003"
                "00000002"
                "0000000b"
                "00000007" +
                to_hex(text("nvmf0n2")) + ack("00000003"));
}

TEST_P(Negotiate, Abort) {
  say(hex("00000003"));
  EXPECT_EQ(say_option("00000002", text("bye")), ack("00000002"));
  EXPECT_TRUE(client.stream->finished);
}

TEST_P(Negotiate, WhatIsNotSupportedIsRefusedAndNegotiationGoesOn) {
  say(hex("00000003"));
  for (const char* option : {"00000000", "00000004", "00000005", "0000000c", "deadbeef"}) {
    EXPECT_EQ(say_option(option, {}).substr(0, 32), refusal(option, "80000001")) << option;
  }
  EXPECT_EQ(say_option("00000001", {}), kExport);
}

TEST_P(Negotiate, MalformedOptionsAreInvalid) {
  say(hex("00000003"));
  for (const char* option : {"00000003", "00000005", "00000008"}) {
    EXPECT_EQ(say_option(option, text("data")).substr(0, 32), refusal(option, "80000003"));
  }
  for (const char* data : {"", "00000000", "00000009 61 0000", "00000001 61 0001",
                           "00000000 0000 00", "ffffffff 0000"}) {
    EXPECT_EQ(say_option("00000007", hex(data)).substr(0, 32), refusal("00000007", "80000003"));
    EXPECT_EQ(say_option("00000006", hex(data)).substr(0, 32), refusal("00000006", "80000003"));
  }
  EXPECT_EQ(say_option("00000007", hex("00000002") + text("no") + hex("0000")).substr(0, 32),
            refusal("00000007", "80000006"));
  EXPECT_EQ(say_option("00000001", {}), kExport);
}

TEST_P(Negotiate, OptionsThatAreTooLongAreSkipped) {
  say(hex("00000003"));
  EXPECT_EQ(say_option("0000000a", Bytes(100000)).substr(0, 32), refusal("0000000a", "80000009"));
  EXPECT_EQ(say_option("00000007", Bytes(8193)).substr(0, 32), refusal("00000007", "80000009"));
  EXPECT_EQ(say_option("00000007", Bytes(8192)).substr(0, 32), refusal("00000007", "80000003"));
  const Bytes name(4097, std::byte{'x'});
  EXPECT_EQ(say_option("00000007", hex("00001001") + name + hex("0000")).substr(0, 32),
            refusal("00000007", "80000003"));
  EXPECT_EQ(say_option("00000001", {}), kExport);
}

TEST_P(Negotiate, AnAbsurdLengthEndsTheSession) {
  say(hex("00000003"));
  say(hex(kOption) + hex("00000007 00100001"));
  EXPECT_TRUE(client.stream->was_reset);
}

TEST_P(Negotiate, AnExportNameThatIsTooLongEndsTheSession) {
  say(hex("00000003"));
  say(hex(kOption) + hex("00000001 00002001"));
  EXPECT_TRUE(client.stream->was_reset);
}

TEST_P(Negotiate, BadMagicEndsTheSession) {
  say(hex("00000003"));
  say(hex("49484156454f5055 00000003 00000000"));
  EXPECT_TRUE(client.stream->was_reset);
}

TEST_P(Negotiate, EverythingInOneStretchWithoutWaiting) {
  // All options and the first requests at once: an answer each, in order.
  client.taken();
  const Bytes all = hex("00000003") + hex(kOption) + hex("00000008 00000000") + hex(kOption) +
                    hex("00000003 00000000") + hex(kOption) +
                    hex("00000007 00000006 00000000 0000") +
                    hex("25609513 0000 0003 0000000000000005 0000000000000000 00000000") +
                    hex("25609513 0000 0002 0000000000000006 0000000000000000 00000000");
  EXPECT_EQ(client.send(all, GetParam()), all.size());
  const std::string answer = to_hex(client.taken());
  EXPECT_EQ(answer.substr(0, 40), ack("00000008"));
  EXPECT_TRUE(answer.ends_with(ack("00000007"))) << answer;
  EXPECT_FALSE(client.stream->finished);
  world.device.complete();
  EXPECT_EQ(to_hex(client.taken()),
            "6744669800000000"
            "0000000000000005");
  EXPECT_TRUE(client.stream->finished);
}

TEST(Negotiation, TooManyOptionsEndTheSession) {
  World world;
  Client client(world);
  client.send(hex("00000003"));
  const Bytes option = hex(kOption) + hex("00000004 00000000");
  for (std::uint32_t i = 0; i < kOptionsMax; ++i) {
    ASSERT_EQ(client.send(option), option.size());
    client.received.clear();
  }
  EXPECT_FALSE(client.stream->was_reset);
  client.send(option);
  EXPECT_TRUE(client.stream->was_reset);
}

TEST(Negotiation, AClientThatDoesNotReadItsAnswersIsNotReadEither) {
  World world;
  Client client(world);
  client.taken();
  client.send(hex("00000003"));
  client.reading = false;
  Bytes lists;
  for (int i = 0; i < 10000; ++i) lists = lists + hex(kOption) + hex("00000003 00000000");
  EXPECT_LE(client.send(lists), kStagingBytes);
  EXPECT_TRUE(client.session->stalled());
  // What is not read yet is one option's answer.
  std::array<iovec, 4> ranges;
  ASSERT_EQ(client.session->send_vectors(ranges), 1u);
  EXPECT_EQ(ranges[0].iov_len, 37u + 20u);
  // And once it reads, it gets one for each option that was taken.
  EXPECT_EQ(client.taken().size() % 57, 0u);
  EXPECT_FALSE(client.session->stalled());
}

TEST(Negotiation, AnEmptyListOfExports) {
  World world;
  const ExportList none;
  Client client(world, none);
  client.send(hex("00000003") + hex(kOption) + hex("00000003 00000000"));
  EXPECT_EQ(to_hex(client.taken()).substr(36), ack("00000003"));
  client.send(hex(kOption) + hex("00000007 00000006 00000000 0000"));
  EXPECT_EQ(to_hex(client.taken()).substr(0, 32), refusal("00000007", "80000006"));
}

TEST(Negotiation, StopEndsItAndEofToo) {
  World world;
  Client client(world);
  client.send(hex("00000003"));
  client.session->stop();
  EXPECT_TRUE(client.stream->finished);
  Client other(world);
  other.send(hex("0000"));
  other.session->on_eof();
  EXPECT_TRUE(other.stream->finished);
}

}  // namespace
}  // namespace nvmf::nbd
