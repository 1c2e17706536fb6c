// What has no connection: coroutines, limits, parameters, identity.

#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "host/identity.h"
#include "host/namespace.h"
#include "host/params.h"
#include "host/task.h"
#include "sim/virtual_loop.h"

namespace nvmf::host {
namespace {

using testing::HasSubstr;

// ---- coroutines ----

Task<int> add(int a, int b) {
  co_return a + b;
}
Task<void> count(int n, long& sum) {
  for (int i = 0; i < n; ++i) sum += co_await add(i, 1);
}

TEST(Task, MillionAwaitsNeedNoStack) {
  long sum = 0;
  spawn(count(1'000'000, sum));
  EXPECT_EQ(sum, 500'000'500'000);
}

struct Tracked {
  explicit Tracked(int& n) : alive(n) { ++alive; }
  Tracked(const Tracked&) = delete;
  Tracked& operator=(const Tracked&) = delete;
  ~Tracked() { --alive; }
  int& alive;
};

Task<void> hop(transport::Loop& loop, int& alive, int& done) {
  const Tracked t(alive);
  co_await switch_to(loop);
  ++done;
}
Task<void> nested(transport::Loop& loop, int& alive, int& done) {
  const Tracked t(alive);
  co_await hop(loop, alive, done);
  ++done;
}

TEST(Task, SwitchGoesOnInALaterTurn) {
  sim::VirtualLoop loop;
  int alive = 0;
  int done = 0;
  spawn(nested(loop, alive, done));
  EXPECT_EQ(done, 0);
  loop.run_until_idle();
  EXPECT_EQ(done, 2);
  EXPECT_EQ(alive, 0);
}

TEST(Task, LoopThatEndsEndsWhatWasPosted) {
  int alive = 0;
  int done = 0;
  {
    sim::VirtualLoop loop;
    spawn(nested(loop, alive, done));
    EXPECT_EQ(alive, 2);
  }
  EXPECT_EQ(alive, 0);
  EXPECT_EQ(done, 0);
}

Task<void> all_of(transport::Loop& loop, int& alive, int& done) {
  std::vector<Task<void>> tasks;
  for (int i = 0; i < 5; ++i) tasks.push_back(hop(loop, alive, done));
  co_await when_all(std::move(tasks));
  EXPECT_EQ(done, 5);
  ++done;
}

TEST(Task, WhenAllWaitsForAllAndGoesWithTheLoop) {
  int alive = 0;
  int done = 0;
  {
    sim::VirtualLoop loop;
    spawn(all_of(loop, alive, done));
    loop.run_until_idle();
    EXPECT_EQ(done, 6);
    spawn(all_of(loop, alive, done));
    EXPECT_EQ(alive, 5);
  }
  EXPECT_EQ(alive, 0);
  EXPECT_EQ(done, 6);
}

Task<void> wait_for(Signal& s, std::vector<int>& order, int id) {
  co_await s;
  order.push_back(id);
}

TEST(Task, SignalWakesAllInOrderAndLateComersAtOnce) {
  sim::VirtualLoop loop;
  Signal s(loop);
  std::vector<int> order;
  spawn(wait_for(s, order, 1));
  spawn(wait_for(s, order, 2));
  s.fire();
  s.fire();
  EXPECT_TRUE(order.empty()) << "resumed inside fire()";
  loop.run_until_idle();
  spawn(wait_for(s, order, 3));
  EXPECT_EQ(order, (std::vector{1, 2, 3}));
}

Task<void> nap(transport::Loop& loop, Instant& woke) {
  co_await sleep(loop, std::chrono::seconds(3));
  woke = loop.now();
}

TEST(Task, SleepsInTheLoopsTime) {
  sim::VirtualLoop loop;
  const Instant begin = loop.now();
  Instant woke{};
  spawn(nap(loop, woke));
  loop.run_for(std::chrono::seconds(5));
  EXPECT_EQ(woke - begin, std::chrono::seconds(3));
}

Task<void> ask(std::move_only_function<void(int)>& keep, int& got) {
  got = co_await callback<int>([&keep](auto done) { keep = std::move(done); });
}

TEST(Task, CallbackIsAwaitedOnceAndMayBeDropped) {
  std::move_only_function<void(int)> done;
  int got = 0;
  spawn(ask(done, got));
  done(42);
  EXPECT_EQ(got, 42);
  spawn(ask(done, got));
  done = nullptr;  // the coroutine goes; a sanitizer would see it leak
}

// ---- limits of commands ----

TEST(CommandLimits, Table) {
  using L = CommandLimits;
  constexpr std::uint32_t kAll = 0xffffffff;
  constexpr std::uint64_t kEver = ~std::uint64_t{0};
  nvme::IdentifyNvmController none;
  nvme::IdentifyNvmController some;
  some.wzsl = 3;
  some.wzdsl = 2;
  some.dmrl = 16;
  some.dmrsl = 1000;
  some.dmsl = 5000;
  const struct {
    std::uint8_t mdts, mpsmin;
    const nvme::IdentifyNvmController* nvm;
    std::uint32_t block;
    L want;
  } rows[] = {
      // No MDTS: as much as is good for reads and writes, 65536 blocks of zeroes.
      {0, 0, nullptr, 512, {2048, 65536, 65536, 512, 256, kAll, kEver}},
      {0, 0, &none, 4096, {256, 65536, 65536, 64, 256, kAll, kEver}},
      // MDTS 8 KiB; without WZSL it bounds Write Zeroes too.
      {1, 0, nullptr, 512, {16, 16, 16, 16, 256, kAll, kEver}},
      {1, 0, &none, 4096, {2, 2, 2, 2, 256, kAll, kEver}},
      {5, 1, nullptr, 512, {512, 512, 512, 512, 256, kAll, kEver}},
      // WZSL 32 KiB, with deallocation 16 KiB.
      {1, 0, &some, 512, {16, 64, 32, 16, 16, 1000, 5000}},
      // Large blocks: one is more than MDTS.
      {1, 0, nullptr, 65536, {0, 1, 1, 1, 256, kAll, kEver}},
      {4, 0, nullptr, 65536, {1, 1, 1, 1, 256, kAll, kEver}},
      // Absurd exponents mean "no limit".
      {63, 15, nullptr, 512, {2048, 65536, 65536, 512, 256, kAll, kEver}},
  };
  for (const auto& r : rows) {
    nvme::IdentifyController id;
    id.mdts = r.mdts;
    std::optional<nvme::IdentifyNvmController> nvm;
    if (r.nvm != nullptr) nvm = *r.nvm;
    EXPECT_EQ(L::from(id, nvm, r.mpsmin, r.block), r.want)
        << "mdts " << +r.mdts << " block " << r.block;
  }
}

// ---- parameters ----

ConnectParams good() {
  ConnectParams p;
  p.traddr = "::1";
  p.subnqn = "nqn.2024-01.org.example:x";
  p.hostnqn = "nqn.2024-01.org.example:host";
  p.hostid[0] = std::byte{1};
  return p;
}

TEST(ConnectParams, SentencesForWhatIsImpossible) {
  EXPECT_TRUE(good().validate());
  EXPECT_EQ(good().address(), "[::1]:4420");
  const struct {
    void (*change)(ConnectParams&);
    const char* sentence;
  } cases[] = {
      {[](auto& p) { p.traddr.clear(); }, "address is missing"},
      {[](auto& p) { p.port = 0; }, "port is 0"},
      {[](auto& p) { p.subnqn.clear(); }, "subsystem NQN is missing"},
      {[](auto& p) { p.subnqn = std::string(224, 'a'); }, "cannot be a subsystem NQN"},
      {[](auto& p) { p.hostnqn = "a\nb"; }, "cannot be a host NQN"},
      {[](auto& p) { p.hostid = {}; }, "all zero"},
      {[](auto& p) { p.nr_io_queues = 129; }, "from 0 to 128"},
      {[](auto& p) { p.queue_size = 1025; }, "from 16 to 1024"},
      {[](auto& p) { p.admin_queue_size = 31; }, "from 32 to 1024"},
      {[](auto& p) { p.tos = 256; }, "type of service"},
      {[](auto& p) { p.hpda = 32; }, "HPDA"},
      {[](auto& p) { p.r2t_max = 0; }, "R2Ts"},
      {[](auto& p) { p.connect_timeout = {}; }, "timeout"},
  };
  for (const auto& c : cases) {
    ConnectParams p = good();
    c.change(p);
    const auto result = p.validate();
    ASSERT_FALSE(result) << c.sentence;
    EXPECT_THAT(result.error().message, HasSubstr(c.sentence));
  }
}

// ---- identity ----

class IdentityTest : public testing::Test {
 protected:
  IdentityTest() {
    std::string name = (std::filesystem::temp_directory_path() / "nvmf-id-XXXXXX").string();
    root = ::mkdtemp(name.data());
    paths.system = root / "etc";
    paths.user = root / "home" / ".config" / "nvmf";
    std::filesystem::create_directories(paths.system);
  }
  ~IdentityTest() override { std::filesystem::remove_all(root); }
  static void write(const std::filesystem::path& file, const std::string& text) {
    std::ofstream(file) << text;
  }
  std::filesystem::path root;
  IdentityPaths paths;
  const std::string nqn = "nqn.2014-08.org.nvmexpress:uuid:01234567-89ab-cdef-0123-456789abcdef";
};

TEST_F(IdentityTest, IsMadeOnceAndKeptPrivate) {
  const auto first = host_identity("", "", paths);
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_THAT(first->hostnqn, HasSubstr("nqn.2014-08.org.nvmexpress:uuid:"));
  EXPECT_EQ(first->hostid, *nvme::uuid_of_nqn(first->hostnqn));
  const auto second = host_identity("", "", paths);
  EXPECT_EQ(second->hostnqn, first->hostnqn);
  EXPECT_EQ(second->hostid, first->hostid);
  struct stat st{};
  ASSERT_EQ(::stat((paths.user / "hostnqn").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
  std::size_t files = 0;
  for ([[maybe_unused]] const auto& f : std::filesystem::directory_iterator(paths.user)) ++files;
  EXPECT_EQ(files, 1u) << "a draft was left";
}

TEST_F(IdentityTest, SystemFilesComeFirst) {
  write(paths.system / "hostnqn", "  " + nqn + " \n");
  auto id = host_identity("", "", paths);
  ASSERT_TRUE(id);
  EXPECT_EQ(id->hostnqn, nqn);
  EXPECT_EQ(nvme::format_uuid(id->hostid), "01234567-89ab-cdef-0123-456789abcdef");
  write(paths.system / "hostid", "99999999-89ab-cdef-0123-456789abcdef\n");
  id = host_identity("", "", paths);
  EXPECT_EQ(nvme::format_uuid(id->hostid), "99999999-89ab-cdef-0123-456789abcdef");
}

TEST_F(IdentityTest, GivenNamesWin) {
  write(paths.system / "hostnqn", nqn);
  write(paths.system / "hostid", "99999999-89ab-cdef-0123-456789abcdef\n");
  const auto one = host_identity("nqn.2024-01.org.example:one", "", paths);
  const auto again = host_identity("nqn.2024-01.org.example:one", "", paths);
  const auto two = host_identity("nqn.2024-01.org.example:two", "", paths);
  ASSERT_TRUE(one && again && two);
  EXPECT_EQ(one->hostid, again->hostid);
  EXPECT_NE(one->hostid, two->hostid) << "a host ID belongs to one NQN";
  const auto both = host_identity(nqn, "88888888-89ab-cdef-0123-456789abcdef", paths);
  EXPECT_EQ(nvme::format_uuid(both->hostid), "88888888-89ab-cdef-0123-456789abcdef");
}

TEST_F(IdentityTest, BadNamesAndFilesAreErrors) {
  EXPECT_FALSE(host_identity(std::string(300, 'x'), "", paths));
  const auto bad_id = host_identity(nqn, "not-a-uuid", paths);
  ASSERT_FALSE(bad_id);
  EXPECT_THAT(bad_id.error().message, HasSubstr("\"not-a-uuid\" is no host identifier"));
  write(paths.system / "hostid", "garbage");
  write(paths.system / "hostnqn", nqn);
  const auto bad_file = host_identity("", "", paths);
  ASSERT_FALSE(bad_file);
  EXPECT_THAT(bad_file.error().message, HasSubstr("hostid"));
}

TEST_F(IdentityTest, NowhereToKeepOne) {
  paths.user.clear();
  const auto id = host_identity("", "", paths);
  ASSERT_FALSE(id);
  EXPECT_THAT(id.error().message, HasSubstr("pass --hostnqn"));
}

}  // namespace
}  // namespace nvmf::host
