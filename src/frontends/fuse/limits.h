// Everything in the FUSE face that has a limit, with its reason.
#pragma once

#include <cstddef>
#include <cstdint>

#include "frontends/buffer_shares.h"
#include "transport/timer.h"

namespace nvmf::fuse {

/// The largest read or write of one message: as much as kernels send (256 pages of 4 KiB).
inline constexpr std::uint32_t kTransferBytesMax = 1024 * 1024;
/// What libfuse wants to have room for in front of a write's data.
inline constexpr std::size_t kMessageHeaderBytes = 4096;
/// A buffer that every message fits in.
inline constexpr std::size_t kMessageBytesMax = kTransferBytesMax + kMessageHeaderBytes;

/// Memory for requests under way, all reactors together, where the process has no other face: else
/// what frontends/buffer_shares.h gives. Touched when it is used first.
inline constexpr std::size_t kBufferBytesMax = frontends::kFuseBufferBytesMax;
/// With less than this, a reactor could not read a message while two large requests are under way
/// and serve a handful of small ones: fewer reactors get more each.
inline constexpr std::size_t kReactorBufferBytesMin = 4 * 1024 * 1024;
/// Reactors that read the one file descriptor of the file system. The kernel guards it by one
/// lock, and wakes all of them for each request: more would not be faster.
inline constexpr std::size_t kReactorsMax = 8;
/// Most requests are of pages: a buffer holds four of them.
inline constexpr std::size_t kSmallBytes = 16 * 1024;
/// What cp, cat and read-ahead ask for.
inline constexpr std::size_t kMediumBytes = 128 * 1024;
/// Per reactor. More than these are never under way in one; who comes then waits in the kernel.
inline constexpr std::size_t kSmallMax = 256;
inline constexpr std::size_t kMediumMax = 64;
inline constexpr std::size_t kLargeMax = 12;

/// Messages that a reactor reads each time it is woken: others on it, and the other reactors, get
/// their turn.
inline constexpr std::uint32_t kMessagesPerTurn = 16;
/// Asynchronous requests that the kernel sends us at once; its own 12 would be the queue depth
/// that asynchronous programs see. (For whoever is not root its limit in
/// /sys/module/fuse/parameters/max_user_bgreq is in force.)
inline constexpr std::uint32_t kBackgroundMax = 256;

/// Memory that no request has used for this long is given back to the system.
inline constexpr Duration kDiscardAfter = std::chrono::seconds(2);

/// Programs that look for data or holes at a time, per reactor; to others all is data.
inline constexpr std::size_t kSeeksMax = 4;
/// Extents that a device is asked for at once, and how often for one lseek(): each question may be
/// a command to the controller. Beyond that, what comes is data.
inline constexpr std::size_t kExtentsAtOnce = 64;
inline constexpr std::uint32_t kSeekQuestionsMax = 64;

/// How long a request goes on whose owner got a signal while its namespace is live: most signals
/// do not end the program, and the request is about to be complete. When the target is lost, the
/// answer is EINTR at once.
inline constexpr Duration kInterruptPatience = std::chrono::milliseconds(100);
/// Until a reactor that could not watch the file descriptor tries again.
inline constexpr Duration kWatchRetry = std::chrono::milliseconds(100);
/// From the mount to the kernel's first message, which it sends by itself.
inline constexpr Duration kFirstMessageMax = std::chrono::seconds(2);

/// Text files that are open at a time, and the size of one: both far beyond what people open.
inline constexpr std::size_t kTextOpensMax = 64;
inline constexpr std::size_t kTextBytesMax = 1024 * 1024;

/// Dead mounts of ours that may lie on top of each other on one directory.
inline constexpr int kStaleMountsMax = 8;

}  // namespace nvmf::fuse
