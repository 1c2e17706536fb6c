// Eight libnbd clients, spread over three reactors, write pieces of odd sizes into the same blocks
// of 4096 bytes: the whole way, from NBD over real loops and NVMe/TCP to a target. Where no piece
// shares a byte with another, the disk must have the last round of every one at the end. Built
// with the thread sanitizer, this is also the proof that holds stay on their threads.
#include <gtest/gtest.h>
#include <libnbd.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <future>
#include <random>
#include <thread>

#include "controller/target.h"
#include "frontends/nbd/server.h"
#include "frontends/nbd/uri.h"
#include "host/subsystem.h"
#include "io/reactor.h"

namespace nvmf::nbd {
namespace {

using namespace std::chrono_literals;
using Bytes = std::vector<std::byte>;

constexpr const char* kNqn = "nqn.2024-01.org.example:unaligned";
constexpr std::uint64_t kBlock = 4096;
constexpr std::uint64_t kRegionBytes = 48 * kBlock;
constexpr std::uint64_t kSharedBytes = 24 * kBlock;
constexpr std::size_t kClients = 8;
constexpr std::size_t kReactors = 3;
constexpr std::size_t kDepth = 8;
constexpr unsigned kRounds = 30;

/// Reactors on threads of their own, until it is destroyed.
class Reactors {
 public:
  Reactors(std::size_t count, io::BackendKind backend) {
    for (std::size_t i = 0; i < count; ++i) {
      auto reactor = io::make_reactor({.backend = backend});
      if (!reactor) throw std::runtime_error(reactor.error().message);
      reactors_.push_back(std::move(*reactor));
    }
    for (const auto& r : reactors_) {
      threads_.emplace_back([&r] {
        r->run();
        r->end();
      });
    }
  }
  ~Reactors() { join(); }
  void join() {
    for (const auto& r : reactors_) r->stop();
    for (std::thread& t : threads_) t.join();
    threads_.clear();
  }
  [[nodiscard]] io::Reactor& at(std::size_t i) { return *reactors_[i]; }
  [[nodiscard]] std::vector<transport::Loop*> loops() const {
    std::vector<transport::Loop*> out;
    for (const auto& r : reactors_) out.push_back(r.get());
    return out;
  }

 private:
  std::vector<std::unique_ptr<io::Reactor>> reactors_;
  std::vector<std::thread> threads_;
};

/// Target, connection and NBD server in this process.
class Journey final : host::SubsystemEvents {
 public:
  explicit Journey(io::BackendKind backend)
      : target_reactor_(1, backend), reactors_(kReactors, backend) {
    std::string name = "/tmp/nvmf-unaligned-XXXXXX";
    directory_ = ::mkdtemp(name.data());
    std::promise<std::uint16_t> port;
    target_reactor_.at(0).post([&] { port.set_value(start_target()); });
    host::ConnectParams params;
    params.traddr = "127.0.0.1";
    params.port = port.get_future().get();
    params.subnqn = kNqn;
    params.hostnqn = "nqn.2024-01.org.example:host";
    params.hostid[0] = std::byte{1};
    params.nr_io_queues = kReactors;
    subsystem_ = std::make_unique<host::RemoteSubsystem>(params, reactors_.loops(), events());
    reactors_.at(0).post([this] { subsystem_->start(); });
    where_ = listening_.get_future().get();
  }
  ~Journey() {
    reactors_.at(0).post([this] { server_->stop([this] { subsystem_->stop(); }); });
    ended_.get_future().wait();
    reactors_.join();
    server_.reset();
    subsystem_.reset();
    target_reactor_.at(0).post([this] {
      target_->stop([this](Result<void>) {
        // Not inside its own callback.
        target_reactor_.at(0).post([this] {
          target_.reset();
          stopped_.set_value();
        });
      });
    });
    stopped_.get_future().wait();
    ::rmdir(directory_.c_str());
  }
  [[nodiscard]] std::string uri() const { return nbd::uri(where_, ""); }

