// Get LBA Status: which blocks of a namespace are allocated.
#include "nvme/lba_status.h"

#include <deque>
#include <set>

#include "controller/allocation_map.h"
#include "controller/test_host.h"

namespace nvmf::controller {
namespace {

using nvme::LbaStatusAction;
using nvme::LbaStatusEnd;
using nvme::LbaStatusList;
using nvme::StatusCode;

using Entries = std::vector<nvme::LbaStatusEntry>;

TEST(AllocationMap, IsAsASetOfPages) {
  constexpr std::uint64_t kPages = 3 * 64 * 512 + 77;  // groups, and the last in part
  auto map = AllocationMap::create(kPages * 4096 - 512);
  ASSERT_TRUE(map);
  std::vector<bool> model(kPages);
  std::mt19937_64 random(7);
  for (int round = 0; round < 300; ++round) {
    const std::uint64_t begin = random() % kPages;
    const std::uint64_t end =
        std::min(kPages, begin + 1 + random() % (round % 10 == 0 ? kPages : 200));
    const bool set = random() % 2 == 0;
    // Within its first and last page, so that a clear leaves these, and a mark takes them.
    const bool inside = random() % 2 == 0 && end - begin > 2;
    const std::uint64_t shift = inside ? 512 : 0;
    if (set) {
      map->mark(begin * 4096 + shift, end * 4096 - shift);
    } else {
      map->clear(begin * 4096 + shift, end * 4096 - shift);
    }
    const bool last = end == kPages;  // reaches the end of the disk all the same
    for (std::uint64_t p = begin; p < end; ++p) {
      const bool border = inside && (p == begin || (p == end - 1 && !last));
      if (set || !border) model[p] = set;
    }
    if (round % 20 != 0) continue;
    std::uint64_t at = 0;
    while (at < kPages) {
      const auto run = map->next(at * 4096);
      const std::uint64_t from = (run.begin + 4095) / 4096;
      const std::uint64_t to = (run.end + 4095) / 4096;
      for (; at < from; ++at) ASSERT_FALSE(model[at]) << round << " " << at;
      for (; at < to; ++at) ASSERT_TRUE(model[at]) << round << " " << at;
    }
  }
}

TEST(AllocationMap, WhatIsCutOffDoesNotComeBack) {
  auto map = AllocationMap::create(1 << 20);
  ASSERT_TRUE(map);
  map->mark(0, 1 << 20);
  ASSERT_TRUE(map->resize(8192));
  EXPECT_EQ(map->next(0).end, 8192u);
  ASSERT_TRUE(map->resize(std::uint64_t{1} << 40));
  EXPECT_EQ(map->next(0).end, 8192u);
  EXPECT_EQ(map->next(8192).begin, std::uint64_t{1} << 40);
}

/// Tells of one extent at a time, later, and of a limited stretch.
class SlowDisk final : public Disk {
 public:
  SlowDisk(transport::Loop& loop, std::uint64_t bytes) : loop_(loop), bytes_(bytes) {}
  [[nodiscard]] std::uint64_t size_bytes() const override { return bytes_; }
  [[nodiscard]] bool read_only() const override { return false; }
  [[nodiscard]] bool volatile_cache() const override { return false; }
  void submit(DiskOp& op) override { op.complete(op); }
  void extents(DiskExtents& query) override {
    loop_.post([this, &query] {
      query.error = fail;
      query.count = 0;
      query.examined_bytes = std::min<std::uint64_t>(query.length_bytes, 1536);
      // The second 1 KiB of every 4 KiB, as borders that are none of blocks.
      const std::uint64_t piece = query.offset_bytes / 4096 * 4096 + 1024;
      const std::uint64_t begin = std::max(query.offset_bytes, piece);
      const std::uint64_t end = std::min(piece + 1024, query.offset_bytes + query.examined_bytes);
      if (begin < end) query.found[query.count++] = {begin, end - begin};
      query.complete(query);
    });
  }
  int fail = 0;

 private:
  transport::Loop& loop_;
  std::uint64_t bytes_;
};

class LbaStatusTest : public ControllerTest {
 protected:
  void begin(std::vector<NamespaceConfig> namespaces) {
    TargetConfig config = one_subsystem(std::move(namespaces));
    config.wrap_disk = wrap;
    start(std::move(config));
    h = &host();
    h->bring_up_io();
  }
  Answer ask(nvme::GetLbaStatus get) { return h->admin().fetch(get.to_sqe(), get.length_bytes); }
  LbaStatusList list(std::uint32_t nsid = 1, std::uint64_t lba = 0, std::uint16_t blocks = 0,
                     std::uint64_t length_bytes = 4096) {
    const Answer answer =
        ask({.nsid = nsid, .lba = lba, .length_bytes = length_bytes, .blocks = blocks});
    EXPECT_TRUE(answer.ok()) << answer.code();
    return LbaStatusList::decode(answer.data);
  }
  static nvme::LbaStatusEntry entry(std::uint64_t lba, std::uint64_t blocks) {
    return {lba, blocks, nvme::kLbaStatusAllocated};
  }
  void deallocate(std::uint32_t nsid, std::uint64_t lba, std::uint32_t blocks) {
    ASSERT_TRUE(h->io()
                    .send(nvme::dsm_command(nsid, 1, nvme::kCdw11DsmDeallocate),
                          nvme::encode_dsm_ranges(
                              std::vector<nvme::DsmRange>{{.blocks = blocks, .lba = lba}}))
                    .ok());
  }

