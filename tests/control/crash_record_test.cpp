#include "control/crash_record.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>

namespace nvmf::control {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr const char* kNqn = "nqn.2024-05.org.example:disks";

CrashRecord unclean(Duration bound, Duration updated = seconds(100)) {
  CrashRecord r;
  r.subnqn = kNqn;
  r.bound = bound;
  r.updated = {"boot-a", updated};
  return r;
}

CrashRecord clean(Duration until) {
  CrashRecord r = unclean(seconds(20));
  r.clean = true;
  r.until = until;
  return r;
}

TEST(StillHeld, AnUncleanEndCountsItsWholeBoundWheneverItIsSeen) {
  for (const Duration now : {seconds(100), seconds(5000)}) {
    EXPECT_EQ(still_held(unclean(seconds(20)), {"boot-a", now}, false), seconds(20));
  }
}

TEST(StillHeld, WhoRunsLooksAfterItself) {
  EXPECT_EQ(still_held(unclean(seconds(20)), {"boot-a", seconds(100)}, true), Duration::zero());
  // But not for what it took over.
  CrashRecord heir = unclean(seconds(20));
  heir.until = seconds(130);
  EXPECT_EQ(still_held(heir, {"boot-a", seconds(110)}, true), seconds(20));
}

TEST(StillHeld, AfterACleanEndTheTimeIsThatOfTheRecord) {
  EXPECT_EQ(still_held(clean(seconds(107)), {"boot-a", seconds(101)}, false), seconds(6));
  EXPECT_EQ(still_held(clean(seconds(107)), {"boot-a", seconds(107)}, false), Duration::zero());
  EXPECT_EQ(still_held(clean(Duration::zero()), {"boot-a", seconds(107)}, false), Duration::zero());
}

TEST(StillHeld, ABootIsLaterThanWhatHappenedBeforeIt) {
  EXPECT_EQ(still_held(unclean(seconds(20)), {"boot-b", seconds(15)}, false), seconds(5));
  EXPECT_EQ(still_held(unclean(seconds(20)), {"boot-b", seconds(21)}, false), Duration::zero());
  // Seven seconds were left when it was written; the other clock says nothing here.
  EXPECT_EQ(still_held(clean(seconds(107)), {"boot-b", seconds(3)}, false), seconds(4));
  EXPECT_EQ(still_held(clean(seconds(107)), {"boot-b", seconds(8)}, false), Duration::zero());
}

TEST(StillHeld, BootsThatCannotBeToldApartGiveNothingAway) {
  CrashRecord r = clean(seconds(107));
  r.updated.boot_id.clear();
  EXPECT_EQ(still_held(r, {"boot-b", seconds(5000)}, false), seconds(7));
  EXPECT_EQ(still_held(clean(seconds(107)), {"", seconds(5000)}, false), seconds(7));
  EXPECT_EQ(still_held(unclean(seconds(20)), {"", seconds(5000)}, false), seconds(20));
}

TEST(StillHeld, NeverStaysNever) {
  EXPECT_EQ(still_held(unclean(kForEver), {"boot-b", seconds(5000)}, false), kForEver);
  EXPECT_EQ(still_held(clean(kForEver), {"boot-b", seconds(5000)}, false), kForEver);
  EXPECT_EQ(still_held(clean(kForEver), {"boot-a", seconds(5000)}, true), kForEver);
}

TEST(StillHeld, TheLongerOfBothCounts) {
  CrashRecord heir = unclean(seconds(20));
  heir.until = seconds(150);
  EXPECT_EQ(still_held(heir, {"boot-a", seconds(110)}, false), seconds(40));
  EXPECT_EQ(still_held(heir, {"boot-a", seconds(140)}, false), seconds(20));
}

TEST(CrashRecordJson, SaysWhatItWasGiven) {
  CrashRecord r = unclean(milliseconds(20'001));
  r.address = "[::1]:4420";
  r.pid = 77;
  r.facts = {.katt_ms = 5000, .traffic_based = true, .cqt_ms = 3};
  r.until = kForEver;
  const auto back = CrashRecord::parse(r.to_json());
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->to_json(), r.to_json());
  EXPECT_EQ(back->subnqn, kNqn);
  EXPECT_EQ(back->bound, milliseconds(20'001));
  EXPECT_EQ(back->until, kForEver);
  EXPECT_EQ(back->facts.katt_ms, 5000u);
  EXPECT_TRUE(back->facts.traffic_based);
  EXPECT_EQ(back->updated.boot_id, "boot-a");
}

TEST(CrashRecordJson, NonsenseIsRefused) {
  for (const char* bad :
       {"", "[]", "{", "{\"version\":2}", "{\"version\":1}", "{\"version\":1,\"subnqn\":\"n\"}",
        "{\"version\":1,\"subnqn\":\"n\",\"bound_ms\":-1,\"until_ms\":0,\"updated_ms\":0}"}) {
    EXPECT_FALSE(CrashRecord::parse(bad)) << bad;
  }
  const auto huge = CrashRecord::parse(
      R"({"version":1,"subnqn":"n","bound_ms":18446744073709551615,"until_ms":0,"updated_ms":0})");
  ASSERT_TRUE(huge);
  EXPECT_EQ(huge->bound, kForEver);
}

class OwnCrashRecordTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = fs::temp_directory_path() / "nvmf-crash-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder = pattern;
    runtime.emplace(RuntimeDir::open(folder / "run").value());
  }
  void TearDown() override { fs::remove_all(folder); }

  struct Connected {
    std::optional<Claim> claim;
    OwnCrashRecord record;
    Inheritance inherited;
  };
  std::unique_ptr<Connected> connect(const std::string& name, const std::string& nqn = kNqn) {
    auto c = std::make_unique<Connected>(
        Connected{std::nullopt, OwnCrashRecord(*runtime, nqn, "127.0.0.1:4420"), {}});
    auto claim = runtime->claim({.name = name, .subnqn = nqn}, {},
                                [&](const std::string& claimed) -> Result<void> {
                                  auto taken = c->record.take_over(*runtime, claimed);
                                  if (!taken) return std::unexpected(taken.error());
                                  c->inherited = std::move(*taken);
                                  return {};
                                });
    EXPECT_TRUE(claim);
    if (claim) c->claim.emplace(std::move(*claim));
    return c;
  }
  /// What a process does that is killed some time after it went live. The kernel drops its lock.
  void crash(const std::string& name, std::optional<Duration> bound,
             const std::string& nqn = kNqn) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      auto c = connect(name, nqn);
      const bool good = bound == Duration::zero() || c->record.went_live({}, bound).has_value();
      ::_exit(good ? 0 : 1);  // nothing is destroyed
    }
    int how = 0;
    ::waitpid(pid, &how, 0);
    EXPECT_EQ(how, 0);
  }
  [[nodiscard]] bool exists(const std::string& name) const {
    return fs::exists(folder / "run" / (name + ".crash"));
  }
  [[nodiscard]] std::vector<std::string> files() const {
    std::vector<std::string> all;
    for (const auto& entry : fs::directory_iterator(folder / "run")) {
      if (entry.path().filename().string().contains(".crash")) {
        all.push_back(entry.path().filename());
      }
    }
    std::ranges::sort(all);
    return all;
  }