 private:
  host::SubsystemEvents& events() { return *this; }  // a private base
  std::uint16_t start_target() {
    controller::TargetConfig config;
    auto& subsystem = config.subsystems.emplace_back();
    subsystem.nqn = kNqn;
    subsystem.namespaces.push_back({.kind = controller::NamespaceConfig::Kind::memory,
                                    .size_bytes = 64 << 20,
                                    .block_bytes = kBlock});
    auto target = controller::Target::create(target_reactor_.at(0), std::move(config));
    EXPECT_TRUE(target) << target.error().message;
    target_ = std::move(*target);
    transport::Endpoint at;
    at.host = "127.0.0.1";
    return target_->listen(at)->port;
  }
  void on_live() override {
    EXPECT_EQ(subsystem_->reactors(), kReactors);
    std::vector<host::BlockDevice*> devices;
    for (std::size_t r = 0; r < kReactors; ++r) devices.push_back(subsystem_->device(r, 1));
    EXPECT_EQ(devices[0]->info().block_bytes, kBlock);
    ExportList exports;
    exports.add(make_export(devices));
    server_ = std::make_unique<Server>(reactors_.loops(), std::move(exports));
    transport::Endpoint at;
    at.unix_path = directory_ + "/socket";
    listening_.set_value(server_->listen(at).value_or(at));
  }
  void on_ended(const Error& reason) override {
    EXPECT_EQ(reason.code, 0) << reason.message;
    ended_.set_value();
  }

  std::string directory_;
  Reactors target_reactor_;
  std::unique_ptr<controller::Target> target_;
  Reactors reactors_;
  std::unique_ptr<host::RemoteSubsystem> subsystem_;
  std::unique_ptr<Server> server_;
  std::promise<transport::Endpoint> listening_;
  std::promise<void> ended_;
  std::promise<void> stopped_;
  transport::Endpoint where_;
};

struct CloseHandle {
  void operator()(nbd_handle* h) const { nbd_close(h); }
};
using Handle = std::unique_ptr<nbd_handle, CloseHandle>;

Handle open_export(const std::string& uri) {
  Handle h(nbd_create());
  nbd_set_strict_mode(h.get(), 0);
  EXPECT_EQ(nbd_connect_uri(h.get(), uri.c_str()), 0) << nbd_get_error();
  return h;
}

struct Piece {
  std::size_t number = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  /// Bytes of it that somebody else writes too, [shared_begin, shared_end): either may be last.
  std::uint64_t shared_begin = 0;
  std::uint64_t shared_end = 0;
  Bytes data;
  std::int64_t cookie = -1;

