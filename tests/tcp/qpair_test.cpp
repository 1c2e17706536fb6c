// Both engines joined in memory: every way in which data can travel, under every way in which a
// network can deliver it.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "sim/byte_user.h"
#include "sim/virtual_loop.h"
#include "transport/tcp/controller_qpair.h"
#include "transport/tcp/host_qpair.h"

namespace nvmf::tcp {
namespace {

using namespace std::chrono_literals;
using transport::DataDirection;
using transport::Delivery;

constexpr std::uint8_t kRead = 2;
constexpr std::uint8_t kWrite = 1;
constexpr std::uint8_t kFail = 0;  // answered with an error without its data being touched
constexpr std::uint32_t kDiskBytes = 4 * 1024 * 1024;

/// The controller's session: a disk of bytes, offset in SLBA, with pieces of a chosen size.
struct Session final : transport::ControllerQpairEvents {
  Session(transport::Loop& loop, const ControllerQpairOptions& options)
      : qpair(std::make_unique<ControllerQpair>(options, *this)), loop_(loop) {}

  void on_command(transport::ControllerCommand& c) override {
    ++commands;
    if (c.sqe.opcode == kFail) {
      return qpair->respond(c, nvme::Status(nvme::StatusCode::invalid_field, true), 0);
    }
    if (!c.in_capsule.empty()) {
      std::ranges::copy(c.in_capsule, disk.begin() + static_cast<std::ptrdiff_t>(c.sqe.slba()));
      return qpair->respond(c, {}, 0);
    }
    next(c);
  }
  void next(transport::ControllerCommand& c) {
    const std::uint32_t left = c.data_bytes - c.moved_bytes;
    const std::uint32_t n = std::min(left, piece_bytes);
    std::byte* at = disk.data() + c.sqe.slba() + c.moved_bytes;
    if (c.sqe.opcode == kWrite) {
      qpair->receive_data(c, {at, n});
    } else {
      qpair->send_data(c, {at, n}, n == left, n == left && success);
    }
  }
  void on_data_received(transport::ControllerCommand& c, bool digest_ok) override {
    if (!digest_ok) return qpair->respond(c, nvme::StatusCode::transient_transport_error, 0);
    if (c.moved_bytes < c.data_bytes) return next(c);
    qpair->respond(c, {}, 0);
  }
  void on_data_sent(transport::ControllerCommand& c) override {
    if (c.moved_bytes < c.data_bytes) return next(c);
    if (!success) qpair->respond(c, {}, 0);
  }
  void on_ended(const Error& reason) override { ended = reason; }

