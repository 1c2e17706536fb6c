// Namespaces as devices of a kernel that these tests are, on two real reactors.
#include "frontends/nbd/kernel_devices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <numeric>
#include <thread>

#include "fixtures.h"
#include "io/reactor.h"
#include "io/socket_pair.h"
#include "kernel_fake.h"
#include "loop_device.h"

namespace nvmf::nbd {
namespace {

using namespace std::chrono_literals;
using test::FakeKernel;
using testing::HasSubstr;
using Bytes = std::vector<std::byte>;

constexpr std::uint64_t kDiskBytes = 8 << 20;

std::string backend_of(std::uint32_t nsid) {
  return "nvmf disk " + std::to_string(nsid);
}

class KernelDevicesTest : public testing::Test {
 protected:
  KernelDevicesTest() {
    for (int i = 0; i < 2; ++i) {
      reactors_.push_back(std::move(*io::make_reactor({})));
      loops_.push_back(reactors_.back().get());
    }
    for (const auto& r : reactors_) {
      threads_.emplace_back([&r] {
        r->run();
        r->end();
      });
    }
  }
  ~KernelDevicesTest() override {
    stop();
    for (const auto& r : reactors_) r->stop();
    for (std::thread& t : threads_) t.join();
    face_.reset();
  }

  /// Runs something on the control loop and waits for it.
  template <typename F>
  auto on_loop(F f, std::size_t reactor = 0) {
    std::promise<decltype(f())> done;
    reactors_[reactor]->post([&] {
      if constexpr (std::is_void_v<decltype(f())>) {
        f();
        done.set_value();
      } else {
        done.set_value(f());
      }
    });
    return done.get_future().get();
  }

  frontends::Disk disk(std::uint32_t nsid, std::uint64_t bytes = kDiskBytes) {
    auto& devices = disks_[nsid];
    if (devices.empty()) {
      shared_[nsid] = std::make_shared<test::Disk>(bytes);
      for (transport::Loop* loop : loops_) {
        devices.push_back(std::make_unique<test::LoopDevice>(*loop, shared_[nsid]));
        devices.back()->change().nsid = nsid;
        devices.back()->change().name = "nvmf0n" + std::to_string(nsid);
      }
    }
    frontends::Disk d;
    d.info = devices[0]->info();
    for (const auto& device : devices) d.devices.push_back(device.get());
    return d;
  }

