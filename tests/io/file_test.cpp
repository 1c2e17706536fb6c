// File operations, on a real file system.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <random>

#include "io/reactor_fixture.h"

namespace nvmf::io {
namespace {

using namespace std::chrono_literals;
using transport::File;
using transport::FileOp;

class FileTest : public ReactorTest {
 protected:
  struct Op : FileOp {
    bool done = false;
  };

  std::unique_ptr<File> create(std::uint64_t bytes, bool writable = true) {
    path_ = dir_ / "disk";
    std::ofstream(path_).put('x');
    EXPECT_EQ(::truncate(path_.c_str(), static_cast<off_t>(bytes)), 0);
    auto file = reactor_->open_file(path_, writable);
    EXPECT_TRUE(file.has_value());
    return std::move(*file);
  }
  static void start(File& file, Op& op, FileOp::Kind kind, std::byte* data, std::uint64_t offset,
                    std::uint64_t length) {
    op.kind = kind;
    op.data = data;
    op.offset_bytes = offset;
    op.length_bytes = length;
    op.done = false;
    op.complete = [](FileOp& o) { static_cast<Op&>(o).done = true; };
    file.submit(op);
    EXPECT_FALSE(op.done);
  }
  /// Performs one and gives its error.
  int perform(File& file, FileOp::Kind kind, std::byte* data, std::uint64_t offset,
              std::uint64_t length) {
    Op op;
    start(file, op, kind, data, offset, length);
    EXPECT_TRUE(until([&] { return op.done; }));
    return op.error;
  }
  std::uint64_t allocated() const {
    struct stat st{};
    ::stat(path_.c_str(), &st);
    return static_cast<std::uint64_t>(st.st_blocks) * 512;
  }

