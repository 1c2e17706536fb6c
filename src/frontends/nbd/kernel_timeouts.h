// How long the kernel waits for an answer, and for a process that has gone: a pure function of how
// long this process makes requests wait.
//
// With several connections, a request that the kernel has waited for long enough is sent again on
// another one, while the first may still be carried out. So it must be told to wait for longer than
// any request can take here: until the controller is given up for lost, and until the fence that
// may be there has passed. The price is paid when this process is killed: what was under way then
// is sent again only when that time is over. With one connection, and no time at all, the kernel
// sends a request again only on a connection that has been replaced, and looks every 30 s.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "transport/timer.h"

namespace nvmf::nbd {

/// What a request may take before a loss is noticed (a command's timeout, 30 s), and a reserve.
inline constexpr Duration kKernelMargin{std::chrono::seconds(45)};
/// Before the kernel gives a request up, it is answered with an error, so much earlier.
inline constexpr Duration kAnswerBefore{std::chrono::seconds(10)};
/// For a restart of this process, however short the loss of a controller may be.
inline constexpr Duration kRestartMin{std::chrono::seconds(60)};
/// For ever, for the driver: it counts in jiffies, of which 32 bits must do (11 days).
inline constexpr std::uint64_t kKernelForEver_s = 1'000'000;

struct KernelTimeouts {
  std::size_t connections = 1;
  std::uint64_t timeout_s = 0;           // 0: none, with one connection
  std::uint64_t dead_conn_s = 0;         // how long requests wait for a new process
  std::optional<Duration> answer_after;  // then we answer with an error
};

/// `wanted` connections, at least 1. `ctrl_loss`: how long a lost controller is waited for;
/// nothing: for ever. `fence`: how long a write may be held after that; nothing: for ever. Where
/// one of them is for ever there is one connection.
[[nodiscard]] KernelTimeouts kernel_timeouts(std::size_t wanted, std::optional<Duration> ctrl_loss,
                                             std::optional<Duration> fence);

/// For a device that has `connections`, made by somebody else.
[[nodiscard]] KernelTimeouts fit_timeouts(KernelTimeouts timeouts, std::size_t connections);

}  // namespace nvmf::nbd
