// Where there is data in a namespace: what a controller says becomes extents, and what it does not
// say, says wrongly or too late becomes data.
#include "host/extents.h"

#include <deque>

#include "host/recovery_fixture.h"

namespace nvmf::test {
namespace {

using host::Extent;
using host::ExtentsRequest;
using nvme::LbaStatusEnd;
using nvme::LbaStatusList;

using Extents = std::vector<Extent>;
constexpr bool kData = false;
constexpr bool kZeroes = true;

/// A request that remembers its answer.
struct Query : ExtentsRequest {
  explicit Query(std::uint64_t offset, std::uint64_t length, std::size_t most = 8) : room(most) {
    offset_bytes = offset;
    length_bytes = length;
    extents = room;
    complete = [](ExtentsRequest& r) { ++static_cast<Query&>(r).completions; };
  }
  [[nodiscard]] Extents answer() const {
    return {room.begin(), room.begin() + static_cast<std::ptrdiff_t>(count)};
  }
  Extents room;
  int completions = 0;
};

LbaStatusList list_of(std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges,
                      LbaStatusEnd end = LbaStatusEnd::complete) {
  LbaStatusList list{.announced = static_cast<std::uint32_t>(ranges.size()), .end = end};
  for (const auto& [lba, blocks] : ranges) list.entries.push_back({lba, blocks, 2});
  return list;
}

Extents told(std::uint64_t offset, std::uint64_t length, const LbaStatusList& list,
             std::size_t most = 8) {
  Query q(offset, length, most);
  answer_extents(q, list, 9);
  return q.answer();
}

TEST(ExtentsOfList, GapsAreZeroes) {
  EXPECT_EQ(told(0, 8192, list_of({})), (Extents{{8192, kZeroes}}));
  EXPECT_EQ(told(0, 8192, list_of({{0, 16}})), (Extents{{8192, kData}}));
  EXPECT_EQ(told(0, 8192, list_of({{4, 2}, {6, 1}, {15, 100}})),
            (Extents{{2048, kZeroes}, {1536, kData}, {4096, kZeroes}, {512, kData}}));
  // Within blocks, and with what the controller tells of beyond the range (RL = 0).
  EXPECT_EQ(told(700, 400, list_of({{2, 1}, {900, 1}})), (Extents{{324, kZeroes}, {76, kData}}));
  EXPECT_EQ(told(700, 100, list_of({{1, 1}})), (Extents{{100, kData}}));
}

TEST(ExtentsOfList, ZeroesAreOnlyWhereTheControllerHasLooked) {
  // It had no room for more, or does not say: up to its last descriptor.
  for (const auto end : {LbaStatusEnd::no_room, LbaStatusEnd::unsaid, LbaStatusEnd{3}}) {
    EXPECT_EQ(told(0, 8192, list_of({{4, 2}}, end)), (Extents{{2048, kZeroes}, {1024, kData}}));
    EXPECT_EQ(told(0, 8192, list_of({}, end)), (Extents{{8192, kData}}));
  }
  // It says complete but has told of more than there is.
  LbaStatusList cut = list_of({{4, 2}});
  cut.announced = 2;
  EXPECT_EQ(told(0, 8192, cut), (Extents{{2048, kZeroes}, {1024, kData}}));
  cut.entries.clear();
  EXPECT_EQ(told(0, 8192, cut), (Extents{{8192, kData}}));
}

TEST(ExtentsOfList, ListsThatContradictThemselvesAreNotBelieved) {
  const Extents data{{8192, kData}};
  EXPECT_EQ(told(4096, 8192, list_of({{7, 1}})), data);
  EXPECT_EQ(told(0, 8192, list_of({{4, 2}, {5, 1}})), data);
  EXPECT_EQ(told(0, 8192, list_of({{4, 2}, {2, 1}})), data);
  EXPECT_EQ(told(0, 8192, list_of({{4, 2}, {~0ull, 2}})), data);
}

TEST(ExtentsOfList, FillNoMoreThanThereIsRoomFor) {
  const auto list = list_of({{4, 2}, {10, 1}});
  EXPECT_EQ(told(0, 8192, list, 1), (Extents{{2048, kZeroes}}));
  EXPECT_EQ(told(0, 8192, list, 2), (Extents{{2048, kZeroes}, {1024, kData}}));
  EXPECT_EQ(told(0, 8192, list, 3), (Extents{{2048, kZeroes}, {1024, kData}, {2048, kZeroes}}));
}

TEST(ExtentsOfList, AskAsFarAsTheFieldsGo) {
  const Query one(1024, 1024, 1);
  EXPECT_EQ(lba_status_for(one, 3, 9),
            (nvme::GetLbaStatus{.nsid = 3, .lba = 2, .length_bytes = 24, .blocks = 2}));
  const Query within(1000, 100, 1000);
  EXPECT_EQ(lba_status_for(within, 3, 9),
            (nvme::GetLbaStatus{.nsid = 3, .lba = 1, .length_bytes = 4096, .blocks = 2}));
  EXPECT_EQ(lba_status_for(Query(512, 65535ull * 512), 3, 9).blocks, 65535);
  EXPECT_EQ(lba_status_for(Query(512, 65536ull * 512), 3, 9).blocks, 0);
}

class ExtentsTest : public Recovery {
 protected:
  ExtentsTest() {
    target.nvm.emplace();
    target.nvm->aocs = nvme::kAocsReportsAllocated;
    for (auto& [nsid, ns] : target.namespaces) ns.id.dlfeat = nvme::kDlfeatReadsZero;
    target.intercept = [this](FakeTarget::Connection& c, ControllerCommand& command) {
      if (c.qid != 0 || command.sqe.opcode != 0x86) return false;
      asked.push_back(nvme::GetLbaStatus::from_sqe(command.sqe));
      if (silent) return true;
      if (refuse_with) {
        c.respond(command, *refuse_with);
      } else {
        c.send(command, list.encode());
      }
      return true;
    };
  }
  /// Nothing is under way when the requests go.
  ~ExtentsTest() override {
    target.intercept = {};
    if (!host_ || watcher.ended) return;
    host_->stop(true);
    wait_for([this] { return watcher.ended.has_value(); });
    loop.run_for(seconds(1));
  }
  Query& ask(std::uint64_t offset, std::uint64_t length, std::uint32_t nsid = 1) {
    Query& q = queries.emplace_back(offset, length);
    at_once = host_->device(0, nsid)->extents(q);
    EXPECT_EQ(q.completions, 0);
    return q;
  }
  Extents answer(std::uint64_t offset, std::uint64_t length) {
    Query& q = ask(offset, length);
    if (!at_once) {
      EXPECT_TRUE(wait_for([&] { return q.completions == 1; }, seconds(30)));
    }
    EXPECT_EQ(q.error, 0);
    return q.answer();
  }

