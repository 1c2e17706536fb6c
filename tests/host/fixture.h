// A host and a fake target in virtual time.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "host/fake_target.h"
#include "host/log.h"
#include "host/subsystem.h"

namespace nvmf::test {

using std::chrono::milliseconds;
using std::chrono::seconds;

inline std::vector<std::string>& logged() {
  static std::vector<std::string> sentences;
  return sentences;
}

struct Outcome final : host::SubsystemEvents {
  void on_live() override { ++live; }
  void on_live_again() override { ++live_again; }
  void on_ended(const Error& reason) override { ended = reason; }
  int live = 0;
  int live_again = 0;
  std::optional<Error> ended;
};

/// A request that remembers its completion.
struct Request : host::BlockRequest {
  Request() {
    complete = [](host::BlockRequest& r) { ++static_cast<Request&>(r).completions; };
  }
  int completions = 0;
  [[nodiscard]] bool done() const { return completions == 1; }
};

class HostTest : public testing::Test {
 protected:
  HostTest() {
    logged().clear();
    host::set_log_sink([](host::LogLevel, std::string_view s) { logged().emplace_back(s); });
    params.traddr = "10.0.0.1";
    params.subnqn = kSubnqn;
    params.hostnqn = "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555";
    params.hostid[3] = std::byte{9};
    params.nr_io_queues = 2;
    params.queue_size = 32;
  }
  ~HostTest() override {
    if (subsystem && !outcome.ended) {
      subsystem->stop();
      loop.run_until([this] { return outcome.ended.has_value(); }, seconds(60));
    }
    subsystem.reset();
    host::set_log_sink(nullptr);
  }

  /// Every reactor is the one virtual loop.
  void start(std::size_t reactors = 1) {
    subsystem = std::make_unique<host::RemoteSubsystem>(
        params, std::vector<transport::Loop*>(reactors, &loop), outcome);
    subsystem->start();
  }
  /// Starts and runs until it is live or has ended.
  [[nodiscard]] bool go_live(std::size_t reactors = 1) {
    start(reactors);
    loop.run_until([this] { return outcome.live != 0 || outcome.ended; }, seconds(120));
    return outcome.live != 0;
  }
  /// The sentence that a bring-up fails with, checked to come within `most` of virtual time and to
  /// leave no connection open.
  std::string failure(Duration most = seconds(40)) {
    const Instant begin = loop.now();
    start();
    EXPECT_TRUE(loop.run_until([this] { return outcome.ended.has_value(); }, most));
    took = loop.now() - begin;
    EXPECT_EQ(outcome.live, 0);
    loop.run_for(seconds(5));
    EXPECT_TRUE(loop.links().empty()) << loop.links().size() << " connections left open";
    return outcome.ended ? outcome.ended->message : "nothing ended";
  }
  int run(Request& r, std::uint32_t nsid = 1, std::size_t reactor = 0) {
    subsystem->device(reactor, nsid)->submit(r);
    EXPECT_EQ(r.completions, 0) << "completed inside submit()";
    EXPECT_TRUE(loop.run_until([&] { return r.completions != 0; }, seconds(100)));
    return r.error;
  }

  sim::VirtualLoop loop;
  FakeTarget target{loop};
  host::ConnectParams params;
  Outcome outcome;
  std::unique_ptr<host::RemoteSubsystem> subsystem;
  Duration took{};
};

}  // namespace nvmf::test
