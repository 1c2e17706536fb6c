// NbdDisk over a real nbdkit, on a real loop: what interop/nbd_disk_test.py cannot ask through
// NVMe. Which blocks are allocated; operations taken back and abandoned; the end with much under
// way.
#include "controller/nbd_disk.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "controller/nbd_open.h"
#include "io/reactor.h"

namespace nvmf::controller {
namespace {

constexpr std::uint32_t kBlock = 512;

/// nbdkit on a unix socket in a folder of its own.
class Server {
 public:
  explicit Server(std::vector<std::string> arguments) : arguments_(std::move(arguments)) {
    std::string name = std::filesystem::temp_directory_path() / "nvmf-nbd-XXXXXX";
    folder_ = ::mkdtemp(name.data());
    start();
  }
  ~Server() {
    stop();
    std::filesystem::remove_all(folder_);
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  void start() {
    std::vector<std::string> words{"nbdkit", "-f", "-U", socket()};
    words.insert(words.end(), arguments_.begin(), arguments_.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    ASSERT_EQ(::posix_spawnp(&pid_, "nbdkit", nullptr, nullptr, argv.data(), environ), 0);
    int tries = 0;
    while (!listens() && ++tries < 6000) ::usleep(10'000);
    ASSERT_LT(tries, 6000) << "nbdkit does not listen";
  }
  void stop() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    pid_ = -1;
    std::filesystem::remove(socket());
  }
  /// All its threads have stopped: the signal alone reaches one of them first.
  void hang() const {
    ::kill(pid_, SIGSTOP);
    siginfo_t info{};
    ::waitid(P_PID, static_cast<id_t>(pid_), &info, WSTOPPED);
  }
  void go_on() const { ::kill(pid_, SIGCONT); }
  /// It has ended by itself; then it can be started again.
  [[nodiscard]] bool ended() {
    if (pid_ <= 0 || ::waitpid(pid_, nullptr, WNOHANG) != pid_) return false;
    pid_ = -1;
    std::filesystem::remove(socket());
    return true;
  }
  [[nodiscard]] std::string uri() const { return "nbd+unix:///?socket=" + socket(); }

 private:
  [[nodiscard]] bool listens() const {
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    socket().copy(at.sun_path, sizeof at.sun_path - 1);
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool yes = ::connect(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0;
    ::close(fd);
    return yes;
  }
  [[nodiscard]] std::string socket() const { return folder_ + "/socket"; }
  std::vector<std::string> arguments_;
  std::string folder_;
  pid_t pid_ = -1;
};

/// Answers the first option with contexts, which libnbd keeps, until the client leaves.
class FloodingServer {
 public:
  FloodingServer() {
    std::string name = std::filesystem::temp_directory_path() / "nvmf-nbd-XXXXXX";
    folder_ = ::mkdtemp(name.data());
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    (folder_ + "/socket").copy(at.sun_path, sizeof at.sun_path - 1);
    listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(::bind(listener_, reinterpret_cast<const sockaddr*>(&at), sizeof at), 0);
    EXPECT_EQ(::listen(listener_, 1), 0);
    thread_ = std::jthread([this] { serve(); });
  }
  ~FloodingServer() {
    thread_.join();
    ::close(listener_);
    std::filesystem::remove_all(folder_);
  }
  [[nodiscard]] std::string uri() const { return "nbd+unix:///?socket=" + folder_ + "/socket"; }

 private:
  /// More than any server sends, in pieces with a pause after each: libnbd reads as long as there
  /// is something, and nobody can look in between.
  static constexpr std::size_t kFloodBytes = 8 << 20;
  static constexpr std::size_t kPieceBytes = 32 << 10;
  static constexpr useconds_t kPause_us = 50'000;
  static constexpr std::string_view kContext{
      "\0\3\xe8\x89\x04\x55\x65\xa9\0\0\0\x0a\0\0\0\4\0\0\0\7\0\0\0\1x:a", 27};

  void serve() const {
    using namespace std::string_view_literals;
    const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    std::array<char, 512> asked{};
    const auto say = [fd](std::string_view what) {
      return ::send(fd, what.data(), what.size(), MSG_NOSIGNAL) > 0;
    };
    say("NBDMAGICIHAVEOPT\0\3"sv);
    // Its flags, and STRUCTURED_REPLY, which has no data.
    (void)::recv(fd, asked.data(), 4 + 16, MSG_WAITALL);
    say("\0\3\xe8\x89\x04\x55\x65\xa9\0\0\0\x08\0\0\0\1\0\0\0\0"sv);
    (void)::recv(fd, asked.data(), asked.size(), 0);
    std::string many;
    while (many.size() < kPieceBytes) many += kContext;
    for (std::size_t sent = 0; sent < kFloodBytes && say(many); sent += many.size()) {
      ::usleep(kPause_us);
    }
    while (::recv(fd, asked.data(), asked.size(), 0) > 0) {  // until the client has gone
    }
    ::close(fd);
  }
  std::string folder_;
  int listener_ = -1;
  std::jthread thread_;
};

class NbdDiskTest : public testing::Test {
 protected:
  void SetUp() override {
    auto made = io::make_reactor();
    ASSERT_TRUE(made) << made.error().message;
    loop = std::move(*made);
  }
  void TearDown() override {
    disk.reset();
    loop.reset();
  }

  void open(const Server& server) {
    NbdOpener opener(*loop, nullptr);
    Result<std::vector<NamespaceConfig>> opened;
    opener.open({NamespaceConfig::parse("nbd:" + server.uri()).value()}, [&](auto outcome) {
      opened = std::move(outcome);
      loop->stop();
    });
    loop->run();
    ASSERT_TRUE(opened) << opened.error().message;
    auto made = (*opened->front().factory)();
    ASSERT_TRUE(made);
    disk = std::move(*made);
    EXPECT_FALSE((*opened->front().factory)()) << "one disk was given twice";
  }

  /// Runs the loop until `done`.
  void until(const std::function<bool()>& done) {
    transport::Timer look(loop->timers(), [&] { loop->stop(); });
    while (!done()) {
      look.arm(loop->now() + std::chrono::milliseconds(5));
      loop->run();
    }
  }

  /// Runs the loop for so long, and not for fewer turns on a busy machine: what was ready when this
  /// began has been seen to.
  void run_for(std::chrono::milliseconds time) {
    const Instant since = loop->now();
    auto turns = time / std::chrono::milliseconds(5);
    until([&] { return --turns < 0 && loop->now() - since > time; });
  }

  struct Op : DiskOp {
    bool done = false;
  };
  void prepare(Op& op, DiskOp::Kind kind, std::uint64_t offset, std::uint64_t length) {
    data.resize(1 << 20, std::byte{0x11});
    op.kind = kind;
    op.offset_bytes = offset;
    op.length_bytes = length;
    op.data = data.data();
    op.complete = [](DiskOp& ended) { static_cast<Op&>(ended).done = true; };
  }
  int run(DiskOp::Kind kind, std::uint64_t offset, std::uint64_t length) {
    Op op;
    prepare(op, kind, offset, length);
    disk->submit(op);
    until([&] { return op.done; });
    return op.error;
  }

  struct Query : DiskExtents {
    bool done = false;
  };
  std::vector<DiskExtent> extents(std::uint64_t offset, std::uint64_t length, std::size_t room,
                                  std::uint64_t& examined) {
    std::vector<DiskExtent> found(room);
    Query query;
    query.offset_bytes = offset;
    query.length_bytes = length;
    query.found = found;
    query.complete = [](DiskExtents& ended) { static_cast<Query&>(ended).done = true; };
    disk->extents(query);
    until([&] { return query.done; });
    EXPECT_EQ(query.error, 0);
    examined = query.examined_bytes;
    found.resize(query.count);
    return found;
  }

  std::unique_ptr<io::Reactor> loop;
  std::unique_ptr<Disk> disk;
  std::vector<std::byte> data;
};

TEST_F(NbdDiskTest, TellsWhatIsAllocated) {
  // Pages of 32 KiB are what nbdkit's memory is made of.
  Server server({"memory", "16M"});
  open(server);
  EXPECT_EQ(disk->size_bytes(), 16u << 20);
  std::uint64_t examined = 0;
  EXPECT_TRUE(extents(0, 16 << 20, 4, examined).empty());
  EXPECT_EQ(examined, 16u << 20);
  ASSERT_EQ(run(DiskOp::Kind::write, 1 << 20, 65536), 0);
  ASSERT_EQ(run(DiskOp::Kind::write, 4 << 20, 32768), 0);
  const std::vector<DiskExtent> both{{1 << 20, 65536}, {4 << 20, 32768}};
  EXPECT_EQ(extents(0, 16 << 20, 4, examined), both);
  EXPECT_EQ(examined, 16u << 20);
  EXPECT_EQ(extents(0, 16 << 20, 1, examined), std::vector{both.front()});
  EXPECT_EQ(examined, 4u << 20) << "what there is no room to tell is not examined";
  const std::vector<DiskExtent> part{{(1 << 20) + 512, 1024}};
  EXPECT_EQ(extents((1 << 20) + 512, 1024, 4, examined), part);
  ASSERT_EQ(run(DiskOp::Kind::deallocate, 0, 2 << 20), 0);
  EXPECT_EQ(extents(0, 16 << 20, 4, examined), std::vector{both.back()});
}

TEST_F(NbdDiskTest, BordersWithinBlocksCountAsAllocated) {
  // A file of pieces as small as the sparse format's: data at byte 700 only.
  Server server({"--filter=blocksize-policy", "eval", "get_size=echo 1M",
                 "pread=dd if=/dev/zero bs=$3 count=1 status=none", "can_extents=exit 0",
                 "extents=echo 0 700 hole,zero; echo 700 10 ; echo 710 1047866 hole,zero"});
  open(server);
  std::uint64_t examined = 0;
  const std::vector<DiskExtent> block{{512, 512}};
  EXPECT_EQ(extents(0, 1 << 20, 4, examined), block);
  EXPECT_EQ(examined, 1u << 20);
}

TEST_F(NbdDiskTest, AServerThatDoesNotTellHasAllAllocated) {
  Server server({"--filter=noextents", "memory", "1M"});
  open(server);
  std::uint64_t examined = 0;
  const std::vector<DiskExtent> all{{0, 1 << 20}};
  EXPECT_EQ(extents(0, 1 << 20, 4, examined), all);
}

TEST_F(NbdDiskTest, RefusesWhatIsBeyondItsEnd) {
  Server server({"memory", "1M"});
  open(server);
  EXPECT_EQ(run(DiskOp::Kind::read, 1 << 20, kBlock), ENODATA);
  EXPECT_EQ(run(DiskOp::Kind::read, (1 << 20) - kBlock, 2 * kBlock), ENODATA);
  EXPECT_FALSE(disk->resize(2 << 20));
  ASSERT_TRUE(disk->resize(1 << 19));
  EXPECT_EQ(run(DiskOp::Kind::read, 1 << 19, kBlock), ENODATA);
  EXPECT_EQ(run(DiskOp::Kind::read, (1 << 19) - kBlock, kBlock), 0);
}

TEST_F(NbdDiskTest, WhatWaitsForAServerCanBeTakenBackAndAbandoned) {
  Server server({"memory", "1M"});
  open(server);
  ASSERT_EQ(run(DiskOp::Kind::write, 0, kBlock), 0);
  server.stop();
  Op gone;  // finds out
  prepare(gone, DiskOp::Kind::read, 0, kBlock);
  disk->submit(gone);
  std::array<Op, 3> ops;
  for (Op& op : ops) {
    prepare(op, DiskOp::Kind::write, 0, kBlock);
    disk->submit(op);
  }
  run_for(std::chrono::milliseconds(300));
  disk->abandon(ops[1], Disk::Abandoned::lost);
  EXPECT_FALSE(ops[1].done) << "never inside";
  until([&] { return ops[1].done; });
  EXPECT_EQ(ops[1].error, ECANCELED);
  Op late;
  prepare(late, DiskOp::Kind::read, 0, kBlock);
  disk->submit(late);
  EXPECT_TRUE(disk->take_back(late)) << "it was never sent";
  EXPECT_TRUE(late.done);
  EXPECT_EQ(late.error, ECANCELED);
  server.start();
  until([&] { return ops[0].done && ops[2].done && gone.done; });
  EXPECT_EQ(ops[0].error, 0);
  EXPECT_EQ(ops[2].error, 0);
  EXPECT_EQ(gone.error, 0);
}

TEST_F(NbdDiskTest, AWriteWithoutAnAnswerWaitsForTheFirstCopy) {
  Server server({"memory", "1M"});
  open(server);
  server.hang();
  Op op;
  prepare(op, DiskOp::Kind::write, 0, kBlock);
  disk->submit(op);
  const Instant since = loop->now();
  run_for(std::chrono::milliseconds(200));
  EXPECT_FALSE(disk->take_back(op)) << "it may be executed";
  server.stop();
  server.start();
  until([&] { return op.done; });
  EXPECT_EQ(op.error, 0);
  EXPECT_GE(loop->now() - since, std::chrono::milliseconds(200) + kNbdQuiesceClosed);
}

TEST_F(NbdDiskTest, AQuestionThatWaitsForAServerIsAbandoned) {
  Server server({"memory", "1M"});
  open(server);
  server.stop();
  std::array<DiskExtent, 4> found;
  Query query;
  query.length_bytes = 1 << 20;
  query.found = found;
  query.complete = [](DiskExtents& ended) { static_cast<Query&>(ended).done = true; };
  disk->extents(query);
  run_for(std::chrono::milliseconds(300));
  ASSERT_FALSE(query.done);
  disk->abandon_extents(query);
  EXPECT_FALSE(query.done) << "never inside";
  until([&] { return query.done; });
  EXPECT_EQ(query.error, ECANCELED) << "EAGAIN: it waited until the server was given up";
}

TEST_F(NbdDiskTest, WhatOnlyEverEndsTheConnectionIsNotSentAgainWithoutEnd) {
  Server server({"eval", "get_size=echo 1M", "pread=kill -KILL $PPID; sleep 1"});
  open(server);
  Op op;
  prepare(op, DiskOp::Kind::read, 0, kBlock);
  disk->submit(op);
  const Instant since = loop->now();
  std::uint32_t ends = 0;
  bool ended = false;
  const auto has_ended = [&] { return ended = ended || server.ended(); };
  while (!op.done) {
    until([&] { return has_ended() || op.done; });
    if (!std::exchange(ended, false)) break;
    ++ends;
    server.start();
  }
  const Duration took = loop->now() - since;
  EXPECT_EQ(op.error, EAGAIN);
  if (ends < kNbdSendsMax) {
    // The end of the last connection may have been seen before that of its server.
    until([&] { return has_ended() || loop->now() - since > took + std::chrono::seconds(20); });
    if (ended) ++ends;
  }
  EXPECT_LE(ends, kNbdSendsMax);
  if (took < kNbdPatience) {
    EXPECT_EQ(ends, kNbdSendsMax);
  }
}

TEST_F(NbdDiskTest, AServerThatNeverEndsItsHandshakeIsLeft) {
  const FloodingServer server;
  NbdOpener opener(*loop, nullptr);
  std::string why;
  opener.open({NamespaceConfig::parse("nbd:" + server.uri()).value()}, [&](auto outcome) {
    why = outcome ? "opened" : outcome.error().message;
    loop->stop();
  });
  loop->run();
  EXPECT_NE(why.find("it sent more than"), std::string::npos) << why;
}

TEST_F(NbdDiskTest, WhatAServerRefusesBecauseItEndsIsAskedAgain) {
  Server server({"eval", "get_size=echo 1M", "pread=head -c $3 /dev/zero",
                 "pwrite=cat >/dev/null; [ -e $tmpdir/ended ] || "
                 "{ touch $tmpdir/ended; echo ESHUTDOWN ending >&2; exit 1; }"});
  open(server);
  const Instant since = loop->now();
  EXPECT_EQ(run(DiskOp::Kind::write, 0, kBlock), 0);
  EXPECT_GE(loop->now() - since, kNbdQuiesceClosed) << "asked again at once, it would spin";
}

TEST_F(NbdDiskTest, OpensNothingWithoutAServerAndGivesUpWhatItOpens) {
  NbdOpener opener(*loop, nullptr);
  const auto none = NamespaceConfig::parse("nbd+unix:///?socket=/nonexistent/nvmf").value();
  std::string why;
  opener.open({none, none}, [&](auto outcome) {
    why = outcome ? "opened" : outcome.error().message;
    loop->stop();
  });
  loop->run();
  EXPECT_NE(why.find("cannot be used"), std::string::npos) << why;
  Server server({"memory", "1M"});
  server.hang();
  {
    NbdOpener short_lived(*loop, nullptr);
    short_lived.open({NamespaceConfig::parse("nbd:" + server.uri()).value()},
                     [](auto) { FAIL() << "called back after its end"; });
    run_for(std::chrono::milliseconds(100));
  }
  server.go_on();
  run_for(std::chrono::milliseconds(100));
}

}  // namespace
}  // namespace nvmf::controller
