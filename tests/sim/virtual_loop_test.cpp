#include "sim/virtual_loop.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "sim/byte_user.h"

namespace nvmf::sim {
namespace {

using namespace std::chrono_literals;
using transport::ConnectOptions;
using transport::Endpoint;
using transport::FileOp;
using transport::Incoming;
using transport::Timer;

const Endpoint kTarget{.host = "127.0.0.1", .port = 4420, .unix_path = {}};

class VirtualLoopTest : public testing::Test {
 protected:
  void listen() {
    auto listener = loop_.listen(kTarget, [this](std::unique_ptr<Incoming> incoming) {
      server_.stream = loop_.adopt(std::move(incoming), server_);
    });
    ASSERT_TRUE(listener.has_value());
    listener_ = std::move(*listener);
  }
  void connect(ConnectOptions options = {}) {
    client_.stream = loop_.connect(kTarget, options, client_);
  }
  void join() {
    listen();
    connect();
    loop_.run_until_idle();
    ASSERT_TRUE(client_.opened);
    ASSERT_TRUE(server_.opened);
  }

  ByteUser client_;
  ByteUser server_;
  VirtualLoop loop_{7};
  std::unique_ptr<transport::Listener> listener_;
};

TEST_F(VirtualLoopTest, CarriesBytesBothWaysWhateverTheSplit) {
  for (const bool post : {false, true}) {
    for (const bool split : {false, true}) {
      for (const Duration hold : {Duration(0), Duration(3us)}) {
        ByteUser client;
        ByteUser server;
        VirtualLoop loop(11);
        loop.pipe = {.max_chunk = split ? SIZE_MAX : 777,
                     .random_split = split,
                     .latency = 5us,
                     .window_bytes = 5000,
                     .post_receives = post,
                     .send_hold = hold};
        client.outgoing = pattern(100'000, 1);
        server.outgoing = pattern(70'000, 2);
        auto listener = loop.listen(kTarget, [&](std::unique_ptr<Incoming> incoming) {
          server.stream = loop.adopt(std::move(incoming), server);
        });
        client.stream = loop.connect(kTarget, {}, client);
        loop.run_until_idle();
        EXPECT_EQ(server.incoming, client.outgoing);
        EXPECT_EQ(client.incoming, server.outgoing);
        EXPECT_GT(loop.now().time_since_epoch(), 1s);
      }
    }
  }
}

TEST_F(VirtualLoopTest, OneByteAtATime) {
  loop_.pipe.max_chunk = 1;
  join();
  client_.send(pattern(1000, 3));
  loop_.run_until_idle();
  EXPECT_EQ(server_.incoming, client_.outgoing);
  EXPECT_EQ(server_.advances, 1000U);
}

TEST_F(VirtualLoopTest, SameSeedSameRun) {
  std::vector<std::uint64_t> turns;
  for (int i = 0; i < 2; ++i) {
    ByteUser client;
    ByteUser server;
    VirtualLoop loop(99);
    loop.pipe.random_split = true;
    auto listener = loop.listen(kTarget, [&](std::unique_ptr<Incoming> incoming) {
      server.stream = loop.adopt(std::move(incoming), server);
    });
    client.outgoing = pattern(1'000'000, 4);
    client.stream = loop.connect(kTarget, {}, client);
    loop.run_until_idle();
    turns.push_back(loop.turns());
  }
  EXPECT_EQ(turns[0], turns[1]);
}

TEST_F(VirtualLoopTest, NobodyListensIsRefused) {
  connect();
  EXPECT_FALSE(client_.closed);  // not inside
  loop_.run_until_idle();
  ASSERT_TRUE(client_.closed);
  EXPECT_FALSE(client_.opened);
  EXPECT_EQ(client_.closed->code, ECONNREFUSED);
}

TEST_F(VirtualLoopTest, FatesOfAnAttempt) {
  listen();
  ConnectFate fate{.kind = ConnectFate::Kind::ignore};
  loop_.on_connect = [&](const Endpoint&) { return fate; };
  const Instant start = loop_.now();
  ConnectOptions options;
  options.connect_timeout = 3s;
  connect(options);
  EXPECT_TRUE(loop_.run_until([&] { return client_.closed.has_value(); }, 10s));
  EXPECT_EQ(client_.closed->code, ETIMEDOUT);
  EXPECT_EQ(loop_.now() - start, 3s);

  ByteUser delayed;
  fate = {.delay = 2s};
  delayed.stream = loop_.connect(kTarget, {}, delayed);
  EXPECT_FALSE(loop_.run_until([&] { return delayed.opened; }, 1s));
  EXPECT_TRUE(loop_.run_until([&] { return delayed.opened; }, 1s));
  loop_.shutdown();
}

TEST_F(VirtualLoopTest, ResetReachesThePeerAndDropsTheRest) {
  join();
  client_.send(pattern(1 << 20, 5));
  client_.stream->reset(Error{"enough", EIO});
  EXPECT_FALSE(client_.closed);  // not inside
  loop_.run_until_idle();
  ASSERT_TRUE(client_.closed);
  EXPECT_EQ(client_.closed->message, "enough");
  ASSERT_TRUE(server_.closed);
  EXPECT_EQ(server_.closed->code, ECONNRESET);
  EXPECT_TRUE(server_.incoming.empty());
  EXPECT_FALSE(server_.eof);
}

TEST_F(VirtualLoopTest, FinishSendsAllAndWaitsForThePeer) {
  join();
  client_.send(pattern(1 << 20, 6));
  client_.stream->finish(5s);
  loop_.run_until_idle();
  EXPECT_EQ(server_.incoming, client_.outgoing);
  EXPECT_TRUE(server_.eof);
  EXPECT_FALSE(client_.closed);
  server_.send(pattern(10, 7));  // half-closed: this way still works
  server_.stream->finish(5s);
  loop_.run_until_idle();
  EXPECT_EQ(client_.incoming, server_.outgoing);
  ASSERT_TRUE(client_.closed);
  ASSERT_TRUE(server_.closed);
  EXPECT_EQ(client_.closed->code, 0);
}

TEST_F(VirtualLoopTest, FinishGivesUpAfterTheLinger) {
  join();
  client_.stream->finish(2s);
  loop_.run_for(1999ms);
  EXPECT_FALSE(client_.closed);
  loop_.run_for(1ms);
  loop_.run_until_idle();
  ASSERT_TRUE(client_.closed);
  EXPECT_EQ(client_.closed->code, ETIMEDOUT);
  EXPECT_EQ(server_.closed->code, ECONNRESET);
}

TEST_F(VirtualLoopTest, ReceiverThatTakesNothingStopsTheSender) {
  join();
  server_.room = 100;
  client_.send(pattern(1 << 20, 8));
  loop_.run_until_idle();
  EXPECT_EQ(server_.incoming.size(), 100U);
  EXPECT_LT(client_.sent, 1U << 20);
  server_.room = SIZE_MAX;
  loop_.run_until_idle();
  EXPECT_EQ(server_.incoming.size(), 100U);  // nobody said wake
  server_.stream->wake();
  loop_.run_until_idle();
  EXPECT_EQ(server_.incoming, client_.outgoing);
}

TEST_F(VirtualLoopTest, CutBlackHoleAndVanish) {
  join();
  auto link = loop_.links().at(0);
  link->blackhole();
  client_.send(pattern(1000, 9));
  loop_.run_for(10s);
  EXPECT_TRUE(server_.incoming.empty());
  link->blackhole(false);
  loop_.run_until_idle();
  EXPECT_EQ(server_.incoming, client_.outgoing);

  link->vanish(Side::server);
  client_.send(pattern(1000, 10));
  loop_.run_for(10s);
  EXPECT_EQ(server_.closed->code, ECONNRESET);
  EXPECT_FALSE(client_.closed);
  EXPECT_EQ(client_.sent, 2000U);
  link->cut();
  EXPECT_FALSE(client_.closed);
  loop_.run_until_idle();
  EXPECT_EQ(client_.closed->code, ECONNRESET);
  EXPECT_TRUE(loop_.links().empty());
}

TEST_F(VirtualLoopTest, WhatWaitsPassesPieceByPiece) {
  join();
  auto link = loop_.links().at(0);
  link->block(Side::client);
  for (int i = 0; i < 3; ++i) {
    client_.send(pattern(100, 20 + static_cast<std::uint64_t>(i)));
    loop_.run_for(1ms);
  }
  EXPECT_TRUE(server_.incoming.empty());
  link->release(Side::client);
  loop_.run_for(1s);
  EXPECT_EQ(server_.incoming.size(), 100U);
  EXPECT_TRUE(link->release(Side::client));
  EXPECT_TRUE(link->release(Side::client));
  EXPECT_FALSE(link->release(Side::client));  // nothing more waits
  loop_.run_for(1s);
  EXPECT_EQ(server_.incoming, client_.outgoing);
  client_.send(pattern(1, 9));
  loop_.run_for(1s);
  EXPECT_EQ(server_.incoming.size(), 300U);
}

TEST_F(VirtualLoopTest, WhatIsUnderWayArrivesWhatIsLostNever) {
  loop_.pipe.latency = 1s;
  join();
  auto link = loop_.links().at(0);
  client_.send(pattern(100, 1));
  loop_.run_for(1ms);
  link->lose(Side::client);
  client_.stream->reset(Error{"given up", ETIMEDOUT});
  loop_.run_for(10s);
  EXPECT_TRUE(client_.closed);
  EXPECT_EQ(server_.incoming, client_.outgoing);
  EXPECT_FALSE(server_.closed);
}

TEST_F(VirtualLoopTest, AProcessThatDiesLeavesWhatItSaid) {
  for (const Farewell farewell : {Farewell::fin, Farewell::rst}) {
    ByteUser client;
    ByteUser server;
    VirtualLoop loop;
    auto listener = loop.listen(kTarget, [&](std::unique_ptr<Incoming> incoming) {
      server.stream = loop.adopt(std::move(incoming), server);
    });
    client.stream = loop.connect(kTarget, {}, client);
    loop.run_until_idle();
    auto link = loop.links().at(0);
    std::vector<Side> closed;
    link->on_closed = [&](Side side) { closed.push_back(side); };
    EXPECT_EQ(link->client(), client.stream->local());
    link->block(Side::client);
    client.send(pattern(100, 1));
    loop.run_for(1ms);
    link->die(Side::client, farewell);
    loop.run_for(1s);
    ASSERT_TRUE(client.closed);
    EXPECT_FALSE(server.eof);
    link->block(Side::client, false);
    loop.run_for(1s);
    EXPECT_EQ(server.incoming.size(), farewell == Farewell::fin ? 100U : 0U);
    EXPECT_EQ(server.eof, farewell == Farewell::fin);
    EXPECT_EQ(closed, std::vector<Side>{Side::client});
    link->on_closed = nullptr;
  }
}

TEST_F(VirtualLoopTest, ACloseInTheResetsPlaceDeliversWhatWasSent) {
  loop_.pipe.reset_is_close = true;
  join();
  auto link = loop_.links().at(0);
  link->block(Side::client);
  client_.send(pattern(100, 1));
  loop_.run_for(1ms);
  client_.stream->reset(Error{"given up", ETIMEDOUT});
  loop_.run_for(1s);
  EXPECT_TRUE(client_.closed);
  link->block(Side::client, false);
  loop_.run_for(1s);
  EXPECT_EQ(server_.incoming, client_.outgoing);
  EXPECT_TRUE(server_.eof);
}

TEST_F(VirtualLoopTest, SendingToAClosedEndIsAnsweredWithReset) {
  join();
  auto link = loop_.links().at(0);
  link->block(Side::server);  // the RST is lost
  server_.stream->reset(Error{"crash", EIO});
  loop_.run_for(1s);
  EXPECT_FALSE(client_.closed);
  link->block(Side::server, false);
  client_.send(pattern(1, 0));
  loop_.run_until_idle();
  ASSERT_TRUE(client_.closed);
  EXPECT_EQ(client_.closed->code, ECONNRESET);
}

TEST_F(VirtualLoopTest, MovingANamedRangeIsCaught) {
  loop_.pipe.send_hold = 1s;
  join();
  client_.send(pattern(10, 1));
  loop_.run_for(1ms);  // named, not yet read
  client_.outgoing = pattern(5000, 1);
  client_.stream->wake();
  EXPECT_DEATH(loop_.run_until_idle(), "internal check failed: continues");
  client_.outgoing.clear();
  client_.stream->reset(Error{});
  loop_.shutdown();
}

TEST_F(VirtualLoopTest, TasksAndTimersInOrder) {
  std::vector<int> ran;
  Timer late(loop_.timers(), [&] { ran.push_back(3); });
  Timer early(loop_.timers(), [&] { ran.push_back(2); });
  late.arm(loop_.now() + 2s);
  early.arm(loop_.now() + 1s);
  loop_.post([&] {
    ran.push_back(0);
    loop_.post([&] { ran.push_back(1); });
    EXPECT_EQ(ran.size(), 1U);
  });
  EXPECT_TRUE(ran.empty());
  loop_.run_for(3s);
  EXPECT_EQ(ran, (std::vector<int>{0, 1, 2, 3}));
}

TEST_F(VirtualLoopTest, FilesAndNames) {
  loop_.register_file("/disk", std::vector<std::byte>(8192));
  auto file = loop_.open_file("/disk", true);
  ASSERT_TRUE(file.has_value());
  EXPECT_FALSE(loop_.open_file("/none", true).has_value());
  auto data = pattern(4096, 1);
  FileOp op{.kind = FileOp::Kind::write,
            .data = data.data(),
            .offset_bytes = 4096,
            .length_bytes = 4096,
            .complete = [](FileOp& o) { o.owner = &o; }};
  (*file)->submit(op);
  EXPECT_EQ(op.owner, nullptr);
  loop_.run_until_idle();
  EXPECT_EQ(op.owner, &op);
  EXPECT_TRUE(std::equal(data.begin(), data.end(), loop_.file_bytes("/disk").begin() + 4096));
  op.kind = FileOp::Kind::read;
  op.offset_bytes = 4097;
  (*file)->submit(op);
  loop_.run_until_idle();
  EXPECT_EQ(op.error, ENODATA);

  std::vector<std::string> found;
  loop_.resolve("localhost", [&](auto r) { found = r.value(); });
  EXPECT_TRUE(found.empty());
  loop_.run_until_idle();
  EXPECT_EQ(found, (std::vector<std::string>{"127.0.0.1"}));
  EXPECT_EQ(loop_.watch(0, true, false, [] {}).error().code, ENOTSUP);
}

}  // namespace
}  // namespace nvmf::sim
