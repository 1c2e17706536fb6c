// Restarts, the loss of power, disks of the caller's, and namespaces that change under a host.
#include <array>
#include <nlohmann/json.hpp>

#include "controller/cached_disk.h"
#include "controller/faults.h"
#include "controller/memory_disk.h"
#include "controller/test_host.h"

namespace nvmf::controller {
namespace {

using nvme::StatusCode;

constexpr std::uint32_t kBlocks = 8;

Bytes block(std::uint64_t seed) {
  return random_bytes(kBlocks * 512, seed);
}

const Bytes kZeroes(kBlocks * 512);

class RestartTest : public ControllerTest {
 protected:
  void SetUp() override {
    NamespaceConfig cached = memory(1 << 20);
    cached.volatile_cache = true;
    start(one_subsystem({cached, memory(1 << 20)}));
    h = &host();
    h->bring_up_io();
  }
  /// Ends what there is and connects anew, once that can be.
  void reconnect() {
    h->drop_all();
    h = &host();
    h->bring_up_io();
  }
  Result<void> lose_power(Duration down = {}) {
    auto done = target->restart({.down = down, .power_loss = true});
    loop.run_for(down + 1ms);
    return done;
  }

  TestHost* h = nullptr;
};

TEST_F(RestartTest, ForgetsControllersAndListensAgain) {
  ASSERT_TRUE(h->write(0, block(1), 512, 2).ok());
  ASSERT_TRUE(target->restart({.down = 2s}));
  EXPECT_TRUE(target->down());
  loop.run_for(1ms);
  EXPECT_TRUE(h->admin().ended());
  EXPECT_TRUE(h->io().ended());
  EXPECT_EQ(target->controller_count(), 0u);
  EXPECT_FALSE(TestQueue(loop, at, 0).ready());
  loop.run_for(2s);
  EXPECT_FALSE(target->down());
  reconnect();
  EXPECT_EQ(h->cntlid(), 1);
  EXPECT_EQ(h->read(0, kBlocks, 512, 2).data, block(1));
}

TEST_F(RestartTest, HasOtherLimitsAfterwards) {
  EXPECT_FALSE(target->restart({.max_queues = 0}));
  EXPECT_TRUE(h->read(0, 1).ok());  // nothing has happened
  ASSERT_TRUE(target->restart({.max_queues = 2, .queue_entries = 16}));
  loop.run_for(1ms);
  h->drop_all();
  h = &host({.queue_entries = 16});
  h->bring_up();
  const auto cap = nvme::ControllerCapabilities::decode(
      h->admin().send(nvme::property_get(nvme::Property::cap)).result);
  EXPECT_EQ(cap.mqes, 15);
  const auto granted = nvme::QueueCount::decode(h->admin().send(nvme::set_queue_count(8)).dw0());
  EXPECT_EQ(granted.submission, 2u);
  EXPECT_TRUE(h->connect_io(2).ok());
  EXPECT_FALSE(h->connect_io(3).ok());
}

TEST_F(RestartTest, LosesWithThePowerWhatWasNotFlushed) {
  EXPECT_NE(h->identify_controller().vwc & nvme::kVwcPresent, 0);
  ASSERT_TRUE(h->write(0, block(1)).ok());
  ASSERT_TRUE(h->io().send(nvme::flush_command(1)).ok());
  ASSERT_TRUE(h->write(0, block(2)).ok());
  ASSERT_TRUE(h->write(100, block(3), 512, 1, nvme::kCdw12Fua).ok());
  ASSERT_TRUE(h->write(104, block(4)).ok());
  ASSERT_TRUE(h->write(104, block(5), 512, 1, nvme::kCdw12Fua).ok());
  ASSERT_TRUE(h->write(200, block(6)).ok());
  ASSERT_TRUE(h->write(0, block(7), 512, 2).ok());  // has no cache: what was answered stays
  EXPECT_EQ(h->read(0, kBlocks).data, block(2));
  ASSERT_TRUE(lose_power());
  reconnect();
  EXPECT_EQ(h->read(0, kBlocks).data, block(1));
  const Bytes fua = h->read(100, kBlocks).data;
  const Bytes written = block(3);
  EXPECT_TRUE(std::ranges::equal(std::span(fua).first(2048), std::span(written).first(2048)));
  EXPECT_EQ(h->read(104, kBlocks).data, block(5));
  EXPECT_EQ(h->read(200, kBlocks).data, kZeroes);
  EXPECT_EQ(h->read(0, kBlocks, 512, 2).data, block(7));
}

TEST_F(RestartTest, LosesNothingInARestartWithPower) {
  ASSERT_TRUE(h->write(0, block(1)).ok());
  ASSERT_TRUE(target->restart({}));
  loop.run_for(1ms);
  reconnect();
  EXPECT_EQ(h->read(0, kBlocks).data, block(1));
}

TEST_F(RestartTest, LosesNothingWithTheCacheOff) {
  ASSERT_TRUE(h->admin().send(nvme::set_features(nvme::Feature::volatile_write_cache, 0)).ok());
  ASSERT_TRUE(h->write(0, block(1)).ok());
  ASSERT_TRUE(lose_power());
  reconnect();
  EXPECT_EQ(h->read(0, kBlocks).data, block(1));
  EXPECT_EQ(h->admin().send(nvme::get_features(nvme::Feature::volatile_write_cache)).dw0(), 1u);
}

TEST_F(RestartTest, LosesNothingAfterAShutdown) {
  ASSERT_TRUE(h->write(0, block(1)).ok());
  auto cc = TestHost::enabled();
  cc.shn = nvme::kShnNormal;
  ASSERT_TRUE(h->set_cc(cc).ok());
  EXPECT_EQ(h->csts().shst, nvme::kShstComplete);
  ASSERT_TRUE(lose_power());
  reconnect();
  EXPECT_EQ(h->read(0, kBlocks).data, block(1));
}

TEST_F(RestartTest, LosesGhostsAndHeldWritesWithThePower) {
  target->faults().late({.hold = 2, .after = 2s});
  auto ghost = h->io().start(nvme::write_command(2, 0, kBlocks), block(1));
  loop.run_for(1s);
  h->drop_all();
  loop.run_for(1s);
  h = &host();
  h->bring_up_io();
  auto held = h->io().start(nvme::write_command(2, 0, kBlocks), block(2));
  loop.run_for(500ms);
  ASSERT_EQ(target->faults().ghosts(), 1u);
  ASSERT_TRUE(lose_power());
  EXPECT_EQ(target->faults().ghosts(), 0u);
  loop.run_for(10s);
  reconnect();
  EXPECT_EQ(h->read(0, kBlocks, 512, 2).data, kZeroes);
}

TEST_F(RestartTest, StopsWhileItIsDown) {
  ASSERT_TRUE(target->restart({.down = 100s}));
  stop();
}

// ---- disks

TEST(CachedDisk, RemembersExactlyWhatIsDirty) {
  auto made = CachedDisk::create(1 << 20);
  ASSERT_TRUE(made);
  CachedDisk& disk = **made;
  std::mt19937_64 random(7);
  Bytes seen(1 << 20);
  Bytes stable(1 << 20);
  for (int step = 0; step < 4000; ++step) {
    const std::uint64_t at = random() % 2040 * 512;
    const std::uint64_t length = (1 + random() % 8) * 512;
    DiskOp op;
    op.complete = [](DiskOp&) {};
    op.offset_bytes = at;
    op.length_bytes = length;
    op.fua = random() % 8 == 0;
    Bytes data = random_bytes(length, random());
    switch (random() % 16) {
      case 0:
        op.kind = DiskOp::Kind::flush;
        break;
      case 1:
        disk.power_loss();
        seen = stable;
        continue;
      case 2:
        op.kind = DiskOp::Kind::write_zeroes;
        data.assign(length, {});
        break;
      case 3:
        op.kind = DiskOp::Kind::deallocate;
        data.assign(length, {});
        break;
      default:
        op.kind = DiskOp::Kind::write;
        op.data = data.data();
        break;
    }
    disk.submit(op);
    ASSERT_EQ(op.error, 0);
    if (op.kind == DiskOp::Kind::flush) {
      stable = seen;
      ASSERT_EQ(disk.dirty_bytes(), 0u);
      continue;
    }
    std::ranges::copy(data, seen.begin() + static_cast<std::ptrdiff_t>(at));
    if (op.fua) std::ranges::copy(data, stable.begin() + static_cast<std::ptrdiff_t>(at));
  }
  for (Bytes* image : {&seen, &stable}) {
    Bytes back(1 << 20);
    DiskOp read;
    read.complete = [](DiskOp&) {};
    read.length_bytes = back.size();
    read.data = back.data();
    disk.submit(read);
    EXPECT_TRUE(back == *image);
    disk.power_loss();
  }
}

/// Counts, and keeps what it holds after its target.
class CountingDisk final : public Disk {
 public:
  CountingDisk(MemoryDisk& below, int& submitted) : below_(below), submitted_(submitted) {}
  [[nodiscard]] std::uint64_t size_bytes() const override { return below_.size_bytes(); }
  [[nodiscard]] bool read_only() const override { return false; }
  [[nodiscard]] bool volatile_cache() const override { return false; }
  void submit(DiskOp& op) override {
    ++submitted_;
    below_.submit(op);
  }