  fs::path folder;
  std::optional<RuntimeDir> runtime;
};

TEST_F(OwnCrashRecordTest, IsThereBeforeTheFirstWriteAndGoesWithAGoodEnd) {
  auto c = connect("disk");
  EXPECT_EQ(c->inherited.hold, Duration::zero());
  EXPECT_FALSE(exists("disk"));
  ASSERT_TRUE(c->record.went_live({.katt_ms = 5000}, seconds(20)));
  struct stat st{};
  ASSERT_EQ(::stat((folder / "run" / "disk.crash").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0600u);
  ASSERT_TRUE(c->record.ended(Duration::zero()));
  EXPECT_TRUE(files().empty());
}

TEST_F(OwnCrashRecordTest, AfterAKillWritesAreHeldForTheWholeBound) {
  crash("disk", seconds(20));
  ASSERT_TRUE(exists("disk"));
  auto c = connect("disk");
  EXPECT_EQ(c->inherited.hold, seconds(20));
  EXPECT_EQ(c->inherited.owner, "disk");
  EXPECT_TRUE(c->inherited.killed);
}

TEST_F(OwnCrashRecordTest, AnotherNameInheritsAndTheOldRecordGoes) {
  crash("old", seconds(20));
  auto c = connect("new");
  EXPECT_EQ(c->inherited.hold, seconds(20));
  EXPECT_EQ(files(), std::vector<std::string>{"new.crash"});
}

TEST_F(OwnCrashRecordTest, AnotherCrashBeforeTheTimeHasPassedLosesNothing) {
  crash("a", seconds(1000));
  crash("b", Duration::zero());  // it never sent anything
  crash("b", seconds(20));
  auto c = connect("c");
  EXPECT_GT(c->inherited.hold, seconds(900));
  EXPECT_LE(c->inherited.hold, seconds(1000));
}

TEST_F(OwnCrashRecordTest, AGoodEndKeepsWhatWasInherited) {
  crash("a", seconds(1000));
  {
    auto c = connect("a");
    ASSERT_TRUE(c->record.went_live({}, seconds(20)));
    ASSERT_TRUE(c->record.ended(Duration::zero()));
  }
  auto c = connect("b");
  EXPECT_GT(c->inherited.hold, seconds(900));
  EXPECT_FALSE(c->inherited.killed);
}

TEST_F(OwnCrashRecordTest, AnEndWithSomethingUnderWayKeepsTheRecord) {
  {
    auto c = connect("a");
    ASSERT_TRUE(c->record.went_live({}, seconds(20)));
    ASSERT_TRUE(c->record.ended(seconds(700)));
  }
  auto c = connect("a");
  EXPECT_GT(c->inherited.hold, seconds(600));
  // Times in records are rounded up to milliseconds.
  EXPECT_LE(c->inherited.hold, seconds(700) + milliseconds(1));
}

TEST_F(OwnCrashRecordTest, WhoRunsDoesNotHoldOthersUp) {
  auto first = connect("a");
  ASSERT_TRUE(first->record.went_live({}, seconds(20)));
  auto second = connect("b");
  EXPECT_EQ(second->inherited.hold, Duration::zero());
  EXPECT_TRUE(exists("a"));
}

TEST_F(OwnCrashRecordTest, WhatWhoRunsTookOverHoldsOthersToo) {
  crash("x", seconds(1000));
  auto first = connect("a");
  auto second = connect("b");
  EXPECT_GT(second->inherited.hold, seconds(900));
  EXPECT_FALSE(second->inherited.killed);
  EXPECT_TRUE(exists("a"));
}

TEST_F(OwnCrashRecordTest, ARecordOfAnotherSubsystemIsPutAside) {
  crash("nvmf0", seconds(1000), "nqn.other");
  {
    auto c = connect("nvmf0");
    EXPECT_EQ(c->inherited.hold, Duration::zero());
    ASSERT_TRUE(c->record.went_live({}, seconds(20)));
    EXPECT_EQ(files(), (std::vector<std::string>{"nvmf0.crash", "nvmf0~1.crash"}));
    ASSERT_TRUE(c->record.ended(Duration::zero()));
  }
  auto other = connect("nvmf0", "nqn.other");
  EXPECT_GT(other->inherited.hold, seconds(900));
  EXPECT_EQ(other->inherited.owner, "nvmf0");
  EXPECT_EQ(files(), std::vector<std::string>{"nvmf0.crash"});
}

TEST_F(OwnCrashRecordTest, ForeignRecordsAgeAndGo) {
  crash("a", milliseconds(50), "nqn.other");
  connect("b");  // sees it: its time runs
  EXPECT_TRUE(exists("a"));
  ::usleep(60'000);
  connect("b");
  EXPECT_TRUE(files().empty());
}

TEST_F(OwnCrashRecordTest, NeverIsKeptUntilTheUserWaivesIt) {
  crash("a", std::nullopt);
  {
    auto c = connect("a");
    EXPECT_EQ(c->inherited.hold, kForEver);
  }
  {
    auto c = connect("a");
    EXPECT_EQ(c->inherited.hold, kForEver);
    c->record.waive();
    // It never sent anything: then nothing was waived either.
    ASSERT_TRUE(c->record.ended(Duration::zero()));
  }
  {
    auto c = connect("a");
    EXPECT_EQ(c->inherited.hold, kForEver);
    c->record.waive();
    ASSERT_TRUE(c->record.went_live({}, seconds(20)));
    ASSERT_TRUE(c->record.ended(Duration::zero()));
  }
  EXPECT_EQ(connect("a")->inherited.hold, Duration::zero());
}

TEST_F(OwnCrashRecordTest, ABoundNeverBecomesShorter) {
  {
    auto c = connect("a");
    ASSERT_TRUE(c->record.went_live({.katt_ms = 10'000}, seconds(30)));
    ASSERT_TRUE(c->record.went_live({.katt_ms = 5'000}, seconds(20)));
  }
  EXPECT_EQ(connect("a")->inherited.hold, seconds(30));
}

TEST_F(OwnCrashRecordTest, WhatCannotBeUnderstoodIsSaidAndBlocksNobody) {
  std::ofstream(folder / "run" / "a.crash") << "{\"version\":1";
  auto c = connect("b");
  EXPECT_EQ(c->inherited.hold, Duration::zero());
  ASSERT_EQ(c->inherited.complaints.size(), 1u);
  EXPECT_NE(c->inherited.complaints[0].find("a.crash cannot be understood"), std::string::npos);
  EXPECT_TRUE(exists("a"));
}

TEST_F(OwnCrashRecordTest, AHalfWrittenFileIsNoRecord) {
  crash("a", seconds(20));
  std::ofstream(folder / "run" / "a.crash.new") << "{\"vers";
  auto c = connect("a");
  EXPECT_EQ(c->inherited.hold, seconds(20));
  EXPECT_TRUE(c->inherited.complaints.empty());
  ASSERT_TRUE(c->record.went_live({}, seconds(20)));
}

TEST_F(OwnCrashRecordTest, WithoutAPlaceNothingIsClaimed) {
  crash("a", seconds(20));
  fs::create_directory(folder / "run" / "a.crash.new");  // unlink() does not take it away
  OwnCrashRecord record(*runtime, kNqn, "127.0.0.1:4420");
  const auto claim = runtime->claim({.name = "a", .subnqn = kNqn}, {},
                                    [&](const std::string& name) -> Result<void> {
                                      auto taken = record.take_over(*runtime, name);
                                      if (!taken) return std::unexpected(taken.error());
                                      return {};
                                    });
  ASSERT_FALSE(claim);
  EXPECT_NE(claim.error().message.find("a.crash.new"), std::string::npos) << claim.error().message;
  EXPECT_FALSE(runtime->find("a"));
  EXPECT_TRUE(exists("a"));
}

}  // namespace
}  // namespace nvmf::control
