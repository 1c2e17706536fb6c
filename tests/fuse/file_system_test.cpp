// What a mounted namespace answers the kernel: names, attributes, data.
#include "frontends/fuse/file_system.h"

#include <linux/falloc.h>

#include "fixture.h"
#include "frontends/fuse/limits.h"

namespace nvmf::fuse::test {
namespace {

TEST_F(FileSystemTest, AgreesOnWhatItCan) {
  mount();
  const auto answer = kernel_->wait(kernel_->init());
  ASSERT_TRUE(answer.has_value());
  const auto out = answer->as<fuse_init_out>();
  EXPECT_EQ(out.max_write, kTransferBytesMax);
  EXPECT_EQ(out.max_pages, kTransferBytesMax / 4096);
  EXPECT_EQ(out.max_background, kBackgroundMax);
  EXPECT_NE(out.flags & FUSE_ATOMIC_O_TRUNC, 0u) << "or truncation comes to us when opening";
  EXPECT_NE(out.flags & FUSE_ASYNC_DIO, 0u);
  EXPECT_EQ(out.flags & FUSE_WRITEBACK_CACHE, 0u);
}

TEST_F(FileSystemTest, LooksLikeADirectoryWithAFile) {
  mount();
  const auto entry = kernel_->lookup(kRootInode, "nvmf0n1").as<fuse_entry_out>();
  EXPECT_EQ(entry.nodeid, kDisk1);
  EXPECT_EQ(entry.attr.size, kDiskBytes);
  EXPECT_EQ(entry.attr.mode, S_IFREG | 0600u);
  EXPECT_EQ(entry.attr.blocks, kDiskBytes / 512);
  EXPECT_EQ(entry.attr.blksize, 4096u);
  EXPECT_EQ(entry.attr.uid, ::getuid());
  EXPECT_EQ(entry.entry_valid + entry.attr_valid + entry.entry_valid_nsec + entry.attr_valid_nsec,
            0u)
      << "a name or a size must be asked for each time";
  EXPECT_EQ(kernel_->lookup(kRootInode, "nvmf0n2").error, ENOENT);
  EXPECT_EQ(kernel_->lookup(kRootInode, ".nvmf").error, ENOENT) << "there are no texts";
  EXPECT_EQ(kernel_->lookup(kDisk1, "x").error, ENOENT);
  EXPECT_EQ(kernel_->getattr(kFirstDiskInode | 2).error, ENOENT);
  const auto root = kernel_->getattr(kRootInode).as<fuse_attr_out>();
  EXPECT_EQ(root.attr.mode, S_IFDIR | 0500u);
  const auto fs = kernel_->ask(FUSE_STATFS, kRootInode, {}).as<fuse_statfs_out>();
  EXPECT_EQ(fs.st.blocks, kDiskBytes / 4096);
  EXPECT_EQ(fs.st.bavail, 0u);
}

TEST_F(FileSystemTest, OpensForDirectAndParallelIo) {
  mount();
  EXPECT_EQ(kernel_->open(kDisk1, O_RDWR | O_TRUNC).as<fuse_open_out>().open_flags,
            FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES);
  EXPECT_EQ(kernel_->open(kFirstDiskInode | 2, O_RDONLY).error, ENOENT);
  EXPECT_EQ(kernel_->getattr(kDisk1).as<fuse_attr_out>().attr.size, kDiskBytes);
}

TEST_F(FileSystemTest, OpensForDirectIoAloneWhereTheKernelIsOlder) {
  mount(37);
  EXPECT_EQ(kernel_->open(kDisk1, O_RDWR).as<fuse_open_out>().open_flags, FOPEN_DIRECT_IO);
}

TEST_F(FileSystemTest, ReadsAndWritesWhateverTheSize) {
  mount();
  unsigned seed = 0;
  for (const std::size_t n : {1, 511, 4096, 16384, 16385, 65536, 131072, 150000}) {
    for (const std::uint64_t offset : {0, 1, 4097, 1 << 20}) {
      const Bytes data = pattern(n, ++seed);
      EXPECT_EQ(kernel_->write(kDisk1, offset, data).as<fuse_write_out>().size, n);
      ASSERT_EQ(kernel_->read(kDisk1, offset, static_cast<std::uint32_t>(n)).data, data) << n;
      ASSERT_EQ(std::memcmp(disk_.bytes.data() + offset, data.data(), n), 0);
    }
  }
  EXPECT_EQ(disk_.fua, 0);
  const Answer end = kernel_->read(kDisk1, kDiskBytes - 100, 4096);
  EXPECT_EQ(end.error, 0);
  EXPECT_EQ(end.data.size(), 100u);
  EXPECT_EQ(kernel_->read(kDisk1, kDiskBytes, 4096).data.size(), 0u);
  EXPECT_EQ(kernel_->read(kDisk1, kDiskBytes + 5000, 1).data.size(), 0u);
  EXPECT_EQ(kernel_->write(kDisk1, kDiskBytes - 100, pattern(4096, 1)).as<fuse_write_out>().size,
            100u);
  EXPECT_EQ(kernel_->write(kDisk1, kDiskBytes, pattern(1, 1)).error, ENOSPC);
  EXPECT_EQ(kernel_->read(kRootInode, 0, 1).error, EINVAL);
}

TEST_F(FileSystemTest, KeepsWhatIsToBeKept) {
  mount();
  kernel_->write(kDisk1, 0, pattern(512, 1), O_DSYNC);
  EXPECT_EQ(disk_.fua, 1);
  kernel_->write(kDisk1, 0, pattern(512, 1), O_SYNC);
  EXPECT_EQ(disk_.fua, 2);
  EXPECT_EQ(kernel_->ask(FUSE_FSYNC, kDisk1, bytes_of(fuse_fsync_in{})).error, 0);
  EXPECT_EQ(disk_.flushes, 1);
  disk_.fail = EIO;
  EXPECT_EQ(kernel_->ask(FUSE_FSYNC, kDisk1, bytes_of(fuse_fsync_in{})).error, EIO);
  disk_.fail = 0;
  // Closing is no flush: the kernel does not ask again.
  EXPECT_EQ(kernel_->ask(FUSE_FLUSH, kDisk1, bytes_of(fuse_flush_in{})).error, ENOSYS);
}

TEST_F(FileSystemTest, ZeroesAndNeverDeallocates) {
  mount();
  const auto fallocate = [&](int mode, std::uint64_t offset, std::uint64_t length) {
    fuse_fallocate_in in{};
    in.offset = offset;
    in.length = length;
    in.mode = static_cast<std::uint32_t>(mode);
    return kernel_->ask(FUSE_FALLOCATE, kDisk1, bytes_of(in)).error;
  };
  kernel_->write(kDisk1, 0, pattern(65536, 1));
  EXPECT_EQ(fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100, 5000), 0);
  EXPECT_EQ(disk_.no_hole, 0);
  EXPECT_EQ(kernel_->read(kDisk1, 100, 5000).data, Bytes(5000));
  EXPECT_EQ(kernel_->read(kDisk1, 5100, 100).data,
            Bytes(disk_.bytes.begin() + 5100, disk_.bytes.begin() + 5200));
  EXPECT_EQ(fallocate(FALLOC_FL_ZERO_RANGE, 8192, 4096), 0);
  EXPECT_EQ(disk_.no_hole, 1);
  EXPECT_EQ(fallocate(FALLOC_FL_ZERO_RANGE, kDiskBytes - 1, 2), ENOSPC);
  EXPECT_EQ(fallocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, kDiskBytes - 1, 2), 0);
  EXPECT_EQ(disk_.zeroed, 3);
  EXPECT_EQ(fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, kDiskBytes, 4096), 0);
  EXPECT_EQ(disk_.zeroed, 3);
  EXPECT_EQ(fallocate(0, 0, 4096), EOPNOTSUPP);
  EXPECT_EQ(fallocate(FALLOC_FL_KEEP_SIZE, 0, 4096), EOPNOTSUPP);
  EXPECT_EQ(fallocate(FALLOC_FL_COLLAPSE_RANGE, 0, 4096), EOPNOTSUPP);
}

