// The server and whole sessions over a simulated network that splits and holds bytes, and that
// watches over what a StreamUser does with the places it has named.
#include "frontends/nbd/server.h"

#include <gtest/gtest.h>

#include "frontends/nbd/protocol.h"
#include "loop_device.h"
#include "sim/byte_user.h"
#include "sim/virtual_loop.h"

namespace nvmf::nbd {
namespace {

using namespace std::chrono_literals;
using sim::ByteUser;
using sim::VirtualLoop;
using Bytes = std::vector<std::byte>;

const transport::Endpoint kAt{.host = "127.0.0.1", .port = 10809, .unix_path = {}};

void append(Bytes& to, const RequestHeader& r, const Bytes& payload = {}) {
  Bytes head(RequestHeader::kBytes);
  r.encode(head.data());
  to.insert(to.end(), head.begin(), head.end());
  to.insert(to.end(), payload.begin(), payload.end());
}

/// Client flags, then GO for the default export without information requests.
Bytes hello() {
  Bytes b(4 + OptionHeader::kBytes + 6);
  store_be32(b.data(), kFixedNewstyle | kNoZeroes);
  OptionHeader{Option::go, 6}.encode(b.data() + 4);
  return b;
}
// The greeting, two INFO replies and the ACK.
constexpr std::size_t kHelloAnswer = 18 + 32 + 34 + 20;

class ServerTest : public testing::Test {
 protected:
  void serve(ServerOptions options = {}) {
    ExportList exports;
    exports.add(make_export({&device_}));
    server_ = std::make_unique<Server>(std::vector<transport::Loop*>{&loop_}, std::move(exports),
                                       std::move(options));
    ASSERT_TRUE(server_->listen(kAt).has_value());
  }
  void connect(ByteUser& user) {
    user.stream = loop_.connect(kAt, {}, user);
    loop_.run_until_idle();
  }
  /// Stops the server and says how long that took; fails if it takes too long.
  Duration stop() {
    const Instant start = loop_.now();
    bool stopped = false;
    server_->stop([&] { stopped = true; });
    EXPECT_TRUE(loop_.run_until([&] { return stopped; }, 60s));
    if (stopped) server_.reset();
    return loop_.now() - start;
  }