  void make(std::size_t connections, std::optional<std::uint32_t> first_index = {}) {
    KernelDevicesOptions o;
    o.first_index = first_index;
    o.backend = &backend_of;
    o.timeouts = kernel_timeouts(connections, 600s, 20s);
    o.grace = 300ms;
    // The least that there ever is.
    o.buffer_bytes = frontends::buffer_shares({.nbd = true, .fuse = true, .kernel = true}).kernel;
    o.system = {.open = [this]() -> Result<std::unique_ptr<KernelNbd>> {
                  return std::make_unique<test::FakeNbd>(kernel_);
                },
                .make_pair = []() -> Result<KernelSocketPair> {
                  auto pair = io::make_socket_pair(1 << 20);
                  return KernelSocketPair{std::move(pair->ours), std::move(pair->theirs)};
                },
                .is_deserted = &io::is_deserted,
                .is_read = is_read_,
                .sysfs = kernel_.sysfs()};
    o.incoming = &io::incoming_of;
    o.on_gone = [this](const std::string& how) {
      const std::lock_guard lock(mutex_);
      gone_ = how;
    };
    o.tell = [this](bool, const std::string& sentence) {
      const std::lock_guard lock(mutex_);
      told_ += sentence + "\n";
    };
    on_loop([&] { face_ = std::make_unique<KernelDevices>(loops_, std::move(o)); });
  }
  Result<void> start(const std::vector<std::uint32_t>& nsids) {
    std::promise<Result<void>> started;
    on_loop([&] {
      for (const std::uint32_t nsid : nsids) face_->attached(disk(nsid));
      face_->start([&](Result<void> how) { started.set_value(std::move(how)); });
    });
    return started.get_future().get();
  }
  void stop() {
    if (!face_ || std::exchange(stopped_, true)) return;
    std::promise<void> done;
    on_loop([&] { face_->stop([&] { done.set_value(); }); });
    EXPECT_EQ(done.get_future().wait_for(60s), std::future_status::ready);
  }
  std::vector<KernelDeviceView> views() {
    return on_loop([this] { return face_->views(); });
  }
  std::string told() {
    const std::lock_guard lock(mutex_);
    return told_;
  }
  std::string gone() {
    const std::lock_guard lock(mutex_);
    return gone_;
  }
  /// Requests that hang in the devices of a namespace.
  std::size_t hanging(std::uint32_t nsid) {
    std::size_t n = 0;
    for (std::size_t i = 0; i < 2; ++i) {
      n += on_loop([&] { return disks_[nsid][i]->hanging(); }, i);
    }
    return n;
  }
  template <typename F>
  static bool soon(F condition) {
    for (int i = 0; i < 12'000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(5ms);
    }
    return false;
  }
  std::uint32_t read(std::uint32_t index, std::size_t connection, Bytes& data) {
    return kernel_.ask(index, connection,
                       {.command = Command::read, .cookie = 5, .offset = 4096, .length = 512},
                       data);
  }
  std::uint32_t write(std::uint32_t index, std::size_t connection, std::byte value) {
    Bytes data(512, value);
    return kernel_.ask(index, connection,
                       {.command = Command::write, .cookie = 6, .offset = 4096, .length = 512},
                       data);
  }
  void expect_serves(std::uint32_t index, std::size_t connections) {
    for (std::size_t i = 0; i < connections; ++i) {
      EXPECT_EQ(write(index, i, std::byte(i + 1)), 0u);
      Bytes data;
      EXPECT_EQ(read(index, connections - 1 - i, data), 0u);
      ASSERT_EQ(data.size(), 512u);
      EXPECT_EQ(data[7], std::byte(i + 1));
    }
  }