  std::string path_;
};

TEST_P(FileTest, WritesReadsAndSyncs) {
  auto file = create(1 << 20);
  EXPECT_EQ(file->size_bytes(), 1U << 20);
  auto data = pattern(300'000, 1);
  EXPECT_EQ(perform(*file, FileOp::Kind::write, data.data(), 4096, data.size()), 0);
  EXPECT_EQ(perform(*file, FileOp::Kind::sync, nullptr, 0, 0), 0);
  std::vector<std::byte> back(data.size());
  EXPECT_EQ(perform(*file, FileOp::Kind::read, back.data(), 4096, back.size()), 0);
  EXPECT_EQ(back, data);
  EXPECT_EQ(perform(*file, FileOp::Kind::write_durable, data.data(), 0, 512), 0);
  EXPECT_EQ(perform(*file, FileOp::Kind::read, back.data(), 0, 512), 0);
  EXPECT_TRUE(std::equal(back.begin(), back.begin() + 512, data.begin()));
  EXPECT_EQ(perform(*file, FileOp::Kind::read, back.data(), 0, 0), 0);
}

TEST_P(FileTest, ReadingPastTheEndIsAnError) {
  auto file = create(10'000);
  std::vector<std::byte> back(8192);
  EXPECT_EQ(perform(*file, FileOp::Kind::read, back.data(), 8192, 4096), ENODATA);
  EXPECT_EQ(perform(*file, FileOp::Kind::read, back.data(), 20'000, 512), ENODATA);
  EXPECT_EQ(perform(*file, FileOp::Kind::read, back.data(), 9'488, 512), 0);
  // A file cut behind our back.
  ASSERT_EQ(::truncate(path_.c_str(), 100), 0);
  EXPECT_EQ(perform(*file, FileOp::Kind::read, back.data(), 0, 512), ENODATA);
  EXPECT_EQ(file->size_bytes(), 100U);
}

TEST_P(FileTest, ZeroStaysAllocatedAndPunchDoesNot) {
  auto file = create(4 << 20);
  std::vector<std::byte> ones(4 << 20, std::byte{0xff});
  ASSERT_EQ(perform(*file, FileOp::Kind::write, ones.data(), 0, ones.size()), 0);
  ASSERT_EQ(perform(*file, FileOp::Kind::sync, nullptr, 0, 0), 0);
  const std::uint64_t full = allocated();
  EXPECT_EQ(perform(*file, FileOp::Kind::zero, nullptr, 4096, 1'000'000), 0);
  EXPECT_EQ(perform(*file, FileOp::Kind::sync, nullptr, 0, 0), 0);
  EXPECT_GE(allocated() + 65536, full);
  EXPECT_EQ(perform(*file, FileOp::Kind::punch, nullptr, 2 << 20, 1 << 20), 0);
  EXPECT_LE(allocated() + (1 << 19), full);
  auto expected = ones;
  std::fill_n(expected.begin() + 4096, 1'000'000, std::byte{0});
  std::fill_n(expected.begin() + (2 << 20), 1 << 20, std::byte{0});
  std::vector<std::byte> back(ones.size());
  EXPECT_EQ(perform(*file, FileOp::Kind::read, back.data(), 0, back.size()), 0);
  EXPECT_EQ(back, expected);
  EXPECT_EQ(file->size_bytes(), 4U << 20);
}

/// tmpfs cannot zero a range: several operations at once find out together and write zeroes.
TEST_P(FileTest, ZeroFallsBackToWritingZeroes) {
  const std::string path =
      "/dev/shm/nvmf-io-" + std::to_string(::getpid()) + backend_label({GetParam(), 0});
  std::vector<std::byte> ones(3 << 20, std::byte{0xff});
  std::ofstream(path).write(reinterpret_cast<const char*>(ones.data()),
                            static_cast<std::streamsize>(ones.size()));
  auto opened = reactor_->open_file(path, true);
  if (!opened) GTEST_SKIP() << "no /dev/shm here";
  std::vector<Op> ops(4);
  for (std::size_t i = 0; i < ops.size(); ++i) {
    start(**opened, ops[i], i == 3 ? FileOp::Kind::punch : FileOp::Kind::zero, nullptr, i * 700'000,
          600'000);
  }
  EXPECT_TRUE(until([&] { return std::ranges::all_of(ops, &Op::done); }));
  auto expected = ones;
  for (std::size_t i = 0; i < ops.size(); ++i) {
    EXPECT_EQ(ops[i].error, 0);
    std::fill_n(expected.begin() + static_cast<std::ptrdiff_t>(i * 700'000), 600'000, std::byte{0});
  }
  std::vector<std::byte> back(ones.size());
  EXPECT_EQ(perform(**opened, FileOp::Kind::read, back.data(), 0, back.size()), 0);
  EXPECT_EQ(back, expected);
  ::unlink(path.c_str());
}

TEST_P(FileTest, ThousandsAtOnceMoreThanTheRingHolds) {
  constexpr std::size_t kOps = 3000;
  constexpr std::size_t kBytes = 4096;
  auto file = create(kOps * kBytes);
  auto data = pattern(kOps * kBytes, 9);
  std::vector<std::byte> back(data.size());
  std::vector<Op> ops(kOps);
  for (std::size_t i = 0; i < kOps; ++i) {
    start(*file, ops[i], FileOp::Kind::write, data.data() + i * kBytes, i * kBytes, kBytes);
  }
  ASSERT_TRUE(until([&] { return std::ranges::all_of(ops, &Op::done); }));
  for (std::size_t i = 0; i < kOps; ++i) {
    start(*file, ops[i], FileOp::Kind::read, back.data() + i * kBytes, i * kBytes, kBytes);
  }
  ASSERT_TRUE(until([&] { return std::ranges::all_of(ops, &Op::done); }));
  EXPECT_EQ(back, data);
}

TEST_P(FileTest, OperationsUnderWayAtTheEndAreCompleted) {
  auto file = create(8 << 20);
  auto data = pattern(8 << 20, 3);
  std::vector<Op> ops(8);
  for (std::size_t i = 0; i < ops.size(); ++i) {
    start(*file, ops[i], FileOp::Kind::write, data.data() + (i << 20), i << 20, 1 << 20);
  }
  reactor_->end();
  EXPECT_TRUE(std::ranges::all_of(ops, &Op::done));
  file.reset();
}

TEST_P(FileTest, RefusalsSayWhy) {
  EXPECT_EQ(reactor_->open_file(dir_ / "none", true).error().code, ENOENT);
  ASSERT_EQ(::mkfifo((dir_ / "fifo").c_str(), 0600), 0);
  EXPECT_FALSE(reactor_->open_file(dir_ / "fifo", false).has_value());  // and does not hang
  EXPECT_FALSE(reactor_->open_file("/dev/null", true).has_value());
  auto file = create(4096, false);
  auto data = pattern(512, 1);
  EXPECT_EQ(perform(*file, FileOp::Kind::write, data.data(), 0, 512), EBADF);
  EXPECT_EQ(perform(*file, FileOp::Kind::zero, nullptr, 0, 512), EBADF);
}

NVMF_BOTH_BACKENDS(FileTest);

}  // namespace
}  // namespace nvmf::io
