// The kernel's NBD driver as generic netlink has it: devices are made, changed and given up with
// messages (linux/nbd-netlink.h). The interface, so that tests can be the kernel; and the real one.
//
// What the driver (6.1 to 6.12) does with what it is told:
// - It keeps a reference of each socket. When one dies, requests go to another; when none is left,
//   they wait for `dead_conn_timeout_s` for somebody to bring new ones, and then fail.
// - A request without a reply for `timeout_s` kills its connection and is sent again on another
//   one. Only a device with one connection and a timeout of 0 waits for ever; it looks every 30 s
//   whether the connection has been replaced since, and then sends the request again. With several
//   connections, 0 means 30 s.
// - Reconfiguring puts new sockets in the place of dead ones, one each; those that find none are
//   not taken, and nobody says so. Server flags and the number of connections stay.
// - A device that is disconnected while somebody has it open goes when the last one has closed it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nvme/result.h"

namespace nvmf::nbd {

/// Server flags that the driver knows; those that it does not know yet it ignores. The values are
/// those of the NBD protocol (protocol.h). Its WRITE_ZEROES are of Linux 6.12.
[[nodiscard]] std::uint16_t kernel_flags(std::uint16_t transmission_flags);

/// What a message says; what is not set is left out.
struct KernelConfig {
  std::optional<std::uint32_t> index;  // of /dev/nbdN; connecting without: any that is free
  std::optional<std::uint64_t> size_bytes;
  std::optional<std::uint64_t> block_bytes;  // logical and physical
  std::optional<std::uint64_t> timeout_s;
  std::optional<std::uint64_t> dead_conn_timeout_s;
  std::optional<std::uint64_t> server_flags;
  std::optional<std::uint64_t> client_flags;
  std::vector<int> sockets;
  std::string backend;  // empty: none; must be the device's own for reconfiguring
};

/// Every call may block for as long as the kernel likes: not for a reactor's thread. One thread at
/// a time. Errors have the kernel's errno and say in words what to try where that is known.
class KernelNbd {
 public:
  virtual ~KernelNbd() = default;
  /// Makes a device and returns its index. EBUSY: that index is in use. EPERM: no CAP_SYS_ADMIN.
  virtual Result<std::uint32_t> connect(const KernelConfig& config) = 0;
  /// EINVAL: there is no such device, or its backend is another one.
  virtual Result<void> reconfigure(const KernelConfig& config) = 0;
  /// Also when there is nothing to disconnect. Whatever waits in the device fails.
  virtual Result<void> disconnect(std::uint32_t index) = 0;
};

/// ENOENT: the module is not loaded. The socket stays open for as long as this lives.
[[nodiscard]] Result<std::unique_ptr<KernelNbd>> open_kernel_nbd();

// The messages, for tests: as they are sent to the family `family`, sequence number 0, port 0.
enum class KernelCommand : std::uint8_t { connect = 1, disconnect = 2, reconfigure = 3 };
[[nodiscard]] std::vector<std::byte> encode_kernel_message(KernelCommand command,
                                                           const KernelConfig& config,
                                                           std::uint16_t family);
/// The index in the reply to `connect`; nothing if it has none. Any bytes will do.
[[nodiscard]] std::optional<std::uint32_t> decode_connect_reply(
    const std::vector<std::byte>& message);

}  // namespace nvmf::nbd
