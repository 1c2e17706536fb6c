// What the system tells about the kernel's NBD devices, beside netlink: which there are, which of
// them we have made in an earlier life, and who has one open. Reads small files of /sys and /proc.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/unique_fd.h"
#include "nvme/result.h"

namespace nvmf::nbd {

/// More devices than the minor numbers allow with partitions (2^20 / 16).
inline constexpr std::uint32_t kKernelDevicesMax = 65536;
/// Holders that are named; of the rest only the number.
inline constexpr std::size_t kHoldersNamed = 5;

struct KernelDeviceFacts {
  std::uint32_t index = 0;
  bool configured = false;  // somebody has connected it, and may be gone since
  std::uint32_t pid = 0;    // who
  std::string backend;      // what it was told then
  std::uint64_t size_bytes = 0;
  std::uint32_t block_bytes = 0;
  bool read_only = false;
};

class KernelSysfs {
 public:
  /// Other paths are for tests.
  explicit KernelSysfs(std::string sys = "/sys", std::string proc = "/proc",
                       std::string dev = "/dev")
      : sys_(std::move(sys)), proc_(std::move(proc)), dev_(std::move(dev)) {}

  [[nodiscard]] std::vector<std::uint32_t> indices() const;  // in order
  /// nullopt: there is no such device.
  [[nodiscard]] std::optional<KernelDeviceFacts> look(std::uint32_t index) const;
  /// "process 12 (nbd-client)", or "process 12" if that has gone.
  [[nodiscard]] std::string who(std::uint32_t pid) const;

  /// Whoever serves a device holds a lock on its folder in sysfs for as long as it lives. Fails
  /// with EWOULDBLOCK if somebody else does.
  [[nodiscard]] Result<io::UniqueFd> lock(std::uint32_t index) const;

  /// Who has the device or a partition of it open, apart from this process, a phrase each: "the
  /// file system at /mnt", "process 12 (dd)", "dm-0", "swap". What is not found within `limit` is
  /// not told. The device need not be configured any more.
  [[nodiscard]] std::vector<std::string> holders(std::uint32_t index,
                                                 std::chrono::milliseconds limit) const;

  /// By ioctl: netlink cannot change it.
  [[nodiscard]] Result<void> set_read_only(std::uint32_t index, bool read_only) const;

 private:
  [[nodiscard]] std::string folder(std::uint32_t index) const;

  std::string sys_;
  std::string proc_;
  std::string dev_;
};

/// "a", "a and b", "a, b and 3 more".
[[nodiscard]] std::string enumerate(const std::vector<std::string>& phrases);

}  // namespace nvmf::nbd
