// The host on real reactors, each on a thread of its own, against the project's own target over
// loopback: on io_uring and on epoll. Built with the thread sanitizer this is the proof that queues
// and devices stay on their threads.

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <sys/socket.h>

#include <atomic>
#include <cstring>
#include <deque>
#include <thread>
#include <vector>

#include "controller/target.h"
#include "host/subsystem.h"
#include "io/reactor_pool.h"
#include "io/unique_fd.h"
#include "sim/byte_user.h"

namespace nvmf::test {
namespace {

constexpr const char* kNqn = "nqn.2024-01.org.example:real";
constexpr std::size_t kReactors = 3;
constexpr std::uint64_t kRegionBytes = 8 << 20;

/// A target on a thread of its own.
class TargetThread {
 public:
  explicit TargetThread(io::BackendKind backend) {
    reactor_ = *io::make_reactor({.backend = backend});
    controller::TargetConfig config;
    auto& subsystem = config.subsystems.emplace_back();
    subsystem.nqn = kNqn;
    subsystem.namespaces.push_back(
        {.kind = controller::NamespaceConfig::Kind::memory, .size_bytes = 64 << 20});
    auto target = controller::Target::create(*reactor_, std::move(config));
    EXPECT_TRUE(target) << target.error().message;
    target_ = std::move(*target);
    transport::Endpoint at;
    at.host = "127.0.0.1";
    port = target_->listen(at)->port;
    thread_ = std::thread([this] {
      reactor_->run();
      target_.reset();
      reactor_->end();
    });
  }
  ~TargetThread() {
    stop();
    thread_.join();
  }
  /// From any thread.
  void stop() {
    if (stopping_.exchange(true)) return;
    reactor_->post([this] { target_->stop([this](Result<void>) { reactor_->stop(); }); });
  }
  /// From any thread: every connection ends, and it listens again 10 ms later.
  void restart(std::uint32_t max_queues) {
    reactor_->post([this, max_queues] {
      EXPECT_TRUE(
          target_->restart({.down = std::chrono::milliseconds(10), .max_queues = max_queues}));
    });
  }
  /// From any thread: namespace `nsid` comes, and its hosts are told.
  void add(std::uint32_t nsid) {
    reactor_->post([this, nsid] {
      EXPECT_TRUE(target_->add_namespace(
          kNqn, {.kind = controller::NamespaceConfig::Kind::memory, .size_bytes = 1 << 20}, nsid));
    });
  }
  void remove(std::uint32_t nsid) {
    reactor_->post([this, nsid] { EXPECT_TRUE(target_->remove_namespace(kNqn, nsid)); });
  }
  std::uint16_t port = 0;

 private:
  std::unique_ptr<io::Reactor> reactor_;
  std::unique_ptr<controller::Target> target_;
  std::thread thread_;
  std::atomic<bool> stopping_{false};
};

/// One reactor's work: writes its own part of the namespace, reads it back, compares; with other
/// bytes again as long as `again` holds, which any thread may change. Where the part does not start
/// with a block, neighbouring pieces and neighbouring reactors share blocks.
class Worker {
 public:
  static constexpr std::size_t kDepth = 16;
  static constexpr std::uint64_t kPieceBytes = 256 * 1024;

  Worker(host::BlockDevice& device, std::uint64_t start, const std::atomic<bool>& again,
         std::function<void()> done)
      : device_(device), start_(start), again_(again), done_(std::move(done)) {
    data_ = sim::pattern(kRegionBytes + kPasses, start + 1);
    back_.resize(kRegionBytes);
    for (Slot& s : slots_) s.worker = this;
  }
  void begin() {
    for (Slot& s : slots_) next(s);
  }
  [[nodiscard]] bool verified() const {
    return differed == 0 && std::memcmp(data(), &back_[0], kRegionBytes) == 0;
  }
  std::size_t errors = 0;
  std::size_t differed = 0;  // passes whose bytes were not read back
  std::size_t completed = 0;