  [[nodiscard]] bool zeroes(unsigned round) const { return (number + round) % 7 == 0; }
  /// What it has after that round.
  void fill(unsigned round) {
    data.assign(length, std::byte{0});
    if (zeroes(round)) return;
    for (std::uint64_t i = 0; i < length; ++i) {
      data[i] = static_cast<std::byte>(number * 31 + round * 7 + i % 251 + 1);
    }
  }
};

/// The region cut into pieces, most smaller than a block, dealt out to the clients. Behind it,
/// whole blocks of one client in each of which another one writes a little.
std::vector<std::vector<Piece>> deal(std::mt19937& random) {
  std::vector<std::vector<Piece>> out(kClients);
  std::size_t number = 0;
  for (std::uint64_t at = 0; at < kRegionBytes;) {
    std::uint64_t length = random() % 3 == 0 ? 512 : 1 + random() % 1000;
    if (random() % 10 == 0) length += kBlock * (random() % 3);
    if (at % kBlock == 0 && random() % 2 == 0) length = kBlock;
    length = std::min(length, kRegionBytes - at);
    Piece& p = out[random() % kClients].emplace_back();
    p.number = number++;
    p.offset = at;
    p.length = length;
    at += length;
  }
  for (std::uint64_t at = kRegionBytes; at < kRegionBytes + kSharedBytes; at += kBlock) {
    const std::size_t client = random() % kClients;
    Piece& whole = out[client].emplace_back();
    whole.number = number++;
    whole.offset = at;
    whole.length = kBlock;
    whole.shared_begin = 100 + random() % 1000;
    whole.shared_end = whole.shared_begin + 1 + random() % 1000;
    const Piece copy = whole;
    Piece& little = out[(client + 1) % kClients].emplace_back();
    little.number = number++;
    little.offset = at + copy.shared_begin;
    little.length = little.shared_end = copy.shared_end - copy.shared_begin;
  }
  return out;
}

const nbd_completion_callback kNoCallback{nullptr, nullptr, nullptr};

void start(nbd_handle* h, Piece& p, unsigned round) {
  p.fill(round);
  p.cookie = p.zeroes(round) ? nbd_aio_zero(h, p.length, p.offset, kNoCallback, 0)
                             : nbd_aio_pwrite(h, p.data.data(), p.length, p.offset, kNoCallback, 0);
  ASSERT_NE(p.cookie, -1) << nbd_get_error();
}

/// Writes all its pieces in every round, several at a time.
void run_client(const std::string& uri, std::vector<Piece>& pieces, unsigned seed) {
  Handle handle = open_export(uri);
  nbd_handle* h = handle.get();
  std::mt19937 random(seed);
  for (unsigned round = 0; round < kRounds; ++round) {
    std::ranges::shuffle(pieces, random);
    std::size_t begun = 0;
    std::size_t under_way = 0;
    while (begun < pieces.size() || under_way > 0) {
      while (begun < pieces.size() && under_way < kDepth) {
        start(h, pieces[begun++], round);
        ++under_way;
      }
      ASSERT_GT(nbd_poll(h, 30'000), 0) << nbd_get_error();
      for (std::size_t i = 0; i < begun; ++i) {
        Piece& p = pieces[i];
        if (p.cookie < 0) continue;
        const int done = nbd_aio_command_completed(h, static_cast<std::uint64_t>(p.cookie));
        ASSERT_GE(done, 0) << nbd_get_error();
        if (done == 0) continue;
        p.cookie = -1;
        --under_way;
      }
    }
  }
  EXPECT_EQ(nbd_shutdown(h, 0), 0);
}

class Unaligned : public testing::TestWithParam<io::BackendKind> {};

TEST_P(Unaligned, ManyClientsInTheSameBlocksLoseNothing) {
  if (!io::make_reactor({.backend = GetParam()})) GTEST_SKIP() << "not available here";
  Journey journey(GetParam());
  std::mt19937 random(1);
  auto pieces = deal(random);
  std::vector<std::thread> clients;
  for (std::size_t c = 0; c < kClients; ++c) {
    clients.emplace_back(
        [&, c] { run_client(journey.uri(), pieces[c], static_cast<unsigned>(c)); });
  }
  for (std::thread& t : clients) t.join();
  Handle h = open_export(journey.uri());
  Bytes disk(kRegionBytes + kSharedBytes);
  // In two reads that meet in the middle of a block.
  ASSERT_EQ(nbd_pread(h.get(), disk.data(), 1001, 0, 0), 0) << nbd_get_error();
  ASSERT_EQ(nbd_pread(h.get(), disk.data() + 1001, disk.size() - 1001, 1001, 0), 0)
      << nbd_get_error();
  std::size_t lost = 0;
  for (auto& of_client : pieces) {
    for (Piece& p : of_client) {
      p.fill(kRounds - 1);
      for (std::uint64_t i = 0; i < p.length; ++i) {
        if (i >= p.shared_begin && i < p.shared_end) continue;
        if (p.data[i] == disk[p.offset + i]) continue;
        ++lost;
        break;
      }
    }
  }
  EXPECT_EQ(lost, 0u) << "pieces that another client's write undid";
}

INSTANTIATE_TEST_SUITE_P(Backends, Unaligned,
                         testing::Values(io::BackendKind::epoll, io::BackendKind::io_uring),
                         [](const auto& info) {
                           return info.param == io::BackendKind::epoll ? "epoll" : "io_uring";
                         });

}  // namespace
}  // namespace nvmf::nbd
