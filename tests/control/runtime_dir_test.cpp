#include "control/runtime_dir.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace nvmf::control {
namespace {

namespace fs = std::filesystem;

class RuntimeDirTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = fs::temp_directory_path() / "nvmf-control-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder = pattern;
    path = folder / "run";
  }
  void TearDown() override { fs::remove_all(folder); }

  /// A process that claims `name`, says so, and sleeps until it is killed.
  pid_t other_process(const std::string& name) {
    int ends[2];
    EXPECT_EQ(::pipe(ends), 0);
    const pid_t pid = ::fork();
    if (pid == 0) {
      const auto dir = RuntimeDir::open(path);
      const auto claim = dir->claim({.name = name, .subnqn = "nqn.x"});
      const char good = claim ? 1 : 0;
      [[maybe_unused]] const ssize_t n = ::write(ends[1], &good, 1);
      ::sleep(60);
      ::_exit(0);
    }
    char good = 0;
    EXPECT_EQ(::read(ends[0], &good, 1), 1);
    EXPECT_EQ(good, 1);
    ::close(ends[0]);
    ::close(ends[1]);
    return pid;
  }
  static void end(pid_t pid) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }

  fs::path folder;
  fs::path path;
};

TEST_F(RuntimeDirTest, IsMadeForItsOwnerAlone) {
  const auto dir = RuntimeDir::open(path);
  ASSERT_TRUE(dir);
  struct stat st{};
  ASSERT_EQ(::stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0700u);
  EXPECT_EQ(dir->control_socket("a"), path.string() + "/a.sock");
  EXPECT_EQ(dir->nbd_socket("a"), path.string() + "/a.nbd.sock");
}

TEST_F(RuntimeDirTest, ADirectoryThatOthersCanWriteIsRefused) {
  fs::create_directory(path);
  ::chmod(path.c_str(), 0777);
  const auto dir = RuntimeDir::open(path);
  ASSERT_FALSE(dir);
  EXPECT_NE(dir.error().message.find(path.string()), std::string::npos);
  std::ofstream(folder / "file") << "x";
  EXPECT_FALSE(RuntimeDir::open(folder / "file"));
  const auto below = RuntimeDir::open(folder / "missing" / "below");
  ASSERT_FALSE(below);
  EXPECT_NE(below.error().message.find("set NVMF_RUNTIME_DIR"), std::string::npos);
}

TEST_F(RuntimeDirTest, TheEnvironmentNamesIt) {
  ::setenv("NVMF_RUNTIME_DIR", path.c_str(), 1);
  const auto dir = RuntimeDir::open();
  ::unsetenv("NVMF_RUNTIME_DIR");
  ASSERT_TRUE(dir);
  EXPECT_EQ(dir->path(), path.string());
}

TEST_F(RuntimeDirTest, NamesAreChecked) {
  for (const char* good : {"nvmf0", "a", "disk-1_b.c", "9"}) EXPECT_TRUE(check_name(good)) << good;
  for (const char* bad : {"", ".", "..", ".lock", "-a", "a/b", "a b", "a\n", "ä"}) {
    EXPECT_FALSE(check_name(bad)) << bad;
  }
  EXPECT_TRUE(check_name(std::string(kNameBytesMax, 'a')));
  EXPECT_FALSE(check_name(std::string(kNameBytesMax + 1, 'a')));
}

TEST_F(RuntimeDirTest, DefaultNamesAreTheFirstFree) {
  const auto dir = RuntimeDir::open(path);
  auto first = dir->claim({});
  auto second = dir->claim({});
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->name(), "nvmf0");
  EXPECT_EQ(second->name(), "nvmf1");
  {
    const Claim gone = std::move(*first);
  }
  auto third = dir->claim({});
  ASSERT_TRUE(third);
  EXPECT_EQ(third->name(), "nvmf0");
}

TEST_F(RuntimeDirTest, ATakenNameIsRefusedAndSaysByWhom) {
  const auto dir = RuntimeDir::open(path);
  const pid_t pid = other_process("disk");
  const auto mine = dir->claim({.name = "disk"});
  ASSERT_FALSE(mine);
  EXPECT_NE(mine.error().message.find(std::to_string(pid)), std::string::npos)
      << mine.error().message;
  end(pid);
  EXPECT_TRUE(dir->claim({.name = "disk"}));
}