 private:
  struct Slot : host::BlockRequest {
    Worker* worker = nullptr;
    bool busy = false;
  };
  /// What this pass writes: the same bytes, but elsewhere.
  std::byte* data() { return data_.data() + pass_ % kPasses; }
  [[nodiscard]] const std::byte* data() const { return data_.data() + pass_ % kPasses; }
  void next(Slot& s) {
    const std::uint64_t pieces = kRegionBytes / kPieceBytes;
    if (at_ == pieces && in_flight_ == 0 && errors == 0 && (!reading_ || again_)) {
      if (reading_) {
        if (!verified()) ++differed;
        ++pass_;
      }
      reading_ = !reading_;
      at_ = 0;
      for (Slot& other : slots_) next(other);
      return;
    }
    if (at_ == pieces || errors != 0) {
      if (in_flight_ == 0 && (reading_ || errors != 0) && done_) std::exchange(done_, {})();
      return;
    }
    if (s.busy) return;
    const std::uint64_t offset = at_++ * kPieceBytes;
    s.op = reading_ ? host::BlockOp::read : host::BlockOp::write;
    s.offset_bytes = start_ + offset;
    s.length_bytes = kPieceBytes;
    s.data = (reading_ ? back_.data() : data()) + offset;
    s.complete = [](host::BlockRequest& r) {
      Slot& slot = static_cast<Slot&>(r);
      slot.busy = false;
      --slot.worker->in_flight_;
      ++slot.worker->completed;
      if (r.error != 0) ++slot.worker->errors;
      slot.worker->next(slot);
    };
    s.busy = true;
    ++in_flight_;
    device_.submit(s);
  }