  std::unique_ptr<ControllerQpair> qpair;
  transport::Loop& loop_;
  std::vector<std::byte> disk = std::vector<std::byte>(kDiskBytes);
  std::uint32_t piece_bytes = ~0u;
  bool success = false;
  std::size_t commands = 0;
  std::optional<Error> ended;
};

struct HostEvents final : transport::HostQpairEvents {
  void on_ready() override { ready = true; }
  void on_slot_free() override { ++slot_free; }
  void on_ended(const Error& reason) override { ended = reason; }
  bool ready = false;
  int slot_free = 0;
  std::optional<Error> ended;
};

struct Io : transport::HostCommand {
  std::vector<std::byte> buffer;
  bool done = false;
  int completions = 0;
  Io(std::uint8_t opcode, std::uint64_t offset, std::uint32_t length, std::uint64_t seed) {
    buffer = sim::pattern(length, seed);
    sqe.opcode = opcode;
    sqe.set_slba(offset);
    direction = length == 0       ? DataDirection::none
                : opcode == kRead ? DataDirection::from_controller
                                  : DataDirection::to_controller;
    data = buffer.data();
    data_bytes = length;
    complete = [](transport::HostCommand& c) {
      static_cast<Io&>(c).done = true;
      ++static_cast<Io&>(c).completions;
    };
  }
};

struct Wiring {
  const char* name;
  sim::PipeOptions pipe;
  HostQpairOptions host;
  ControllerQpairOptions controller;
  std::uint32_t queue_entries = 32;
  std::uint32_t in_capsule_bytes = 8192;
  bool flow_control = true;
  bool success = false;
  std::uint32_t piece_bytes = ~0u;
};

struct Pair {
  explicit Pair(const Wiring& setup) : loop(7) {
    loop.pipe = setup.pipe;
    auto listening = loop.listen({"127.0.0.1", 4420, ""}, [this, setup](auto incoming) {
      session = std::make_unique<Session>(loop, setup.controller);
      session->piece_bytes = setup.piece_bytes;
      session->success = setup.success;
      session->qpair->start(loop, std::move(incoming));
      session->qpair->open_queue(setup.queue_entries, setup.in_capsule_bytes, setup.flow_control);
    });
    listener = std::move(*listening);
    HostQpairOptions options = setup.host;
    options.queue_entries = setup.queue_entries;
    options.in_capsule_bytes = setup.in_capsule_bytes;
    qpair = std::make_unique<HostQpair>(options, events);
    qpair->start(loop, {"127.0.0.1", 4420, ""}, {});
    EXPECT_TRUE(loop.run_until([&] { return events.ready || events.ended; }, 60s));
    EXPECT_TRUE(events.ready);
  }
  ~Pair() {
    qpair->end(Error{"test over"});
    EXPECT_TRUE(loop.run_until([&] { return events.ended.has_value(); }, 60s));
    if (!session->ended) session->qpair->end(Error{"test over"});
    EXPECT_TRUE(loop.run_until([&] { return session->ended.has_value(); }, 60s));
  }
  void run(Io& io) {
    qpair->submit(io);
    EXPECT_FALSE(io.done) << "completed inside submit";
    EXPECT_TRUE(loop.run_until([&] { return io.done; }, 600s));
  }

