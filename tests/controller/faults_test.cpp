// Faults on demand: each does what it promises, and nothing else.
#include "controller/faults.h"

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "controller/test_host.h"

namespace nvmf::controller {
namespace {

using nvme::StatusCode;

constexpr std::uint32_t kBlocks = 8;
constexpr std::array<std::uint16_t, 2> kQueues{2, 3};

class FaultsTest : public ControllerTest {
 protected:
  void SetUp() override {
    TargetConfig config = one_subsystem({memory(1 << 20), memory(1 << 20)});
    config.crdt = {5, 10, 20};
    config.cqt_ms = 200;
    start(std::move(config));
    h = &host();
    h->bring_up_io();
  }
  Faults& faults() { return target->faults(); }
  static Bytes block(std::uint64_t seed) { return random_bytes(kBlocks * 512, seed); }
  /// What the disk holds, seen by another host that no fault is to concern.
  Bytes on_disk(std::uint64_t lba = 0, std::uint32_t nsid = 1) {
    TestHost& other = host({.hostid = host_id(9)});
    other.bring_up_io();
    Bytes data = other.read(lba, kBlocks, 512, nsid).data;
    other.drop_all();
    return data;
  }

  TestHost* h = nullptr;
};

// ---- connections

TEST_F(FaultsTest, DropsEveryConnection) {
  TestHost& second = host({.hostid = host_id(2)});
  second.bring_up_io();
  EXPECT_EQ(faults().drop(), 4u);
  loop.run_for(1ms);
  for (TestHost* one : {h, &second}) {
    EXPECT_TRUE(one->admin().ended());
    EXPECT_TRUE(one->io().ended());
  }
  EXPECT_EQ(target->controller_count(), 0u);
  EXPECT_EQ(faults().counters().dropped, 4u);
  host().bring_up_io();
}

TEST_F(FaultsTest, DropsOneControllersConnectionsOnly) {
  TestHost& second = host({.hostid = host_id(2)});
  second.bring_up_io();
  EXPECT_EQ(faults().drop({.cntlid = second.cntlid()}), 2u);
  EXPECT_EQ(faults().drop({.subnqn = "nqn.2026-01.org.example:other"}), 0u);
  loop.run_for(1ms);
  EXPECT_TRUE(second.io().ended());
  EXPECT_TRUE(h->read(0, 1).ok());
}

TEST_F(FaultsTest, ClosesOneQueueAndLeavesTheOthers) {
  for (const bool reset : {false, true}) {
    for (const std::uint16_t qid : kQueues) ASSERT_TRUE(h->connect_io(qid).ok());
    EXPECT_EQ(faults().close_queue(2, reset), 1u);
    EXPECT_TRUE(loop.run_until([&] { return h->io(2).ended(); }, 2s));
    loop.run_for(10s);
    EXPECT_FALSE(h->admin().ended());
    EXPECT_TRUE(h->read(0, 1).ok());
    EXPECT_TRUE(h->io(3).send(nvme::flush_command(1)).ok());
    EXPECT_TRUE(h->connect_io(2).ok());
    for (const std::uint16_t qid : kQueues) h->drop_io(qid);
    faults().clear();
    hosts.clear();
    loop.run_for(5s);
    h = &host();
    h->bring_up_io();
  }
}

TEST_F(FaultsTest, RefusesConnectionsForATime) {
  faults().refuse({.lasts = 2s});
  loop.run_for(1s);
  EXPECT_FALSE(TestQueue(loop, at, 0).ready());
  EXPECT_TRUE(h->read(0, 1).ok());  // those that are there stay
  loop.run_for(1s);
  EXPECT_TRUE(TestQueue(loop, at, 0).ready());
  EXPECT_EQ(faults().counters().refused, 1u);
}

TEST_F(FaultsTest, RefusesConnectCommandsWithAStatus) {
  faults().refuse({.scope = {.qid = 2}, .status = StatusCode::connect_controller_busy, .count = 1});
  const Answer busy = h->connect_io(2);
  EXPECT_EQ(busy.code(), code_of(StatusCode::connect_controller_busy));
  EXPECT_FALSE(busy.status.dnr);
  EXPECT_TRUE(h->connect_io(2).ok());
  faults().refuse({.status = nvme::Status(StatusCode::connect_invalid_host, true)});
  for (int i = 0; i < 3; ++i) {
    const Answer refused = host().connect_admin();
    EXPECT_EQ(refused.code(), code_of(StatusCode::connect_invalid_host));
    EXPECT_TRUE(refused.status.dnr);
  }
  faults().clear();
  EXPECT_TRUE(host().connect_admin().ok());
}

// ---- black holes

TEST_F(FaultsTest, SwallowsEverythingInABlackHole) {
  for (const bool posted : {false, true}) {
    loop.pipe.post_receives = posted;
    TestHost& one = host();
    one.bring_up_io();
    faults().blackhole({});
    auto write = one.io().start(nvme::write_command(1, 0, kBlocks), block(1));
    TestQueue late(loop, at, 0);  // is accepted, and hears nothing for 30 s
    EXPECT_FALSE(late.ready());
    EXPECT_FALSE(late.ended());
    EXPECT_FALSE(one.io().ended());
    EXPECT_FALSE(write->done);
    faults().clear();
  }
}

TEST_F(FaultsTest, GoesOnBehindABlackHole) {
  const Bytes data = block(2);
  for (const bool posted : {false, true}) {
    loop.pipe.post_receives = posted;
    TestHost& one = host();
    one.bring_up_io();
    faults().blackhole({.lasts = 5s});
    auto write = one.io().start(nvme::write_command(1, 0, kBlocks), data);
    loop.run_for(1s);
    auto read = one.io().start(nvme::read_command(1, 0, kBlocks), Bytes(4096), true);
    loop.run_for(3900ms);
    EXPECT_FALSE(write->done);
    EXPECT_FALSE(read->done);
    EXPECT_FALSE(one.admin().ended());
    loop.run_for(200ms);
    EXPECT_TRUE(write->answer().ok());
    EXPECT_TRUE(read->answer().ok());
    EXPECT_EQ(read->buffer, data);
  }
}

TEST_F(FaultsTest, AnswersNothingOutOfABlackHole) {
  faults().delay({.opcode = 0x01, .after = 1s, .count = 1});
  auto write = h->io().start(nvme::write_command(1, 0, kBlocks), block(1));
  loop.run_for(500ms);
  faults().blackhole({.lasts = 5s});
  loop.run_for(4s);
  EXPECT_FALSE(write->done);
  loop.run_for(2s);
  EXPECT_TRUE(write->answer().ok());
}

// The host finds out by itself: our keep-alive timer must not tell it.
TEST_F(FaultsTest, TellsNobodyOfAnEndInABlackHole) {
  TestHost& one = host({.hostid = host_id(3), .kato_ms = 1000});
  one.bring_up_io();
  faults().blackhole({});
  auto write = one.io().start(nvme::write_command(1, 0, kBlocks), block(3));
  loop.run_for(5s);
  EXPECT_FALSE(one.admin().ended());
  EXPECT_FALSE(one.io().ended());
  EXPECT_TRUE(std::ranges::any_of(
      lines, [](const std::string& line) { return line.find("Keep Alive expired") != line.npos; }));
  faults().clear();
  loop.run_for(1s);
  EXPECT_TRUE(one.admin().ended());
  EXPECT_TRUE(write->done);
  EXPECT_EQ(on_disk(), Bytes(kBlocks * 512));  // and was never executed
}

TEST_F(FaultsTest, DropsOutOfABlackHoleWithoutExecuting) {
  for (const bool posted : {false, true}) {
    loop.pipe.post_receives = posted;
    TestHost& one = host();
    one.bring_up_io();
    faults().blackhole({});
    auto write = one.io().start(nvme::write_command(1, 0, kBlocks), block(4));
    loop.run_for(1s);
    faults().drop();
    loop.run_for(1s);
    EXPECT_TRUE(write->done);
    faults().clear();
    EXPECT_EQ(on_disk(), Bytes(kBlocks * 512));
  }
}

TEST_F(FaultsTest, BlackholesOneQueueOnly) {
  ASSERT_TRUE(h->connect_io(2).ok());
  faults().blackhole({.scope = {.qid = 2}});
  auto flush = h->io(2).start(nvme::flush_command(1));
  EXPECT_TRUE(h->read(0, 1).ok());
  loop.run_for(5s);
  EXPECT_FALSE(flush->done);
  // A host that resets the controller over the admin queue does not wait for the hole.
  ASSERT_TRUE(h->set_cc({}).ok());
  loop.run_for(10ms);
  EXPECT_FALSE(h->csts().rdy);
  EXPECT_TRUE(flush->done);
}

TEST_F(FaultsTest, SurvivesTheHostsEndInABlackHole) {
  for (const bool finish : {false, true}) {
    TestHost& one = host();
    one.bring_up_io();
    faults().blackhole({});
    auto write = one.io().start(nvme::write_command(1, 0, kBlocks), block(5));
    loop.run_for(10ms);
    if (finish) {
      one.io().finish();
      one.admin().finish();
    } else {
      one.drop_all();
    }
    loop.run_for(5s);
    faults().clear();
    loop.run_for(5s);
  }
  EXPECT_EQ(target->connection_count(), 2u);  // those of the first host
}

// ---- delay

TEST_F(FaultsTest, DelaysBeforeAndAfterExecution) {
  faults().delay({.opcode = 0x01, .before = 100ms});
  auto write = h->io().start(nvme::write_command(1, 0, kBlocks), block(1));
  loop.run_for(90ms);
  EXPECT_FALSE(write->done);
  EXPECT_EQ(on_disk(), Bytes(kBlocks * 512));  // reads are not delayed
  loop.run_for(20ms);
  EXPECT_TRUE(write->answer().ok());
  faults().clear();

  faults().delay({.scope = {.nsid = 1}, .opcode = 0x01, .after = 100ms});
  write = h->io().start(nvme::write_command(1, 0, kBlocks), block(2));
  auto other = h->io().start(nvme::write_command(2, 0, kBlocks), block(3));
  loop.run_for(90ms);
  EXPECT_FALSE(write->done);
  EXPECT_TRUE(other->answer().ok());
  EXPECT_EQ(on_disk(), block(2));
  EXPECT_FALSE(write->done);
  loop.run_for(20ms);
  EXPECT_TRUE(write->answer().ok());
}

TEST_F(FaultsTest, ExecutesWhatWaitsWhenItIsCleared) {
  faults().delay({.before = 100s});
  auto write = h->io().start(nvme::write_command(1, 0, kBlocks), block(1));
  loop.run_for(1s);
  faults().clear();
  loop.run_for(1ms);
  EXPECT_TRUE(write->answer().ok());
  EXPECT_EQ(on_disk(), block(1));
}

TEST_F(FaultsTest, LetsTheHostAbortWhatWaits) {
  faults().delay({.opcode = 0x01, .before = 100s, .count = 1});
  faults().late({.scope = {.nsid = 2}, .hold = 1, .after = 1s});
  for (const std::uint32_t nsid : {1u, 2u}) {
    auto write = h->io().start(nvme::write_command(nsid, 0, kBlocks), block(1));
    loop.run_for(1s);
    const auto cid = write->sqe.cid;
    EXPECT_EQ(h->admin().send(nvme::abort_command(2, cid)).dw0(), nvme::kAbortNotAborted);
    EXPECT_EQ(h->admin().send(nvme::abort_command(1, cid)).dw0(), 0u);
    EXPECT_EQ(h->io().wait(*write, 1ms).code(), code_of(StatusCode::abort_requested));
    EXPECT_EQ(h->admin().send(nvme::abort_command(1, cid)).dw0(), nvme::kAbortNotAborted);
  }
  h->drop_all();
  loop.run_for(200s);
  EXPECT_EQ(on_disk(0, 1), Bytes(kBlocks * 512));
  EXPECT_EQ(on_disk(0, 2), Bytes(kBlocks * 512));
}

TEST_F(FaultsTest, AbortsNothingThatIsExecuted) {
  faults().delay({.opcode = 0x01, .after = 1s});
  auto write = h->io().start(nvme::write_command(1, 0, kBlocks), block(1));
  loop.run_for(100ms);
  EXPECT_EQ(h->admin().send(nvme::abort_command(1, write->sqe.cid)).dw0(), nvme::kAbortNotAborted);
  EXPECT_TRUE(h->io().wait(*write).ok());
}

// Nothing of an association may happen behind its end, unless a ghost was asked for.
TEST_F(FaultsTest, ExecutesNothingOfALostConnection) {
  faults().delay({.opcode = 0x01, .before = 10s});
  auto write = h->io().start(nvme::write_command(1, 0, kBlocks), block(1));
  loop.run_for(1s);
  h->drop_all();
  loop.run_for(1s);
  EXPECT_EQ(target->controller_count(), 0u);
  loop.run_for(30s);
  EXPECT_EQ(on_disk(), Bytes(kBlocks * 512));
  EXPECT_EQ(faults().counters().cancelled, 1u);
}

TEST_F(FaultsTest, CancelsWhatWaitsBeforeTheControllerIsDisabled) {
  faults().delay({.opcode = 0x01, .before = 10s});
  faults().late({.hold = 1, .after = 1s});
  auto held = h->io().start(nvme::write_command(1, 0, kBlocks), block(1));
  auto slow = h->io().start(nvme::write_command(2, 0, kBlocks), block(1));
  loop.run_for(1s);
  ASSERT_TRUE(h->set_cc({}).ok());
  loop.run_for(10ms);
  EXPECT_FALSE(h->csts().rdy);
  loop.run_for(30s);
  faults().clear();
  EXPECT_EQ(on_disk(0, 1), Bytes(kBlocks * 512));
  EXPECT_EQ(on_disk(0, 2), Bytes(kBlocks * 512));
  EXPECT_EQ(faults().counters().ghosts, 0u);
}

// ---- ghosts

TEST_F(FaultsTest, ExecutesAHeldWriteBehindTheEndOfItsConnection) {
  faults().late({.hold = 1, .after = 3s});
  const Bytes ghost = block(1);
  auto held = h->io().start(nvme::write_command(1, 0, kBlocks), ghost);
  loop.run_for(10s);
  EXPECT_FALSE(held->done);
  ASSERT_TRUE(h->write(100, block(2)).ok());  // only one was to be held
  h->drop_all();
  loop.run_for(1s);
  EXPECT_EQ(target->controller_count(), 0u);
  EXPECT_EQ(faults().ghosts(), 1u);
  TestHost& next = host();
  next.bring_up_io();
  ASSERT_TRUE(next.write(0, block(3)).ok());
  EXPECT_EQ(on_disk(), block(3));
  loop.run_for(3s);
  EXPECT_EQ(on_disk(), ghost);  // the older write has overwritten the newer one
  EXPECT_EQ(faults().counters().ghosts, 1u);
  EXPECT_EQ(faults().ghosts(), 0u);
}

TEST_F(FaultsTest, MakesGhostsOfWritesThatWereDelayed) {
  faults().delay({.opcode = 0x01, .before = 1s, .count = 2});
  faults().late({.scope = {.nsid = 1}, .after = 3s});
  auto one = h->io().start(nvme::write_command(1, 0, 256), random_bytes(131072, 1));  // by R2T
  auto two = h->io().start(nvme::write_command(2, 0, kBlocks), block(2));
  loop.run_for(500ms);
  h->drop_all();
  loop.run_for(2s);
  EXPECT_EQ(on_disk(0, 1), Bytes(kBlocks * 512));
  loop.run_for(2s);
  const Bytes first = random_bytes(131072, 1);
  EXPECT_TRUE(std::ranges::equal(on_disk(0, 1), std::span(first).first(kBlocks * 512)));
  EXPECT_EQ(on_disk(0, 2), Bytes(kBlocks * 512));
}

TEST_F(FaultsTest, LiesAboutCstsOnlyIfAskedTo) {
  faults().late({.hold = 1, .after = 1s, .even_if_stopped = true});
  auto held = h->io().start(nvme::write_command(1, 0, kBlocks), block(1));
  loop.run_for(1s);
  ASSERT_TRUE(h->set_cc({}).ok());
  loop.run_for(10ms);
  EXPECT_FALSE(h->csts().rdy);
  EXPECT_EQ(on_disk(), Bytes(kBlocks * 512));
  loop.run_for(2s);
  EXPECT_EQ(on_disk(), block(1));
}

TEST_F(FaultsTest, ForgetsGhostsWhenClearedAndWhenStopped) {
  faults().late({.hold = 2, .after = 3s});
  auto held = h->io().start(nvme::write_command(1, 0, kBlocks), block(1));
  loop.run_for(1s);
  h->drop_all();
  loop.run_for(1s);
  faults().clear();
  loop.run_for(10s);
  EXPECT_EQ(on_disk(), Bytes(kBlocks * 512));
  faults().late({.hold = 2, .after = 3s});
  h = &host();
  h->bring_up_io();
  held = h->io().start(nvme::write_command(1, 0, kBlocks), block(1));
  loop.run_for(1s);
}  // and the fixture stops the target

// ---- fail, corrupt, keep-alive, CFS

TEST_F(FaultsTest, FailsCommandsByNumberOpcodeAndBlocks) {
  faults().fail({.status = StatusCode::namespace_not_ready, .count = 2});
  for (int i = 0; i < 2; ++i) {
    const Answer failed = h->write(0, block(1));
    EXPECT_EQ(failed.code(), code_of(StatusCode::namespace_not_ready));
    EXPECT_FALSE(failed.status.dnr);
  }
  EXPECT_EQ(on_disk(), Bytes(kBlocks * 512));
  EXPECT_TRUE(h->write(0, block(1)).ok());

  faults().fail({.status = {StatusCode::unrecovered_read_error, true},
                 .opcode = 0x02,
                 .first_lba = 10,
                 .last_lba = 19});
  EXPECT_TRUE(h->read(2, 8).ok());
  for (const std::uint64_t lba : {3, 10, 19}) {
    const Answer failed = h->read(lba, 8);
    EXPECT_EQ(failed.code(), code_of(StatusCode::unrecovered_read_error));
    EXPECT_TRUE(failed.status.dnr);
  }
  EXPECT_TRUE(h->read(20, 8).ok());
  EXPECT_TRUE(h->write(10, block(1)).ok());
  EXPECT_TRUE(h->admin().send(nvme::keep_alive()).ok());
  faults().clear();
  EXPECT_TRUE(h->read(10, 8).ok());

  faults().fail({.scope = {.qid = 0}, .status = StatusCode::internal_error});
  EXPECT_EQ(h->identify(nvme::Cns::controller).code(), code_of(StatusCode::internal_error));
  EXPECT_TRUE(h->csts().rdy);
  EXPECT_TRUE(h->read(0, 1).ok());
}

TEST_F(FaultsTest, DelaysRetriesOnlyForHostsThatKnow) {
  EXPECT_EQ(h->identify_controller().crdt2, 10);
  EXPECT_EQ(h->identify_controller().cqt, 200);
  nvme::Status status = StatusCode::command_interrupted;
  status.crd = 2;
  faults().fail({.status = status});
  EXPECT_EQ(h->read(0, 1).status.crd, 0);
  Bytes behavior(nvme::kHostBehaviorBytes);
  nvme::HostBehavior{.acre = true}.encode(std::span<std::byte, nvme::kHostBehaviorBytes>(behavior));
  ASSERT_TRUE(h->admin().send(nvme::set_host_behavior(), behavior).ok());
  EXPECT_EQ(h->read(0, 1).status.crd, 2);
}

/// What is behind it is not there.
class AbsentDisk final : public Disk {
 public:
  [[nodiscard]] std::uint64_t size_bytes() const override { return 1 << 20; }
  [[nodiscard]] bool read_only() const override { return false; }
  [[nodiscard]] bool volatile_cache() const override { return false; }
  void submit(DiskOp& op) override {
    op.error = EAGAIN;
    op.complete(op);
  }
};

/// Linux repeats a command five times and no more, at once where it is not told to wait.
TEST_F(ControllerTest, AsksHostsThatKnowToWaitWhileADiskIsNotThere) {
  for (const bool told : {false, true}) {
    TargetConfig config = one_subsystem({memory(1 << 20)});
    config.crdt[0] = told ? 50 : 0;
    config.wrap_disk = [](auto, auto, auto) { return std::make_unique<AbsentDisk>(); };
    start(std::move(config));
    TestHost& h = host();
    h.bring_up_io();
    const Answer untold = h.read(0, 1);
    EXPECT_EQ(untold.code(), code_of(StatusCode::namespace_not_ready));
    EXPECT_FALSE(untold.status.dnr);
    EXPECT_EQ(untold.status.crd, 0);
    Bytes behavior(nvme::kHostBehaviorBytes);
    nvme::HostBehavior{.acre = true}.encode(
        std::span<std::byte, nvme::kHostBehaviorBytes>(behavior));
    ASSERT_TRUE(h.admin().send(nvme::set_host_behavior(), behavior).ok());
    EXPECT_EQ(h.read(0, 1).status.crd, told ? 1 : 0);
    stop();
    hosts.clear();
  }
}

TEST_F(FaultsTest, CorruptsDataDigests) {
  TestHost& one = host({.hostid = host_id(5), .data_digest = true});
  one.bring_up_io();
  faults().corrupt({.count = 2});
  EXPECT_TRUE(h->read(0, 8).ok());  // has no data digest, and uses up none
  for (int i = 0; i < 2; ++i) EXPECT_FALSE(one.read(0, 8).ok());
  EXPECT_TRUE(one.read(0, 8).ok());
  EXPECT_EQ(faults().counters().corrupted, 2u);
  EXPECT_FALSE(one.admin().ended());
}

TEST_F(FaultsTest, LosesKeepAlives) {
  TestHost& one = host({.hostid = host_id(4), .kato_ms = 1000});
  one.bring_up_io();
  faults().ignore_keep_alive({});
  auto lost = one.admin().start(nvme::keep_alive());
  loop.run_for(900ms);
  EXPECT_FALSE(lost->done);
  EXPECT_FALSE(one.admin().ended());
  loop.run_for(1200ms);
  EXPECT_TRUE(one.admin().ended());
}

TEST_F(FaultsTest, IsFatalUntilTheHostResets) {
  auto before = h->admin().start(nvme::async_event_request());
  EXPECT_EQ(faults().fatal(), 1u);
  EXPECT_TRUE(h->csts().cfs);
  auto read = h->io().start(nvme::read_command(1, 0, 8), Bytes(4096), true);
  auto keep = h->admin().start(nvme::keep_alive());
  loop.run_for(10s);
  EXPECT_FALSE(read->done);
  EXPECT_FALSE(keep->done);
  EXPECT_FALSE(h->io().ended());
  ASSERT_TRUE(h->set_cc({}).ok());
  loop.run_for(10ms);
  EXPECT_FALSE(h->csts().rdy);
  EXPECT_FALSE(h->csts().cfs);
  ASSERT_TRUE(h->set_cc(TestHost::enabled()).ok());
  EXPECT_TRUE(h->csts().rdy);
  ASSERT_TRUE(h->connect_io(1).ok());
  EXPECT_TRUE(h->read(0, 1).ok());
}

TEST_F(FaultsTest, ShowsWhatIsOn) {
  faults().refuse({.status = StatusCode::connect_controller_busy, .lasts = 3s});
  faults().blackhole({.scope = {.qid = 7}, .lasts = 2s});
  faults().delay({.scope = {.nsid = 2}, .opcode = 0x01, .before = 5ms});
  faults().late({.hold = 4, .after = 1s});
  faults().fail({.status = StatusCode::internal_error, .opcode = 9, .first_lba = 3});
  faults().corrupt({.count = 9});
  faults().ignore_keep_alive({});
  loop.run_for(1s);
  const nlohmann::json shown = faults().show();
  ASSERT_EQ(shown["faults"].size(), 7u);
  EXPECT_EQ(shown["faults"][0]["left_ms"], 2000);
  EXPECT_EQ(shown["faults"][1]["queue"], 7);
  EXPECT_EQ(shown["faults"][2]["nsid"], 2);
  EXPECT_EQ(shown["faults"][3]["hold"], 4);
  EXPECT_EQ(shown["connections"].size(), 2u);
  EXPECT_EQ(shown["controllers"][0]["hostnqn"], kHostNqn);
  EXPECT_EQ(shown["subsystems"][0]["namespaces"].size(), 2u);
  EXPECT_TRUE(shown["listening"]);
  faults().clear();
  EXPECT_TRUE(faults().show()["faults"].empty());
}

}  // namespace
}  // namespace nvmf::controller