  host::BlockDevice& device_;
  std::uint64_t start_;
  const std::atomic<bool>& again_;
  std::function<void()> done_;
  std::vector<std::byte> data_;
  std::vector<std::byte> back_;
  Slot slots_[kDepth];
  static constexpr std::size_t kPasses = 64;  // until the first one's bytes come again
  std::size_t pass_ = 0;
  std::uint64_t at_ = 0;
  std::size_t in_flight_ = 0;
  bool reading_ = false;
};

class RealLoop : public testing::TestWithParam<io::BackendKind>, public host::SubsystemEvents {
 protected:
  void SetUp() override {
    auto pool = io::ReactorPool::make(kReactors, {.backend = GetParam()});
    if (!pool) GTEST_SKIP() << pool.error().message;
    pool_ = std::move(*pool);
    target_ = std::make_unique<TargetThread>(GetParam());
    params_.traddr = "127.0.0.1";
    params_.port = target_->port;
    params_.subnqn = kNqn;
    params_.hostnqn = "nqn.2024-01.org.example:host";
    params_.hostid[0] = std::byte{1};
    params_.nr_io_queues = kReactors;
  }
  void TearDown() override {
    if (pool_) pool_->join();
    subsystem_.reset();
  }
  void run() {
    std::vector<transport::Loop*> loops;
    for (std::size_t i = 0; i < kReactors; ++i) loops.push_back(&pool_->at(i));
    subsystem_ = std::make_unique<host::RemoteSubsystem>(params_, loops, *this);
    pool_->at(0).post([this] { subsystem_->start(); });
    const auto ran = pool_->run();
    EXPECT_TRUE(ran);
    pool_->join();
  }
  void on_live() override {
    live_ = true;
    for (std::size_t r = 0; r < subsystem_->reactors(); ++r) {
      workers_.push_back(std::make_unique<Worker>(*subsystem_->device(r, 1),
                                                  r * kRegionBytes + skew_, again_, [this] {
                                                    pool_->at(0).post([this] {
                                                      if (++finished_ == workers_.size())
                                                        all_finished();
                                                    });
                                                  }));
    }
    for (std::size_t r = 0; r < workers_.size(); ++r) {
      pool_->at(r).post([w = workers_[r].get()] { w->begin(); });
    }
    if (when_live_) when_live_();
  }
  /// On the control loop, for a bounded number of times; more, until it was lost often enough. The
  /// work goes on meanwhile.
  host::Task<void> lose_often() {
    using std::chrono::milliseconds;
    const Instant limit = pool_->at(0).now() + kPatience;
    const auto enough = [&](std::uint32_t i) {
      return i >= 12 && (losses_ >= kLossesLeast || pool_->at(0).now() > limit);
    };
    for (std::uint32_t i = 0; !enough(i) && finished_ < workers_.size() && !ended_; ++i) {
      co_await host::sleep(pool_->at(0), milliseconds(3));
      if (i % 3 == 0) {
        (void)subsystem_->reset();
      } else {
        target_->restart(i % 4 == 1 ? 1 : kReactors + 1);
      }
      (void)co_await subsystem_->namespace_health();
      losses_ = subsystem_->health().losses;
      co_await host::sleep(pool_->at(0), milliseconds(60));
      losses_ = subsystem_->health().losses;
    }
    again_ = false;
    losing_ = false;
    if (finished_ == workers_.size() && !ended_) subsystem_->stop();
  }
  /// Likewise: namespaces come and go, also while the target is away.
  host::Task<void> come_and_go() {
    using std::chrono::milliseconds;
    constexpr std::uint32_t kFirst = 10;
    for (std::uint32_t i = 0; i < 12 && !ended_; ++i) {
      target_->add(kFirst + i);
      if (i >= 2) target_->remove(kFirst + i - 2);
      co_await host::sleep(pool_->at(0), milliseconds(10));
      if (i % 4 == 3) target_->restart(i % 8 == 3 ? 1 : kReactors + 1);
      (void)co_await subsystem_->namespace_health();
      co_await host::sleep(pool_->at(0), milliseconds(15));
    }
    // The last two stay, and are seen at last.
    const Instant limit = pool_->at(0).now() + kPatience;
    while (!ended_ && (touches_left_ != 0 || attached_ < 2) && pool_->at(0).now() < limit) {
      co_await host::sleep(pool_->at(0), milliseconds(1));
    }
    while (touches_left_ != 0) co_await host::sleep(pool_->at(0), milliseconds(1));
    losing_ = false;
    if (finished_ == workers_.size() && !ended_) subsystem_->stop();
  }
  /// On every reactor a write to one that is new.
  void on_namespace_attached(std::uint32_t nsid) override {
    ++attached_;
    for (std::size_t r = 0; r < subsystem_->reactors(); ++r) {
      Touch& touch = touches_.emplace_back();
      ++touches_left_;
      touch.left = &touches_left_;
      touch.op = host::BlockOp::write;
      touch.offset_bytes = r * sizeof touch.bytes + 7;  // neighbours share blocks
      touch.length_bytes = sizeof touch.bytes;
      touch.data = touch.bytes;
      touch.complete = [](host::BlockRequest& request) { --*static_cast<Touch&>(request).left; };
      pool_->at(r).post([device = subsystem_->device(r, nsid), &touch] { device->submit(touch); });
    }
  }
  struct Touch : host::BlockRequest {
    std::atomic<std::size_t>* left = nullptr;
    std::byte bytes[600]{};
  };
  void all_finished() {
    if (losing_) return;  // who loses it ends it
    subsystem_->stop();
    if (ended_) pool_->stop();
  }
  void on_ended(const Error& reason) override {
    ended_ = reason;
    if (finished_ == workers_.size()) pool_->stop();
  }

  static constexpr std::uint64_t kLossesLeast = 2;
  static constexpr Duration kPatience = std::chrono::seconds(60);  // of a busy machine