TEST_F(FileSystemTest, IsAllData) {
  mount();
  EXPECT_EQ(seek(5, SEEK_DATA).as<fuse_lseek_out>().offset, 5u);
  EXPECT_EQ(seek(5, SEEK_HOLE).as<fuse_lseek_out>().offset, kDiskBytes);
  EXPECT_EQ(seek(kDiskBytes, SEEK_DATA).error, ENXIO);
  EXPECT_EQ(seek(kDiskBytes, SEEK_HOLE).error, ENXIO);
}

TEST_F(FileSystemTest, FindsHolesWhereTheDeviceKnowsOfThem) {
  disk_.extent_bytes = 4096;
  mount(38, 1);
  kernel_->write(kDisk1, 3 << 20, pattern(8192, 1));
  EXPECT_EQ(seek(0, SEEK_DATA).as<fuse_lseek_out>().offset, 3u << 20);
  EXPECT_EQ(disk_.questions, (3 << 20) / 4096 / 64 + 1);
  EXPECT_EQ(seek(0, SEEK_HOLE).as<fuse_lseek_out>().offset, 0u);
  EXPECT_EQ(seek((3 << 20) + 5, SEEK_HOLE).as<fuse_lseek_out>().offset, (3u << 20) + 8192);
  EXPECT_EQ(seek((3 << 20) + 5, SEEK_DATA).as<fuse_lseek_out>().offset, (3u << 20) + 5);
  EXPECT_EQ(seek((3 << 20) + 8192, SEEK_DATA).error, ENXIO) << "there is no more";
  kernel_->write(kDisk1, kDiskBytes - 1, pattern(1, 1));
  EXPECT_EQ(seek(kDiskBytes - 4096, SEEK_HOLE).as<fuse_lseek_out>().offset, kDiskBytes);
  disk_.fail = EIO;
  EXPECT_EQ(seek(0, SEEK_DATA).as<fuse_lseek_out>().offset, 0u) << "what is not known is data";
}