  VirtualLoop loop_{5};
  std::shared_ptr<test::Disk> disk_ = std::make_shared<test::Disk>(4 << 20);
  test::LoopDevice device_{loop_, disk_};
  std::unique_ptr<Server> server_;
};

TEST_F(ServerTest, ServesWhateverTheNetworkDoesToTheBytes) {
  const auto requests = [] {
    Bytes all = hello();
    for (std::uint64_t i = 0; i < 30; ++i) {
      const auto length = static_cast<std::uint32_t>(512 * (1 + i * 7 % 200));
      append(all, {0, Command::write, i, i * 100 * 1024, length}, sim::pattern(length, i));
    }
    return all;
  }();
  serve();
  for (const bool post : {false, true}) {
    for (const std::size_t chunk : {std::size_t{1}, std::size_t{1000}, SIZE_MAX}) {
      for (const Duration hold : {Duration(0), Duration(3us)}) {
        loop_.pipe = {.max_chunk = chunk,
                      .random_split = true,
                      .latency = chunk == 1 ? Duration{0} : Duration{5us},
                      .window_bytes = 50'000,
                      .post_receives = post,
                      .send_hold = hold};
        std::ranges::fill(disk_->bytes, std::byte{0});
        ByteUser client;
        client.outgoing = requests;
        if (chunk == 1) client.outgoing.resize(20'000);  // a byte a turn is slow
        connect(client);
        const std::size_t writes = chunk == 1 ? 2 : 30;
        ASSERT_TRUE(loop_.run_until(
            [&] { return client.incoming.size() >= kHelloAnswer + writes * SimpleReply::kBytes; },
            60s))
            << client.incoming.size();
        for (std::uint64_t i = 0; i < writes; ++i) {
          const std::size_t length = 512 * (1 + i * 7 % 200);
          const Bytes expected = sim::pattern(length, i);
          ASSERT_TRUE(std::equal(expected.begin(), expected.end(),
                                 disk_->bytes.begin() + static_cast<std::ptrdiff_t>(i) * 102400));
        }
        if (chunk != 1) {
          Bytes read;
          append(read, {0, Command::read, 77, 0, 1 << 20});
          append(read, {0, Command::disconnect, 78, 0, 0});
          const std::size_t before = client.incoming.size();
          client.send(read);
          ASSERT_TRUE(loop_.run_until([&] { return client.eof; }, 60s));
          ASSERT_EQ(client.incoming.size() - before, SimpleReply::kBytes + (1 << 20));
          EXPECT_TRUE(std::equal(
              disk_->bytes.begin(), disk_->bytes.begin() + (1 << 20),
              client.incoming.begin() + static_cast<std::ptrdiff_t>(before + SimpleReply::kBytes)));
        }
        if (!client.closed) client.stream->reset(Error{"done", ECANCELED});
        ASSERT_TRUE(loop_.run_until([&] { return client.closed.has_value(); }, 60s));
      }
    }
  }
  EXPECT_TRUE(loop_.run_until([&] { return server_->totals().clients == 0; }, 60s));
  EXPECT_EQ(server_->totals().accepted, 12u);
  EXPECT_EQ(server_->totals().read_bytes, 8u << 20);
  stop();
}

TEST_F(ServerTest, AnIdleClientKeepsItsPlaceAndTheNextOneWaits) {
  serve({.clients_max = 2});
  ByteUser a, b, c, d;
  for (ByteUser* user : {&a, &b}) {
    user->outgoing = hello();
    connect(*user);
  }
  loop_.run_for(1h);
  connect(c);
  loop_.run_for(kPlaceWait / 2);
  EXPECT_FALSE(a.closed || b.closed || c.closed || c.eof);
  loop_.run_for(kPlaceWait);
  EXPECT_TRUE(c.closed || c.eof);
  EXPECT_TRUE(c.incoming.empty());
  EXPECT_EQ(server_->totals().clients, 2u);
  EXPECT_EQ(server_->totals().refused, 1u);
  EXPECT_FALSE(a.closed || b.closed);
  connect(d);
  EXPECT_TRUE(d.incoming.empty());
  a.stream->reset(Error{"gone", ECANCELED});
  loop_.run_until_idle();
  EXPECT_EQ(d.incoming.size(), 18u);
  Bytes flush;
  append(flush, {0, Command::flush, 1, 0, 0});
  b.send(flush);
  loop_.run_until_idle();
  EXPECT_EQ(b.incoming.size(), kHelloAnswer + SimpleReply::kBytes);
  stop();
}

TEST_F(ServerTest, SilentClientsGiveTheirPlacesToThoseWhoWait) {
  std::vector<std::string> told;
  serve({.clients_max = 4, .on_misbehaviour = [&](const std::string& s) { told.push_back(s); }});
  std::array<ByteUser, 4> silent;
  std::array<ByteUser, 3> next;
  for (ByteUser& user : silent) connect(user);
  for (ByteUser& user : next) {
    user.outgoing = hello();
    connect(user);
    EXPECT_TRUE(user.incoming.empty());
  }
  loop_.run_for(kHandshakeMaxWhenFull + kPlaceRetry);
  for (ByteUser& user : silent) EXPECT_TRUE(user.closed);
  for (ByteUser& user : next) EXPECT_EQ(user.incoming.size(), kHelloAnswer);
  EXPECT_EQ(told.size(), 4u);
  EXPECT_EQ(server_->totals().refused, 0u);
  // Without anybody waiting they have their time, and not more.
  ByteUser last;
  connect(last);
  loop_.run_for(kHandshakeMax - 1ms);
  EXPECT_FALSE(last.closed);
  loop_.run_for(2ms);
  EXPECT_TRUE(last.closed);
  stop();
}

TEST_F(ServerTest, NotEverybodyMayWaitAndNotEverythingIsTold) {
  std::vector<std::string> told;
  serve({.clients_max = 2, .on_misbehaviour = [&](const std::string& s) { told.push_back(s); }});
  std::vector<ByteUser> many(2 * kWaitingMax);
  for (ByteUser& user : many) connect(user);
  EXPECT_EQ(server_->totals().refused, many.size() - kWaitingMax - 2);
  loop_.run_for(kHandshakeMax);
  EXPECT_EQ(server_->totals().clients, 0u);
  // One after the other: a silent one gets a place, and loses it.
  for (int i = 0; i < 60; ++i) {
    ByteUser rude;
    rude.outgoing = Bytes(100);
    connect(rude);
    loop_.run_for(10ms);
    EXPECT_TRUE(rude.closed);
  }
  EXPECT_LE(told.size(), 3 * kSentencesMax);
  loop_.run_for(kSentencesPeriod);
  ByteUser rude;
  rude.outgoing = Bytes(100);
  connect(rude);
  EXPECT_NE(told.back().find("more clients were disconnected"), std::string::npos);
  stop();
}

TEST_F(ServerTest, StopsAtOnceWhenNothingIsUnderWay) {
  serve();
  ByteUser silent;
  ByteUser idle;
  connect(silent);
  idle.outgoing = hello();
  connect(idle);
  EXPECT_LE(stop(), kLingerAfterGrace);
  EXPECT_TRUE(silent.eof && idle.eof);
  ByteUser late;
  connect(late);
  EXPECT_TRUE(late.closed);
}

TEST_F(ServerTest, StopWithoutClientsAndWithoutListeners) {
  ExportList none;
  server_ = std::make_unique<Server>(std::vector<transport::Loop*>{&loop_}, none);
  EXPECT_EQ(stop(), Duration{0});
}

TEST_F(ServerTest, StopClosesInBoundedTimeAlthoughTheDeviceHangs) {
  serve({.grace = 500ms});
  disk_->hang = true;
  ByteUser client;
  client.outgoing = hello();
  append(client.outgoing, {0, Command::read, 0x55, 0, 4096});
  connect(client);
  ASSERT_EQ(device_.hanging(), 1u);
  const Instant start = loop_.now();
  bool stopped = false;
  server_->stop([&] { stopped = true; });
  ASSERT_TRUE(loop_.run_until([&] { return client.eof; }, 10s));
  EXPECT_LE(loop_.now() - start, 500ms + kLingerAfterGrace);
  ASSERT_EQ(client.incoming.size(), kHelloAnswer + SimpleReply::kBytes);
  const auto reply = SimpleReply::decode(client.incoming.data() + kHelloAnswer);
  EXPECT_EQ(reply->error, WireError::eshutdown);
  EXPECT_EQ(reply->cookie, 0x55u);
  loop_.run_for(5s);
  EXPECT_FALSE(stopped);  // its buffer is still the device's
  device_.let_go();
  EXPECT_TRUE(loop_.run_until([&] { return stopped; }, 1s));
}

TEST_F(ServerTest, AClientThatReadsNothingCannotHoldUpTheEnd) {
  serve();
  loop_.pipe.window_bytes = 10'000;
  ByteUser client;
  client.outgoing = hello();
  for (std::uint64_t i = 0; i < 20; ++i) {
    append(client.outgoing, {0, Command::read, i, 0, 1 << 20});
  }
  client.room = kHelloAnswer + 100;
  connect(client);
  EXPECT_LE(stop(), 3s);
}

TEST_F(ServerTest, TellsWhatAClientDidWrong) {
  std::string told;
  serve({.on_misbehaviour = [&](const std::string& what) { told = what; }});
  ByteUser client;
  client.outgoing = hello();
  client.outgoing.resize(client.outgoing.size() + RequestHeader::kBytes);
  connect(client);
  EXPECT_TRUE(client.closed);
  EXPECT_NE(told.find("bad magic"), std::string::npos) << told;
  EXPECT_EQ(server_->totals().clients, 0u);
  stop();
}

}  // namespace
}  // namespace nvmf::nbd
