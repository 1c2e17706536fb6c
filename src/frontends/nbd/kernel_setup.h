// How a namespace gets its device in the kernel: the one that it had when another process served
// it, or a new one. Blocking; for the thread that speaks with the kernel. No state but its link.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "frontends/nbd/kernel_netlink.h"
#include "frontends/nbd/kernel_sysfs.h"
#include "frontends/nbd/kernel_timeouts.h"
#include "host/block_device.h"
#include "io/unique_fd.h"
#include "nvme/result.h"

namespace nvmf::nbd {

/// Connections that are offered to a device that was made by another process: more than any has.
inline constexpr std::size_t kKernelConnectionsMax = 128;

/// The driver reads each connection's replies in a job of a work queue, all of which wait for ever.
/// When the kernel is slow to make threads for them, one thread (the queue's rescuer) gets several,
/// of which only the first is ever begun: the replies of the others are read by nobody (seen with
/// 6.1 on a slow machine). So each connection is begun with the first bytes of its first reply,
/// which are the same in each, and looked at until they have been read.
inline constexpr std::array<std::byte, 4> kReplyBegun = {std::byte{0x67}, std::byte{0x44},
                                                         std::byte{0x66}, std::byte{0x98}};
/// How long that may take, and how often a device is made anew if it does not happen: by then there
/// are threads.
inline constexpr std::chrono::milliseconds kReaderPatience{2000};
inline constexpr unsigned kConnectTries = 5;

struct KernelSocketPair {
  io::UniqueFd ours;
  io::UniqueFd kernels;
};

/// The system's calls that frontends/ does not make itself, and the places of its files.
struct KernelSystem {
  std::function<Result<std::unique_ptr<KernelNbd>>()> open;
  std::function<Result<KernelSocketPair>()> make_pair;
  /// Nobody holds the other end.
  bool (*is_deserted)(int fd) = nullptr;
  /// What was sent has been read at the other end.
  bool (*is_read)(int fd) = nullptr;
  KernelSysfs sysfs{};
};

struct KernelOrder {
  host::BlockInfo info;
  /// What it is known by in the kernel: the same for the same namespace, whichever process.
  std::string backend;
  std::optional<std::uint32_t> index;  // nothing: any
  KernelTimeouts timeouts;
};

struct KernelDevice {
  std::uint32_t index = 0;
  std::vector<io::UniqueFd> connections;  // our ends, with kReplyBegun sent
  io::UniqueFd lock;
  bool taken_over = false;
  KernelTimeouts timeouts;  // fit for it
  std::uint64_t size_bytes = 0;
  bool read_only = false;
};

class KernelSetup {
 public:
  explicit KernelSetup(const KernelSystem& system) : system_(system) {}

  /// A device that has the order's backend and that nobody serves any more is taken over: with its
  /// size and all that waits in it. Refused if it is larger than the namespace, has other blocks,
  /// or another index than was asked for. Otherwise a device is made.
  Result<KernelDevice> make(const KernelOrder& order);
  /// A new connection in the place of one that has died: our end, as in KernelDevice, or nothing if
  /// none has died.
  Result<std::optional<io::UniqueFd>> reconnect(std::uint32_t index, const std::string& backend);
  Result<void> resize(std::uint32_t index, const std::string& backend, std::uint64_t size_bytes);
  /// Nothing happens if the device is not the one of `backend` any more.
  Result<void> disconnect(std::uint32_t index, const std::string& backend);

 private:
  Result<KernelNbd*> link();
  Result<KernelDevice> connect(const KernelOrder& order);
  Result<KernelDevice> connect_once(const KernelOrder& order);
  /// Begins the connections; whether somebody reads all of them.
  [[nodiscard]] bool begin(const std::vector<io::UniqueFd>& connections) const;
  Result<std::optional<KernelDevice>> take_over(const KernelOrder& order);
  Result<KernelDevice> take_over(const KernelOrder& order, const KernelDeviceFacts& facts,
                                 io::UniqueFd lock);

  const KernelSystem& system_;
  std::unique_ptr<KernelNbd> link_;
};

/// Server flags for a namespace: what the kernel may ask for.
[[nodiscard]] std::uint16_t server_flags(const host::BlockInfo& info);

}  // namespace nvmf::nbd
