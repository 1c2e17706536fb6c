// Listening: addresses, unix sockets' files, and hard times.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "io/reactor_fixture.h"
#include "io/socket_address.h"

namespace nvmf::io {
namespace {

using namespace std::chrono_literals;
using transport::Endpoint;
using transport::Incoming;
using transport::Listener;

class ListenerTest : public ReactorTest {
 protected:
  Result<std::unique_ptr<Listener>> listen(const Endpoint& at) {
    return reactor_->listen(at, [this](std::unique_ptr<Incoming>) { ++accepted_; });
  }
  int accepted_ = 0;
};

TEST_P(ListenerTest, PortZeroBecomesAFreePort) {
  auto a = listen(loopback());
  auto b = listen(loopback());
  ASSERT_TRUE(a && b);
  EXPECT_NE((*a)->local().port, 0);
  EXPECT_NE((*a)->local().port, (*b)->local().port);
  const auto again = listen((*a)->local());
  ASSERT_FALSE(again.has_value());
  EXPECT_EQ(again.error().code, EADDRINUSE);
  EXPECT_NE(again.error().message.find((*a)->local().to_string()), std::string::npos);
  const Endpoint at = (*a)->local();
  run_for(*reactor_, 5ms);
  a->reset();
  EXPECT_TRUE(listen(at).has_value());  // gone at once
  EXPECT_FALSE(listen({.host = "localhost", .port = 0, .unix_path = {}}).has_value());
}

TEST_P(ListenerTest, StaleSocketIsReplacedAndOursRemoved) {
  const Endpoint at = unix_at(dir_ / "s");
  {
    const auto address = to_address(at);
    const UniqueFd dead(::socket(AF_UNIX, SOCK_STREAM, 0));
    ASSERT_EQ(::bind(dead.get(), address->get(), address->length), 0);
  }
  struct stat st{};
  ASSERT_EQ(::lstat(at.unix_path.c_str(), &st), 0);  // it stays behind
  auto listener = listen(at);
  ASSERT_TRUE(listener.has_value()) << listener.error().message;
  EXPECT_EQ((*listener)->local(), at);
  listener->reset();
  EXPECT_NE(::lstat(at.unix_path.c_str(), &st), 0);
}

TEST_P(ListenerTest, SocketOfALivingServerIsLeftAlone) {
  const Endpoint at = unix_at(dir_ / "s");
  auto first = listen(at);
  ASSERT_TRUE(first.has_value());
  const auto second = listen(at);
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, EADDRINUSE);
  EXPECT_NE(second.error().message.find("another process serves"), std::string::npos);
  struct stat st{};
  EXPECT_EQ(::lstat(at.unix_path.c_str(), &st), 0);
}

TEST_P(ListenerTest, FileThatIsNoSocketIsLeftAlone) {
  const std::string path = dir_ / "precious";
  std::ofstream(path) << "data";
  const auto refused = listen(unix_at(path));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, EEXIST);
  EXPECT_EQ(std::filesystem::file_size(path), 4U);
  EXPECT_FALSE(listen(unix_at(dir_ / "no/such/folder")).has_value());
}

TEST_P(ListenerTest, AnothersFileAtOurPathIsNotRemoved) {
  const Endpoint at = unix_at(dir_ / "s");
  auto first = listen(at);
  ASSERT_TRUE(first.has_value());
  ::unlink(at.unix_path.c_str());
  auto second = listen(at);
  ASSERT_TRUE(second.has_value());
  first->reset();
  struct stat st{};
  EXPECT_EQ(::lstat(at.unix_path.c_str(), &st), 0);
}

TEST_P(ListenerTest, OutOfDescriptorsItRestsAndRecovers) {
  auto listener = listen(loopback());
  ASSERT_TRUE(listener.has_value());
  const auto address = to_address((*listener)->local());
  const UniqueFd peer(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  rlimit before{};
  ::getrlimit(RLIMIT_NOFILE, &before);
  const rlimit none{static_cast<rlim_t>(3), before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);  // first: the kernel may accept for a ring
  EXPECT_EQ(::connect(peer.get(), address->get(), address->length), 0);
  rusage start{};
  rusage end{};
  transport::Timer enough(reactor_->timers(), [&] { reactor_->stop(); });
  enough.arm(reactor_->now() + 400ms);
  ::getrusage(RUSAGE_THREAD, &start);
  reactor_->run();  // with no other reason to wake up
  ::getrusage(RUSAGE_THREAD, &end);
  ::setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_EQ(accepted_, 0);
  const auto spent = [](const rusage& u) {
    return (u.ru_stime.tv_sec + u.ru_utime.tv_sec) * 1'000'000 + u.ru_stime.tv_usec +
           u.ru_utime.tv_usec;
  };
  EXPECT_LT(spent(end) - spent(start), 100'000);  // it does not spin
  EXPECT_TRUE(until([&] { return accepted_ == 1; }));
}

TEST_P(ListenerTest, TellsWhoseProcessComesOnAUnixSocketOnly) {
  std::vector<std::optional<std::uint32_t>> uids;
  const auto ask = [&](std::unique_ptr<Incoming> incoming) {
    uids.push_back(incoming->peer_uid());
  };
  auto local = reactor_->listen(unix_at(dir_ / "here"), ask);
  auto remote = reactor_->listen(loopback(), ask);
  ASSERT_TRUE(local && remote);
  ByteUser a;
  a.stream = reactor_->connect((*local)->local(), {}, a);
  EXPECT_TRUE(until([&] { return uids.size() == 1; }));
  ByteUser b;
  b.stream = reactor_->connect((*remote)->local(), {}, b);
  EXPECT_TRUE(until([&] { return uids.size() == 2; }));
  ASSERT_EQ(uids.size(), 2u);
  EXPECT_EQ(uids[0], ::geteuid());
  EXPECT_EQ(uids[1], std::nullopt);
}

TEST_P(ListenerTest, MayBeDestroyedInItsCallbackAndAfterTheLoop) {
  std::unique_ptr<Listener> listener;
  int calls = 0;
  auto made = reactor_->listen(loopback(), [&](std::unique_ptr<Incoming>) {
    int* counter = &calls;
    listener.reset();
    ++*counter;
  });
  listener = std::move(*made);
  ByteUser a;
  a.stream = reactor_->connect(listener->local(), {}, a);
  EXPECT_TRUE(until([&] { return calls == 1; }));
  auto late = listen(unix_at(dir_ / "late"));
  reactor_.reset();
  EXPECT_FALSE(std::filesystem::exists(dir_ / "late"));
  late->reset();
}

NVMF_BOTH_BACKENDS(ListenerTest);

}  // namespace
}  // namespace nvmf::io