  FakeKernel kernel_;
  std::vector<std::unique_ptr<io::Reactor>> reactors_;
  std::vector<transport::Loop*> loops_;
  std::vector<std::thread> threads_;
  std::map<std::uint32_t, std::vector<std::unique_ptr<test::LoopDevice>>> disks_;
  std::map<std::uint32_t, std::shared_ptr<test::Disk>> shared_;
  std::unique_ptr<KernelDevices> face_;
  bool (*is_read_)(int fd) = [](int) { return true; };
  bool stopped_ = false;
  std::mutex mutex_;
  std::string told_;
  std::string gone_;
};

TEST_F(KernelDevicesTest, NamespaceIsServedOnSeveralConnections) {
  make(4);
  ASSERT_TRUE(start({1}));
  ASSERT_EQ(views().size(), 1u);
  EXPECT_EQ(views()[0].path, "/dev/nbd0");
  EXPECT_EQ(views()[0].connections, 4u);
  const KernelConfig told = kernel_.told(0);
  EXPECT_EQ(told.size_bytes, kDiskBytes);
  EXPECT_EQ(told.block_bytes, 512u);
  EXPECT_EQ(told.timeout_s, 665u);
  EXPECT_EQ(told.dead_conn_timeout_s, 600u);
  EXPECT_EQ(told.server_flags,
            kHasFlags | kSendFlush | kSendFua | kSendTrim | kSendWriteZeroes | kCanMultiConn);
  EXPECT_EQ(told.backend, "nvmf disk 1");
  expect_serves(0, 4);
  Bytes none;
  EXPECT_EQ(kernel_.ask(0, 2, {.command = Command::flush, .cookie = 1}, none), 0u);
  EXPECT_EQ(kernel_.ask(0, 1, {.command = Command::trim, .cookie = 1, .length = 4096}, none), 0u);
  EXPECT_EQ(shared_[1]->flushes, 1u);
  EXPECT_EQ(shared_[1]->trims, 1u);
  stop();
  EXPECT_FALSE(kernel_.configured(0));
  EXPECT_EQ(told_, "");
}

TEST_F(KernelDevicesTest, LargeRequestsOnAllConnectionsAreServed) {
  constexpr std::uint32_t kLarge = 2 << 20;  // more than any kernel sends
  make(4);
  ASSERT_TRUE(start({1, 2}));
  std::vector<std::thread> users;
  for (std::uint32_t i = 0; i < 8; ++i) {
    users.emplace_back([this, i] {
      const std::uint64_t offset = std::uint64_t{i % 4} * kLarge;
      Bytes data(kLarge, std::byte(i + 1));
      EXPECT_EQ(
          kernel_.ask(i / 4, i % 4,
                      {.command = Command::write, .cookie = i, .offset = offset, .length = kLarge},
                      data),
          0u);
      data.clear();
      EXPECT_EQ(
          kernel_.ask(i / 4, i % 4,
                      {.command = Command::read, .cookie = i, .offset = offset, .length = kLarge},
                      data),
          0u);
      EXPECT_EQ(data, Bytes(kLarge, std::byte(i + 1)));
    });
  }
  for (std::thread& user : users) user.join();
}

TEST_F(KernelDevicesTest, FlagsAreThoseOfTheNamespace) {
  host::BlockInfo info;
  info.read_only = true;
  info.flush = false;
  EXPECT_EQ(server_flags(info), kHasFlags | kReadOnly | kSendFua | kCanMultiConn);
  info.read_only = false;
  EXPECT_EQ(server_flags(info), kHasFlags | kSendFua | kCanMultiConn);
}

TEST_F(KernelDevicesTest, FurtherNamespacesGetTheNextNumbers) {
  make(1, 5);
  ASSERT_TRUE(start({1, 2}));
  EXPECT_EQ(views()[0].path, "/dev/nbd5");
  EXPECT_EQ(views()[1].path, "/dev/nbd6");
  on_loop([this] { face_->attached(disk(9)); });
  ASSERT_TRUE(soon([this] { return views().size() == 3; }));
  EXPECT_EQ(views()[2].path, "/dev/nbd7");
  expect_serves(7, 1);
}

TEST_F(KernelDevicesTest, DeviceInUseIsRefusedWithItsUser) {
  kernel_.leave_behind(3, "somebody's", 4096, 1);
  kernel_.write(kernel_.root + "/proc/" + std::to_string(::getpid()) + "/comm", "nbd-client");
  make(2, 3);
  auto started = start({1});
  ASSERT_FALSE(started);
  EXPECT_THAT(started.error().message, HasSubstr("nvmf0n1 gets no device of the kernel: /dev/nbd3 "
                                                 "is in use, by process"));
  EXPECT_THAT(started.error().message, HasSubstr("(nbd-client)"));
  stop();
  EXPECT_TRUE(kernel_.configured(3));
}

TEST_F(KernelDevicesTest, TakesOverWhatAKilledProcessLeft) {
  kernel_.leave_behind(0, "somebody's", 4096, 1);
  kernel_.leave_behind(2, "nvmf disk 1", kDiskBytes, 3);
  make(4);
  ASSERT_TRUE(start({1}));
  ASSERT_EQ(views().size(), 1u);
  EXPECT_EQ(views()[0].path, "/dev/nbd2");
  EXPECT_TRUE(views()[0].taken_over);
  EXPECT_EQ(views()[0].connections, 3u);
  EXPECT_EQ(kernel_.connects, 0);
  EXPECT_EQ(kernel_.told(2).timeout_s, 665u);
  EXPECT_THAT(told(), HasSubstr("nvmf0n1 goes on as /dev/nbd2, which a process had left behind"));
  expect_serves(2, 3);
  stop();
  EXPECT_FALSE(kernel_.configured(2));
}

TEST_F(KernelDevicesTest, GrownNamespaceIsTakenOverWithItsNewSize) {
  kernel_.leave_behind(2, "nvmf disk 1", kDiskBytes / 2, 1);
  make(4);
  ASSERT_TRUE(start({1}));
  EXPECT_TRUE(soon([this] { return kernel_.told(2).size_bytes == kDiskBytes; }));
}

TEST_F(KernelDevicesTest, DeviceThatDoesNotFitIsNotTakenOver) {
  kernel_.leave_behind(2, "nvmf disk 1", kDiskBytes * 2, 1);
  make(4);
  auto started = start({1});
  ASSERT_FALSE(started);
  EXPECT_THAT(started.error().message, HasSubstr("the namespace only 8388608"));
  EXPECT_THAT(started.error().message, HasSubstr("nbd-client -d /dev/nbd2"));
  EXPECT_EQ(kernel_.connects, 0);
}

TEST_F(KernelDevicesTest, OtherBlocksAreNotTakenOver) {
  kernel_.leave_behind(2, "nvmf disk 1", kDiskBytes, 1);
  kernel_.write(kernel_.folder(2) + "/queue/logical_block_size", "4096");
  make(4);
  auto started = start({1});
  ASSERT_FALSE(started);
  EXPECT_THAT(started.error().message, HasSubstr("its blocks have 4096 bytes"));
}

TEST_F(KernelDevicesTest, NamespaceHasNoTwoDevices) {
  kernel_.leave_behind(2, "nvmf disk 1", kDiskBytes, 1);
  make(4, 7);
  auto started = start({1});
  ASSERT_FALSE(started);
  EXPECT_THAT(started.error().message, HasSubstr("/dev/nbd7 was asked for"));
}

TEST_F(KernelDevicesTest, DeviceOfALivingProcessIsLeftAlone) {
  kernel_.leave_behind(0, "nvmf disk 1", kDiskBytes, 2);
  auto living = kernel_.sysfs().lock(0);
  ASSERT_TRUE(living);
  make(2);
  ASSERT_TRUE(start({1}));
  EXPECT_EQ(views()[0].path, "/dev/nbd1");
  EXPECT_EQ(kernel_.alive(0), 0u);
  stop();
  EXPECT_TRUE(kernel_.configured(0));
}

TEST_F(KernelDevicesTest, FailedStartLeavesWhatItTookOver) {
  kernel_.leave_behind(0, "nvmf disk 1", kDiskBytes, 2);
  kernel_.refuse = EPERM;
  make(2);
  EXPECT_FALSE(start({1, 2}));
  stop();
  EXPECT_TRUE(kernel_.configured(0));
  EXPECT_THAT(told(), HasSubstr("/dev/nbd0 is left as it was found"));
}

TEST_F(KernelDevicesTest, ConnectionThatTheKernelGivesUpIsReplaced) {
  make(4);
  ASSERT_TRUE(start({1}));
  kernel_.give_up(0, 2);
  ASSERT_TRUE(soon([this] { return kernel_.alive(0) == 4; }));
  EXPECT_TRUE(soon([this] { return views()[0].connections == 4; }));
  EXPECT_THAT(told(), HasSubstr("had given up a connection of /dev/nbd0"));
  expect_serves(0, 4);
}

TEST_F(KernelDevicesTest, DeviceThatSomebodyElseDisconnectsIsGone) {
  make(4);
  ASSERT_TRUE(start({1}));
  ASSERT_TRUE(kernel_.disconnect(0));
  ASSERT_TRUE(soon([this] { return views().empty(); }));
  EXPECT_THAT(told(), HasSubstr("somebody else has disconnected /dev/nbd0"));
  EXPECT_EQ(gone(), "/dev/nbd0 was disconnected");
  std::this_thread::sleep_for(50ms);
  EXPECT_FALSE(kernel_.configured(0));
  // When the namespace comes anew, there is a device again.
  ASSERT_TRUE(soon([this] { return kernel_.sysfs().lock(0).has_value(); }));
  on_loop([this] { face_->attached(disk(1)); });
  ASSERT_TRUE(soon([this] { return views().size() == 1; }));
  expect_serves(0, 4);
}

TEST_F(KernelDevicesTest, KernelHearsOfANewSize) {
  make(2);
  ASSERT_TRUE(start({1}));
  on_loop([this] {
    frontends::Disk d = disk(1);
    d.info.size_bytes = 2 * kDiskBytes;
    face_->changed(d);
  });
  EXPECT_TRUE(soon([this] { return kernel_.told(0).size_bytes == 2 * kDiskBytes; }));
}

TEST_F(KernelDevicesTest, DetachedNamespaceLosesItsDevice) {
  make(2);
  ASSERT_TRUE(start({1, 2}));
  on_loop([this] { face_->detached(1); });
  ASSERT_TRUE(soon([this] { return !kernel_.configured(0); }));
  EXPECT_EQ(views().size(), 1u);
  on_loop([this] { face_->attached(disk(1)); });
  ASSERT_TRUE(soon([this] { return views().size() == 2; }));
  expect_serves(0, 2);
  expect_serves(1, 2);
}

TEST_F(KernelDevicesTest, DetachedNamespaceThatIsHeldKeepsItsDevice) {
  kernel_.write(kernel_.root + "/proc/77/comm", "dd");
  test::fs::create_directories(kernel_.root + "/proc/77/fd");
  test::fs::create_symlink("/dev/nbd0", kernel_.root + "/proc/77/fd/3");
  make(2);
  ASSERT_TRUE(start({1}));
  on_loop([this] { face_->detached(1); });
  ASSERT_TRUE(soon([this] { return !told().empty(); }));
  EXPECT_THAT(told(), HasSubstr("/dev/nbd0 is still held by process 77 (dd)"));
  EXPECT_TRUE(kernel_.configured(0));
  EXPECT_TRUE(views().empty());
  on_loop([this] { face_->attached(disk(1)); });
  ASSERT_TRUE(soon([this] { return views().size() == 1; }));
  expect_serves(0, 2);
  EXPECT_EQ(kernel_.connects, 1);
}

TEST_F(KernelDevicesTest, StopSaysWhoHoldsADeviceAndWaitsForNobody) {
  kernel_.write(kernel_.root + "/proc/77/mountinfo", "20 1 43:0 / /mnt rw - ext4 /dev/nbd0 rw");
  make(2);
  ASSERT_TRUE(start({1}));
  EXPECT_EQ(on_loop([this] { return face_->held(); }),
            std::vector<std::string>{"/dev/nbd0 is still held by the file system at /mnt"});
  shared_[1]->hang = true;
  std::uint32_t error = 0;
  std::thread asks([&] {
    Bytes data;
    error = read(0, 1, data);
  });
  ASSERT_TRUE(soon([this] { return hanging(1) > 0; }));
  std::thread lets_go([this] {
    EXPECT_TRUE(soon([this] { return !kernel_.configured(0); }));
    std::this_thread::sleep_for(700ms);  // the device's own bound, past our grace
    for (std::size_t i = 0; i < 2; ++i) {
      loops_[i]->post([d = disks_[1][i].get()] { d->let_go(); });
    }
  });
  stop();
  asks.join();
  lets_go.join();
  EXPECT_NE(error, 0u);
  EXPECT_FALSE(kernel_.configured(0));
  EXPECT_THAT(told(), HasSubstr("/dev/nbd0 is still held by the file system at /mnt"));
}

TEST_F(KernelDevicesTest, DeviceWhoseRepliesNobodyReadsIsMadeAnew) {
  static FakeKernel* kernel;
  kernel = &kernel_;
  // For the first one there are no threads.
  is_read_ = [](int) {
    const std::lock_guard lock(kernel->mutex);
    return kernel->connects > 1;
  };
  make(2);
  ASSERT_TRUE(start({1}));
  EXPECT_EQ(kernel_.connects, 2);
  expect_serves(0, 2);
}

TEST_F(KernelDevicesTest, NamespaceThatGoesWhileItsDeviceIsMadeHoldsUpNoStart) {
  make(2);
  std::promise<void> started;
  on_loop([&] {
    face_->attached(disk(1));
    face_->start([&](const Result<void>& how) {
      EXPECT_TRUE(how);
      started.set_value();
    });
    face_->detached(1);
  });
  EXPECT_EQ(started.get_future().wait_for(60s), std::future_status::ready);
  EXPECT_TRUE(soon([this] { return !kernel_.configured(0); }));
}

TEST_F(KernelDevicesTest, StopTakesAwayADeviceThatWasToStayForItsHolders) {
  kernel_.write(kernel_.root + "/proc/77/mountinfo", "20 1 43:0 / /mnt rw - ext4 /dev/nbd0 rw");
  make(2);
  ASSERT_TRUE(start({1}));
  std::promise<void> done;
  on_loop([&] {
    face_->detached(1);
    face_->stop([&] { done.set_value(); });
  });
  stopped_ = true;
  EXPECT_EQ(done.get_future().wait_for(60s), std::future_status::ready);
  EXPECT_FALSE(kernel_.configured(0));
}

TEST_F(KernelDevicesTest, WhoeverGotTheNumberMeanwhileKeepsTheDevice) {
  make(2);
  ASSERT_TRUE(start({1}));
  std::promise<void> done;
  on_loop([&] {
    ASSERT_TRUE(kernel_.disconnect(0));
    kernel_.leave_behind(0, "somebody's", 4096, 1);
    face_->stop([&] { done.set_value(); });
  });
  stopped_ = true;
  EXPECT_EQ(done.get_future().wait_for(60s), std::future_status::ready);
  EXPECT_TRUE(kernel_.configured(0));
  EXPECT_EQ(kernel_.told(0).backend, "somebody's");
}

TEST_F(KernelDevicesTest, ConnectionThatIsLostWhileHoldersAreLookedForIsReplaced) {
  kernel_.write(kernel_.root + "/proc/77/mountinfo", "20 1 43:0 / /mnt rw - ext4 /dev/nbd0 rw");
  make(2);
  ASSERT_TRUE(start({1}));
  on_loop([&] {
    kernel_.give_up(0, 1);
    face_->detached(1);
  });
  EXPECT_TRUE(soon([this] { return kernel_.alive(0) == 2; }));
  on_loop([this] { face_->attached(disk(1)); });
  expect_serves(0, 2);
}

TEST_F(KernelDevicesTest, ManyNamespacesShareTheConnectionsThatThereMayBe) {
  constexpr std::uint32_t kAtFirst = 70;
  constexpr std::uint64_t kSmall = 64 << 10;
  make(4);
  std::vector<std::uint32_t> nsids(kAtFirst);
  std::iota(nsids.begin(), nsids.end(), 1);
  for (const std::uint32_t nsid : nsids) disk(nsid, kSmall);
  ASSERT_TRUE(start(nsids));
  ASSERT_EQ(views().size(), kAtFirst);
  for (const KernelDeviceView& view : views()) EXPECT_EQ(view.connections, 3u) << view.path;
  expect_serves(kAtFirst - 1, 3);
  std::uint32_t more = kAtFirst;
  const auto refused = [this] {
    return told().find("serves 256 connections") != std::string::npos;
  };
  while (more < 2 * kAtFirst && !refused()) {
    on_loop([&] { face_->attached(disk(++more, kSmall)); });
    ASSERT_TRUE(soon([&] { return views().size() == more || refused(); }));
  }
  EXPECT_EQ(views().size(), more - 1);
  std::size_t all = 0;
  for (const KernelDeviceView& view : views()) all += view.connections;
  EXPECT_EQ(all, kClientsMax);
  // Who goes makes room, for the one that had none.
  const auto served = [&] {
    const auto all_of_them = views();
    return std::ranges::find(all_of_them, more, &KernelDeviceView::nsid) != all_of_them.end();
  };
  EXPECT_FALSE(served());
  on_loop([&] { face_->detached(1); });
  EXPECT_TRUE(soon(served));
}

TEST_F(KernelDevicesTest, NamespacesThatHaveGoneTakeNoConnections) {
  make(4);
  on_loop([&] {
    for (std::uint32_t nsid = 2; nsid <= 300; ++nsid) {
      frontends::Disk gone = disk(1);
      gone.info.nsid = nsid;
      face_->attached(gone);
      face_->detached(nsid);
    }
  });
  ASSERT_TRUE(start({1}));
  ASSERT_EQ(views().size(), 1u);
  EXPECT_EQ(views()[0].connections, 4u);
  EXPECT_EQ(kernel_.connects, 1);
}

TEST_F(KernelDevicesTest, WithoutNamespacesThereIsNothingToWaitFor) {
  make(2);
  ASSERT_TRUE(start({}));
  stop();
}

}  // namespace
}  // namespace nvmf::nbd