  std::unique_ptr<io::ReactorPool> pool_;
  std::unique_ptr<TargetThread> target_;
  host::ConnectParams params_;
  std::unique_ptr<host::RemoteSubsystem> subsystem_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::function<void()> when_live_;
  std::uint64_t skew_ = 0;
  std::size_t finished_ = 0;
  bool live_ = false;
  bool losing_ = false;
  std::atomic<bool> again_{false};  // the workers' work
  std::uint64_t losses_ = 0;
  std::deque<Touch> touches_;
  std::atomic<std::size_t> touches_left_{0};
  std::size_t attached_ = 0;
  std::optional<Error> ended_;
};

TEST_P(RealLoop, SeveralReactorsWriteAndReadBack) {
  params_.header_digest = params_.data_digest = true;
  run();
  ASSERT_TRUE(live_) << ended_->message;
  EXPECT_EQ(ended_->code, 0) << ended_->message;
  ASSERT_EQ(workers_.size(), kReactors);
  for (const auto& w : workers_) {
    EXPECT_EQ(w->errors, 0u);
    EXPECT_TRUE(w->verified());
  }
}

TEST_P(RealLoop, TargetGoesWhileAllReactorsAreBusy) {
  params_.loss.ctrl_loss = Duration{};
  when_live_ = [this] { target_->stop(); };
  run();
  ASSERT_TRUE(live_);
  for (const auto& w : workers_) EXPECT_TRUE(w->errors != 0 || w->verified());
}

TEST_P(RealLoop, StopWhileAllReactorsAreBusy) {
  when_live_ = [this] { subsystem_->stop(); };
  run();
  ASSERT_TRUE(live_);
  EXPECT_EQ(ended_->code, 0);
}

TEST_P(RealLoop, SeveralReactorsWriteAndReadBackWhatIsNotWholeBlocks) {
  skew_ = 100;
  run();
  ASSERT_TRUE(live_) << ended_->message;
  EXPECT_EQ(ended_->code, 0) << ended_->message;
  for (const auto& w : workers_) {
    EXPECT_EQ(w->errors, 0u);
    EXPECT_TRUE(w->verified());
  }
}

TEST_P(RealLoop, TargetGoesWhileRangesAreHeld) {
  params_.loss.ctrl_loss = Duration{};
  skew_ = 100;
  when_live_ = [this] { target_->stop(); };
  run();
  ASSERT_TRUE(live_);
  for (const auto& w : workers_) EXPECT_TRUE(w->errors != 0 || w->verified());
}

TEST_P(RealLoop, StopWhileRangesAreHeld) {
  skew_ = 100;
  when_live_ = [this] { subsystem_->stop(); };
  run();
  ASSERT_TRUE(live_);
  EXPECT_EQ(ended_->code, 0);
}

// Lost again and again, with fewer queues and with more, and asked about it all the time.
TEST_P(RealLoop, LossesWhileAllReactorsAreBusy) {
  skew_ = 100;
  params_.cqt_unreported = std::chrono::milliseconds(20);
  params_.unflushed = host::Unflushed::replay;
  losing_ = again_ = true;
  when_live_ = [this] { host::spawn(lose_often()); };
  run();
  ASSERT_TRUE(live_) << ended_->message;
  EXPECT_EQ(ended_->code, 0) << ended_->message;
  EXPECT_GE(losses_, kLossesLeast);
  for (const auto& w : workers_) {
    EXPECT_EQ(w->errors, 0u);
    EXPECT_TRUE(w->verified());
  }
}

TEST_P(RealLoop, NamespacesComeAndGoWhileAllReactorsAreBusy) {
  skew_ = 100;
  params_.cqt_unreported = std::chrono::milliseconds(20);
  params_.loss.fast_io_fail = std::chrono::milliseconds(200);  // whoever writes to what has gone
  losing_ = true;
  when_live_ = [this] { host::spawn(come_and_go()); };
  run();
  ASSERT_TRUE(live_) << ended_->message;
  EXPECT_EQ(ended_->code, 0) << ended_->message;
  EXPECT_GE(attached_, 2u);
  EXPECT_EQ(touches_left_, 0u);
}

TEST_P(RealLoop, NobodyListens) {
  // Bound, so that it is nobody else's port, and not listening.
  const io::UniqueFd bound(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof at;
  auto* address = reinterpret_cast<sockaddr*>(&at);
  ASSERT_EQ(::bind(bound.get(), address, length), 0);
  ASSERT_EQ(::getsockname(bound.get(), address, &length), 0);
  params_.port = ntohs(at.sin_port);
  run();
  EXPECT_FALSE(live_);
  EXPECT_THAT(ended_->message, testing::HasSubstr("cannot connect to"));
}

INSTANTIATE_TEST_SUITE_P(Backends, RealLoop,
                         testing::Values(io::BackendKind::epoll, io::BackendKind::io_uring),
                         [](const auto& info) {
                           return info.param == io::BackendKind::epoll ? "epoll" : "io_uring";
                         });

}  // namespace
}  // namespace nvmf::test