  TestHost* h = nullptr;
  decltype(TargetConfig::wrap_disk) wrap;
};

TEST_F(LbaStatusTest, IsOffered) {
  begin({memory(1 << 20)});
  // That would promise the other actions, and notices, a log page and a feature.
  EXPECT_EQ(h->identify_controller().oacs & nvme::kOacsGetLbaStatus, 0);
  const auto nvm = nvme::IdentifyNvmController::decode(h->identify(nvme::Cns::csi_controller).data);
  EXPECT_NE(nvm.aocs & nvme::kAocsReportsAllocated, 0);
  const auto effects = nvme::EffectsLog::decode(h->log(nvme::LogPage::effects, 4096).data);
  EXPECT_EQ(effects.acs[0x86], nvme::kEffectSupported);
}

TEST_F(LbaStatusTest, TellsOfWhatWasWritten) {
  NamespaceConfig cached = memory(1 << 20);
  cached.volatile_cache = true;
  begin({memory(1 << 20), cached, memory(1 << 20, 4096)});
  for (std::uint32_t nsid = 1; nsid <= 2; ++nsid) {
    SCOPED_TRACE(nsid);
    EXPECT_EQ(list(nsid).entries, Entries{});
    EXPECT_EQ(list(nsid).end, LbaStatusEnd::complete);
    ASSERT_TRUE(h->write(8, random_bytes(4096, 1), 512, nsid).ok());
    ASSERT_TRUE(h->write(16, random_bytes(512, 1), 512, nsid).ok());
    ASSERT_TRUE(h->write(2040, random_bytes(4096, 1), 512, nsid).ok());
    EXPECT_EQ(list(nsid).entries, (Entries{entry(8, 16), entry(2040, 8)}));
    // Within a range; its borders cut.
    EXPECT_EQ(list(nsid, 12, 4).entries, (Entries{entry(12, 4)}));
    EXPECT_EQ(list(nsid, 24, 100).entries, Entries{});
    EXPECT_EQ(list(nsid, 24, 100).end, LbaStatusEnd::complete);
    // Zeroes that are written are data; those that deallocate are not.
    ASSERT_TRUE(h->io().send(nvme::write_zeroes_command(nsid, 64, 8)).ok());
    ASSERT_TRUE(h->io().send(nvme::write_zeroes_command(nsid, 8, 8, nvme::kCdw12Deac)).ok());
    EXPECT_EQ(list(nsid).entries, (Entries{entry(16, 8), entry(64, 8), entry(2040, 8)}));
    deallocate(nsid, 0, 2048);
    EXPECT_EQ(list(nsid).entries, Entries{});
  }
  ASSERT_TRUE(h->write(2, random_bytes(4096, 1), 4096, 3).ok());
  EXPECT_EQ(list(3).entries, (Entries{entry(2, 1)}));
}

TEST_F(LbaStatusTest, SaysWhenThereWasNoRoomForMore) {
  begin({memory(1 << 20)});
  for (std::uint64_t i = 0; i < 4; ++i) {
    ASSERT_TRUE(h->write(i * 16, random_bytes(512, i), 512).ok());
  }
  EXPECT_EQ(list(1, 0, 0, 8 + 3 * 16).entries, (Entries{entry(0, 8), entry(16, 8), entry(32, 8)}));
  EXPECT_EQ(list(1, 0, 0, 8 + 3 * 16).end, LbaStatusEnd::no_room);
  EXPECT_EQ(list(1, 0, 0, 8 + 4 * 16).end, LbaStatusEnd::complete);
  EXPECT_EQ(list(1, 0, 0, 8).entries, Entries{});
  EXPECT_EQ(list(1, 0, 0, 8).end, LbaStatusEnd::no_room);
  EXPECT_EQ(list(1, 64, 0, 8).end, LbaStatusEnd::complete);
  EXPECT_EQ(ask({.nsid = 1, .length_bytes = 4}).data.size(), 4u);
}

TEST_F(LbaStatusTest, HasDescriptorsForMoreThanOneCanHold) {
  begin({memory(std::uint64_t{1} << 42)});  // 2^33 blocks
  EXPECT_EQ(list().end, LbaStatusEnd::complete);
  EXPECT_EQ(list().entries, Entries{});
  ASSERT_TRUE(h->write((std::uint64_t{1} << 33) - 8, random_bytes(4096, 1)).ok());
  EXPECT_EQ(list().entries, (Entries{entry((std::uint64_t{1} << 33) - 8, 8)}));
}

TEST_F(LbaStatusTest, AllOfAFileThatTellsNothingIsAllocated) {
  begin({file("/disk", 1 << 20)});
  EXPECT_EQ(list().entries, (Entries{entry(0, 2048)}));
}

TEST_F(LbaStatusTest, PowerLossBringsBackWhatWasDeallocated) {
  NamespaceConfig cached = memory(1 << 20);
  cached.volatile_cache = true;
  begin({cached});
  ASSERT_TRUE(h->write(8, random_bytes(4096, 1)).ok());
  ASSERT_TRUE(h->io().send(nvme::flush_command(1)).ok());
  deallocate(1, 0, 2048);
  EXPECT_EQ(list().entries, Entries{});
  ASSERT_TRUE(target->restart({.power_loss = true}));
  loop.run_until([this] { return !target->down(); }, 10s);
  h = &host();
  h->bring_up_io();
  const auto entries = list().entries;
  ASSERT_FALSE(entries.empty());  // at least what is there again
  EXPECT_LE(entries.front().lba, 8u);
  EXPECT_GE(entries.front().lba + entries.front().blocks, 16u);
}

TEST_F(LbaStatusTest, RefusesWhatDoesNotFit) {
  begin({memory(1 << 20)});
  const auto code = [this](nvme::GetLbaStatus get) { return ask(get).code(); };
  EXPECT_EQ(code({.nsid = 2}), code_of(StatusCode::invalid_namespace));
  EXPECT_EQ(code({.nsid = nvme::kNsidAll}), code_of(StatusCode::invalid_namespace));
  EXPECT_EQ(code({.nsid = 1, .lba = 2048}), code_of(StatusCode::lba_out_of_range));
  EXPECT_EQ(code({.nsid = 1, .lba = 2047, .blocks = 2}), code_of(StatusCode::lba_out_of_range));
  EXPECT_EQ(code({.nsid = 1, .lba = ~0ull, .blocks = 2}), code_of(StatusCode::lba_out_of_range));
  EXPECT_EQ(code({.nsid = 1, .action = static_cast<LbaStatusAction>(3)}),
            code_of(StatusCode::invalid_field));
  const nvme::GetLbaStatus get{.nsid = 1, .length_bytes = 4096};
  EXPECT_EQ(h->admin().fetch(get.to_sqe(), 512).code(),
            code_of(StatusCode::data_sgl_length_invalid));
  EXPECT_EQ(h->admin().send(get.to_sqe()).code(), code_of(StatusCode::data_sgl_length_invalid));
  for (const auto action : {LbaStatusAction::scan_untracked, LbaStatusAction::tracked}) {
    EXPECT_EQ(code({.nsid = 1, .length_bytes = 4096, .action = action}),
              code_of(StatusCode::invalid_field));
  }
}

class SlowLbaStatusTest : public LbaStatusTest {
 protected:
  void SetUp() override {
    wrap = [this](std::unique_ptr<Disk> inner, std::uint32_t,
                  std::string_view) -> std::unique_ptr<Disk> {
      auto made = std::make_unique<SlowDisk>(loop, inner->size_bytes());
      slow = made.get();
      return made;
    };
  }
  SlowDisk* slow = nullptr;
};

TEST_F(SlowLbaStatusTest, DisksMayTellOfAPartAtATime) {
  begin({memory(64 << 10)});
  const auto found = list();
  EXPECT_EQ(found.end, LbaStatusEnd::complete);
  ASSERT_EQ(found.entries.size(), 16u);
  EXPECT_EQ(found.entries[1], entry(10, 2));
  slow->fail = EIO;
  EXPECT_EQ(ask({.nsid = 1, .length_bytes = 4096}).code(), code_of(StatusCode::internal_error));
}

TEST_F(SlowLbaStatusTest, IsOverWhenItsHostHasGone) {
  begin({memory(64 << 10)});
  auto pending = h->admin().start(nvme::GetLbaStatus{.nsid = 1, .length_bytes = 4096}.to_sqe(),
                                  Bytes(4096), true);
  loop.run_until([] { return false; }, 1us);
  h->drop_all();
  EXPECT_TRUE(loop.run_until([this] { return target->controller_count() == 0; }, 10s));
}

}  // namespace
}  // namespace nvmf::controller
