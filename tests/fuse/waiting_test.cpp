// Requests that wait, and who does not: interrupts, limits, namespaces that change, the end.
#include <gtest/gtest.h>

#include "fixture.h"
#include "frontends/fuse/limits.h"
#include "frontends/fuse/slots.h"

namespace nvmf::fuse::test {
namespace {

using frontends::DiskState;

TEST_F(FileSystemTest, AnswersAnInterruptAtOnceWhenTheTargetIsLost) {
  mount();
  disk_.hang = true;
  const auto read = kernel_->send_read(kDisk1, 0, 4096);
  const auto other = kernel_->send_read(kDisk1, 4096, 4096);
  ASSERT_TRUE(hangs(2));
  on_control([this] { file_system_->changed(live(DiskState::waiting)); });
  settle();
  kernel_->interrupt(read);
  EXPECT_EQ(kernel_->wait(read).value_or(Answer{}).error, EINTR);
  EXPECT_EQ(disk_.abandoned, 1);
  EXPECT_EQ(kernel_->getattr(kDisk1).error, 0) << "nobody else waits";
  let_go();  // and no second answer, which FakeKernel would not have
  EXPECT_EQ(kernel_->wait(other).value_or(Answer{.error = 1}).data.size(), 4096u);
}

TEST_F(FileSystemTest, AnswersAnInterruptThatCameBeforeTheLoss) {
  mount();
  disk_.hang = true;
  const auto write = kernel_->send_write(kDisk1, 0, pattern(100'000, 1));
  ASSERT_TRUE(hangs(1));
  kernel_->interrupt(write);
  on_control([this] { file_system_->changed(live(DiskState::failing)); });
  EXPECT_EQ(kernel_->wait(write).value_or(Answer{}).error, EINTR);
}

TEST_F(FileSystemTest, LetsARequestFinishThatIsNearlyDone) {
  mount();
  // Half of the patience is for a turn of the loop that had begun before the interrupt was sent.
  constexpr Duration kLeast = kInterruptPatience / 2;
  int error = EINTR;
  // On a busy machine the patience may be over before the device is done: once in a while it is
  // not.
  for (int tries = 0; tries < 200 && error == EINTR; ++tries) {
    disk_.hang = true;
    const auto soon = kernel_->send_read(kDisk1, 0, 4096);
    ASSERT_TRUE(hangs(1));
    settle();
    const auto start = std::chrono::steady_clock::now();
    kernel_->interrupt(soon);
    EXPECT_EQ(kernel_->getattr(kDisk1).error, 0);
    let_go();
    error = kernel_->wait(soon).value_or(Answer{.error = 1}).error;
    if (error == EINTR) ASSERT_GE(std::chrono::steady_clock::now() - start, kLeast);
  }
  EXPECT_EQ(error, 0);
  disk_.hang = true;
  const auto never = kernel_->send_read(kDisk1, 0, 4096);
  ASSERT_TRUE(hangs(1));
  settle();
  const auto start = std::chrono::steady_clock::now();
  kernel_->interrupt(never);
  EXPECT_EQ(kernel_->wait(never).value_or(Answer{}).error, EINTR);
  EXPECT_GE(std::chrono::steady_clock::now() - start, kLeast);
}

TEST_F(FileSystemTest, ReadsNoMoreThanItHasRoomFor) {
  mount(38, 1);
  disk_.hang = true;
  std::vector<std::uint64_t> reads;
  const std::size_t more = kSmallMax + 20;
  for (std::size_t i = 0; i < more; ++i) reads.push_back(kernel_->send_read(kDisk1, i * 512, 512));
  ASSERT_TRUE(hangs(kSmallMax));
  on_control([] {});
  EXPECT_EQ(disk_.hanging, static_cast<int>(kSmallMax));
  let_go();
  for (const auto read : reads) {
    EXPECT_EQ(kernel_->wait(read).value_or(Answer{.error = 1}).data.size(), 512u);
  }
}

TEST_F(FileSystemTest, KeepsLargeWritesWhereTheyAreUntilTheyAreDone) {
  mount(38, 1);
  disk_.hang = true;
  std::vector<std::uint64_t> writes;
  // As much as goes through a socket, and all the large buffers that there are.
  const auto most = static_cast<unsigned>(slot_counts(1, kBufferBytesMax)[2]);
  for (unsigned i = 0; i < most; ++i) {
    writes.push_back(kernel_->send_write(kDisk1, i * 150'000, pattern(150'000, i)));
    ASSERT_TRUE(hangs(static_cast<int>(i + 1)));
  }
  let_go();
  for (unsigned i = 0; i < writes.size(); ++i) {
    EXPECT_EQ(kernel_->wait(writes[i]).value_or(Answer{.error = 1}).error, 0);
    const Bytes expected = pattern(150'000, i);
    EXPECT_EQ(std::memcmp(disk_.bytes.data() + i * 150'000, expected.data(), expected.size()), 0);
  }
}

TEST_F(FileSystemTest, ServesOnAsManyReactorsAsItsShareOfTheMemoryAllows) {
  // One reactor's least, where there are two: large and small requests at once, more than it has
  // memory for.
  options_.buffer_bytes = 2 * kReactorBufferBytesMin - 1;
  mount(38, 2);
  disk_.hang = true;
  const auto large = static_cast<unsigned>(slot_counts(1, options_.buffer_bytes)[2]);
  std::vector<std::uint64_t> asked;
  for (unsigned i = 0; i < large; ++i) {
    asked.push_back(kernel_->send_write(kDisk1, i * 150'000, pattern(150'000, i)));
    ASSERT_TRUE(hangs(static_cast<int>(i + 1)));
  }
  // They wait in the kernel: there is nothing left to read a message into.
  for (unsigned i = 0; i < 32; ++i) asked.push_back(kernel_->send_read(kDisk1, i * 512, 512));
  let_go();
  for (const std::uint64_t one : asked) {
    EXPECT_EQ(kernel_->wait(one).value_or(Answer{.error = 1}).error, 0);
  }
  EXPECT_EQ(kernel_->read(kDisk1, 150'000, 100'000).data.size(), 100'000u);
}

TEST_F(FileSystemTest, ShowsAtOnceWhatHasChanged) {
  mount();
  on_every_loop([](MemoryDevice& device) { device.change().size_bytes = kDiskBytes / 2; });
  on_control([this] { file_system_->changed(live()); });
  EXPECT_EQ(kernel_->wait_for_notice(), kDisk1);
  EXPECT_EQ(kernel_->getattr(kDisk1).as<fuse_attr_out>().attr.size, kDiskBytes / 2);
  EXPECT_EQ(kernel_->read(kDisk1, kDiskBytes / 2, 512).data.size(), 0u);

  on_every_loop([](MemoryDevice& device) { device.change().read_only = true; });
  on_control([this] { file_system_->changed(live()); });
  settle();
  EXPECT_EQ(kernel_->getattr(kDisk1).as<fuse_attr_out>().attr.mode, S_IFREG | 0400u);
  EXPECT_EQ(kernel_->open(kDisk1, O_WRONLY).error, EROFS);
  EXPECT_EQ(kernel_->open(kDisk1, O_RDONLY).error, 0);

  on_control([this] { file_system_->detached(1); });
  settle();
  EXPECT_EQ(kernel_->lookup(kRootInode, "nvmf0n1").error, ENOENT);
  EXPECT_EQ(kernel_->open(kDisk1, O_RDONLY).error, ENOENT);
  EXPECT_EQ(kernel_->getattr(kDisk1).error, 0) << "who has it open keeps it";
  disk_.fail = EIO;
  EXPECT_EQ(kernel_->read(kDisk1, 0, 512).error, EIO);
  disk_.fail = 0;
  on_control([this] { file_system_->attached(live()); });
  settle();
  EXPECT_EQ(kernel_->lookup(kRootInode, "nvmf0n1").as<fuse_entry_out>().nodeid, kDisk1);
  EXPECT_EQ(kernel_->read(kDisk1, 0, 512).data.size(), 512u);
}

TEST_F(FileSystemTest, ReadsWhatIsLeftWhenTheNamespaceShrinksMeanwhile) {
  mount();
  disk_.hang = true;
  const auto half = kernel_->send_read(kDisk1, kDiskBytes / 2 - 512, 1024);
  const auto none = kernel_->send_read(kDisk1, kDiskBytes / 2, 1024);
  ASSERT_TRUE(hangs(2));
  on_every_loop([](MemoryDevice& device) { device.change().size_bytes = kDiskBytes / 2; });
  let_go();
  EXPECT_EQ(kernel_->wait(half).value_or(Answer{.error = 1}).data.size(), 512u);
  const Answer end = kernel_->wait(none).value_or(Answer{.error = 1});
  EXPECT_EQ(end.error, 0);
  EXPECT_EQ(end.data.size(), 0u);
}

TEST_F(FileSystemTest, LooksForHolesWithoutHoldingUpAnybody) {
  disk_.extent_bytes = 4096;
  options_.grace = 50ms;
  mount(38, 1);
  disk_.hang = true;
  std::vector<std::uint64_t> seeks;
  for (std::size_t i = 0; i < kSeeksMax; ++i) seeks.push_back(send_seek(0, SEEK_DATA));
  ASSERT_TRUE(hangs(static_cast<int>(kSeeksMax)));
  EXPECT_EQ(seek(7, SEEK_DATA).as<fuse_lseek_out>().offset, 7u) << "one too many: all is data";
  kernel_->interrupt(seeks[1]);
  EXPECT_EQ(kernel_->wait(seeks[1]).value_or(Answer{}).error, EINTR);
  begin_stop();
  EXPECT_EQ(kernel_->wait(seeks[0]).value_or(Answer{}).error, EIO);
  EXPECT_EQ(stopping_.wait_for(100ms), std::future_status::timeout) << "the device has them";
  let_go();
  EXPECT_EQ(stopping_.wait_for(20s), std::future_status::ready);
}

std::atomic<std::size_t> discarded_bytes{0};

TEST_F(FileSystemTest, GivesMemoryBackThatNobodyUses) {
  options_.discard = [](std::byte* pages, std::size_t bytes) {
    std::memset(pages, 0xee, bytes);  // nothing of it is needed
    discarded_bytes += bytes;
  };
  mount(38, 1);
  disk_.hang = true;
  const auto read = kernel_->send_read(kDisk1, 0, 4096);
  ASSERT_TRUE(hangs(1));
  discarded_bytes = 0;  // of what went before, if that took long
  std::this_thread::sleep_for(kDiscardAfter + 500ms);
  EXPECT_EQ(discarded_bytes, 0u) << "a request is under way";
  let_go();
  EXPECT_EQ(kernel_->wait(read).value_or(Answer{.error = 1}).data.size(), 4096u);
  for (int i = 0; i < 60'000 && discarded_bytes <= kMessageBytesMax; ++i)
    std::this_thread::sleep_for(1ms);
  EXPECT_GT(discarded_bytes, kMessageBytesMax);
  const Bytes data = pattern(150'000, 1);
  EXPECT_EQ(kernel_->write(kDisk1, 0, data).error, 0);
  EXPECT_EQ(kernel_->read(kDisk1, 0, 150'000).data, data);
}

TEST_F(FileSystemTest, SaysWhatFailed) {
  mount();
  for (const auto& [from, to] : {std::pair{EIO, EIO},
                                 {ENOSPC, ENOSPC},
                                 {EPERM, EPERM},
                                 {ENOTSUP, EOPNOTSUPP},
                                 {ESHUTDOWN, EIO},
                                 {ECANCELED, EIO}}) {
    disk_.fail = from;
    EXPECT_EQ(kernel_->write(kDisk1, 0, pattern(512, 1)).error, to);
  }
}

TEST_F(FileSystemTest, EndsWhatWaitsWhenTheGraceIsOver) {
  options_.grace = 50ms;
  mount();
  disk_.hang = true;
  const auto read = kernel_->send_read(kDisk1, 0, 4096);
  ASSERT_TRUE(hangs(1));
  begin_stop();
  EXPECT_EQ(kernel_->wait(read).value_or(Answer{}).error, EIO);
  // The memory is the device's until it is done.
  EXPECT_EQ(stopping_.wait_for(100ms), std::future_status::timeout);
  let_go();
  EXPECT_EQ(stopping_.wait_for(20s), std::future_status::ready);
}

TEST_F(FileSystemTest, FinishesWhatItCanBeforeItEnds) {
  options_.grace = 60s;  // the device is let go later than it could be
  mount();
  disk_.hang = true;
  const auto write = kernel_->send_write(kDisk1, 0, pattern(4096, 3));
  ASSERT_TRUE(hangs(1));
  begin_stop();
  let_go();
  EXPECT_EQ(kernel_->wait(write).value_or(Answer{.error = 1}).error, 0);
  EXPECT_EQ(stopping_.wait_for(20s), std::future_status::ready);
}

TEST_F(FileSystemTest, WaitsForNothingInAHurry) {
  mount();
  disk_.hang = true;
  const auto read = kernel_->send_read(kDisk1, 0, 4096);
  ASSERT_TRUE(hangs(1));
  on_control([this] { file_system_->hurry(); });
  EXPECT_EQ(kernel_->wait(read).value_or(Answer{}).error, EIO);
  EXPECT_EQ(kernel_->read(kDisk1, 0, 4096).error, EIO) << "nor for what comes after";
}

TEST_F(FileSystemTest, NoticesThatItWasUnmounted) {
  mount();
  disk_.hang = true;
  kernel_->send_read(kDisk1, 0, 4096);
  ASSERT_TRUE(hangs(1));
  kernel_->unmount();
  EXPECT_EQ(unmounted_.get_future().wait_for(20s), std::future_status::ready);
}

TEST_F(FileSystemTest, StopsThoughItWasNeverMounted) {
  pool_ = std::move(*io::ReactorPool::make(1));
  FileSystem never({&pool_->at(0)}, {});
  bool stopped = false;
  pool_->at(0).post([&] {
    never.hurry();
    never.stop([&] {
      stopped = true;
      pool_->stop();
    });
    EXPECT_FALSE(stopped);
  });
  ASSERT_TRUE(pool_->run().has_value());
  pool_->join();
  EXPECT_TRUE(stopped);
}

}  // namespace
}  // namespace nvmf::fuse::test
