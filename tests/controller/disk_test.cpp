// Disks, the buffer pool, and the identifiers of namespaces.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "controller/buffer_pool.h"
#include "controller/file_disk.h"
#include "controller/memory_disk.h"
#include "controller/subsystem.h"
#include "controller/system.h"
#include "controller/test_host.h"

namespace nvmf::controller {
namespace {

struct Op : DiskOp {
  bool done = false;
  Op(Kind what, std::uint64_t offset, std::uint64_t length, std::byte* bytes = nullptr) {
    kind = what;
    offset_bytes = offset;
    length_bytes = length;
    data = bytes;
    complete = [](DiskOp& op) { static_cast<Op&>(op).done = true; };
  }
};

bool run(Disk& disk, Op op) {
  disk.submit(op);
  return op.done && op.error == 0;
}

TEST(MemoryDisk, StartsWithATebibyteAndTakesWhatIsWritten) {
  constexpr std::uint64_t kTebibyte = std::uint64_t{1} << 40;
  auto disk = MemoryDisk::create(kTebibyte);
  ASSERT_TRUE(disk) << disk.error().message;
  EXPECT_EQ((*disk)->size_bytes(), kTebibyte);
  Bytes data = random_bytes(8192, 1);
  Bytes back(8192, std::byte{1});
  for (const std::uint64_t at : {std::uint64_t{0}, kTebibyte / 2 + 512, kTebibyte - 8192}) {
    ASSERT_TRUE(run(**disk, {DiskOp::Kind::read, at, 8192, back.data()}));
    EXPECT_EQ(back, Bytes(8192));
    ASSERT_TRUE(run(**disk, {DiskOp::Kind::write, at, 8192, data.data()}));
    ASSERT_TRUE(run(**disk, {DiskOp::Kind::read, at, 8192, back.data()}));
    EXPECT_EQ(back, data);
  }
  EXPECT_TRUE(run(**disk, {DiskOp::Kind::deallocate, 0, kTebibyte}));
  ASSERT_TRUE(run(**disk, {DiskOp::Kind::read, 0, 8192, back.data()}));
  EXPECT_EQ(back, Bytes(8192));
}

TEST(MemoryDisk, GivesMemoryBack) {
  auto disk = MemoryDisk::create(16 << 20);
  ASSERT_TRUE(disk);
  EXPECT_EQ((*disk)->resident_bytes(), 0u);
  Bytes data(4 << 20, std::byte{7});
  ASSERT_TRUE(run(**disk, {DiskOp::Kind::write, 512, data.size(), data.data()}));
  EXPECT_GE((*disk)->resident_bytes(), data.size());
  // Half a page more on each side stays, and reads as zero.
  Op zeroes(DiskOp::Kind::write_zeroes, 1024, data.size() - 1024);
  zeroes.deallocate = true;
  (*disk)->submit(zeroes);
  ASSERT_TRUE(zeroes.done && zeroes.error == 0);
  EXPECT_LE((*disk)->resident_bytes(), 8192u);
  Bytes back(data.size() + 1024);
  ASSERT_TRUE(run(**disk, {DiskOp::Kind::read, 0, back.size(), back.data()}));
  for (std::size_t i = 0; i < back.size(); ++i) {
    const bool written = (i >= 512 && i < 1024) || (i >= data.size() && i < data.size() + 512);
    ASSERT_EQ(back[i], std::byte{static_cast<unsigned char>(written ? 7 : 0)}) << i;
  }
}

TEST(MemoryDisk, SaysWhenThereIsNoAddressSpace) {
  const auto disk = MemoryDisk::create(std::uint64_t{1} << 60);
  ASSERT_FALSE(disk);
  EXPECT_NE(disk.error().message.find("memory namespace"), std::string::npos);
}

TEST(FileDisk, RefusesFilesThatDoNotFit) {
  sim::VirtualLoop loop;
  loop.register_file("short.img", Bytes(511));
  loop.register_file("odd.img", Bytes(5000));
  loop.register_file("empty.img", {});
  for (const std::string name : {"short.img", "odd.img", "empty.img"}) {
    const auto disk = FileDisk::open(loop, name, 512, false);
    ASSERT_FALSE(disk) << name;
    EXPECT_NE(disk.error().message.find(name), std::string::npos);
    EXPECT_NE(disk.error().message.find("512"), std::string::npos);
  }
  EXPECT_FALSE(FileDisk::open(loop, "no.img", 512, false));
}

TEST(FileDisk, QueuesMoreThanItHasOperations) {
  sim::VirtualLoop loop;
  loop.register_file("disk.img", Bytes(1 << 20));
  loop.file_latency = 1ms;
  auto disk = FileDisk::open(loop, "disk.img", 512, false);
  ASSERT_TRUE(disk);
  Bytes data = random_bytes(1 << 20, 2);
  std::vector<std::unique_ptr<Op>> ops;
  for (std::size_t at = 0; at < data.size(); at += 1024) {
    ops.push_back(std::make_unique<Op>(DiskOp::Kind::write, at, 1024, data.data() + at));
    (*disk)->submit(*ops.back());
    EXPECT_FALSE(ops.back()->done);
  }
  ASSERT_GT(ops.size(), kFileOpsMax);
  loop.run_for(1s);
  for (const auto& op : ops) EXPECT_TRUE(op->done && op->error == 0);
  EXPECT_EQ(loop.file_bytes("disk.img"), data);
}

struct PoolUser final : BufferUser {
  explicit PoolUser(BufferPool& pool) : pool_(pool) {}
  void on_buffer_free() override {
    ++called;
    if (wants) got = pool_.take();
  }
  BufferPool& pool_;
  bool wants = true;
  int called = 0;
  std::byte* got = nullptr;
};

TEST(BufferPool, ServesThoseInLineInTurn) {
  BufferPool pool(2);
  std::byte* const a = pool.take();
  std::byte* const b = pool.take();
  EXPECT_EQ(pool.take(), nullptr);
  PoolUser first(pool);
  PoolUser second(pool);
  PoolUser third(pool);
  pool.wait(first);
  pool.wait(second);
  pool.wait(third);
  first.wants = false;  // has no use for it any more: the next one gets it
  pool.give(a);
  EXPECT_EQ(first.called, 1);
  EXPECT_EQ(second.got, a);
  EXPECT_EQ(third.called, 0);
  pool.stop_waiting(third);
  pool.give(b);
  EXPECT_EQ(third.called, 0);
  pool.give(second.got);
  EXPECT_EQ(pool.free_count(), 2u);
}

TEST(Identity, IsNewForMemoryAndStableForFiles) {
  sim::VirtualLoop loop;
  loop.register_file("a.img", Bytes(4096));
  loop.register_file("b.img", Bytes(4096));
  SubsystemConfig config;
  config.nqn = kSubsystemNqn;
  for (const char* text : {"memory:1M", "file:a.img", "file:b.img"}) {
    config.namespaces.push_back(*NamespaceConfig::parse(text));
  }
  NamespaceMaker maker(loop);
  const auto one = Subsystem::create(maker, config);
  const auto two = Subsystem::create(maker, config);
  ASSERT_TRUE(one && two);
  const auto& a = (*one)->namespaces();
  const auto& b = (*two)->namespaces();
  EXPECT_NE(a[0]->uuid, b[0]->uuid);
  EXPECT_NE(a[0]->nguid, b[0]->nguid);
  EXPECT_EQ(a[1]->uuid, b[1]->uuid);
  EXPECT_EQ(a[1]->nguid, b[1]->nguid);
  EXPECT_NE(a[1]->uuid, a[2]->uuid);
  EXPECT_NE(a[1]->nguid, a[2]->nguid);
  EXPECT_NE(a[1]->uuid, a[1]->nguid);
  EXPECT_EQ((*one)->serial(), (*two)->serial());
}

TEST(Identity, FollowsLinksAndNoticesAReplacedFile) {
  char folder[] = "/tmp/nvmf-identity-XXXXXX";
  ASSERT_NE(::mkdtemp(folder), nullptr);
  const std::filesystem::path base(folder);
  std::ofstream(base / "disk") << "x";
  std::filesystem::create_symlink(base / "disk", base / "link");
  const std::string before = file_identity(base / "disk");
  EXPECT_EQ(file_identity(base / "link"), before);
  EXPECT_EQ(file_identity((base / "." / "disk").string()), before);
  std::ofstream(base / "other") << "y";
  std::filesystem::rename(base / "other", base / "disk");
  EXPECT_NE(file_identity(base / "disk"), before);
  std::filesystem::remove_all(base);
}

TEST(Cntlid, IsUniqueAmongTheLivingAndNotReusedAtOnce) {
  sim::VirtualLoop loop;
  SubsystemConfig config;
  config.nqn = kSubsystemNqn;
  NamespaceMaker maker(loop);
  const auto subsystem = Subsystem::create(maker, config);
  ASSERT_TRUE(subsystem);
  std::uint16_t last = 0;
  for (std::uint32_t i = 1; i <= kCntlidMax; ++i) {
    last = (*subsystem)->take_cntlid();
    ASSERT_EQ(last, i);
  }
  EXPECT_EQ((*subsystem)->take_cntlid(), 1);
}

}  // namespace
}  // namespace nvmf::controller
