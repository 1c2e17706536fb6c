// Hostile clients and an honest one: whoever does not read, or does not send what it has begun,
// holds up nobody else. Two pools share the memory as two reactors do.
#include <gtest/gtest.h>

#include "frontends/nbd/protocol.h"
#include "frontends/nbd/server.h"
#include "loop_device.h"
#include "sim/byte_user.h"
#include "sim/virtual_loop.h"

namespace nvmf::nbd {
namespace {

using namespace std::chrono_literals;
using sim::ByteUser;
using Bytes = std::vector<std::byte>;

constexpr std::uint32_t kMiB = 1 << 20;
constexpr std::size_t kHelloAnswer = 18 + 32 + 34 + 20;
const transport::Endpoint kAt{.host = "127.0.0.1", .port = 10809, .unix_path = {}};

void append(Bytes& to, const RequestHeader& r, std::size_t payload = 0) {
  to.resize(to.size() + RequestHeader::kBytes + payload);
  r.encode(to.data() + to.size() - RequestHeader::kBytes - payload);
}

Bytes hello(bool structured = false) {
  Bytes b(4);
  store_be32(b.data(), kFixedNewstyle | kNoZeroes);
  const auto add = [&b](Option option, std::uint32_t length) {
    b.resize(b.size() + OptionHeader::kBytes + length);
    OptionHeader{option, length}.encode(b.data() + b.size() - OptionHeader::kBytes - length);
  };
  if (structured) add(Option::structured_reply, 0);
  add(Option::go, 6);
  return b;
}

class Crowd : public testing::Test {
 protected:
  explicit Crowd(std::size_t buffer_bytes = kBufferBytesMax) {
    loop_.pipe.latency = 20us;
    ExportList exports;
    exports.add(make_export({&device_, &device_}));
    server_ =
        std::make_unique<Server>(std::vector<transport::Loop*>{&loop_, &loop_}, std::move(exports),
                                 ServerOptions{.buffer_bytes = buffer_bytes});
    EXPECT_TRUE(server_->listen(kAt).has_value());
  }
  ~Crowd() override {
    bool stopped = false;
    server_->stop([&] { stopped = true; });
    EXPECT_TRUE(loop_.run_until([&] { return stopped; }, 60s));
    loop_.shutdown();
  }

  void connect(ByteUser& user) {
    user.place_bytes = 100'000;
    user.range_bytes = 1'000'000;
    user.stream = loop_.connect(kAt, {}, user);
    loop_.run_for(1ms);
  }

  /// Clients that ask for much and read next to nothing of it.
  void not_reading(std::size_t count, std::uint32_t length, int requests) {
    for (std::size_t i = 0; i < count; ++i) {
      ByteUser& user = *rude_.emplace_back(std::make_unique<ByteUser>());
      user.outgoing = hello(i % 2 == 0);
      for (int n = 0; n < requests; ++n) {
        append(user.outgoing, {0, Command::read, static_cast<std::uint64_t>(n), 0, length});
      }
      user.room = kHelloAnswer + 100;
      connect(user);
    }
  }

  /// Clients that send half of what they promised.
  void not_sending(std::size_t count, std::uint32_t length) {
    for (std::size_t i = 0; i < count; ++i) {
      ByteUser& user = *rude_.emplace_back(std::make_unique<ByteUser>());
      user.outgoing = hello();
      append(user.outgoing, {0, Command::write, 1, 0, length}, length / 2);
      connect(user);
    }
  }

  /// An honest client on each of the two pools does a bit of everything, and each time has its
  /// answer soon: within the time that the bytes take on the simulated wire, many times over.
  void everything_is_served() {
    for (const bool structured : {false, true}) {
      const std::size_t first = honest_.size();
      for (int i = 0; i < 2; ++i) {
        ByteUser& user = *honest_.emplace_back(std::make_unique<ByteUser>());
        user.outgoing = hello(structured);
        connect(user);
      }
      for (std::size_t i = first; i < honest_.size(); ++i) {
        ByteUser& user = *honest_[i];
        const std::size_t greeting = user.incoming.size();
        ASSERT_GE(greeting, kHelloAnswer);
        for (const std::uint32_t length : {512u, 4096u, 65536u, 256u * 1024, 3 * kMiB, 32 * kMiB}) {
          SCOPED_TRACE(length);
          Bytes both;
          append(both, {0, Command::write, 1, 0, length}, length);
          append(both, {0, Command::read, 2, 0, length});
          user.incoming.clear();
          user.outgoing.clear();
          user.sent = 0;
          user.send(both);
          const std::size_t expected = SimpleReply::kBytes + length;
          ASSERT_TRUE(loop_.run_until(
              [&] { return user.incoming.size() >= expected + SimpleReply::kBytes; }, 10s))
              << user.incoming.size();
        }
        user.stream->reset(Error{"done", ECANCELED});
        loop_.run_for(1ms);
      }
    }
  }

