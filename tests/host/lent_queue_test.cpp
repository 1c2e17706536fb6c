// A reactor without an I/O queue of its own, whose commands travel on another reactor's. Both are
// in virtual time; what they post to each other comes late.

#include "host/lent_queue.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>

#include "host/association.h"
#include "host/bring_up.h"
#include "host/delayed_loop.h"
#include "host/fixture.h"
#include "host/namespace_device.h"

namespace nvmf::test {
namespace {

using host::BlockOp;
using nvme::NvmOpcode;
using transport::ControllerCommand;

constexpr std::uint32_t kBlock = 512;

/// Submits itself again, for ever, while `going`.
struct EndlessRead : Request {
  EndlessRead() {
    op = BlockOp::read;
    length_bytes = kBlock;
    data = bytes.data();
    complete = [](host::BlockRequest& r) {
      auto& self = static_cast<EndlessRead&>(r);
      ++self.completions;
      EXPECT_EQ(self.error, 0);
      if (self.going) self.device->submit(self);
    };
  }
  std::array<std::byte, kBlock> bytes{};
  host::BlockDevice* device = nullptr;
  bool going = true;
};

/// Reactor 0 lends its only queue to reactor 1.
class LentQueueTest : public HostTest {
 protected:
  static constexpr std::size_t kReactors = 2;

  LentQueueTest() {
    target.add_namespace(1, 65536);
    params.nr_io_queues = 1;
    params.keep_alive_ms = 0;
  }
  ~LentQueueTest() override {
    end_all();
    devices_.clear();
    groups_.clear();
    loop.run_for(seconds(1));
  }

  /// Every request is answered; to be called before those that still wait go.
  void end_all() {
    for (const auto& group : groups_) group->shut(EIO, ESHUTDOWN);
    drop();
    loop.run_for(seconds(1));
  }
  static host::Task<void> mark(host::Task<void> task, bool& done) {
    co_await std::move(task);
    done = true;
  }
  void run_task(host::Task<void> task) {
    bool done = false;
    host::spawn(mark(std::move(task), done));
    ASSERT_TRUE(loop.run_until([&] { return done; }, seconds(100)));
  }
  host::Task<void> make_association() {
    auto made = co_await host::bring_up(params, {&loop}, control_, host::WhenBusy::wait, counters_);
    if (!made) co_return;
    association_ = std::move(*made);
    association_->made();
  }
  host::Task<void> lend() {
    lent_ =
        std::make_unique<host::LentQueue>(*posts_[1], *posts_[0], *association_->queues()[0].queue);
    open_result_ = co_await lent_->open();
    if (open_result_) groups_[1]->add(*lent_);
  }
  host::Task<void> close_association() {
    co_await association_->close(Error{"the test is over", 0});
  }

  /// The first association, the devices, and the lent queue; `delay`: of posts, at most.
  void connect(Duration delay = {}) {
    run_task(make_association());
    ASSERT_NE(association_, nullptr);
    std::vector<transport::Loop*> seen;
    for (std::size_t r = 0; r < kReactors; ++r) {
      posts_.push_back(std::make_unique<DelayedLoop>(loop, delay));
      seen.push_back(posts_.back().get());
    }
    const auto holds = host::RangeHolds::make(seen);
    for (std::size_t r = 0; r < kReactors; ++r) {
      groups_.push_back(std::make_unique<host::QueueGroup>(loop));
      devices_.push_back(std::make_unique<host::NamespaceDevice>(association_->namespaces.at(0),
                                                                 *groups_.back(), holds, r));
    }
    attach();
  }
  void attach() {
    groups_[0]->add(*association_->queues()[0].queue);
    run_task(lend());
    ASSERT_TRUE(open_result_) << open_result_.error().message;
  }
  /// Another association in the place of the one that was lost.
  void reconnect() {
    drop();
    run_task(make_association());
    ASSERT_NE(association_, nullptr);
    attach();
  }
  void close_lent() {
    if (lent_ == nullptr) return;
    run_task(lent_->close());
    lent_.reset();
  }
  void drop() {
    if (association_ != nullptr) run_task(close_association());
    association_.reset();
    close_lent();
  }

