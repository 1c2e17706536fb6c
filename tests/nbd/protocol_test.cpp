// Golden bytes of every NBD message, and the pure checks.
#include "frontends/nbd/protocol.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "fixtures.h"
#include "frontends/nbd/request.h"
#include "frontends/nbd/uri.h"

namespace nvmf::nbd {
namespace {

using test::Bytes;
using test::hex;
using test::to_hex;

template <class Message>
std::string encoded(const Message& m) {
  Bytes bytes(Message::kBytes);
  m.encode(bytes.data());
  return to_hex(bytes);
}

TEST(Protocol, Greeting) {
  EXPECT_EQ(encoded(Greeting{}),
            "4e42444d414749434948415645"
            "4f50540003");
  EXPECT_EQ(Greeting::decode(hex("4e42444d41474943 49484156454f5054 0001").data())->flags, 1);
  EXPECT_FALSE(Greeting::decode(hex("4e42444d41474944 49484156454f5054 0001").data()));
}

TEST(Protocol, Options) {
  EXPECT_EQ(encoded(OptionHeader{Option::go, 0x12}), "49484156454f50540000000700000012");
  const auto option = OptionHeader::decode(hex("49484156454f5054 00000001 00000003").data());
  EXPECT_EQ(option->option, Option::export_name);
  EXPECT_EQ(option->length, 3u);
  EXPECT_FALSE(OptionHeader::decode(hex("49484156454f5055 00000001 00000003").data()));

  EXPECT_EQ(encoded(OptionReplyHeader{Option::info, OptionReplyType::err_unknown, 5}),
            "0003e889045565a9000000068000000600000005");
  const auto reply =
      OptionReplyHeader::decode(hex("0003e889045565a9 00000008 00000001 00000000").data());
  EXPECT_EQ(reply->option, Option::structured_reply);
  EXPECT_EQ(reply->type, OptionReplyType::ack);
  EXPECT_FALSE(OptionReplyHeader::decode(hex("0003e889045565aa 0000000800000001 00000000").data()));
}

TEST(Protocol, Infos) {
  EXPECT_EQ(encoded(InfoExport{0x0000001000000000, 0x0563}), "000000000010000000000563");
  EXPECT_EQ(encoded(InfoBlockSize{512, 4096, 0x02000000}), "0003000002000000100002000000");
  EXPECT_EQ(encoded(ExportReply{0x100000, 0x0d6d}), "00000000001000000d6d");
}

TEST(Protocol, InfoQueryChecksItsLengths) {
  const Bytes good = hex("00000001 61 0002 0001 0003");
  const auto query = InfoQuery::decode(good);
  ASSERT_TRUE(query);
  EXPECT_EQ(query->name, "a");
  EXPECT_TRUE(query->wants(InfoType::name));
  EXPECT_TRUE(query->wants(InfoType::block_size));
  EXPECT_FALSE(query->wants(InfoType::description));
  for (const char* bad : {"", "00000000", "00000000 00", "00000002 61 0000", "00000001 61 0001",
                          "00000001 61 0000 00", "ffffffff 61 0000", "00000000 ffff"}) {
    EXPECT_FALSE(InfoQuery::decode(hex(bad))) << bad;
  }
}

TEST(Protocol, Request) {
  const RequestHeader r{0x0001, Command::write, 0x1122334455667788, 0x0000000012345000, 0x1000};
  EXPECT_EQ(encoded(r),
            "2560951300010001112233445566778800000000123450000000"
            "1000");
  const auto back = RequestHeader::decode(
      hex("25609513 0014 0006 0000000000000009 00000000 00000200 00000400").data());
  EXPECT_EQ(back->command, Command::write_zeroes);
  EXPECT_EQ(back->flags, 0x14);
  EXPECT_EQ(back->cookie, 9u);
  EXPECT_EQ(back->offset, 0x200u);
  EXPECT_EQ(back->length, 0x400u);
  EXPECT_FALSE(RequestHeader::decode(hex("25609514" + std::string(48, '0')).data()));
}

TEST(Protocol, Replies) {
  std::array<std::byte, 128> p;
  const auto shown = [&](std::size_t n) { return to_hex({p.data(), n}); };
  EXPECT_EQ(shown(encode_simple(p.data(), 7, WireError::enospc)),
            "674466980000001c0000000000000007");
  EXPECT_EQ(SimpleReply::decode(p.data())->error, WireError::enospc);
  EXPECT_EQ(shown(encode_read_chunk(p.data(), 7, 0x1000, 0x200)),
            "668e33ef0001000100000000000000070000020800000000000010"
            "00");
  EXPECT_EQ(ChunkHeader::decode(p.data())->length, 0x208u);
  EXPECT_EQ(shown(encode_read_chunk(p.data(), 7, 0x1000, 0)),
            "668e33ef00010000000000000000000700000000");
  EXPECT_EQ(shown(encode_error_chunk(p.data(), 7, WireError::eio, "no", std::nullopt)),
            "668e33ef0001800100000000000000070000000800000005"
            "00026e6f");
  EXPECT_EQ(shown(encode_error_chunk(p.data(), 7, WireError::einval, "no", 0x100)),
            "668e33ef000180020000000000000007000000100000001600026e6f0000000000000100");
  const std::string longest(500, 'x');
  EXPECT_LE(encode_error_chunk(p.data(), 7, WireError::einval, longest, 0x100), p.size());
}

TEST(Protocol, ErrorsThatNbdHasNoValueForBecomeEio) {
  const std::pair<int, WireError> cases[] = {{0, WireError::ok},
                                             {EPERM, WireError::eperm},
                                             {EROFS, WireError::eperm},
                                             {ENOMEM, WireError::enomem},
                                             {EINVAL, WireError::einval},
                                             {ENOSPC, WireError::enospc},
                                             {EFBIG, WireError::enospc},
                                             {EDQUOT, WireError::enospc},
                                             {ENOTSUP, WireError::enotsup},
                                             {EIO, WireError::eio},
                                             {ETIMEDOUT, WireError::eio},
                                             {ESHUTDOWN, WireError::eshutdown},
                                             {12345, WireError::eio},
                                             {EOVERFLOW, WireError::eoverflow}};
  for (const auto& [error, wire] : cases) EXPECT_EQ(wire_error(error), wire) << error;
}

TEST(Request, FlagsFollowTheDevice) {
  host::BlockInfo info;
  // Flags, flush, FUA, multi-conn, cache; write zeroes and fast zero even where they are slow.
  EXPECT_EQ(transmission_flags(info, false), 0xd4d);
  EXPECT_EQ(transmission_flags(info, true), 0xdcd);  // and DF
  info.flush = false;
  EXPECT_EQ(transmission_flags(info, false), 0xd49);
  info.deallocate = true;
  EXPECT_EQ(transmission_flags(info, false), 0xd69);
  info.write_zeroes = true;
  EXPECT_EQ(transmission_flags(info, false), 0xd69);
  info.read_only = true;
  EXPECT_EQ(transmission_flags(info, false), 0x50b);
}

TEST(Request, BlockSizesAreLegal) {
  host::BlockInfo info;
  info.block_bytes = 512;
  info.preferred_bytes = 131072;
  const InfoBlockSize b = block_size(info);
  EXPECT_EQ(b.minimum, 1u);  // whatever the device's block is
  EXPECT_EQ(b.preferred, 131072u);
  EXPECT_EQ(b.maximum, 32u << 20);
  info.preferred_bytes = 64u << 20;
  EXPECT_EQ(block_size(info).preferred, 32u << 20);
  info.preferred_bytes = 1;
  EXPECT_EQ(block_size(info).preferred, 512u);
}

TEST(Request, Checks) {
  host::BlockInfo info;
  info.size_bytes = 1 << 20;
  info.deallocate = info.write_zeroes = true;
  const std::uint16_t all = transmission_flags(info, true);
  const std::uint16_t plain = kHasFlags;
  host::BlockInfo read_only = info;
  read_only.read_only = true;
  struct Case {
    Command command;
    std::uint16_t flags;
    std::uint64_t offset;
    std::uint32_t length;
    std::uint16_t advertised;
    bool ro;
    WireError expected;
  };
  constexpr auto kOk = WireError::ok;
  constexpr auto kBad = WireError::einval;
  const std::uint32_t most = 64 * 1024;
  const Case cases[] = {
      {Command::read, 0, 0, 4096, plain, false, kOk},
      {Command::read, 0, (1 << 20) - 512, 512, plain, false, kOk},
      {Command::read, 0, (1 << 20) - 511, 512, plain, false, kBad},
      {Command::read, 0, UINT64_MAX, 512, plain, false, kBad},
      {Command::read, 0, 0, most + 1, plain, false, kBad},
      {Command::read, kDf, 0, most + 1, all, false, WireError::eoverflow},
      {Command::read, kDf, 0, 512, all, false, kOk},
      {Command::read, kDf, 0, 512, plain, false, kBad},
      {Command::read, kFua, 0, 512, all, false, kOk},
      {Command::read, kFua, 0, 512, plain, false, kBad},
      {Command::read, kNoHole, 0, 512, all, false, kBad},
      {Command::read, kReqOne, 0, 512, all, false, kBad},
      {Command::read, 0x8000, 0, 512, all, false, kBad},
      {Command::read, 0, 0, 512, all, true, kOk},
      {Command::write, 0, 0, most, plain, false, kOk},
      {Command::write, 0, 0, most + 512, plain, false, kBad},
      {Command::write, 0, 1 << 20, 512, plain, false, WireError::enospc},
      {Command::write, kFua, 0, 512, all, false, kOk},
      {Command::write, kDf, 0, 512, all, false, kBad},
      {Command::write, 0, 0, 512, all, true, WireError::eperm},
      {Command::flush, 0, 0, 0, all, false, kOk},
      {Command::flush, kFua, 0, 0, all, false, kOk},
      {Command::flush, 0, 512, 0, all, false, kBad},
      {Command::flush, 0, 0, 1, all, false, kBad},
      {Command::flush, 0, 0, 0, plain, false, kBad},
      {Command::flush, 0, 0, 0, all, true, kOk},
      {Command::trim, 0, 0, 1 << 20, all, false, kOk},
      {Command::trim, kFua, 0, 512, all, false, kOk},
      {Command::trim, 0, 512, 1 << 20, all, false, kBad},
      {Command::trim, 0, 0, 512, plain, false, kBad},
      {Command::trim, 0, 0, 512, all, true, WireError::eperm},
      {Command::write_zeroes, 0, 0, 1 << 20, all, false, kOk},
      {Command::write_zeroes, kFua | kNoHole | kFastZero, 0, 512, all, false, kOk},
      {Command::write_zeroes, kFastZero, 0, 512, kHasFlags | kSendWriteZeroes, false, kBad},
      {Command::write_zeroes, 0, 512, 1 << 20, all, false, WireError::enospc},
      {Command::write_zeroes, 0, 0, 512, plain, false, kBad},
      {Command::write_zeroes, 0, 0, 512, all, true, WireError::eperm},
      {Command::cache, 0, 0, 1 << 20, all, false, kOk},
      {Command::cache, kFua, 0, 512, all, true, kOk},
      {Command::cache, 0, 512, 1 << 20, all, false, kBad},
      {Command::cache, kDf, 0, 512, all, false, kBad},
      {Command::cache, 0, 0, 512, plain, false, kBad},
      {Command::block_status, kReqOne, 0, 512, all, false, kBad},
      {static_cast<Command>(77), 0, 0, 512, all, false, kBad},
  };
  for (std::size_t i = 0; i < std::size(cases); ++i) {
    const Case& c = cases[i];
    const Verdict v = check_request({c.flags, c.command, 1, c.offset, c.length}, c.advertised,
                                    c.ro ? read_only : info, most);
    EXPECT_EQ(v.error, c.expected) << "case " << i;
    EXPECT_EQ(v.message.empty(), c.expected == kOk) << "case " << i;
    EXPECT_LE(v.message.size(), kErrorMessageBytesMax) << "case " << i;
  }
  for (const int e : {1, 5, 12, 22, 28, 75, 95, 108}) {
    EXPECT_LE(device_message(static_cast<WireError>(e)).size(), kErrorMessageBytesMax);
  }
}

TEST(Uri, IsWhatClientsTake) {
  transport::Endpoint at;
  at.unix_path = "/run/a b/nvmf0.sock";
  EXPECT_EQ(uri(at, "nvmf0n1"), "nbd+unix:///nvmf0n1?socket=/run/a%20b/nvmf0.sock");
  at = {.host = "127.0.0.1", .port = 10809, .unix_path = {}};
  EXPECT_EQ(uri(at, "nvmf0n1"), "nbd://127.0.0.1:10809/nvmf0n1");
  at.host = "::1";
  EXPECT_EQ(uri(at, "1"), "nbd://[::1]:10809/1");
}

}  // namespace
}  // namespace nvmf::nbd