  sim::VirtualLoop loop_{5};
  std::shared_ptr<test::Disk> disk_ = std::make_shared<test::Disk>(33 * kMiB);
  test::LoopDevice device_{loop_, disk_};
  std::unique_ptr<Server> server_;
  std::vector<std::unique_ptr<ByteUser>> rude_;
  std::vector<std::unique_ptr<ByteUser>> honest_;
};

TEST_F(Crowd, NineThatReadNothingOfTheir32MiB) {
  not_reading(9, 32 * kMiB, 1);
  everything_is_served();
}

TEST_F(Crowd, AHundredThatReadNothing) {
  not_reading(100, 256 * 1024, 100);
  everything_is_served();
}

TEST_F(Crowd, AHundredThatSendHalfAPayload) {
  not_sending(8, 32 * kMiB);
  not_sending(92, kMiB);
  everything_is_served();
}

TEST_F(Crowd, AllOfThemAndStillIdleClientsAreKept) {
  ByteUser& idle = *honest_.emplace_back(std::make_unique<ByteUser>());
  idle.outgoing = hello();
  connect(idle);
  not_reading(40, 32 * kMiB, 1);
  not_sending(40, 2 * kMiB);
  not_reading(80, 4096, 128);
  everything_is_served();
  loop_.run_for(600s);
  everything_is_served();
  EXPECT_FALSE(idle.closed);
  EXPECT_EQ(server_->totals().clients, 161u);
  // Those that wait in vain do not keep the loop busy.
  const std::uint64_t turns = loop_.turns();
  loop_.run_for(60s);
  EXPECT_LT(loop_.turns() - turns, 5000u);
}

/// In a process that has all faces.
class CrowdAtOneOfThree : public Crowd {
 protected:
  CrowdAtOneOfThree()
      : Crowd(frontends::buffer_shares({.nbd = true, .fuse = true, .kernel = true}).nbd) {}
};

TEST_F(CrowdAtOneOfThree, NineThatReadNothingOfTheir32MiB) {
  not_reading(9, 32 * kMiB, 1);
  everything_is_served();
}

TEST_F(CrowdAtOneOfThree, AsManyClientsAsThereMayBe) {
  not_reading(60, 32 * kMiB, 1);
  not_reading(60, 256 * 1024, 100);
  not_sending(60, 32 * kMiB);
  not_reading(kClientsMax - 2 - 180, 4096, 128);
  everything_is_served();
  EXPECT_EQ(server_->totals().refused, 0u);
}

TEST(BufferShares, AreOneBudgetWhateverFacesThereAre) {
  constexpr std::size_t kNeeds = kClientsMax * kReserveBytes + kPieceBytesMax;
  for (unsigned which = 1; which < 8; ++which) {
    const frontends::FacesThere there = {
        .nbd = (which & 1) != 0, .fuse = (which & 2) != 0, .kernel = (which & 4) != 0};
    const frontends::BufferShares shares = frontends::buffer_shares(there);
    SCOPED_TRACE(testing::Message() << "faces " << which);
    EXPECT_LE(shares.nbd + shares.fuse + shares.kernel, std::size_t{64} * kMiB);
    EXPECT_EQ(shares.nbd != 0, there.nbd);
    EXPECT_EQ(shares.fuse != 0, there.fuse);
    EXPECT_EQ(shares.kernel != 0, there.kernel);
    // All reserves, and more than one reactor's worth of pieces beside them.
    if (there.nbd) EXPECT_GE(shares.nbd, kNeeds + 4 * kMiB);
    if (there.kernel) EXPECT_GE(shares.kernel, kNeeds + 4 * kMiB);
    if (there.fuse) EXPECT_GE(shares.fuse, std::size_t{16} * kMiB);
  }
  EXPECT_EQ(frontends::buffer_shares({.nbd = true}).nbd, std::size_t{64} * kMiB);
  EXPECT_EQ(frontends::buffer_shares({.kernel = true}).kernel, std::size_t{64} * kMiB);
  EXPECT_EQ(frontends::buffer_shares({.fuse = true}).fuse, std::size_t{48} * kMiB);
  EXPECT_EQ(frontends::buffer_shares({.nbd = true, .fuse = true}).fuse, std::size_t{32} * kMiB);
}

}  // namespace
}  // namespace nvmf::nbd
