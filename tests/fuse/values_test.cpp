// What is decided by values alone.
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>

#include "frontends/fuse/limits.h"
#include "frontends/fuse/mount_point.h"
#include "frontends/fuse/rules.h"
#include "frontends/fuse/slots.h"
#include "frontends/fuse/tree.h"

namespace nvmf::fuse {
namespace {

TEST(Rules, AreThoseOfABlockDevice) {
  EXPECT_EQ(read_part(100, 90, 20).length_bytes, 10u);
  EXPECT_EQ(read_part(100, ~std::uint64_t{0}, 20).length_bytes, 0u);
  EXPECT_EQ(write_part(100, 90, 20).length_bytes, 10u);
  EXPECT_EQ(write_part(100, 100, 1).error, ENOSPC);
  EXPECT_EQ(write_part(100, 100, 0).error, 0);
  EXPECT_EQ(zeroes_for(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100, 50, ~std::uint64_t{0} - 60)
                .length_bytes,
            50u);
  EXPECT_EQ(zeroes_for(FALLOC_FL_ZERO_RANGE | FALLOC_FL_PUNCH_HOLE, 100, 0, 1).error, EOPNOTSUPP);
  EXPECT_EQ(zeroes_for(FALLOC_FL_ZERO_RANGE, 100, 50, 51).error, ENOSPC);
  EXPECT_EQ(zeroes_for(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 100, 50, 51).length_bytes, 50u);
  EXPECT_EQ(seek_in(SEEK_SET, 100, 0).error, EINVAL);
}

TEST(Times, StayBetween1970And2262WhateverAUserSets) {
  EXPECT_EQ(to_ns({1, 5}), 1'000'000'005);
  EXPECT_EQ(to_ns({-1, 5}), 0);
  constexpr std::int64_t kLast = std::numeric_limits<std::int64_t>::max() / 1'000'000'000;
  EXPECT_EQ(to_ns({kLast - 1, 999'999'999}), kLast * 1'000'000'000 - 1);
  for (const std::int64_t s : {kLast, kLast + 1, std::numeric_limits<std::int64_t>::max()}) {
    EXPECT_EQ(to_ns({s, 999'999'999}), kLast * 1'000'000'000) << s;
  }
  EXPECT_EQ(to_ns({std::numeric_limits<std::int64_t>::min(), 0}), 0);
}

TEST(Slots, AreWithinTheirMemoryAndEnoughForALargeRequest) {
  for (const std::size_t share :
       {kReactorBufferBytesMin, frontends::kFuseBufferBytesOfThree, kBufferBytesMax}) {
    for (std::size_t reactors = 1; reactors <= kReactorsMax; ++reactors) {
      if (share / reactors < kReactorBufferBytesMin) continue;
      SCOPED_TRACE(testing::Message() << share << " bytes, " << reactors << " reactors");
      const SlotCounts counts = slot_counts(reactors, share);
      const std::size_t bytes =
          counts[0] * kSmallBytes + counts[1] * kMediumBytes + counts[2] * kMessageBytesMax;
      EXPECT_LE(bytes * reactors, share);
      EXPECT_GE(counts[2], 3u);
      EXPECT_GE(counts[0], share == kBufferBytesMax ? 64u : 16u);
    }
  }
}

TEST(Mountinfo, IsReadWithItsEscapes) {
  const auto mounts = parse_mountinfo(
      "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"
      "37 35 0:57 / /a\\040b\\134c rw - fuse.nvmf nvmf0 rw,user_id=0\n"
      "38 35 0:58 / /x rw shared:1 master:2 - tmpfs tmpfs\n"
      "nonsense\n"
      "39 35 0:59 / /cut rw -");
  ASSERT_EQ(mounts.size(), 3u);
  EXPECT_EQ(mounts[0].path, "/mnt2");
  EXPECT_EQ(mounts[1].path, "/a b\\c");
  EXPECT_EQ(mounts[1].type, kFileSystemType);
  EXPECT_EQ(mounts[1].device, "0:57");
  EXPECT_EQ(mounts[1].source, "nvmf0");
  EXPECT_EQ(mounts[2].type, "tmpfs");
}

TEST(MountPoint, IsAnEmptyDirectory) {
  std::string name = (std::filesystem::temp_directory_path() / "nvmf-fuse-XXXXXX").string();
  const std::filesystem::path dir = ::mkdtemp(name.data());
  const auto words = [](const std::filesystem::path& path) {
    const auto prepared = prepare_mount_point(path.string());
    return prepared ? "fine: " + *prepared : prepared.error().message;
  };
  std::filesystem::create_directory(dir / "empty");
  std::filesystem::create_directory(dir / "full");
  std::ofstream(dir / "full" / "file") << "x";
  std::filesystem::create_symlink("empty", dir / "link");
  const std::string real = std::filesystem::canonical(dir).string();
  EXPECT_EQ(words(dir / "empty"), "fine: " + real + "/empty");
  EXPECT_EQ(words(dir / "link"), "fine: " + real + "/empty");
  EXPECT_NE(words(dir / "full").find("is not empty (file is in it)"), std::string::npos);
  EXPECT_NE(words(dir / "full" / "file").find("is not a directory"), std::string::npos);
  EXPECT_NE(words(dir / "none").find("does not exist: make it first"), std::string::npos);
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace nvmf::fuse