 private:
  MemoryDisk& below_;
  int& submitted_;
};

class OwnDiskTest : public ControllerTest {};

TEST_F(OwnDiskTest, StandsBehindANamespaceAndOutlivesTheTarget) {
  auto below = MemoryDisk::create(1 << 20);
  ASSERT_TRUE(below);
  int submitted = 0;
  NamespaceConfig custom;
  custom.kind = NamespaceConfig::Kind::custom;
  custom.factory = std::make_shared<const DiskFactory>([&]() -> Result<std::unique_ptr<Disk>> {
    return std::make_unique<CountingDisk>(**below, submitted);
  });
  custom.uuid = nvme::Uuid{std::byte{1}, std::byte{2}};
  nvme::Nguid nguid{};
  for (int round = 0; round < 2; ++round) {
    start(one_subsystem({custom}));
    TestHost& h = host({.queue_entries = 32});
    h.bring_up_io();
    const auto names =
        nvme::NamespaceDescriptors::decode(h.identify(nvme::Cns::namespace_descriptors, 1).data);
    ASSERT_TRUE(names);
    EXPECT_EQ(*names->uuid, *custom.uuid);
    if (round == 1) EXPECT_EQ(*names->nguid, nguid);
    nguid = *names->nguid;
    if (round == 0) {
      ASSERT_TRUE(h.write(0, block(1)).ok());
    } else {
      EXPECT_EQ(h.read(0, kBlocks).data, block(1));
    }
    stop();
    hosts.clear();
  }
  EXPECT_EQ(submitted, 2);
}

TEST_F(OwnDiskTest, IsWrappedAroundTheConfiguredOne) {
  int submitted = 0;
  std::vector<std::unique_ptr<Disk>> below;
  TargetConfig config = one_subsystem({memory(1 << 20), memory(1 << 20)});
  std::vector<std::uint32_t> nsids;
  config.wrap_disk = [&](std::unique_ptr<Disk> disk, std::uint32_t nsid,
                         std::string_view subnqn) -> std::unique_ptr<Disk> {
    EXPECT_EQ(subnqn, kSubsystemNqn);
    nsids.push_back(nsid);
    if (nsid != 2) return disk;
    below.push_back(std::move(disk));
    // It was made by MemoryDisk::create(), for a memory namespace.
    return std::make_unique<CountingDisk>(static_cast<MemoryDisk&>(*below.back()), submitted);
  };
  start(std::move(config));
  TestHost& h = host();
  h.bring_up_io();
  ASSERT_TRUE(h.write(0, block(1)).ok());
  EXPECT_EQ(submitted, 0);
  ASSERT_TRUE(h.write(0, block(1), 512, 2).ok());
  EXPECT_EQ(submitted, 1);
  EXPECT_EQ(nsids, (std::vector<std::uint32_t>{1, 2}));
}

TEST_F(OwnDiskTest, HasIdentifiersThatFollowFromASeed) {
  const auto uuids = [this](std::uint64_t seed) {
    TargetConfig config = one_subsystem({memory(1 << 20), memory(1 << 20)});
    config.uuid_seed = seed;
    config.shared_buffers = 2;
    start(std::move(config));
    std::vector<nvme::Uuid> found;
    for (const auto& ns : target->find(kSubsystemNqn)->namespaces()) {
      found.push_back(ns->uuid);
      found.push_back(ns->nguid);
    }
    EXPECT_EQ(target->buffers().count(), 2u);
    stop();
    return found;
  };
  const auto one = uuids(1);
  EXPECT_EQ(one, uuids(1));
  const auto two = uuids(2);
  for (std::size_t i = 0; i < one.size(); ++i) {
    EXPECT_NE(one[i], two[i]);
    EXPECT_NE(one[i], one[(i + 1) % one.size()]);
  }
}

// ---- namespaces

class NamespaceTest : public RestartTest {
 protected:
  void SetUp() override {
    RestartTest::SetUp();
    ASSERT_TRUE(h->admin().send(nvme::set_async_events(nvme::kOaesNamespaceAttributes)).ok());
    event = h->admin().start(nvme::async_event_request());
  }
  /// The host was told, once, of changes of just these.
  void expect_told(const std::vector<std::uint32_t>& nsids) {
    ASSERT_TRUE(h->admin().wait(*event, 1s).ok());
    EXPECT_EQ(nvme::ChangedNamespaces::decode(
                  h->log(nvme::LogPage::changed_namespaces, nvme::kChangedNamespacesBytes).data)
                  .nsids,
              nsids);
    event = h->admin().start(nvme::async_event_request());
  }
  std::vector<std::uint32_t> active() {
    return nvme::decode_namespace_list(h->identify(nvme::Cns::active_namespaces).data)
        .value_or(std::vector<std::uint32_t>{});
  }
  nvme::Uuid uuid(std::uint32_t nsid) {
    return *nvme::NamespaceDescriptors::decode(
                h->identify(nvme::Cns::namespace_descriptors, nsid).data)
                ->uuid;
  }
  std::shared_ptr<Pending> event;
};

TEST_F(NamespaceTest, AreRemovedUnderTheirHosts) {
  target->faults().delay({.opcode = 0x01, .before = 1s});
  auto write = h->io().start(nvme::write_command(1, 0, kBlocks), block(1));
  auto transfer = h->io().start(nvme::write_command(1, 0, 512), Bytes(512 * 512));
  loop.run_for(100ms);
  ASSERT_TRUE(target->remove_namespace(kSubsystemNqn, 1));
  expect_told({1});
  EXPECT_EQ(active(), (std::vector<std::uint32_t>{2}));
  EXPECT_EQ(h->identify_controller().nn, 2u);
  EXPECT_EQ(h->read(0, 1).code(), code_of(StatusCode::invalid_namespace));
  EXPECT_TRUE(h->io().send(nvme::flush_command(nvme::kNsidAll)).ok());
  // What had begun is brought to its end.
  EXPECT_TRUE(h->io().wait(*write).ok());
  EXPECT_TRUE(h->io().wait(*transfer).ok());
  EXPECT_FALSE(target->remove_namespace(kSubsystemNqn, 1));
  EXPECT_FALSE(target->remove_namespace("nqn.2026-01.org.example:other", 2));

  ASSERT_TRUE(target->add_namespace(kSubsystemNqn, memory(1 << 20), 1));
  expect_told({1});
  EXPECT_EQ(h->read(0, kBlocks).data, kZeroes);
  EXPECT_FALSE(target->add_namespace(kSubsystemNqn, memory(1 << 20), 1));
  EXPECT_EQ(*target->add_namespace(kSubsystemNqn, memory(1 << 20)), 3u);
  expect_told({3});
  EXPECT_FALSE(target->add_namespace(kSubsystemNqn, memory(1 << 20), kNsidMax + 1));
}

TEST_F(NamespaceTest, AreSwappedForOthers) {
  ASSERT_TRUE(h->write(0, block(1), 512, 2).ok());
  const nvme::Uuid before = uuid(2);
  ASSERT_TRUE(target->swap_namespace(kSubsystemNqn, 2, memory(2 << 20)));
  expect_told({2});
  EXPECT_NE(uuid(2), before);
  EXPECT_EQ(h->read(0, kBlocks, 512, 2).data, kZeroes);
  EXPECT_FALSE(target->swap_namespace(kSubsystemNqn, 3, memory(1 << 20)));
}

TEST_F(NamespaceTest, AreResized) {
  for (const std::uint32_t nsid : {1u, 2u}) {
    ASSERT_TRUE(h->write(0, block(1), 512, nsid).ok());
    ASSERT_TRUE(h->write(2040, block(2), 512, nsid).ok());
    const nvme::Uuid before = uuid(nsid);
    ASSERT_TRUE(target->resize_namespace(kSubsystemNqn, nsid, 4 << 20));
    expect_told({nsid});
    EXPECT_EQ(uuid(nsid), before);
    EXPECT_EQ(
        nvme::IdentifyNamespace::decode(h->identify(nvme::Cns::identify_namespace, nsid).data).nsze,
        8192u);
    EXPECT_EQ(h->read(2040, kBlocks, 512, nsid).data, block(2));
    EXPECT_EQ(h->read(8184, kBlocks, 512, nsid).data, kZeroes);
    ASSERT_TRUE(h->write(8184, block(3), 512, nsid).ok());
    // Smaller: what was cut off does not come back.
    ASSERT_TRUE(target->resize_namespace(kSubsystemNqn, nsid, (1 << 20) - 512));
    expect_told({nsid});
    EXPECT_EQ(h->read(2040, kBlocks, 512, nsid).code(), code_of(StatusCode::lba_out_of_range));
    ASSERT_TRUE(target->resize_namespace(kSubsystemNqn, nsid, 1 << 20));
    expect_told({nsid});
    EXPECT_EQ(h->read(2047, 1, 512, nsid).data, Bytes(512));
    EXPECT_EQ(h->read(0, kBlocks, 512, nsid).data, block(1));
  }
  EXPECT_FALSE(target->resize_namespace(kSubsystemNqn, 1, 0));
  EXPECT_FALSE(target->resize_namespace(kSubsystemNqn, 1, 513));
  EXPECT_FALSE(target->resize_namespace(kSubsystemNqn, 7, 512));
}

// A command was checked while the namespace was larger.
TEST_F(NamespaceTest, EndWhatLiesBehindANewEnd) {
  target->faults().delay({.before = 1s});
  auto write = h->io().start(nvme::write_command(2, 2040, kBlocks), block(1));
  auto read = h->io().start(nvme::read_command(2, 2040, kBlocks), Bytes(4096), true);
  loop.run_for(100ms);
  ASSERT_TRUE(target->resize_namespace(kSubsystemNqn, 2, 1 << 19));
  EXPECT_EQ(h->io().wait(*write).code(), code_of(StatusCode::lba_out_of_range));
  EXPECT_EQ(h->io().wait(*read).code(), code_of(StatusCode::lba_out_of_range));
}

}  // namespace
}  // namespace nvmf::controller