TEST_F(FileSystemTest, AsksOnlySoOftenForHoles) {
  disk_.extent_bytes = 512;  // 8192 of them
  mount(38, 1);
  EXPECT_EQ(seek(0, SEEK_DATA).as<fuse_lseek_out>().offset,
            kSeekQuestionsMax * kExtentsAtOnce * 512);
  EXPECT_EQ(disk_.questions, static_cast<int>(kSeekQuestionsMax));
}

TEST_F(FileSystemTest, HasASizeThatIsNotOursToChange) {
  mount();
  const auto set = [&](const fuse_setattr_in& in, std::uint64_t inode = kDisk1) {
    return kernel_->ask(FUSE_SETATTR, inode, bytes_of(in)).error;
  };
  EXPECT_EQ(set({.valid = FATTR_SIZE, .size = kDiskBytes}), 0);
  EXPECT_EQ(set({.valid = FATTR_SIZE, .size = 0}), EPERM);
  EXPECT_EQ(set({.valid = FATTR_SIZE, .size = kDiskBytes + 1}), EPERM);
  EXPECT_EQ(set({.valid = FATTR_MODE, .mode = S_IFREG | 0600}), 0);
  EXPECT_EQ(set({.valid = FATTR_MODE, .mode = S_IFREG | 0666}), EPERM);
  EXPECT_EQ(set({.valid = FATTR_UID, .uid = ::getuid() + 1}), EPERM);
  EXPECT_EQ(set({.valid = FATTR_GID, .gid = ::getgid() + 1}), EPERM);
  EXPECT_EQ(set({.valid = FATTR_MTIME, .mtime = 1'000'000'000, .mtimensec = 5}), 0);
  EXPECT_EQ(kernel_->getattr(kDisk1).as<fuse_attr_out>().attr.mtime, 1'000'000'000u);
  kernel_->write(kDisk1, 0, pattern(512, 1));
  EXPECT_GT(kernel_->getattr(kDisk1).as<fuse_attr_out>().attr.mtime, 1'700'000'000u)
      << "a backup would leave it out";
}

TEST_F(FileSystemTest, HasNoRoomForOtherFiles) {
  mount();
  const auto refused = [&](std::uint32_t opcode, const Bytes& arguments) {
    return kernel_->ask(opcode, kRootInode, arguments).error;
  };
  const Bytes name = bytes_of(std::string("x"));
  EXPECT_EQ(refused(FUSE_CREATE, bytes_of(fuse_create_in{}) + name), EPERM);
  EXPECT_EQ(refused(FUSE_MKNOD, bytes_of(fuse_mknod_in{}) + name), EPERM);
  EXPECT_EQ(refused(FUSE_MKDIR, bytes_of(fuse_mkdir_in{}) + name), EPERM);
  EXPECT_EQ(refused(FUSE_UNLINK, bytes_of(std::string("nvmf0n1"))), EPERM);
  EXPECT_EQ(refused(FUSE_RMDIR, name), EPERM);
  EXPECT_EQ(refused(FUSE_SYMLINK, name + name), EPERM);
  EXPECT_EQ(refused(FUSE_RENAME, bytes_of(fuse_rename_in{.newdir = 1}) + name + name), EPERM);
  EXPECT_EQ(refused(FUSE_RENAME2, bytes_of(fuse_rename2_in{.newdir = 1}) + name + name), EPERM);
  EXPECT_EQ(refused(FUSE_LINK, bytes_of(fuse_link_in{.oldnodeid = kDisk1}) + name), EPERM);
}

struct Names {
  std::vector<std::string> names;
  std::uint64_t next = 0;
};

Names list(FakeKernel& kernel, std::uint64_t inode, std::uint64_t from, std::uint32_t size) {
  fuse_read_in in{};
  in.offset = from;
  in.size = size;
  const Answer answer = kernel.ask(FUSE_READDIR, inode, bytes_of(in));
  Names found;
  for (std::size_t at = 0; at + FUSE_NAME_OFFSET < answer.data.size();) {
    fuse_dirent entry{};
    std::memcpy(&entry, answer.data.data() + at, FUSE_NAME_OFFSET);
    found.names.emplace_back(
        reinterpret_cast<const char*>(answer.data.data()) + at + FUSE_NAME_OFFSET, entry.namelen);
    found.next = entry.off;
    at += FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + entry.namelen);
  }
  return found;
}

TEST_F(FileSystemTest, ListsNamesAlsoInPieces) {
  options_.texts = {{"state", [] { return std::string(); }},
                    {"stats", [] { return std::string(); }}};
  mount();
  std::vector<std::unique_ptr<MemoryDevice>> more;
  on_control([&] {
    for (std::uint32_t nsid : {7u, 3u, 0xfffffffeu}) {
      more.push_back(std::make_unique<MemoryDevice>(pool_->at(0), disk_, nsid));
      file_system_->attached(
          {.info = more.back()->info(), .devices = {more.back().get(), more.back().get()}});
    }
    file_system_->detached(7);
  });
  settle();
  const std::vector<std::string> all = {".",       "..",      ".nvmf",
                                        "nvmf0n1", "nvmf0n3", "nvmf0n4294967294"};
  EXPECT_EQ(list(*kernel_, kRootInode, 0, 4096).names, all);
  for (const std::uint32_t size : {48u, 80u, 120u}) {
    std::vector<std::string> pieces;
    std::uint64_t next = 0;
    for (int i = 0; i < 20; ++i) {
      const Names some = list(*kernel_, kRootInode, next, size);
      if (some.names.empty()) break;
      pieces.insert(pieces.end(), some.names.begin(), some.names.end());
      next = some.next;
    }
    EXPECT_EQ(pieces, all) << size;
  }
  EXPECT_EQ(list(*kernel_, kTextsInode, 0, 4096).names,
            (std::vector<std::string>{".", "..", "state", "stats"}));
  EXPECT_EQ(list(*kernel_, kTextsInode, 3, 4096).names, std::vector<std::string>{"stats"});
  on_control([&] {
    for (const auto& device : more) file_system_->detached(device->info().nsid);
  });
}

TEST_F(FileSystemTest, TextsSayWhatWasTrueWhenTheyWereOpened) {
  int asked = 0;
  options_.texts = {{"state", [&] { return "live " + std::to_string(++asked); }},
                    {"stats", [] { return std::string(kTextBytesMax + 5, 'x'); }}};
  mount();
  EXPECT_EQ(kernel_->lookup(kRootInode, ".nvmf").as<fuse_entry_out>().nodeid, kTextsInode);
  const auto entry = kernel_->lookup(kTextsInode, "state").as<fuse_entry_out>();
  EXPECT_EQ(entry.attr.mode, S_IFREG | 0400u);
  EXPECT_EQ(kernel_->lookup(kTextsInode, "other").error, ENOENT);
  EXPECT_EQ(kernel_->open(entry.nodeid, O_RDWR).error, EACCES);
  const auto first = kernel_->open(entry.nodeid, O_RDONLY).as<fuse_open_out>();
  const auto second = kernel_->open(entry.nodeid, O_RDONLY).as<fuse_open_out>();
  EXPECT_EQ(first.open_flags, FOPEN_DIRECT_IO);
  const auto text = [&](std::uint64_t inode, std::uint64_t offset, std::uint32_t size,
                        std::uint64_t handle) {
    const Answer answer = kernel_->read(inode, offset, size, handle);
    EXPECT_EQ(answer.error, 0);
    return std::string(reinterpret_cast<const char*>(answer.data.data()), answer.data.size());
  };
  EXPECT_EQ(text(entry.nodeid, 0, 100, first.fh), "live 1");
  EXPECT_EQ(text(entry.nodeid, 5, 100, second.fh), "2");
  EXPECT_EQ(text(entry.nodeid, 6, 100, second.fh), "");
  fuse_release_in release{};
  release.fh = first.fh;
  EXPECT_EQ(kernel_->ask(FUSE_RELEASE, entry.nodeid, bytes_of(release)).error, 0);
  EXPECT_EQ(kernel_->read(entry.nodeid, 0, 100, first.fh).error, EBADF);
  const auto large = kernel_->open(kFirstTextInode + 1, O_RDONLY).as<fuse_open_out>();
  EXPECT_EQ(text(kFirstTextInode + 1, kTextBytesMax - 10, 100, large.fh), std::string(10, 'x'));
  for (std::size_t i = 2; i < kTextOpensMax; ++i) {
    EXPECT_EQ(kernel_->open(entry.nodeid, O_RDONLY).error, 0);
  }
  EXPECT_EQ(kernel_->open(entry.nodeid, O_RDONLY).error, ENFILE);
}

}  // namespace
}  // namespace nvmf::fuse::test
