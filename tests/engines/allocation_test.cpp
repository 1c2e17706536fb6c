// Once an association is live, I/O allocates nothing: not in the host (namespace device, I/O queue,
// queue pair), not in the controller (queue pair, session, I/O queue, disk in memory).
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "controller/target.h"
#include "engines/counting_loop.h"
#include "host/subsystem.h"
#include "sim/virtual_loop.h"

namespace nvmf {
namespace {

using std::chrono::seconds;

constexpr const char* kNqn = "nqn.2026-01.org.example:disk";
constexpr std::uint64_t kDiskBytes = 16u << 20;

struct Outcome final : host::SubsystemEvents {
  void on_live() override { live = true; }
  void on_ended(const Error& reason) override { ended = reason; }
  bool live = false;
  std::optional<Error> ended;
};

struct Request : host::BlockRequest {
  bool done = true;
  std::vector<std::byte> buffer;
};

struct Setup {
  const char* name;
  bool header_digest = false;
  bool data_digest = false;
  bool disable_sqflow = false;
  std::uint32_t in_capsule_bytes = 8192;
};

class NoAllocation : public ::testing::TestWithParam<Setup> {
 protected:
  void SetUp() override {
    controller::TargetConfig config;
    controller::NamespaceConfig disk;
    disk.size_bytes = kDiskBytes;
    config.subsystems.push_back({kNqn, {disk}, {}, {}});
    config.in_capsule_bytes = GetParam().in_capsule_bytes;
    auto made = controller::Target::create(at_target, std::move(config));
    ASSERT_TRUE(made) << made.error().message;
    target = std::move(*made);
    ASSERT_TRUE(target->listen({"127.0.0.1", 4420, ""}));

    host::ConnectParams params;
    params.traddr = "127.0.0.1";
    params.subnqn = kNqn;
    params.hostnqn = "nqn.2026-01.org.example:host";
    params.hostid[0] = std::byte{1};
    params.nr_io_queues = 2;
    params.queue_size = 32;
    params.keep_alive_ms = 0;  // an admin command, which may allocate
    params.header_digest = GetParam().header_digest;
    params.data_digest = GetParam().data_digest;
    params.disable_sqflow = GetParam().disable_sqflow;
    subsystem = std::make_unique<host::RemoteSubsystem>(
        params, std::vector<transport::Loop*>{&at_host, &at_host}, outcome);
    subsystem->start();
    ASSERT_TRUE(loop.run_until([&] { return outcome.live || outcome.ended; }, seconds(30)));
    ASSERT_TRUE(outcome.live) << outcome.ended->message;
  }
  void TearDown() override {
    subsystem->stop();
    EXPECT_TRUE(loop.run_until([&] { return outcome.ended.has_value(); }, seconds(30)));
    bool stopped = false;
    target->stop([&](Result<void>) { stopped = true; });
    EXPECT_TRUE(loop.run_until([&] { return stopped; }, seconds(30)));
    subsystem.reset();
    target.reset();
  }

  /// `count` requests, up to `depth` at once, over both reactors' devices.
  void work(std::size_t count, std::size_t depth, std::uint64_t seed) {
    static constexpr std::uint32_t kSizes[] = {512,   1024,   4096,      8192,    8704,
                                               65536, 131072, 256 << 10, 1 << 20, (2 << 20) + 512};
    std::mt19937_64 random(seed);
    std::vector<Request> requests(depth);
    for (Request& r : requests) {
      r.buffer.resize((2 << 20) + 512);
      r.data = r.buffer.data();
      r.complete = [](host::BlockRequest& done) { static_cast<Request&>(done).done = true; };
    }
    std::size_t left = count;
    const auto submit = [&](Request& r) {
      const std::uint64_t n = random();
      r.op = n % 16 < 7    ? host::BlockOp::read
             : n % 16 < 13 ? host::BlockOp::write
             : n % 16 < 14 ? host::BlockOp::flush
             : n % 16 < 15 ? host::BlockOp::write_zeroes
                           : host::BlockOp::deallocate;
      // Large ones now and then.
      r.length_bytes = kSizes[n / 16 % (n / 256 % 8 == 0 ? std::size(kSizes) : 6)];
      r.offset_bytes = n / 4096 % ((kDiskBytes - r.length_bytes) / 512) * 512;
      r.fua = n % 3 == 0 && r.op == host::BlockOp::write;
      if (r.op == host::BlockOp::flush) r.offset_bytes = r.length_bytes = 0;
      r.done = false;
      host::BlockDevice* device = subsystem->device(n / 65536 % 2, 1);
      at_host.counted([&] { device->submit(r); });
    };
    const bool all = loop.run_until(
        [&] {
          std::size_t open = 0;
          for (Request& r : requests) {
            if (r.done && left > 0) {
              EXPECT_EQ(r.error, 0);
              --left;
              submit(r);
            }
            open += r.done ? 0 : 1;
          }
          return left == 0 && open == 0;
        },
        seconds(3600));
    ASSERT_TRUE(all);
    for (const Request& r : requests) EXPECT_EQ(r.error, 0);
  }

  sim::VirtualLoop loop;
  sim::CountingLoop at_host{loop};
  sim::CountingLoop at_target{loop};
  std::unique_ptr<controller::Target> target;
  Outcome outcome;
  std::unique_ptr<host::RemoteSubsystem> subsystem;
};

TEST_P(NoAllocation, ThousandsOfReadsAndWritesOfAllSizes) {
  // More at once than there are slots, so that every list is in use; twice, because a deque or a
  // vector may take its memory when it is first full.
  work(600, 80, 1);
  const std::size_t host = at_host.counted_allocations();
  const std::size_t controller = at_target.counted_allocations();
  const std::size_t calls = at_host.calls() + at_target.calls();
  work(3000, 80, 2);
  EXPECT_EQ(at_host.counted_allocations() - host, 0u);
  EXPECT_EQ(at_target.counted_allocations() - controller, 0u);
  EXPECT_GT(at_host.calls() + at_target.calls() - calls, 6'000u) << "it counted nothing";
}

TEST_P(NoAllocation, WhatACompletionAllocatesIsSeen) {
  Request r;
  r.buffer.resize(4096);
  r.data = r.buffer.data();
  r.length_bytes = 4096;
  r.done = false;
  r.complete = [](host::BlockRequest& done) {
    auto& self = static_cast<Request&>(done);
    self.buffer = std::vector<std::byte>(100);  // one allocation
    self.done = true;
  };
  const std::size_t before = at_host.counted_allocations();
  subsystem->device(0, 1)->submit(r);
  ASSERT_TRUE(loop.run_until([&] { return r.done; }, seconds(10)));
  EXPECT_EQ(at_host.counted_allocations() - before, 1u);
}

INSTANTIATE_TEST_SUITE_P(
    Setups, NoAllocation,
    ::testing::Values(Setup{.name = "plain"},
                      Setup{.name = "digests", .header_digest = true, .data_digest = true},
                      Setup{.name = "without_flow_control", .disable_sqflow = true},
                      Setup{.name = "no_in_capsule", .data_digest = true, .in_capsule_bytes = 0}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace nvmf
