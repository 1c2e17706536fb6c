// The messages to the kernel's NBD driver, byte by byte. They are in this machine's byte order,
// which these tests take to be little-endian, as x86-64 and arm64 are.
#include "frontends/nbd/kernel_netlink.h"

#include <gtest/gtest.h>

#include "fixtures.h"

namespace nvmf::nbd {
namespace {

using test::Bytes;
using test::hex;
using test::to_hex;

constexpr std::uint16_t kFamily = 0x1c;

TEST(KernelNetlink, ConnectSaysEverything) {
  const KernelConfig config = {.index = 3,
                               .size_bytes = 0x4000000,
                               .block_bytes = 4096,
                               .timeout_s = 640,
                               .dead_conn_timeout_s = 600,
                               .server_flags = 0x12d,
                               .client_flags = 0,
                               .sockets = {7, 9},
                               .backend = "nvmf"};
  EXPECT_EQ(to_hex(encode_kernel_message(KernelCommand::connect, config, kFamily)),
            to_hex(hex(
                // nlmsghdr: length, family, flags (none yet), sequence, port
                "8c000000 1c00 0000 00000000 00000000"
                // genlmsghdr: NBD_CMD_CONNECT, version 1
                "01 01 0000"
                "0800 0100 03000000"            // NBD_ATTR_INDEX
                "0c00 0200 0000000400000000"    // SIZE_BYTES
                "0c00 0300 0010000000000000"    // BLOCK_SIZE_BYTES
                "0c00 0400 8002000000000000"    // TIMEOUT
                "0c00 0500 2d01000000000000"    // SERVER_FLAGS
                "0c00 0600 0000000000000000"    // CLIENT_FLAGS
                "1c00 0780"                     // SOCKETS, nested
                "0c00 0180 0800 0100 07000000"  // SOCK_ITEM { SOCK_FD }
                "0c00 0180 0800 0100 09000000"  //
                "0c00 0800 5802000000000000"    // DEAD_CONN_TIMEOUT
                "0900 0a00 6e766d66 00 000000")));
}

TEST(KernelNetlink, WhatIsNotSetIsLeftOut) {
  EXPECT_EQ(to_hex(encode_kernel_message(KernelCommand::disconnect, {.index = 1}, kFamily)),
            to_hex(hex("1c000000 1c00 0000 00000000 00000000 02 01 0000 0800 0100 01000000")));
  EXPECT_EQ(
      to_hex(encode_kernel_message(KernelCommand::reconfigure, {.index = 1, .size_bytes = 1}, 20)),
      to_hex(hex("28000000 1400 0000 00000000 00000000 03 01 0000 0800 0100 01000000"
                 "0c00 0200 0100000000000000")));
}

TEST(KernelNetlink, ConnectReplyTellsTheIndex) {
  const Bytes reply = hex("1c000000 1c00 0000 00000000 00000000 01 01 0000 0800 0100 05000000");
  EXPECT_EQ(decode_connect_reply(reply), 5u);
  // Another command's; without an index; with one that is too short.
  EXPECT_EQ(decode_connect_reply(
                hex("1c000000 1c00 0000 00000000 00000000 05 01 0000 0800 0100 05000000")),
            std::nullopt);
  EXPECT_EQ(decode_connect_reply(hex("14000000 1c00 0000 00000000 00000000 01 01 0000")),
            std::nullopt);
  EXPECT_EQ(decode_connect_reply(
                hex("1c000000 1c00 0000 00000000 00000000 01 01 0000 0600 0100 05000000")),
            std::nullopt);
}

TEST(KernelNetlink, AnyBytesCanBeDecoded) {
  const Bytes reply = hex("1c000000 1c00 0000 00000000 00000000 01 01 0000 0800 0100 05000000");
  for (std::size_t length = 0; length < reply.size(); ++length) {
    EXPECT_EQ(decode_connect_reply(Bytes(reply.begin(), reply.begin() + length)), std::nullopt);
  }
  for (std::size_t at = 0; at < reply.size(); ++at) {
    for (int value = 0; value < 256; ++value) {
      Bytes other = reply;
      other[at] = static_cast<std::byte>(value);
      (void)decode_connect_reply(other);
    }
  }
}

TEST(KernelNetlink, TheKernelIsToldOnlyWhatItKnows) {
  EXPECT_EQ(kernel_flags(0xffff), kHasFlags | kReadOnly | kSendFlush | kSendFua | kSendTrim |
                                      kSendWriteZeroes | kCanMultiConn);
}

TEST(KernelNetlink, WithoutTheModuleItSaysWhatToLoad) {
  auto link = open_kernel_nbd();
  if (link) return;  // this machine has it
  if (link.error().code == ENOENT)
    EXPECT_NE(link.error().message.find("modprobe nbd"), std::string::npos);
}

}  // namespace
}  // namespace nvmf::nbd
