// What the system tells of the kernel's devices, from folders that look like /sys and /proc; and
// the times that the kernel is told.
#include <gtest/gtest.h>

#include "frontends/nbd/kernel_timeouts.h"
#include "kernel_fake.h"

namespace nvmf::nbd {
namespace {

using namespace std::chrono_literals;
using test::FakeKernel;

TEST(KernelSysfs, LooksAtDevices) {
  FakeKernel kernel;
  kernel.leave_behind(10, "nvmf a", 1 << 20, 2);
  kernel.show(2);
  kernel.write(kernel.root + "/sys/block/sda/size", "8");
  kernel.write(kernel.root + "/sys/block/nbdx/size", "8");
  const KernelSysfs sysfs = kernel.sysfs();
  EXPECT_EQ(sysfs.indices(), (std::vector<std::uint32_t>{2, 10}));
  EXPECT_FALSE(sysfs.look(3));
  const auto idle = sysfs.look(2);
  ASSERT_TRUE(idle);
  EXPECT_FALSE(idle->configured);
  const auto used = sysfs.look(10);
  ASSERT_TRUE(used);
  EXPECT_TRUE(used->configured);
  EXPECT_EQ(used->pid, static_cast<std::uint32_t>(::getpid()));
  EXPECT_EQ(used->backend, "nvmf a");
  EXPECT_EQ(used->size_bytes, 1u << 20);
  EXPECT_EQ(used->block_bytes, 512u);
  EXPECT_FALSE(used->read_only);
}

TEST(KernelSysfs, OnlyOneServesADevice) {
  FakeKernel kernel;
  kernel.show(0);
  {
    auto first = kernel.sysfs().lock(0);
    ASSERT_TRUE(first);
    auto second = kernel.sysfs().lock(0);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, EWOULDBLOCK);
  }
  EXPECT_TRUE(kernel.sysfs().lock(0));
  EXPECT_FALSE(kernel.sysfs().lock(1));
}

TEST(KernelSysfs, FindsEverybodyWhoHasItOpen) {
  FakeKernel kernel;
  const auto proc = kernel.root + "/proc/";
  kernel.show(0);
  kernel.show(1);
  kernel.write(kernel.folder(0) + "/nbd0p1/dev", "43:1");
  test::fs::create_directories(kernel.folder(0) + "/holders/dm-3");
  kernel.write(proc + "swaps", "Filename Type Size Used Priority\n/dev/nbd0p2 partition 1 0 -2");
  kernel.write(proc + "77/comm", "dd");
  test::fs::create_directories(proc + "77/fd");
  test::fs::create_symlink("/dev/nbd0", proc + "77/fd/3");
  kernel.write(proc + "78/comm", "other");
  test::fs::create_directories(proc + "78/fd");
  test::fs::create_symlink("/dev/nbd01", proc + "78/fd/3");
  kernel.write(proc + "78/mountinfo",
               "20 1 43:1 / /mnt/a\\040b rw - ext4 /dev/nbd0p1 rw\n"
               "21 1 0:40 / /btrfs rw,x shared:1 - btrfs /dev/nbd0 rw\n"
               "22 1 43:16 / /other rw - ext4 /dev/nbd1 rw\n"
               "23 1\n");
  const std::vector<std::string> expected = {"dm-3", "process 77 (dd)", "swap",
                                             "the file system at /btrfs",
                                             "the file system at /mnt/a b"};
  EXPECT_EQ(kernel.sysfs().holders(0, 5s), expected);
  EXPECT_EQ(kernel.sysfs().holders(1, 5s), std::vector<std::string>{"the file system at /other"});
  EXPECT_EQ(
      enumerate(expected),
      "dm-3, process 77 (dd), swap, the file system at /btrfs and the file system at /mnt/a b");
  EXPECT_EQ(enumerate({"a", "b", "c", "d", "e", "f", "g"}), "a, b, c, d, e and 2 more");
  EXPECT_EQ(enumerate({"a"}), "a");
}

TEST(KernelTimeouts, KernelWaitsLongerThanWeDo) {
  const KernelTimeouts t = kernel_timeouts(4, 600s, 20s);
  EXPECT_EQ(t.connections, 4u);
  EXPECT_EQ(t.timeout_s, 665u);
  EXPECT_EQ(t.answer_after, 655s);
  EXPECT_EQ(t.dead_conn_s, 600u);
  EXPECT_EQ(kernel_timeouts(4, 1s, 20s).dead_conn_s, 60u);
}

TEST(KernelTimeouts, ForEverIsOneConnection) {
  for (const KernelTimeouts& t :
       {kernel_timeouts(4, std::nullopt, 20s), kernel_timeouts(4, 600s, std::nullopt),
        kernel_timeouts(1, 600s, 20s)}) {
    EXPECT_EQ(t.connections, 1u);
    EXPECT_EQ(t.timeout_s, 0u);
    EXPECT_FALSE(t.answer_after);
  }
  EXPECT_EQ(kernel_timeouts(4, std::nullopt, 20s).dead_conn_s, kKernelForEver_s);
}

TEST(KernelTimeouts, DeviceOfSeveralConnectionsIsNeverToldNought) {
  const KernelTimeouts t = fit_timeouts(kernel_timeouts(1, std::nullopt, 20s), 4);
  EXPECT_EQ(t.timeout_s, kKernelForEver_s);
  EXPECT_TRUE(t.answer_after);
  EXPECT_EQ(fit_timeouts(kernel_timeouts(4, 600s, 20s), 2).timeout_s, 665u);
  EXPECT_EQ(fit_timeouts(kernel_timeouts(1, 600s, 20s), 1).timeout_s, 0u);
}

}  // namespace
}  // namespace nvmf::nbd
