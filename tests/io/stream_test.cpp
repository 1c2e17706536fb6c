// Streams over real sockets: bytes, ends, failures.
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <random>

#include "io/reactor_fixture.h"
#include "io/socket_address.h"

namespace nvmf::io {
namespace {

using namespace std::chrono_literals;
using transport::ConnectOptions;
using transport::Endpoint;
using transport::Incoming;
using transport::Listener;

/// Longer than a busy machine makes any peer wait, where the linger is not what is tested.
constexpr Duration kLinger = 60s;

/// A peer that is a plain blocking socket.
UniqueFd raw_connect(const Endpoint& to) {
  const auto address = to_address(to);
  UniqueFd fd(::socket(address->family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(::connect(fd.get(), address->get(), address->length), 0);
  return fd;
}

class StreamTest : public ReactorTest {
 protected:
  Endpoint listen(const Endpoint& at, ByteUser& server) {
    auto listener = reactor_->listen(at, [this, &server](std::unique_ptr<Incoming> incoming) {
      server.stream = reactor_->adopt(std::move(incoming), server);
      EXPECT_FALSE(server.opened);
    });
    EXPECT_TRUE(listener.has_value()) << listener.error().message;
    listener_ = std::move(*listener);
    return listener_->local();
  }
  void join(const Endpoint& at) {
    const Endpoint to = listen(at, server_);
    client_.stream = reactor_->connect(to, {}, client_);
    EXPECT_FALSE(client_.opened);
    ASSERT_TRUE(until([&] { return client_.opened && server_.opened; }));
  }
  ~StreamTest() override {
    reactor_->end();  // users outlive the loop's end
  }

  ByteUser client_;
  ByteUser server_;
  std::unique_ptr<Listener> listener_;
};

/// Draws new lengths of places and ranges all the time, and sometimes takes or gives nothing.
class RandomUser : public ByteUser {
 public:
  explicit RandomUser(std::uint64_t seed) : random_(seed) {}
  std::size_t recv_vectors(std::span<iovec> out) override {
    place_bytes = 1 + random_() % (std::size_t{1} << (random_() % 17));
    return ByteUser::recv_vectors(out);
  }
  std::size_t send_vectors(std::span<iovec> out) override {
    range_bytes = 1 + random_() % (std::size_t{1} << (4 + random_() % 14));
    return ByteUser::send_vectors(out);
  }

 private:
  std::mt19937_64 random_;
};

TEST_P(StreamTest, ManyStreamsCarryManyMebibytesBothWays) {
  constexpr std::size_t kStreams = 6;
  constexpr std::size_t kBytes = 6 << 20;
  for (const Endpoint& at : {loopback(), unix_at(dir_ / "s")}) {
    std::vector<std::unique_ptr<RandomUser>> clients;
    std::vector<std::unique_ptr<RandomUser>> servers;
    auto listener = reactor_->listen(at, [&](std::unique_ptr<Incoming> incoming) {
      servers.push_back(std::make_unique<RandomUser>(servers.size() + 100));
      servers.back()->outgoing = pattern(kBytes, 7);
      servers.back()->stream = reactor_->adopt(std::move(incoming), *servers.back());
    });
    ASSERT_TRUE(listener.has_value());
    for (std::size_t i = 0; i < kStreams; ++i) {
      clients.push_back(std::make_unique<RandomUser>(i));
      clients[i]->outgoing = pattern(kBytes + i, i);
      ConnectOptions options;
      if (i % 2 == 1) options.receive_buffer_bytes = options.send_buffer_bytes = 8192;
      clients[i]->stream = reactor_->connect((*listener)->local(), options, *clients[i]);
    }
    ASSERT_TRUE(until(
        [&] {
          if (servers.size() < kStreams) return false;
          std::size_t got = 0;
          for (auto& c : clients) got += c->incoming.size();
          for (auto& s : servers) got += s->incoming.size();
          return got == 2 * kStreams * kBytes + kStreams * (kStreams - 1) / 2;
        },
        60s));
    for (auto& c : clients) EXPECT_EQ(c->incoming, servers[0]->outgoing);
    for (auto& s : servers) {
      EXPECT_TRUE(
          std::ranges::any_of(clients, [&](auto& c) { return c->outgoing == s->incoming; }));
      s->stream->finish(kLinger);
    }
    for (auto& c : clients) c->stream->finish(kLinger);
    ASSERT_TRUE(until([&] {
      return std::ranges::all_of(clients, [](auto& c) { return c->closed.has_value(); }) &&
             std::ranges::all_of(servers, [](auto& s) { return s->closed.has_value(); });
    }));
    EXPECT_EQ(clients[0]->closed->code, 0);
  }
}

TEST_P(StreamTest, OneWakeOneSystemCallWorthOfRanges) {
  join(loopback());
  client_.range_bytes = 1;  // 200 ranges: several calls, since one takes 64
  client_.send(pattern(200, 1));
  ASSERT_TRUE(until([&] { return server_.incoming.size() == 200; }));
  EXPECT_EQ(server_.incoming, client_.outgoing);
  EXPECT_EQ(client_.stream->peer(), listener_->local().to_string());
  EXPECT_EQ(client_.stream->local(), server_.stream->peer());
}

TEST_P(StreamTest, ReceiverWithoutRoomIsNotOverrunAndWakes) {
  server_.room = 1000;
  join(loopback());
  client_.send(pattern(3 << 20, 2));
  ASSERT_TRUE(until([&] { return server_.incoming.size() == 1000; }));
  run_for(*reactor_, 30ms);
  EXPECT_EQ(server_.incoming.size(), 1000U);
  server_.room = SIZE_MAX;
  server_.stream->wake();
  ASSERT_TRUE(until([&] { return server_.incoming.size() == client_.outgoing.size(); }));
  EXPECT_EQ(server_.incoming, client_.outgoing);
}

TEST_P(StreamTest, ReceiverWithoutRoomStillHearsOfTheReset) {
  server_.room = 0;
  join(loopback());
  client_.send(pattern(1000, 2));
  ASSERT_TRUE(until([&] { return client_.sent == 1000; }));
  client_.stream->reset(Error{"mine", EIO});
  ASSERT_TRUE(until([&] { return server_.closed.has_value(); }));
  EXPECT_EQ(server_.closed->code, ECONNRESET);
}

TEST_P(StreamTest, ResetIsSeenAsResetByThePeer) {
  const Endpoint at = listen(loopback(), server_);
  const UniqueFd peer = raw_connect(at);
  ASSERT_TRUE(until([&] { return server_.opened; }));
  server_.outgoing = pattern(64 << 20, 3);  // more than the kernel takes
  server_.stream->wake();
  ASSERT_TRUE(until([&] { return server_.sent > 0; }));
  run_for(*reactor_, 10ms);
  server_.stream->reset(Error{"no more of this", EPROTO});
  EXPECT_FALSE(server_.closed);
  ASSERT_TRUE(until([&] { return server_.closed.has_value(); }));
  EXPECT_EQ(server_.closed->message, "no more of this");
  server_.outgoing = {};  // the contract: no buffer is used any more
  server_.stream.reset();
  std::vector<char> sink(1 << 20);
  std::size_t got = 0;
  ssize_t n = 0;
  while ((n = ::recv(peer.get(), sink.data(), sink.size(), 0)) > 0)
    got += static_cast<std::size_t>(n);
  EXPECT_EQ(n, -1);
  EXPECT_EQ(errno, ECONNRESET);
  EXPECT_LT(got, std::size_t{64} << 20);
}

TEST_P(StreamTest, FinishDeliversEverythingThenFin) {
  const Endpoint at = listen(loopback(), server_);
  const UniqueFd peer = raw_connect(at);
  ASSERT_TRUE(until([&] { return server_.opened; }));
  server_.outgoing = pattern(8 << 20, 4);
  server_.stream->finish(kLinger);
  std::vector<std::byte> got(server_.outgoing.size() + 1);
  std::size_t have = 0;
  ssize_t last = -1;
  ASSERT_TRUE(until([&] {
    do {
      last = ::recv(peer.get(), got.data() + have, got.size() - have, MSG_DONTWAIT);
      if (last > 0) have += static_cast<std::size_t>(last);
    } while (last > 0);
    return last == 0;
  }));
  got.resize(have);
  EXPECT_EQ(got, server_.outgoing);
  EXPECT_FALSE(server_.closed);  // we have not closed yet
  ::shutdown(peer.get(), SHUT_WR);
  ASSERT_TRUE(until([&] { return server_.closed.has_value(); }));
  EXPECT_EQ(server_.closed->code, 0);
  EXPECT_TRUE(server_.eof);
}

TEST_P(StreamTest, FinishThrowsAwayWhatNobodyTakesAndGivesUpAfterTheLinger) {
  server_.room = 0;
  const Endpoint at = listen(loopback(), server_);
  const UniqueFd peer = raw_connect(at);
  ASSERT_TRUE(until([&] { return server_.opened; }));
  std::vector<char> bytes(100'000, 'x');
  ASSERT_EQ(::send(peer.get(), bytes.data(), bytes.size(), 0), 100'000);
  server_.stream->finish(100ms);
  const Instant start = reactor_->now();
  ASSERT_TRUE(until([&] { return server_.closed.has_value(); }));
  EXPECT_EQ(server_.closed->code, ETIMEDOUT);
  EXPECT_GE(reactor_->now() - start, 90ms);
  char c = 0;
  EXPECT_EQ(::recv(peer.get(), &c, 1, 0), 0);  // our FIN came before
  // Its end is on the way at least, when the loop has told of it.
  EXPECT_TRUE(until([&] { return ::send(peer.get(), &c, 1, MSG_NOSIGNAL) == -1; }));
}

TEST_P(StreamTest, HalfClosedPeerStillReceives) {
  const Endpoint at = listen(unix_at(dir_ / "s"), server_);
  const UniqueFd peer = raw_connect(at);
  ::shutdown(peer.get(), SHUT_WR);
  ASSERT_TRUE(until([&] { return server_.eof; }));
  EXPECT_FALSE(server_.closed);
  server_.send(pattern(100, 5));
  std::vector<std::byte> got(100);
  ASSERT_TRUE(until([&] { return server_.sent == 100; }));
  EXPECT_EQ(::recv(peer.get(), got.data(), 100, MSG_WAITALL), 100);
  EXPECT_EQ(got, server_.outgoing);
  server_.stream->finish(kLinger);
  ASSERT_TRUE(until([&] { return server_.closed.has_value(); }));
}

TEST_P(StreamTest, LastWordsOfAPeerThatClosedAreReadAlthoughSendingFails) {
  const Endpoint at = listen(unix_at(dir_ / "s"), server_);
  UniqueFd peer = raw_connect(at);
  ASSERT_TRUE(until([&] { return server_.opened; }));
  server_.outgoing = pattern(16 << 20, 1);
  server_.stream->wake();
  ASSERT_TRUE(until([&] { return server_.sent > 0; }));
  server_.room = 0;
  ASSERT_EQ(::send(peer.get(), "why", 3, 0), 3);
  run_for(*reactor_, 5ms);
  server_.room = SIZE_MAX;
  peer.reset();
  server_.stream->wake();
  ASSERT_TRUE(until([&] { return server_.closed.has_value(); }));
  EXPECT_EQ(server_.incoming.size(), 3U);
}

TEST_P(StreamTest, RefusedWithAReasonInWords) {
  // Bound, so that it is nobody else's port meanwhile, and not listening.
  const UniqueFd bound(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto any = to_address(loopback());
  ASSERT_EQ(::bind(bound.get(), any->get(), any->length), 0);
  const Endpoint dead = to_endpoint(local_address(bound.get()));
  client_.stream = reactor_->connect(dead, {}, client_);
  EXPECT_FALSE(client_.closed);
  ASSERT_TRUE(until([&] { return client_.closed.has_value(); }));
  EXPECT_FALSE(client_.opened);
  EXPECT_EQ(client_.closed->code, ECONNREFUSED);
  EXPECT_EQ(client_.closed->message, dead.to_string() +
                                         " refused the connection (ECONNREFUSED): "
                                         "is a target listening there?");
}

TEST_P(StreamTest, WrongAddressesAreErrorsNotCrashes) {
  const std::vector<std::pair<Endpoint, int>> cases = {
      {{.host = "no.such.name", .port = 1, .unix_path = {}}, EINVAL},
      {{.host = "", .port = 1, .unix_path = {}}, EINVAL},
      {unix_at(dir_ / "nobody"), ENOENT},
      {unix_at(dir_ / std::string(200, 'x')), ENAMETOOLONG},
  };
  for (const auto& [to, code] : cases) {
    ByteUser user;
    user.stream = reactor_->connect(to, {}, user);
    ASSERT_TRUE(until([&] { return user.closed.has_value(); }));
    EXPECT_EQ(user.closed->code, code) << user.closed->message;
  }
  ConnectOptions options;
  options.host_iface = "no-such-iface0";
  ByteUser user;
  user.stream = reactor_->connect(loopback(4420), options, user);
  ASSERT_TRUE(until([&] { return user.closed.has_value(); }));
  EXPECT_NE(user.closed->message.find("no-such-iface0"), std::string::npos);
}

TEST_P(StreamTest, ConnectTimesOutWhenTheBacklogIsFull) {
  // A listener that never accepts, with a full queue: the kernel drops further SYNs.
  UniqueFd deaf(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto any = to_address(loopback());
  ASSERT_EQ(::bind(deaf.get(), any->get(), any->length), 0);
  ASSERT_EQ(::listen(deaf.get(), 0), 0);
  const Endpoint at = to_endpoint(local_address(deaf.get()));
  // Before it is known to be full, any number of SYNs is answered.
  const UniqueFd first = raw_connect(at);
  pollfd full{deaf.get(), POLLIN, 0};
  ASSERT_EQ(::poll(&full, 1, 20'000), 1);
  std::vector<std::unique_ptr<ByteUser>> users;
  ConnectOptions options;
  options.connect_timeout = 200ms;
  for (int i = 0; i < 4; ++i) {
    users.push_back(std::make_unique<ByteUser>());
    users.back()->stream = reactor_->connect(at, options, *users.back());
  }
  ASSERT_TRUE(until([&] { return users.back()->closed.has_value(); }));
  EXPECT_EQ(users.back()->closed->code, ETIMEDOUT);
  reactor_->end();
}

/// A network of our own in which only two ephemeral ports exist, so that dialling them hits the
/// source port at once. False if the system does not let us.
bool enter_tiny_network() {
  if (::unshare(CLONE_NEWNET) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) return false;
  const UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (::ioctl(fd.get(), SIOCSIFFLAGS, &request) != 0) return false;
  std::ofstream range("/proc/sys/net/ipv4/ip_local_port_range");
  range << "45000 45001" << std::flush;
  return range.good();
}

/// Whether a plain socket that dials `at` ends up talking to itself.
bool dials_itself(const Endpoint& at) {
  const auto address = to_address(at);
  const UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const bool itself = ::connect(fd.get(), address->get(), address->length) == 0 &&
                      local_address(fd.get()) == peer_address(fd.get());
  abort_connection(fd.get(), AF_INET);  // leaves no TIME_WAIT that would keep the next one away
  return itself;
}

TEST_P(StreamTest, ConnectingToOurselvesIsRefused) {
  constexpr int kSkipped = 77;
  const pid_t pid = ::fork();
  if (pid == 0) {
    if (!enter_tiny_network()) ::_exit(kSkipped);
    auto reactor = make();  // a ring belongs to the process that made it
    bool trap_works = false;
    bool refused = true;
    for (int i = 0; i < 40; ++i) {
      const Endpoint at = loopback(static_cast<std::uint16_t>(45000 + i % 2));
      if (i < 20) {
        trap_works = trap_works || dials_itself(at);
        continue;
      }
      ByteUser user;
      user.stream = reactor->connect(at, {}, user);
      refused = run_until(*reactor, [&] { return user.closed.has_value() || user.opened; }) &&
                refused && !user.opened && user.closed->code == ECONNREFUSED;
      if (!refused) ::_exit(1);
    }
    ::_exit(trap_works ? 0 : 2);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kSkipped) GTEST_SKIP() << "no network namespaces here";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_P(StreamTest, UnixSocketWithAFullBacklogIsTriedAgain) {
  const Endpoint at = unix_at(dir_ / "busy");
  const auto address = to_address(at);
  const UniqueFd slow(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(slow.get(), address->get(), address->length), 0);
  ASSERT_EQ(::listen(slow.get(), 0), 0);
  std::vector<std::unique_ptr<ByteUser>> users;
  for (int i = 0; i < 4; ++i) {
    users.push_back(std::make_unique<ByteUser>());
    users.back()->stream = reactor_->connect(at, {}, *users.back());
  }
  run_for(*reactor_, 30ms);
  EXPECT_FALSE(users.back()->opened);
  EXPECT_FALSE(users.back()->closed);
  std::vector<UniqueFd> accepted;
  for (std::size_t i = 0; i < users.size(); ++i) {
    pollfd ready{slow.get(), POLLIN, 0};
    EXPECT_TRUE(until([&] { return ::poll(&ready, 1, 0) == 1; }));
    accepted.emplace_back(::accept(slow.get(), nullptr, nullptr));
  }
  EXPECT_TRUE(until([&] { return std::ranges::all_of(users, &ByteUser::opened); }));
  reactor_->end();
}

/// Whether the process may have so many descriptors; for the rest of its life, if it may.
bool raise_descriptors(rlim_t most) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur >= most) return true;
  if (limit.rlim_max < most) return false;
  limit.rlim_cur = most;
  return ::setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

TEST_P(StreamTest, MoreStreamsAtOnceThanTheRingHasEntries) {
  constexpr std::size_t kStreams = 700;
  if (!raise_descriptors(2 * kStreams + 100)) GTEST_SKIP() << "too few descriptors here";
  std::vector<std::unique_ptr<ByteUser>> users;
  std::size_t adopted = 0;
  auto listener = reactor_->listen(loopback(), [&](std::unique_ptr<Incoming> incoming) {
    ByteUser& user = *users[kStreams + adopted++];
    user.outgoing = pattern(5000, 1);
    user.stream = reactor_->adopt(std::move(incoming), user);
  });
  ASSERT_TRUE(listener.has_value());
  for (std::size_t i = 0; i < 2 * kStreams; ++i) users.push_back(std::make_unique<ByteUser>());
  for (std::size_t i = 0; i < kStreams; ++i) {
    users[i]->outgoing = pattern(5000, 1);
    users[i]->stream = reactor_->connect((*listener)->local(), {}, *users[i]);
  }
  EXPECT_TRUE(until(
      [&] {
        return std::ranges::all_of(users, [](auto& u) { return u->incoming.size() == 5000; });
      },
      60s));
  reactor_->end();
}

TEST_P(StreamTest, OptionsReachTheSocket) {
  const Endpoint at = listen(loopback(), server_);
  ConnectOptions options;
  options.host_traddr = "127.0.0.2";
  options.tos = 0x28;
  options.user_timeout = 3s;
  client_.stream = reactor_->connect(at, options, client_);
  ASSERT_TRUE(until([&] { return server_.opened && client_.opened; }));
  EXPECT_TRUE(server_.stream->peer().starts_with("127.0.0.2:"));
}

TEST_P(StreamTest, Ipv6) {
  auto listener = reactor_->listen({.host = "::1", .port = 0, .unix_path = {}},
                                   [&](std::unique_ptr<Incoming> incoming) {
                                     server_.stream = reactor_->adopt(std::move(incoming), server_);
                                   });
  if (!listener) GTEST_SKIP() << "no IPv6 here: " << listener.error().message;
  ConnectOptions options;
  options.tos = 0x28;
  client_.stream = reactor_->connect((*listener)->local(), options, client_);
  ASSERT_TRUE(until([&] { return server_.opened && client_.opened; }));
  EXPECT_TRUE(client_.stream->peer().starts_with("[::1]:"));
}

TEST_P(StreamTest, ThousandsOfConnectionsLeakNoDescriptor) {
  std::vector<std::unique_ptr<ByteUser>> servers;
  auto listener = reactor_->listen(loopback(), [&](std::unique_ptr<Incoming> incoming) {
    if (servers.size() % 7 == 3) incoming.reset();  // refused by not adopting
    servers.push_back(std::make_unique<ByteUser>());
    if (incoming) servers.back()->stream = reactor_->adopt(std::move(incoming), *servers.back());
  });
  ASSERT_TRUE(listener.has_value());
  const std::size_t before = open_fds();
  for (int round = 0; round < 30; ++round) {
    std::vector<std::unique_ptr<ByteUser>> clients;
    for (int i = 0; i < 100; ++i) {
      clients.push_back(std::make_unique<ByteUser>());
      clients.back()->outgoing = pattern(100, 1);
      clients.back()->stream = reactor_->connect((*listener)->local(), {}, *clients.back());
      if (i % 5 == 4) clients.back()->stream->reset(Error{"never mind", ECANCELED});
    }
    ASSERT_TRUE(until([&] {
      return std::ranges::all_of(clients, [](auto& c) { return c->opened || c->closed; });
    }));
    for (auto& c : clients) c->stream->reset(Error{"done", EIO});
    ASSERT_TRUE(until([&] {
      return std::ranges::all_of(clients, [](auto& c) { return c->closed.has_value(); }) &&
             std::ranges::all_of(servers, [](auto& s) { return !s->stream || s->closed; });
    }));
    clients.clear();
    servers.clear();
  }
  // A client reset before its connection was accepted shows up late.
  EXPECT_TRUE(until([&] {
    std::erase_if(servers, [](auto& s) { return !s->stream || s->closed; });
    return open_fds() <= before;
  }));
}

/// Destroys itself in on_closed(), buffers and all.
class Ephemeral final : public ByteUser {
 public:
  explicit Ephemeral(int& gone) : gone_(gone) {}
  void on_closed(const Error&) override {
    ++gone_;
    delete this;
  }

 private:
  int& gone_;
};

TEST_P(StreamTest, UsersMayDestroyThemselvesWhenClosed) {
  const Endpoint at = listen(loopback(), server_);
  const UniqueFd peer = raw_connect(at);
  int gone = 0;
  std::vector<Ephemeral*> users;
  for (int i = 0; i < 20; ++i) {
    auto* user = new Ephemeral(gone);
    user->outgoing = pattern(1 << 20, 1);
    user->stream = reactor_->connect(at, {}, *user);
    users.push_back(user);
  }
  listener_.reset();
  for (int i = 0; i < 10; ++i) users[static_cast<std::size_t>(i)]->stream->reset(Error{});
  ASSERT_TRUE(until([&] { return gone >= 10; }));
  reactor_->end();
  EXPECT_EQ(gone, 20);
}

TEST_P(StreamTest, StreamsOpenAtTheEndAreResetAndTold) {
  const Endpoint at = listen(loopback(), server_);
  const UniqueFd peer = raw_connect(at);
  ASSERT_TRUE(until([&] { return server_.opened; }));
  client_.stream = reactor_->connect(at, {}, client_);
  reactor_->end();
  EXPECT_EQ(server_.closed->code, ECANCELED);
  EXPECT_EQ(client_.closed->code, ECANCELED);
  char c = 0;
  EXPECT_EQ(::recv(peer.get(), &c, 1, 0), -1);
  EXPECT_EQ(errno, ECONNRESET);
  reactor_.reset();
  reactor_ = make();
}

NVMF_BOTH_BACKENDS(StreamTest);

}  // namespace
}  // namespace nvmf::io
