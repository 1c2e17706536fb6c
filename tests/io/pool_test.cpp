// Several loops on several threads: the part of the tests that is also run under TSan.
#include <atomic>
#include <thread>

#include "io/reactor_fixture.h"
#include "io/reactor_pool.h"

namespace nvmf::io {
namespace {

using namespace std::chrono_literals;
using transport::Incoming;
using transport::Listener;

class PoolTest : public testing::TestWithParam<BackendKind> {
 protected:
  static std::unique_ptr<ReactorPool> make(std::size_t n) {
    auto pool = ReactorPool::make(n, {.backend = GetParam()});
    EXPECT_TRUE(pool.has_value());
    return std::move(*pool);
  }
};

/// Sends back what it receives, all in one go when `expect` bytes are there.
class EchoUser final : public ByteUser {
 public:
  explicit EchoUser(std::atomic<int>& closed_count) : closed_count_(closed_count) {}
  std::size_t expect = 0;
  void recv_advance(std::size_t bytes) override {
    ByteUser::recv_advance(bytes);
    if (incoming.size() < expect) return;
    outgoing = incoming;
    stream->wake();
  }
  void on_closed(const Error& reason) override {
    ByteUser::on_closed(reason);
    ++closed_count_;
  }

 private:
  std::atomic<int>& closed_count_;
};

class Client final : public ByteUser {
 public:
  Client(ReactorPool& pool, std::atomic<int>& done, std::atomic<int>& closed)
      : pool_(pool), done_(done), closed_(closed) {}
  void recv_advance(std::size_t bytes) override {
    ByteUser::recv_advance(bytes);
    if (incoming.size() == outgoing.size() && ++done_ == 24) pool_.stop();
  }
  void on_closed(const Error& reason) override {
    ByteUser::on_closed(reason);
    ++closed_;
  }

 private:
  ReactorPool& pool_;
  std::atomic<int>& done_;
  std::atomic<int>& closed_;
};

TEST_P(PoolTest, ConnectionsAcceptedOnOneLoopAreServedOnOthers) {
  constexpr std::size_t kReactors = 4;
  constexpr std::size_t kClients = 24;
  constexpr std::size_t kBytes = 200'000;
  std::atomic<int> done = 0;
  std::atomic<int> closed = 0;
  std::vector<std::unique_ptr<EchoUser>> servers;
  std::vector<std::unique_ptr<Client>> clients;
  std::unique_ptr<Listener> listener;
  auto pool = make(kReactors);
  servers.reserve(kClients);
  auto made = pool->at(0).listen({.host = "127.0.0.1", .port = 0, .unix_path = {}},
                                 [&](std::unique_ptr<Incoming> incoming) {
                                   servers.push_back(std::make_unique<EchoUser>(closed));
                                   EchoUser* user = servers.back().get();
                                   user->expect = kBytes;
                                   Reactor& home = pool->at(servers.size() % kReactors);
                                   home.post([&home, user, in = std::move(incoming)]() mutable {
                                     user->stream = home.adopt(std::move(in), *user);
                                   });
                                 });
  ASSERT_TRUE(made.has_value());
  listener = std::move(*made);
  for (std::size_t i = 0; i < kClients; ++i) {
    clients.push_back(std::make_unique<Client>(*pool, done, closed));
    Client* user = clients.back().get();
    user->outgoing = pattern(kBytes, i);
    Reactor& home = pool->at(i % kReactors);
    home.post(
        [&home, user, to = listener->local()] { user->stream = home.connect(to, {}, *user); });
  }
  ASSERT_TRUE(pool->run().has_value());
  pool->join();
  EXPECT_EQ(done, 24);
  EXPECT_EQ(closed, 48);  // all were told of the end
  for (auto& client : clients) EXPECT_EQ(client->incoming, client->outgoing);
}

TEST_P(PoolTest, LoopsPostToEachOtherWithoutEnd) {
  auto pool = make(3);
  std::atomic<int> hops = 0;
  std::function<void(std::size_t)> hop = [&](std::size_t at) {
    if (++hops == 3000) pool->stop();
    const std::size_t next = (at + 1) % 3;
    pool->at(next).post([&hop, next] { hop(next); });
  };
  for (std::size_t i = 0; i < 3; ++i) pool->at(i).post([&hop, i] { hop(i); });
  ASSERT_TRUE(pool->run().has_value());
  pool->join();  // with tasks still going round
  EXPECT_GE(hops, 3000);
}

TEST_P(PoolTest, UnusedPoolEndsInPeace) {
  make(4).reset();
  auto pool = make(2);
  ASSERT_TRUE(pool->start().has_value());
  pool.reset();
}

TEST_P(PoolTest, StopFromAnotherThread) {
  auto pool = make(2);
  std::jthread stopper([&] {
    std::this_thread::sleep_for(20ms);
    pool->stop();
  });
  ASSERT_TRUE(pool->run().has_value());
}

NVMF_BOTH_BACKENDS(PoolTest);

}  // namespace
}  // namespace nvmf::io