TEST_F(RuntimeDirTest, AConnectionIsFoundWithWhatItSaidOfItself) {
  const auto dir = RuntimeDir::open(path);
  EXPECT_FALSE(dir->find("disk"));
  const auto claim = dir->claim(
      {.name = "disk", .address = "::1", .port = 4420, .subnqn = "nqn.sub", .hostnqn = "nqn.host"});
  ASSERT_TRUE(claim);
  const auto found = dir->find("disk");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->pid, ::getpid());
  EXPECT_EQ(found->address, "::1");
  EXPECT_EQ(found->port, 4420);
  EXPECT_EQ(found->subnqn, "nqn.sub");
  EXPECT_EQ(found->hostnqn, "nqn.host");
}

TEST_F(RuntimeDirTest, ConnectionsAreListedInNaturalOrder) {
  const auto dir = RuntimeDir::open(path);
  std::vector<Result<Claim>> claims;
  for (const char* name : {"nvmf10", "nvmf2", "a", "nvmf1"}) {
    claims.push_back(dir->claim({.name = name}));
    ASSERT_TRUE(claims.back());
  }
  std::vector<std::string> names;
  for (const Connection& c : dir->connections().value()) names.push_back(c.name);
  EXPECT_EQ(names, (std::vector<std::string>{"a", "nvmf1", "nvmf2", "nvmf10"}));
  claims.clear();
  EXPECT_TRUE(dir->connections()->empty());
  EXPECT_FALSE(fs::exists(path / "a.lock"));
}

TEST_F(RuntimeDirTest, WhatAKilledProcessLeftIsSweptAway) {
  const auto dir = RuntimeDir::open(path);
  const pid_t pid = other_process("dead");
  for (const char* name : {"dead.sock", "dead.nbd.sock", "dead.log", "other.sock"}) {
    std::ofstream(path / name) << "x";
  }
  end(pid);
  EXPECT_FALSE(dir->find("dead"));
  EXPECT_TRUE(dir->connections()->empty());
  const auto claim = dir->claim({});
  ASSERT_TRUE(claim);
  EXPECT_EQ(claim->name(), "nvmf0");
  EXPECT_FALSE(fs::exists(path / "dead.lock"));
  EXPECT_FALSE(fs::exists(path / "dead.sock"));
  EXPECT_FALSE(fs::exists(path / "dead.nbd.sock"));
  EXPECT_TRUE(fs::exists(path / "dead.log"));  // it may say why
  EXPECT_TRUE(fs::exists(path / "other.sock"));
}

TEST_F(RuntimeDirTest, AClaimMayBeRefusedForWhatOthersAre) {
  const auto dir = RuntimeDir::open(path);
  const auto first = dir->claim({.subnqn = "nqn.a"});
  ASSERT_TRUE(first);
  const auto refuse = [](const Connection& c) -> Result<void> {
    return fail("not beside " + c.subnqn);
  };
  const auto second = dir->claim({.subnqn = "nqn.a"}, refuse);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().message, "not beside nqn.a");
  EXPECT_EQ(dir->connections()->size(), 1u);
}

TEST_F(RuntimeDirTest, ManyAtTheSameTimeGetDifferentNames) {
  ASSERT_TRUE(RuntimeDir::open(path));
  std::vector<pid_t> pids;
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  for (int i = 0; i < 8; ++i) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      const auto claim = RuntimeDir::open(path)->claim({});
      const char number = claim ? static_cast<char>(claim->name().back()) : '?';
      [[maybe_unused]] const ssize_t n = ::write(ends[1], &number, 1);
      ::sleep(60);
      ::_exit(0);
    }
    pids.push_back(pid);
  }
  std::string numbers;
  for (int i = 0; i < 8; ++i) {
    char c = 0;
    ASSERT_EQ(::read(ends[0], &c, 1), 1);
    numbers.push_back(c);
  }
  std::ranges::sort(numbers);
  EXPECT_EQ(numbers, "01234567");
  for (const pid_t pid : pids) end(pid);
  ::close(ends[0]);
  ::close(ends[1]);
}

}  // namespace
}  // namespace nvmf::control