  host::NamespaceDevice& lender() { return *devices_.at(0); }
  host::NamespaceDevice& borrower() { return *devices_.at(1); }
  std::vector<std::byte>& disk() { return target.namespaces.at(1).bytes; }
  int run_on(host::BlockDevice& device, Request& r) {
    device.submit(r);
    EXPECT_EQ(r.completions, 0) << "completed inside submit()";
    EXPECT_TRUE(loop.run_until([&] { return r.completions != 0; }, seconds(100)));
    return r.error;
  }
  static void set(Request& r, BlockOp op, std::uint64_t offset, std::span<std::byte> bytes) {
    r.op = op;
    r.offset_bytes = offset;
    r.length_bytes = static_cast<std::uint32_t>(bytes.size());
    r.data = bytes.data();
  }
  /// I/O commands of this kind are not answered from now on.
  void swallow(std::function<bool(const nvme::Sqe&)> which) {
    target.intercept = [=](FakeTarget::Connection& at, ControllerCommand& c) {
      return at.qid != 0 && which(c.sqe);
    };
  }
  [[nodiscard]] std::size_t fences(std::size_t reactor) const {
    host::NamespaceHealth health;
    devices_.at(reactor)->describe(health);
    return health.fences.size();
  }

  host::BringUpControl control_;
  // The connection's: commands on their way home outlive the association, not these.
  std::shared_ptr<host::ConnectionCounters> counters_ =
      std::make_shared<host::ConnectionCounters>();
  std::unique_ptr<host::Association> association_;
  std::vector<std::unique_ptr<DelayedLoop>> posts_;
  std::vector<std::unique_ptr<host::QueueGroup>> groups_;
  std::vector<std::unique_ptr<host::NamespaceDevice>> devices_;
  std::unique_ptr<host::LentQueue> lent_;
  Result<void> open_result_;
};

TEST_F(LentQueueTest, CarriesEveryKindOfRequest) {
  connect(milliseconds(3));
  std::vector<std::byte> out(3 << 20);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::byte>(i * 7 + i / 4096);
  Request write;
  set(write, BlockOp::write, kBlock, out);
  EXPECT_EQ(run_on(borrower(), write), 0);
  std::vector<std::byte> in(out.size());
  Request read;
  set(read, BlockOp::read, kBlock, in);
  EXPECT_EQ(run_on(borrower(), read), 0);
  EXPECT_EQ(in, out);
  Request part;  // of blocks: held across both reactors
  set(part, BlockOp::write, 100, std::span(out).first(5000));
  EXPECT_EQ(run_on(borrower(), part), 0);
  EXPECT_EQ(std::memcmp(disk().data() + 100, out.data(), 5000), 0);
  Request zeroes;
  set(zeroes, BlockOp::write_zeroes, kBlock, {out.data(), out.size()});
  zeroes.data = nullptr;
  EXPECT_EQ(run_on(borrower(), zeroes), 0);
  Request flush;
  flush.op = BlockOp::flush;
  EXPECT_EQ(run_on(borrower(), flush), 0);
  Request gone;
  gone.op = BlockOp::deallocate;
  gone.length_bytes = 1 << 20;
  EXPECT_EQ(run_on(borrower(), gone), 0);
  Request read_again;
  set(read_again, BlockOp::read, 0, in);
  EXPECT_EQ(run_on(lender(), read_again), 0);
  EXPECT_EQ(in, std::vector<std::byte>(in.size()));
  EXPECT_EQ(lent_->in_flight(), 0u);
  for (const SeenCommand& s : target.seen) EXPECT_LE(s.qid, 1);
}

TEST_F(LentQueueTest, ARefusalComesHome) {
  connect();
  target.intercept = [](FakeTarget::Connection& at, ControllerCommand& c) {
    if (at.qid == 0 || c.sqe.opcode != static_cast<std::uint8_t>(NvmOpcode::read)) return false;
    at.respond(c, {nvme::StatusCode::unrecovered_read_error, true});
    return true;
  };
  std::vector<std::byte> bytes(kBlock);
  Request read;
  set(read, BlockOp::read, 0, bytes);
  EXPECT_EQ(run_on(borrower(), read), EIO);
}

TEST_F(LentQueueTest, HasABoundedNumberUnderWay) {
  params.queue_size = 128;
  connect(milliseconds(1));
  std::vector<Request> reads(200);
  std::vector<std::byte> bytes(reads.size() * kBlock);
  swallow([](const nvme::Sqe&) { return true; });
  for (std::size_t i = 0; i < reads.size(); ++i) {
    set(reads[i], BlockOp::read, i * kBlock, std::span(bytes).subspan(i * kBlock, kBlock));
    borrower().submit(reads[i]);
  }
  loop.run_for(seconds(1));
  EXPECT_EQ(lent_->in_flight(), host::kLentCommands);
  EXPECT_EQ(target.io_commands(NvmOpcode::read).size(), host::kLentCommands);
  end_all();
  for (const Request& r : reads) EXPECT_TRUE(r.done());
}

/// 15 slots, and more than that wanted on both sides all the time.
TEST_F(LentQueueTest, BothSidesHaveTheirShareOfAFullQueue) {
  params.queue_size = 16;
  connect();
  loop.links().at(1)->options.latency = milliseconds(1);
  std::vector<EndlessRead> own(64);
  std::vector<EndlessRead> borrowed(64);
  for (EndlessRead& r : own) r.device = &lender();
  for (EndlessRead& r : borrowed) r.device = &borrower();
  for (auto* all : {&own, &borrowed}) {
    for (EndlessRead& r : *all) r.device->submit(r);
  }
  const auto sum = [](const std::vector<EndlessRead>& all) {
    int n = 0;
    for (const EndlessRead& r : all) n += r.completions;
    return n;
  };
  loop.run_until([&] { return sum(own) + sum(borrowed) >= 4000; }, seconds(100));
  EXPECT_GE(sum(own), 1000);
  EXPECT_GE(sum(borrowed), 1000);
  for (auto* all : {&own, &borrowed}) {
    for (EndlessRead& r : *all) r.going = false;
  }
  ASSERT_TRUE(loop.run_until([&] { return groups_[0]->in_flight() + groups_[1]->in_flight() == 0; },
                             seconds(10)));
}

TEST_F(LentQueueTest, WhoWantsMoreGetsWhatTheOtherLeaves) {
  params.queue_size = 16;
  connect();
  loop.links().at(1)->options.latency = milliseconds(1);
  for (host::NamespaceDevice* device : {&lender(), &borrower()}) {
    const Instant begin = loop.now();
    std::vector<Request> reads(150);
    std::vector<std::byte> bytes(reads.size() * kBlock);
    for (std::size_t i = 0; i < reads.size(); ++i) {
      set(reads[i], BlockOp::read, i * kBlock, std::span(bytes).subspan(i * kBlock, kBlock));
      device->submit(reads[i]);
    }
    ASSERT_TRUE(loop.run_until(
        [&] { return std::ranges::all_of(reads, [](const Request& r) { return r.done(); }); },
        seconds(10)));
    // 150 reads on 15 slots are ten rounds of two milliseconds.
    EXPECT_LE(loop.now() - begin, milliseconds(25));
  }
}

TEST_F(LentQueueTest, ALossBringsEachCommandHomeAsItWas) {
  params.queue_size = 16;
  connect(milliseconds(2));
  swallow(
      [](const nvme::Sqe& s) { return s.opcode == static_cast<std::uint8_t>(NvmOpcode::write); });
  // 15 travel, the rest of the 32 waits at the lender's, the others at home.
  std::vector<Request> writes(60);
  std::vector<std::byte> bytes(writes.size() * kBlock, std::byte{0xab});
  for (std::size_t i = 0; i < writes.size(); ++i) {
    set(writes[i], BlockOp::write, i * kBlock, std::span(bytes).subspan(i * kBlock, kBlock));
    borrower().submit(writes[i]);
  }
  loop.run_for(seconds(1));
  ASSERT_EQ(target.io_commands(NvmOpcode::write).size(), 15u);
  loop.links().at(1)->cut();
  loop.run_for(milliseconds(100));
  EXPECT_EQ(lent_->in_flight(), 0u);
  EXPECT_FALSE(lent_->live());
  EXPECT_EQ(lent_->group, nullptr);
  EXPECT_EQ(fences(1), 15u) << "those that were sent, and no others";
  ASSERT_TRUE(association_->queues()[0].down);
  EXPECT_TRUE(association_->queues()[0].down->unanswered_changes) << "the lender's end knows, too";
  for (const Request& r : writes) EXPECT_EQ(r.completions, 0);

  target.intercept = nullptr;
  reconnect();
  loop.run_for(seconds(1));
  EXPECT_EQ(std::ranges::count_if(writes, [](const Request& r) { return r.done(); }), 45);
  borrower().settle_losses(loop.now());
  ASSERT_TRUE(loop.run_until(
      [&] { return std::ranges::all_of(writes, [](const Request& r) { return r.done(); }); },
      seconds(10)));
  for (const Request& r : writes) EXPECT_EQ(r.error, 0);
  EXPECT_EQ(std::memcmp(disk().data(), bytes.data(), bytes.size()), 0);
}

TEST_F(LentQueueTest, UnansweredReadsFenceNothing) {
  connect();
  swallow([](const nvme::Sqe&) { return true; });
  std::vector<std::byte> bytes(kBlock);
  Request read;
  set(read, BlockOp::read, 0, bytes);
  borrower().submit(read);
  loop.run_for(seconds(1));
  loop.links().at(1)->cut();
  loop.run_for(seconds(1));
  EXPECT_EQ(fences(1), 0u);
  ASSERT_TRUE(association_->queues()[0].down);
  EXPECT_FALSE(association_->queues()[0].down->unanswered_changes);
  target.intercept = nullptr;
  reconnect();
  ASSERT_TRUE(loop.run_until([&] { return read.done(); }, seconds(10)));
  EXPECT_EQ(read.error, 0);
}

/// What is posted to a lender that has just gone, and its end on the way to us, cross.
TEST_F(LentQueueTest, NothingIsLostBetweenTheReactors) {
  for (int round = 0; round < 20; ++round) {
    connect(milliseconds(5));
    std::vector<Request> reads(40);
    std::vector<std::byte> bytes(reads.size() * kBlock);
    for (std::size_t i = 0; i < reads.size(); ++i) {
      set(reads[i], BlockOp::read, i * kBlock, std::span(bytes).subspan(i * kBlock, kBlock));
      borrower().submit(reads[i]);
      if (static_cast<int>(i) == round) loop.links().at(1)->cut();
      loop.run_for(std::chrono::microseconds(300));
    }
    reconnect();
    ASSERT_TRUE(loop.run_until(
        [&] { return std::ranges::all_of(reads, [](const Request& r) { return r.done(); }); },
        seconds(10)))
        << "round " << round;
    end_all();
    devices_.clear();
    groups_.clear();
    posts_.clear();
  }
}

TEST_F(LentQueueTest, ClosingLeavesTheLenderAlone) {
  params.queue_size = 16;
  connect(milliseconds(1));
  loop.links().at(1)->options.latency = milliseconds(20);
  std::vector<Request> reads(50);
  std::vector<std::byte> bytes(reads.size() * kBlock);
  for (std::size_t i = 0; i < reads.size(); ++i) {
    set(reads[i], BlockOp::read, i * kBlock, std::span(bytes).subspan(i * kBlock, kBlock));
    borrower().submit(reads[i]);
  }
  loop.run_for(milliseconds(10));
  close_lent();
  const auto done = [](const Request& r) { return r.done(); };
  EXPECT_EQ(std::ranges::count_if(reads, done), 15) << "those that travelled";
  Request own;
  std::vector<std::byte> more(kBlock);
  set(own, BlockOp::read, 0, more);
  EXPECT_EQ(run_on(lender(), own), 0);
  run_task(lend());
  ASSERT_TRUE(open_result_);
  ASSERT_TRUE(loop.run_until([&] { return std::ranges::all_of(reads, done); }, seconds(10)));
  for (const Request& r : reads) EXPECT_EQ(r.error, 0);
}

TEST_F(LentQueueTest, AnEndedLenderLendsNothing) {
  connect();
  loop.links().at(1)->cut();
  loop.run_for(seconds(1));
  close_lent();
  run_task(lend());
  ASSERT_FALSE(open_result_);
  EXPECT_EQ(open_result_.error().code, ENOTCONN);
  EXPECT_FALSE(lent_->live());
}

TEST_F(LentQueueTest, ASilentControllerIsNoticedThroughLentCommandsAlone) {
  params.command_timeout = seconds(2);
  connect();
  swallow([](const nvme::Sqe&) { return true; });
  std::vector<std::byte> bytes(kBlock);
  Request read;
  set(read, BlockOp::read, 0, bytes);
  borrower().submit(read);
  ASSERT_TRUE(loop.run_until([&] { return !lent_->live(); }, seconds(30)));
  EXPECT_GE(target.count(0, static_cast<std::uint8_t>(nvme::AdminOpcode::abort)), 1u);
  end_all();
  EXPECT_TRUE(read.done());
  EXPECT_EQ(read.error, EIO);
}

}  // namespace
}  // namespace nvmf::test
