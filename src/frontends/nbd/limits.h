// Every limit of the NBD server, with its reason. Full means wait or refuse, never grow.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "transport/timer.h"

namespace nvmf::nbd {

/// The largest READ or WRITE: what NBD clients may send without asking, and what we advertise.
inline constexpr std::uint32_t kPayloadBytesMax = 32u * 1024 * 1024;

/// Data of requests under way, all clients of the process together.
inline constexpr std::size_t kBufferBytesMax = 64u * 1024 * 1024;
/// A session that holds something already gets no further buffer beyond this: eight clients that
/// do not read their replies are needed to use up the process's buffers. A single larger request
/// is taken when its session holds nothing else.
inline constexpr std::size_t kSessionBufferBytesMax = 8u * 1024 * 1024;

/// Requests of one client that are under way or whose reply is not sent yet: an I/O queue's default
/// size. Linux's nbd keeps 128 in flight, nbdcopy 64.
inline constexpr std::size_t kRequestsMax = 128;

/// Received headers and small payloads of one session. A batch of 4 KiB writes fits; whatever is
/// larger goes straight into the request's buffer.
inline constexpr std::size_t kStagingBytes = 32u * 1024;

/// NBD strings are at most 4096 bytes; a GO with a name of that length and 64 info requests fits.
inline constexpr std::uint32_t kNameBytesMax = 4096;
inline constexpr std::uint32_t kOptionBytesMax = 8192;
/// An option longer than kOptionBytesMax is skipped and refused; one longer than this is no honest
/// client's, and ends the session.
inline constexpr std::uint32_t kOptionSkipBytesMax = 1u << 20;
/// Options of one session: LIST and an INFO for each of a thousand exports fit several times over.
inline constexpr std::uint32_t kOptionsMax = 4096;

/// Error messages in structured replies are copied into the reply's fixed header area.
inline constexpr std::size_t kErrorMessageBytesMax = 88;

/// Sessions of one server. nbdcopy opens 4, qemu 1 (or 16 with multi-conn), the kernel as many as
/// it is told.
inline constexpr std::uint32_t kClientsMax = 256;

/// How long replies may take to drain after the last one was queued, before the client is reset.
inline constexpr Duration kLinger{std::chrono::seconds(5)};
/// The same once the server's grace at shutdown is over.
inline constexpr Duration kLingerAfterGrace{std::chrono::seconds(1)};
/// While requests wait for buffers that other reactors hold, this is how often we look again.
inline constexpr Duration kBufferRetry{std::chrono::milliseconds(1)};

}  // namespace nvmf::nbd
