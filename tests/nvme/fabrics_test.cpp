#include "nvme/fabrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "nvme/bytes.h"

namespace nvmf::nvme {
namespace {

using test::Bytes;
using test::encoded;
using ::testing::HasSubstr;

std::vector<std::byte> bytes_of(Sqe sqe) {
  std::array<std::byte, kSqeBytes> out{};
  sqe.encode(out);
  return {out.begin(), out.end()};
}

// Base 2.1 §6.3: the command and its data, byte by byte.
TEST(Connect, CommandBytes) {
  const ConnectCommand command{
      .qid = 0x0203, .queue_entries = 128, .cattr = kCattrDisableSqFlowControl, .kato_ms = 5000};
  const Bytes golden = Bytes(64)
                           .put(0, {0x7f})
                           .put(4, {0x01})
                           .put(42, {0x03, 0x02, 127, 0, 0x04})
                           .put(48, {0x88, 0x13, 0, 0});
  EXPECT_EQ(bytes_of(command.to_sqe()), golden.vector());
  const Sqe sqe = Sqe::decode(golden.span().first<64>());
  EXPECT_TRUE(sqe.is_fabrics());
  EXPECT_EQ(sqe.fabrics_type(), FabricsType::connect);
  EXPECT_EQ(ConnectCommand::from_sqe(sqe), command);
}

TEST(Connect, QueueSizeIsZeroBasedOnTheWireOnly) {
  Sqe sqe = ConnectCommand{.queue_entries = 65536}.to_sqe();
  EXPECT_EQ(sqe.cdw11 & 0xffff, 0xffffu);
  EXPECT_EQ(ConnectCommand::from_sqe(sqe).queue_entries, 65536u);
  EXPECT_DEATH(static_cast<void>(ConnectCommand{.queue_entries = 0}.to_sqe()), "queue_entries");
}

TEST(Connect, DataBytes) {
  const Bytes golden = Bytes(1024)
                           .put(0, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
                           .put(16, {0xff, 0xff})
                           .text(256, 256, "nqn.2024-01.org.example:disk", '\0')
                           .text(512, 256, "nqn.2024-01.org.example:host ", '\0');
  const auto data = ConnectData::decode(golden.span());
  ASSERT_TRUE(data.has_value()) << data.error().message;
  EXPECT_EQ(data->cntlid, kCntlidDynamic);
  EXPECT_EQ(data->hostid[15], std::byte{16});
  EXPECT_EQ(data->subnqn, "nqn.2024-01.org.example:disk");
  EXPECT_EQ(data->hostnqn, "nqn.2024-01.org.example:host ");  // the space belongs to the name
  EXPECT_EQ(encoded<1024>(*data), golden.vector());
}

TEST(Connect, DataWithoutNulIsRefused) {
  const Bytes endless = Bytes(1024).text(512, 256, "", 'x');
  const auto data = ConnectData::decode(endless.span());
  ASSERT_FALSE(data.has_value());
  EXPECT_THAT(data.error().message, HasSubstr("host NQN"));
  EXPECT_FALSE(ConnectData::decode(endless.span().first(1023)).has_value());
}

TEST(Connect, Response) {
  EXPECT_EQ(ConnectResponse::decode(0x00020007),
            (ConnectResponse{.cntlid = 7, .authentication_required = true}));
  EXPECT_EQ(ConnectResponse::decode(0x00060001).secure_channel_required, true);
  for (std::uint64_t result : {0x00000001u, 0x0002ffefu, 0x00060102u}) {
    EXPECT_EQ(ConnectResponse::decode(result).encode(), result);
  }
}

TEST(Connect, InvalidParameterInWords) {
  const auto words = [](std::uint64_t result) {
    return ConnectInvalidParameter::decode(result).describe();
  };
  EXPECT_EQ(words(0x00010200), "the host NQN (HOSTNQN), byte 512 of the Connect data");
  EXPECT_EQ(words(0x00010100), "the subsystem NQN (SUBNQN), byte 256 of the Connect data");
  EXPECT_EQ(words(0x00010010), "the controller identifier (CNTLID), byte 16 of the Connect data");
  EXPECT_EQ(words(44), "the queue size (SQSIZE), byte 44 of the Connect command");
  EXPECT_EQ(words(42), "the queue identifier (QID), byte 42 of the Connect command");
  EXPECT_EQ(words(52), "the NVM set identifier (NVMSETID), byte 52 of the Connect command");
  EXPECT_EQ(words(4), "the fabrics command type (FCTYPE), byte 4 of the Connect command");
  EXPECT_EQ(words(24), "the scatter-gather list (SGL1), byte 24 of the Connect command");
  EXPECT_EQ(words(46), "the connect attributes (CATTR), byte 46 of the Connect command");
  EXPECT_EQ(words(0x00010000), "the host identifier (HOSTID), byte 0 of the Connect data");
  EXPECT_THAT(words(47), HasSubstr("a reserved field"));
  EXPECT_THAT(words(23), HasSubstr("a reserved field"));
  EXPECT_THAT(words(0xffff), HasSubstr("a reserved field"));
  EXPECT_THAT(words(0x00010012), HasSubstr("a reserved field"));
  EXPECT_THAT(words(0x000103ff), HasSubstr("a reserved field"));
  EXPECT_EQ((ConnectInvalidParameter{.in_data = true, .offset = kConnectDataHostnqn}.encode()),
            0x00010200u);
}

TEST(Connect, InvalidParameterHasAHint) {
  for (unsigned offset = 0; offset < 0x20000; ++offset) {
    const auto where = ConnectInvalidParameter::decode(offset);
    ASSERT_FALSE(where.hint().empty()) << offset;
    ASSERT_FALSE(where.hint().starts_with("try")) << offset;
  }
  EXPECT_EQ(ConnectInvalidParameter::decode(44).hint(), "a smaller --queue-size");
  EXPECT_EQ(ConnectInvalidParameter::decode(48).hint(), "another --keep-alive-tmo");
}

// Base 2.1 §6.5, §6.6.
TEST(Property, CommandBytes) {
  EXPECT_EQ(bytes_of(property_get(Property::cap)),
            Bytes(64).put(0, {0x7f}).put(4, {0x04}).put(40, {1}).vector());
  EXPECT_EQ(bytes_of(property_get(Property::csts)),
            Bytes(64).put(0, {0x7f}).put(4, {0x04}).put(44, {0x1c}).vector());
  EXPECT_EQ(bytes_of(property_set(Property::cc, 0x00460001)),
            Bytes(64).put(0, {0x7f}).put(44, {0x14}).put(48, {1, 0, 0x46, 0}).vector());
}

TEST(Property, CommandParsing) {
  const PropertyCommand set{.offset = 0x14, .eight_bytes = true, .value = 0x1122334455667788};
  EXPECT_EQ(PropertyCommand::from_sqe(set.to_set()), set);
  Sqe get = set.to_get();
  EXPECT_EQ(PropertyCommand::from_sqe(get),
            (PropertyCommand{.offset = 0x14, .eight_bytes = true, .value = 0}));
  get.cdw10 = 2;
  EXPECT_FALSE(PropertyCommand::from_sqe(get).has_value());
}

// Base 2.1 §3.1.4.1: each field alone, at its bits.
TEST(Property, CapabilityBits) {
  const auto cap = [](auto set) {
    ControllerCapabilities c;
    set(c);
    return c.encode();
  };
  EXPECT_EQ(cap([](auto& c) { c.mqes = 0xffff; }), 0xffffull);
  EXPECT_EQ(cap([](auto& c) { c.cqr = true; }), 1ull << 16);
  EXPECT_EQ(cap([](auto& c) { c.ams = 3; }), 3ull << 17);
  EXPECT_EQ(cap([](auto& c) { c.to = 0xff; }), 0xffull << 24);
  EXPECT_EQ(cap([](auto& c) { c.dstrd = 0xf; }), 0xfull << 32);
  EXPECT_EQ(cap([](auto& c) { c.nssrs = true; }), 1ull << 36);
  EXPECT_EQ(cap([](auto& c) { c.css = kCapCssNvm; }), 1ull << 37);
  EXPECT_EQ(cap([](auto& c) { c.css = kCapCssIo; }), 1ull << 43);
  EXPECT_EQ(cap([](auto& c) { c.mpsmin = 0xf; }), 0xfull << 48);
  EXPECT_EQ(cap([](auto& c) { c.mpsmax = 0xf; }), 0xfull << 52);
  EXPECT_EQ(cap([](auto& c) { c.crms = 3; }), 3ull << 59);
  constexpr std::uint64_t kDefined = 0x3fffffffff07ffffull;
  EXPECT_EQ(ControllerCapabilities::decode(~0ull).encode(), kDefined);
}

TEST(Property, ConfigurationAndStatusBits) {
  const ControllerConfiguration cc{.en = true, .iosqes = 6, .iocqes = 4};
  EXPECT_EQ(cc.encode(), 0x00460001u);
  EXPECT_EQ(ControllerConfiguration::decode(0x00464001),
            (ControllerConfiguration{.en = true, .shn = kShnNormal, .iosqes = 6, .iocqes = 4}));
  EXPECT_EQ(ControllerConfiguration::decode(~0u).encode(), 0x01fffff1u);
  EXPECT_EQ(ControllerStatus::decode(0x9), (ControllerStatus{.rdy = true, .shst = kShstComplete}));
  EXPECT_TRUE(ControllerStatus::decode(2).cfs);
  EXPECT_EQ(ControllerStatus::decode(~0u).encode(), 0x7fu);
}

TEST(Property, Version) {
  EXPECT_EQ(version_text(0x00020000), "2.0");
  EXPECT_EQ(version_text(0x00010201), "1.2.1");
}

}  // namespace
}  // namespace nvmf::nvme
