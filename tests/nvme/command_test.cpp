#include "nvme/command.h"

#include <gtest/gtest.h>

#include "nvme/bytes.h"

namespace nvmf::nvme {
namespace {

using test::Bytes;
using test::encoded;

// Base 2.1 §4.1.1.
TEST(Sqe, GoldenBytesBothWays) {
  const Bytes golden =
      Bytes(64)
          .put(0, {0x02, 0x40, 0x34, 0x12, 1, 0, 0, 0x10, 2, 0, 0, 0x20, 3, 0, 0, 0x30})
          .put(16, {4, 0, 0, 0, 0, 0, 0, 0x40, 5, 0, 0, 0, 0, 0, 0, 0x50, 6, 0, 0, 0x60})
          .put(39, {0x5a, 10, 0, 0, 1, 11, 0, 0, 2, 12, 0, 0, 3, 13, 0, 0, 4, 14, 0, 0, 5})
          .put(60, {15, 0, 0, 6});
  const Sqe sqe = Sqe::decode(golden.span().first<64>());
  EXPECT_EQ(sqe, (Sqe{.opcode = 0x02,
                      .flags = 0x40,
                      .cid = 0x1234,
                      .nsid = 0x10000001,
                      .cdw2 = 0x20000002,
                      .cdw3 = 0x30000003,
                      .mptr = 0x4000000000000004,
                      .sgl = {.address = 0x5000000000000005,
                              .length_bytes = 0x60000006,
                              .type = kSglTransportDataBlock},
                      .cdw10 = 0x0100000a,
                      .cdw11 = 0x0200000b,
                      .cdw12 = 0x0300000c,
                      .cdw13 = 0x0400000d,
                      .cdw14 = 0x0500000e,
                      .cdw15 = 0x0600000f}));
  EXPECT_EQ(encoded<64>(sqe), golden.vector());
}

// Base 2.1 §4.2.1.
TEST(Cqe, GoldenBytesBothWays) {
  const Bytes golden =
      Bytes(16).put(0, {1, 0, 0, 0, 0, 0, 0, 2, 3, 0, 4, 0, 0x34, 0x12, 0x00, 0x81});
  const Cqe cqe = Cqe::decode(golden.span().first<16>());
  EXPECT_EQ(cqe, (Cqe{.result = 0x0200000000000001,
                      .sqhd = 3,
                      .sqid = 4,
                      .cid = 0x1234,
                      .status = Status(StatusCode::lba_out_of_range, true)}));
  EXPECT_EQ(cqe.dw0(), 1u);
  EXPECT_EQ(encoded<16>(cqe), golden.vector());
}

}  // namespace
}  // namespace nvmf::nvme
