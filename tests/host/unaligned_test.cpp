// Requests that are not whole blocks: what they read and write, against a shadow of the disk.

#include <gmock/gmock.h>

#include "host/reactors_fixture.h"
#include "sim/byte_user.h"

namespace nvmf::test {
namespace {

using host::BlockCover;
using host::BlockOp;
using nvme::NvmOpcode;
using nvme::StatusCode;
using testing::ElementsAre;
using testing::UnorderedElementsAre;
using transport::ControllerCommand;

constexpr std::uint64_t kMiB = 1 << 20;

TEST(BlockCover, EveryWayToLieOnBlocks) {
  const struct {
    std::uint64_t offset, length;
    BlockCover cover;
    bool head, tail;
  } cases[] = {
      {0, 4096, {0, 1, 0, 1}, false, false},  {4096, 8192, {1, 3, 1, 3}, false, false},
      {0, 1, {0, 1, 0, 0}, false, true},      {4095, 1, {0, 1, 1, 1}, true, false},
      {100, 200, {0, 1, 1, 1}, true, false},  {4095, 2, {0, 2, 1, 1}, true, true},
      {100, 8092, {0, 2, 1, 2}, true, false}, {0, 4097, {0, 2, 0, 1}, false, true},
      {1, 12287, {0, 3, 1, 3}, true, false},  {1, 12288, {0, 4, 1, 3}, true, true},
  };
  for (const auto& c : cases) {
    const BlockCover cover = BlockCover::of(c.offset, c.length, 12);
    EXPECT_EQ(cover, c.cover) << c.offset << " " << c.length;
    EXPECT_EQ(cover.head(), c.head) << c.offset << " " << c.length;
    EXPECT_EQ(cover.tail(), c.tail) << c.offset << " " << c.length;
  }
}

class Unaligned : public ReactorsTest {
 protected:
  static Request request(BlockOp op, std::uint64_t offset, std::uint64_t length,
                         std::byte* data = nullptr) {
    Request r;
    r.op = op;
    r.offset_bytes = offset;
    r.length_bytes = length;
    r.data = data;
    return r;
  }
  /// The first block and the number of blocks of each command, as they came.
  std::vector<std::pair<std::uint64_t, std::uint32_t>> seen(NvmOpcode opcode) {
    std::vector<std::pair<std::uint64_t, std::uint32_t>> out;
    for (const SeenCommand& s : target.io_commands(opcode)) {
      out.emplace_back(s.sqe.slba(), s.sqe.blocks());
    }
    return out;
  }
};

TEST_F(Unaligned, WritesReadTheEndsOnlyAndSendTheMiddleFromWhereItIs) {
  target.add_namespace(1, 4096, 12);
  connect(1);
  disk() = sim::pattern(disk().size(), 1);
  std::vector<std::byte> expected = disk();
  const std::vector<std::byte> data = sim::pattern(2 * kMiB + 1000, 2);
  std::copy(data.begin(), data.end(), expected.begin() + 4096 + 77);
  Request w = request(BlockOp::write, 4096 + 77, data.size(), const_cast<std::byte*>(data.data()));
  w.fua = true;
  EXPECT_EQ(run_on(0, w), 0);
  EXPECT_TRUE(disk() == expected);
  EXPECT_THAT(seen(NvmOpcode::read), UnorderedElementsAre(std::pair(1, 1), std::pair(513, 1)));
  EXPECT_THAT(seen(NvmOpcode::write), UnorderedElementsAre(std::pair(1, 1), std::pair(2, 256),
                                                           std::pair(258, 255), std::pair(513, 1)));
  for (const SeenCommand& s : target.io_commands(NvmOpcode::write)) {
    EXPECT_NE(s.sqe.cdw12 & nvme::kCdw12Fua, 0u);
  }
  std::vector<std::byte> back(data.size());
  Request r = request(BlockOp::read, 4096 + 77, back.size(), back.data());
  EXPECT_EQ(run_on(0, r), 0);
  EXPECT_TRUE(back == data);
  EXPECT_EQ(holds_in_force(), 0u);
}

TEST_F(Unaligned, TwoBlocksCutAtBothSidesAreOneCommandEachWay) {
  target.add_namespace(1, 4096, 12);
  connect(1);
  std::vector<std::byte> data(1000);
  Request r = request(BlockOp::read, 4096 * 3 - 500, 1000, data.data());
  EXPECT_EQ(run_on(0, r), 0);
  Request w = request(BlockOp::write, 4096 * 7 - 500, 1000, data.data());
  EXPECT_EQ(run_on(0, w), 0);
  EXPECT_THAT(seen(NvmOpcode::read), ElementsAre(std::pair(2, 2), std::pair(6, 2)));
  EXPECT_THAT(seen(NvmOpcode::write), ElementsAre(std::pair(6, 2)));
}

TEST_F(Unaligned, LargestRequestAtAnOddPlace) {
  target.add_namespace(1, 16384, 12);  // 64 MiB
  connect(2);
  disk() = sim::pattern(disk().size(), 3);
  std::vector<std::byte> expected = disk();
  std::vector<std::byte> data = sim::pattern(32 * kMiB + 1, 4);
  std::copy(data.begin() + 1, data.end(), expected.begin() + 4095);
  Request w = request(BlockOp::write, 4095, 32 * kMiB, data.data() + 1);
  EXPECT_EQ(run_on(1, w), 0);
  EXPECT_TRUE(disk() == expected);
  std::vector<std::byte> back(data.size());
  Request r = request(BlockOp::read, 4095, 32 * kMiB, back.data() + 1);
  EXPECT_EQ(run_on(0, r), 0);
  EXPECT_TRUE(std::equal(back.begin() + 1, back.end(), data.begin() + 1));
  Request too_long = request(BlockOp::write, 1, 32 * kMiB + 1, data.data());
  EXPECT_EQ(run_on(0, too_long), EINVAL);
}

TEST_F(Unaligned, ZeroesByCommandInTheMiddle) {
  target.add_namespace(1, 4096, 12);
  connect(1);
  std::ranges::fill(disk(), std::byte{0xff});
  std::vector<std::byte> expected = disk();
  std::fill_n(expected.begin() + 100, 5 * 4096, std::byte{0});
  Request z = request(BlockOp::write_zeroes, 100, 5 * 4096);
  z.fua = true;
  z.fast_only = true;
  EXPECT_EQ(run_on(0, z), 0);
  EXPECT_TRUE(disk() == expected);
  EXPECT_THAT(seen(NvmOpcode::write_zeroes), ElementsAre(std::pair(1, 4)));
  EXPECT_THAT(seen(NvmOpcode::write), UnorderedElementsAre(std::pair(0, 1), std::pair(5, 1)));
  for (const NvmOpcode opcode : {NvmOpcode::write, NvmOpcode::write_zeroes}) {
    for (const SeenCommand& s : target.io_commands(opcode)) {
      EXPECT_NE(s.sqe.cdw12 & nvme::kCdw12Fua, 0u);
    }
  }
  // Nothing whole in it: that is a write, and no faster than one.
  Request slow = request(BlockOp::write_zeroes, 4095, 4096);
  slow.fast_only = true;
  EXPECT_EQ(run_on(0, slow), ENOTSUP);
  slow.fast_only = false;
  slow.completions = 0;
  EXPECT_EQ(run_on(0, slow), 0);
}

TEST_F(Unaligned, AnErrorOfTheReadEndsTheWriteAndItsHold) {
  target.add_namespace(1, 4096, 12);
  connect(2);
  std::vector<std::byte> data = sim::pattern(4096, 5);
  int writes = 0;
  target.intercept = [&](FakeTarget::Connection& at, ControllerCommand& c) {
    if (at.qid == 0 || c.sqe.is_fabrics()) return false;
    if (c.sqe.opcode == static_cast<std::uint8_t>(NvmOpcode::write)) ++writes;
    if (c.sqe.opcode != static_cast<std::uint8_t>(NvmOpcode::read)) return false;
    at.respond(c, StatusCode::unrecovered_read_error);
    return true;
  };
  Request w = request(BlockOp::write, 100, 100, data.data());
  EXPECT_EQ(run_on(0, w), EIO);
  EXPECT_EQ(writes, 0);
  Request z = request(BlockOp::write_zeroes, 100, 100);
  EXPECT_EQ(run_on(1, z), EIO);
  Request r = request(BlockOp::read, 100, 100, data.data());
  EXPECT_EQ(run_on(1, r), EIO);
  loop.run_for(milliseconds(1));
  EXPECT_EQ(holds_in_force(), 0u);
  Request aligned = request(BlockOp::write, 0, 4096, data.data());
  EXPECT_EQ(run_on(1, aligned), 0);
}

TEST_F(Unaligned, MoreThanThereAreSlotsForWait) {
  target.add_namespace(1, 4096, 12);
  connect(2);
  std::vector<std::byte> data = sim::pattern(200, 6);
  std::vector<std::byte> back(200 * 100);
  std::vector<Request> requests(400);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    // A hundred on blocks of their own, a hundred on one block, as many reads of either.
    const std::uint64_t at = i % 2 == 0 ? i / 4 * 4096 + 50 : 3000 + i / 8;
    const BlockOp op = i % 4 < 2 ? BlockOp::write : BlockOp::read;
    std::byte* const to = op == BlockOp::write ? data.data() : back.data() + i / 4 * 200;
    requests[i] = request(op, at, op == BlockOp::write && i % 2 == 1 ? 1 : 200, to);
    device(i % 3 == 0).submit(requests[i]);
  }
  loop.run_for(seconds(1));
  for (const Request& r : requests) EXPECT_TRUE(r.done() && r.error == 0);
  EXPECT_EQ(holds_in_force(), 0u);
}

struct Shadow {
  std::uint8_t lbads;
  std::uint8_t mdts;
  bool has_write_zeroes;
};
class UnalignedShadow : public Unaligned, public testing::WithParamInterface<Shadow> {};

TEST_P(UnalignedShadow, EveryKindSizeAndPlace) {
  const Shadow how = GetParam();
  constexpr std::uint64_t kSize = 256 * 1024;
  target.add_namespace(1, kSize >> how.lbads, how.lbads);
  target.id.mdts = how.mdts;
  if (!how.has_write_zeroes) target.id.oncs = nvme::kOncsDsm;
  connect(3);
  std::mt19937_64 random(how.lbads * 100u + how.mdts);
  disk() = sim::pattern(kSize, 7);
  std::vector<std::byte> shadow = disk();
  std::vector<std::byte> buffer(kSize + 1);
  const std::uint64_t block = std::uint64_t{1} << how.lbads;
  for (int i = 0; i < 700; ++i) {
    const std::uint64_t most = random() % 3 == 0 ? kSize : 3 * block;
    const std::uint64_t length = random() % most;
    std::uint64_t offset = random() % (kSize - length + 1);
    if (random() % 4 == 0) offset &= ~(block - 1);
    std::byte* const data = buffer.data() + random() % 2;
    const auto begin = shadow.begin() + static_cast<std::ptrdiff_t>(offset);
    const auto end = begin + static_cast<std::ptrdiff_t>(length);
    Request r;
    switch (random() % 4) {
      case 0:
        r = request(BlockOp::read, offset, length, data);
        break;
      case 1: {
        r = request(BlockOp::write, offset, length, data);
        const auto bytes = sim::pattern(length, random());
        std::ranges::copy(bytes, data);
        std::ranges::copy(bytes, begin);
        break;
      }
      case 2:
        r = request(BlockOp::write_zeroes, offset, length);
        std::fill(begin, end, std::byte{0});
        break;
      default: {
        r = request(BlockOp::deallocate, offset, length);
        const std::uint64_t first = (offset + block - 1) / block * block;
        const std::uint64_t last = (offset + length) / block * block;
        for (std::uint64_t at = first; at < last; ++at) shadow[at] = std::byte{0};
      }
    }
    ASSERT_EQ(run_on(random() % 3, r), 0);
    if (r.op == BlockOp::read) ASSERT_TRUE(std::equal(begin, end, data)) << offset << " " << length;
    ASSERT_TRUE(disk() == shadow) << "request " << i << ": " << offset << " " << length;
  }
  loop.run_for(milliseconds(1));
  EXPECT_EQ(holds_in_force(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Formats, UnalignedShadow,
                         testing::Values(Shadow{9, 0, true}, Shadow{12, 0, true},
                                         Shadow{13, 1, true}, Shadow{12, 0, false},
                                         Shadow{9, 2, false}),
                         [](const auto& info) {
                           return std::to_string(1 << info.param.lbads) + "_mdts" +
                                  std::to_string(info.param.mdts) +
                                  (info.param.has_write_zeroes ? "" : "_no_write_zeroes");
                         });

}  // namespace
}  // namespace nvmf::test