  sim::VirtualLoop loop;
  std::unique_ptr<transport::Listener> listener;
  std::unique_ptr<Session> session;
  HostEvents events;
  std::unique_ptr<HostQpair> qpair;
};

class Joined : public ::testing::TestWithParam<Wiring> {};

TEST_P(Joined, DataGoesThereAndBack) {
  Pair p(GetParam());
  for (const std::uint32_t length : {4u, 512u, 4096u, 8192u, 8196u, 65536u, 200'000u}) {
    Io write(kWrite, 1024, length, length);
    p.run(write);
    EXPECT_EQ(write.delivery, Delivery::answered);
    EXPECT_TRUE(write.cqe.status.ok()) << length;
    Io read(kRead, 1024, length, 0);
    p.run(read);
    EXPECT_TRUE(read.cqe.status.ok()) << length;
    EXPECT_EQ(read.received_bytes, length);
    EXPECT_EQ(read.buffer, write.buffer) << length;
  }
}

TEST_P(Joined, ManyAtOnceEachEndsOnce) {
  Pair p(GetParam());
  std::mt19937_64 random(3);
  std::vector<std::unique_ptr<Io>> ios;
  std::vector<std::byte> expected(kDiskBytes);
  std::size_t done = 0;
  // Each command has a region of its own, so that their order does not matter.
  constexpr std::uint32_t kRegion = 65536;
  for (std::uint32_t i = 0; i < 120; ++i) {
    const auto length = static_cast<std::uint32_t>(random() % 12'000 + 1);
    const std::uint64_t offset = std::uint64_t{i % 60} * kRegion;
    const std::uint8_t opcode = i % 7 == 6 ? kFail : i < 60 ? kWrite : kRead;
    ios.push_back(std::make_unique<Io>(opcode, offset, opcode == kFail ? 0 : length, i));
    if (opcode == kWrite) {
      std::ranges::copy(ios.back()->buffer, expected.begin() + static_cast<std::ptrdiff_t>(offset));
    }
  }
  std::size_t next = 0;
  ASSERT_TRUE(p.loop.run_until(
      [&] {
        // Reads begin when all writes have ended.
        const std::size_t limit = next < 60 || done >= 60 ? ios.size() : 60;
        while (next < std::min(limit, next < 60 ? std::size_t{60} : ios.size()) &&
               p.qpair->free_slots() > 0) {
          p.qpair->submit(*ios[next++]);
        }
        done = static_cast<std::size_t>(
            std::ranges::count_if(ios, [](const auto& io) { return io->done; }));
        return done == ios.size();
      },
      3600s));
  for (std::size_t i = 0; i < ios.size(); ++i) {
    const Io& io = *ios[i];
    EXPECT_EQ(io.completions, 1);
    EXPECT_EQ(io.delivery, Delivery::answered);
    if (io.sqe.opcode == kFail) {
      EXPECT_EQ(io.cqe.status.code(), nvme::StatusCode::invalid_field);
      EXPECT_TRUE(io.cqe.status.dnr);
      continue;
    }
    EXPECT_TRUE(io.cqe.status.ok());
    if (io.sqe.opcode == kRead) {
      EXPECT_TRUE(std::equal(io.buffer.begin(), io.buffer.end(),
                             expected.begin() + static_cast<std::ptrdiff_t>(io.sqe.slba())));
    }
  }
}

std::vector<Wiring> setups() {
  const sim::PipeOptions one{.max_chunk = 1};
  const sim::PipeOptions seven{.max_chunk = 7, .post_receives = true};
  const sim::PipeOptions random{.max_chunk = 9000,
                                .random_split = true,
                                .latency = 50us,
                                .post_receives = true,
                                .send_hold = 20us};
  const HostQpairOptions digests{.header_digest = true, .data_digest = true};
  return {
      {.name = "plain"},
      {.name = "bytewise", .pipe = one},
      {.name = "by7", .pipe = seven, .host = {.header_digest = true}},
      {.name = "random", .pipe = random},
      {.name = "digests", .pipe = random, .host = digests},
      {.name = "header_digest", .host = {.header_digest = true}},
      {.name = "data_digest", .pipe = seven, .host = {.data_digest = true}},
      {.name = "no_in_capsule", .pipe = random, .in_capsule_bytes = 0},
      {.name = "no_in_capsule_digests", .pipe = random, .host = digests, .in_capsule_bytes = 0},
      {.name = "in_capsule_64k", .pipe = random, .host = digests, .in_capsule_bytes = 65536},
      {.name = "pda31",
       .pipe = random,
       .host = {.header_digest = true, .data_digest = true, .hpda = 31},
       .controller = {.cpda = 31}},
      {.name = "pda_odd", .pipe = seven, .host = {.hpda = 10}, .controller = {.cpda = 4}},
      {.name = "one_r2t",
       .pipe = random,
       .host = {.r2t_max = 1},
       .controller = {.maxh2cdata_bytes = 4096, .r2t_bytes = 4096},
       .in_capsule_bytes = 0},
      {.name = "many_r2ts",
       .pipe = random,
       .host = {.header_digest = true, .data_digest = true, .r2t_max = 4},
       .controller = {.maxh2cdata_bytes = 4096, .r2t_bytes = 10'000},
       .in_capsule_bytes = 512},
      {.name = "success_flag", .pipe = random, .flow_control = false, .success = true},
      {.name = "success_with_flow_control", .pipe = random, .host = digests, .success = true},
      {.name = "pieces", .pipe = random, .success = true, .piece_bytes = 5000},
      {.name = "small_c2h",
       .pipe = random,
       .host = digests,
       .controller = {.c2h_data_bytes = 1000},
       .flow_control = false,
       .success = true,
       .piece_bytes = 3500},
      {.name = "two_entries", .pipe = random, .queue_entries = 2},
      {.name = "three_entries",
       .pipe = seven,
       .queue_entries = 3,
       .flow_control = false,
       .success = true},
      {.name = "deep", .pipe = random, .queue_entries = 1024},
  };
}

INSTANTIATE_TEST_SUITE_P(Wirings, Joined, ::testing::ValuesIn(setups()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(HostQpair, SlotsComeBackAndSaySo) {
  Pair p(Wiring{.name = "", .queue_entries = 4});
  EXPECT_EQ(p.qpair->free_slots(), 3u);
  std::vector<std::unique_ptr<Io>> ios;
  for (int i = 0; i < 3; ++i) {
    ios.push_back(std::make_unique<Io>(kWrite, 0, 512, 1));
    p.qpair->submit(*ios.back());
  }
  EXPECT_EQ(p.qpair->free_slots(), 0u);
  ASSERT_TRUE(p.loop.run_until([&] { return p.qpair->free_slots() == 3; }, 10s));
  EXPECT_GE(p.events.slot_free, 1);
}

TEST(HostQpair, EndSaysWhatWasSentAndWhatWasNot) {
  Pair p(Wiring{.name = "", .queue_entries = 32});
  Io answered(kWrite, 0, 512, 1);
  p.run(answered);
  p.loop.links().front()->blackhole();
  Io sent(kWrite, 0, 512, 1);
  p.qpair->submit(sent);
  p.loop.run_for(1ms);
  Io unsent(kWrite, 0, 512, 1);
  p.qpair->submit(unsent);
  p.qpair->end(Error{"pulled the plug", ETIMEDOUT});
  EXPECT_FALSE(sent.done || unsent.done) << "completed inside end()";
  ASSERT_TRUE(p.loop.run_until([&] { return p.events.ended.has_value(); }, 10s));
  EXPECT_EQ(answered.delivery, Delivery::answered);
  EXPECT_EQ(sent.delivery, Delivery::unanswered);
  EXPECT_EQ(unsent.delivery, Delivery::not_sent);
  EXPECT_EQ(p.events.ended->message, "pulled the plug");
  EXPECT_EQ(p.qpair->free_slots(), 0u);
}

TEST(HostQpair, CorruptedReadIsATransientTransportError) {
  Pair p(Wiring{.name = "", .host = {.data_digest = true}});
  Io write(kWrite, 0, 4096, 1);
  p.run(write);
  p.loop.links().front()->tamper = [](sim::Side from, std::span<std::byte> bytes) {
    if (from == sim::Side::server && bytes.size() > 2000) bytes[1000] ^= std::byte{1};
  };
  Io read(kRead, 0, 4096, 0);
  p.run(read);
  EXPECT_EQ(read.cqe.status.code(), nvme::StatusCode::transient_transport_error);
  p.loop.links().front()->tamper = {};
  Io again(kRead, 0, 4096, 0);
  p.run(again);
  EXPECT_TRUE(again.cqe.status.ok()) << "the connection goes on";
  EXPECT_EQ(again.buffer, write.buffer);
}

TEST(ControllerQpair, CorruptedWriteIsATransientTransportError) {
  for (const std::uint32_t in_capsule : {0u, 8192u}) {
    Pair p(Wiring{.name = "", .host = {.data_digest = true}, .in_capsule_bytes = in_capsule});
    p.loop.links().front()->tamper = [](sim::Side from, std::span<std::byte> bytes) {
      if (from == sim::Side::client && bytes.size() > 2000) bytes[1000] ^= std::byte{1};
    };
    Io write(kWrite, 0, 4096, 1);
    p.run(write);
    EXPECT_EQ(write.cqe.status.code(), nvme::StatusCode::transient_transport_error);
    EXPECT_FALSE(p.events.ended.has_value());
  }
}

// The owner of a buffer may be another process (a client's pages, a kernel's page cache) that goes
// on writing while we send. The digest then differs from the bytes that left, and the controller
// must say so: such a write is never called a success.
TEST(Qpair, BufferChangedByItsOwnerWhileItsDigestIsComputed) {
  for (const std::uint32_t in_capsule : {0u, 8192u}) {
    Pair p(Wiring{.name = "",
                  .pipe = {.send_hold = 1ms},  // the bytes are taken that much after the digest
                  .host = {.data_digest = true},
                  .in_capsule_bytes = in_capsule});
    Io write(kWrite, 0, 4096, 1);
    p.qpair->submit(write);
    // At each 100 us another byte: whenever the digest is made, the data goes on changing.
    std::size_t at = 0;
    ASSERT_TRUE(p.loop.run_until(
        [&] {
          write.buffer[at++ % 4096] ^= std::byte{0xff};
          return write.done;
        },
        10s));
    EXPECT_EQ(write.cqe.status.code(), nvme::StatusCode::transient_transport_error);
    EXPECT_FALSE(p.events.ended.has_value()) << "the connection goes on";
    Io again(kWrite, 0, 4096, 2);
    p.run(again);
    EXPECT_TRUE(again.cqe.status.ok());
  }
}

// And the other way round: a read buffer that somebody writes to while the data lands.
TEST(Qpair, ReadBufferChangedByItsOwnerWhileItsDigestIsComputed) {
  Pair p(Wiring{
      .name = "", .pipe = {.max_chunk = 100, .latency = 10us}, .host = {.data_digest = true}});
  Io write(kWrite, 0, 4096, 1);
  p.run(write);
  Io read(kRead, 0, 4096, 0);
  p.qpair->submit(read);
  ASSERT_TRUE(p.loop.run_until(
      [&] {
        for (std::byte& b : read.buffer) b ^= std::byte{0x80};
        return read.done;
      },
      10s));
  // Each piece was summed up as it landed, so the digest is right; or it was not, and says so.
  // Never is the command lost or the connection broken.
  EXPECT_EQ(read.completions, 1);
  EXPECT_FALSE(p.events.ended.has_value());
}

TEST(Qpair, CorruptedHeaderEndsTheConnection) {
  for (const sim::Side side : {sim::Side::client, sim::Side::server}) {
    Pair p(Wiring{.name = "", .host = {.header_digest = true}});
    p.loop.links().front()->tamper = [side](sim::Side from, std::span<std::byte> bytes) {
      if (from == side) bytes[20] ^= std::byte{1};
    };
    Io write(kWrite, 0, 512, 1);
    p.qpair->submit(write);
    ASSERT_TRUE(p.loop.run_until([&] { return p.events.ended.has_value(); }, 10s));
    EXPECT_NE(p.events.ended->message.find("Header Digest Error (FES 3)"), std::string::npos)
        << p.events.ended->message;
    EXPECT_EQ(write.delivery, Delivery::unanswered);
  }
}

TEST(HostQpair, RefusesADeclinedDigest) {
  sim::VirtualLoop loop;
  std::unique_ptr<Session> session;
  auto listener = loop.listen({"127.0.0.1", 4420, ""}, [&](auto incoming) {
    session = std::make_unique<Session>(loop, ControllerQpairOptions{.data_digest = false});
    session->qpair->start(loop, std::move(incoming));
  });
  HostEvents events;
  HostQpair qpair({.header_digest = true, .data_digest = true}, events);
  qpair.start(loop, {"127.0.0.1", 4420, ""}, {});
  ASSERT_TRUE(loop.run_until([&] { return events.ended && session->ended; }, 10s));
  EXPECT_FALSE(events.ready);
  EXPECT_NE(events.ended->message.find("declined the data digest"), std::string::npos);
}

TEST(HostQpair, FinishSendsWhatIsQueuedThenFin) {
  Pair p(Wiring{.name = ""});
  Io write(kWrite, 0, 512, 1);
  p.qpair->submit(write);
  p.qpair->finish();
  ASSERT_TRUE(p.loop.run_until([&] { return p.events.ended && p.session->ended; }, 10s));
  EXPECT_EQ(p.events.ended->code, 0);
  EXPECT_EQ(p.session->commands, 1u) << "the queued capsule left before the FIN";
}

}  // namespace
}  // namespace nvmf::tcp