  std::deque<Query> queries;
  bool at_once = false;
  std::vector<nvme::GetLbaStatus> asked;
  LbaStatusList list = list_of({{4, 2}});
  std::optional<nvme::Status> refuse_with;
  bool silent = false;
};

const Extents kSparse{{2048, kZeroes}, {1024, kData}, {5120, kZeroes}};
const Extents kAllData{{8192, kData}};

TEST_F(ExtentsTest, AskTheController) {
  go(2);
  EXPECT_EQ(answer(0, 8192), kSparse);
  ASSERT_EQ(asked.size(), 1u);
  EXPECT_EQ(asked[0], (nvme::GetLbaStatus{.nsid = 1, .length_bytes = 8 + 8 * 16, .blocks = 16}));
  EXPECT_EQ(ask(1024 * 512, 1).error, EINVAL);
  EXPECT_TRUE(at_once);
  EXPECT_EQ(ask(512, 1024 * 512).error, EINVAL);
  EXPECT_EQ(ask(0, 0).error, EINVAL);
}

TEST_F(ExtentsTest, AllIsDataUnlessTheControllerCanTell) {
  const auto without = [&](auto change) {
    change();
    go();
    EXPECT_EQ(answer(0, 8192), kAllData);
    EXPECT_TRUE(asked.empty());
    host_->stop(true);
    ASSERT_TRUE(wait_for([&] { return watcher.ended.has_value(); }));
    loop.run_for(seconds(1));
    host_.reset();
    watcher = Watcher{};
  };
  without([&] {
    target.id.oacs |= nvme::kOacsGetLbaStatus;  // of other actions
    target.nvm->aocs = 0;
  });
  without([&] {
    target.nvm->aocs = nvme::kAocsReportsAllocated;
    target.namespaces.at(1).id.dlfeat = 2;  // deallocated blocks read as ones
  });
  without([&] { target.namespaces.at(1).id.dlfeat = 0; });  // nobody knows
}

TEST_F(ExtentsTest, WhatIsRefusedIsData) {
  go();
  refuse_with = nvme::Status(nvme::StatusCode::lba_out_of_range, true);
  EXPECT_EQ(answer(0, 8192), kAllData);
  refuse_with.reset();
  EXPECT_EQ(answer(0, 8192), kSparse);
}

TEST_F(ExtentsTest, CrowdsWaitInTurn) {
  go();
  for (int i = 0; i < 200; ++i) ask(0, 8192);
  EXPECT_TRUE(wait_for([&] { return queries.back().completions == 1; }, seconds(5)));
  for (const Query& q : queries) {
    EXPECT_EQ(q.completions, 1);
    EXPECT_EQ(q.answer(), kSparse);
  }
  // Of more than may wait, those are told at once that it is data.
  queries.clear();
  for (std::size_t i = 0; i < host::kExtentsWaitersMax + 10; ++i) ask(0, 8192);
  EXPECT_TRUE(wait_for([&] { return queries[host::kExtentsWaitersMax].completions == 1; }));
  std::size_t data = 0;
  EXPECT_TRUE(wait_for([&] {
    return std::ranges::all_of(queries, [](const Query& q) { return q.completions == 1; });
  }));
  for (const Query& q : queries) data += q.answer() == kAllData ? 1 : 0;
  EXPECT_EQ(data, 10 - host::kExtentsCommandsMax);
}

TEST_F(ExtentsTest, SlowControllersKeepNobodyWaitingAndLoseNoConnection) {
  params.admin_timeout = seconds(60);
  go();
  silent = true;
  const Instant began = loop.now();
  EXPECT_EQ(answer(0, 8192), kAllData);
  EXPECT_LE(loop.now() - began, host::kExtentsPatience + seconds(1));
  silent = false;
  // It is not asked again over this connection.
  EXPECT_EQ(answer(0, 8192), kAllData);
  EXPECT_EQ(asked.size(), 1u);
  EXPECT_EQ(watcher.lost, 0);
}

TEST_F(ExtentsTest, LossMeansDataUntilItIsBack) {
  go();
  silent = true;
  Query& q = ask(0, 8192);
  ASSERT_TRUE(wait_for([&] { return asked.size() == 1; }));
  kill_target();
  ASSERT_TRUE(wait_for([&] { return q.completions == 1; }));
  EXPECT_EQ(q.answer(), kAllData);
  silent = false;
  ASSERT_TRUE(wait_for([&] { return watcher.again == 1; }, seconds(30)));
  EXPECT_EQ(answer(0, 8192), kSparse);
}

TEST_F(ExtentsTest, AreAnsweredWhenTheConnectionEnds) {
  go();
  silent = true;
  Query& q = ask(0, 8192);
  ASSERT_TRUE(wait_for([&] { return asked.size() == 1; }));
  for (int i = 0; i < 10; ++i) ask(0, 8192);
  const Instant began = loop.now();
  host_->stop();
  ASSERT_TRUE(wait_for([&] { return watcher.ended.has_value(); }, seconds(5)));
  EXPECT_LE(loop.now() - began, host::kStopTimeMax);
  loop.run_for(milliseconds(10));
  for (const Query& one : queries) EXPECT_EQ(one.completions, 1);
  EXPECT_EQ(q.answer(), kAllData);
  EXPECT_EQ(ask(0, 8192).error, ESHUTDOWN);
  EXPECT_TRUE(at_once);
}

}  // namespace
}  // namespace nvmf::test
