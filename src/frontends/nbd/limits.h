// Every limit of the NBD server, with its reason. Full means wait or refuse, never grow.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "frontends/buffer_shares.h"
#include "transport/timer.h"

namespace nvmf::nbd {

/// The largest READ or WRITE: what NBD clients may send without asking, and what we advertise.
inline constexpr std::uint32_t kPayloadBytesMax = 32u * 1024 * 1024;

/// Data of requests under way, all clients together, where the process has no other face: else
/// what frontends/buffer_shares.h gives.
inline constexpr std::size_t kBufferBytesMax = frontends::kBufferBytesMax;
/// A large READ or WRITE is served in pieces of at most this: so a client's memory is bounded by
/// its share, not by what it asks for, and a piece is being written while the next one comes.
inline constexpr std::uint32_t kPieceBytesMax = 1024 * 1024;
/// Of all that, this much is each client's own, whatever all the others hold: the least
/// piece that is worth a command, and what an unfragmented READ must be able to have.
inline constexpr std::size_t kReserveBytes = 64 * 1024;
/// The rest is for whoever needs it. A session holds at most this of it: 32 requests of 256 KiB.
inline constexpr std::size_t kSessionBufferBytesMax = 8u * 1024 * 1024;
/// And never more than this part of what is left for the others: four busy clients may have more
/// than half of it all, and yet nine that read nothing leave a sixth to those who come after them.
inline constexpr std::size_t kSharePart = 4;
/// The data of a READ whose reply is one message (a simple reply, or one with DF) is gathered up to
/// this before the reply begins, so that an error can still be said: Linux sends up to 1.25 MiB.
/// Beyond it, or when memory is short, the reply begins with what is there.
inline constexpr std::uint32_t kGatherBytesMax = 2 * 1024 * 1024;
/// Memory that has not been used for this long is given back to the system.
inline constexpr Duration kDiscardAfter{std::chrono::seconds(2)};

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

/// Extents of one answer to BLOCK_STATUS: with their descriptors they fill a page. A client asks
/// again for what comes after them.
inline constexpr std::size_t kStatusExtentsMax = 128;
inline constexpr std::uint32_t kStatusBufferBytes = 4096;
/// The payload of a BLOCK_STATUS. It names the contexts, of which there is one: a longer one is
/// skipped and refused.
inline constexpr std::uint32_t kStatusPayloadBytesMax = 64;
/// With extended headers a payload can be announced that never ends. One longer than any compact
/// request's is not skipped: it ends the session.
inline constexpr std::uint64_t kSkipBytesMax = 0xffffffff;

/// Error messages in structured replies are copied into the reply's fixed header area.
inline constexpr std::size_t kErrorMessageBytesMax = 88;

/// Sessions of one server. nbdcopy opens 4, qemu 1 (or 16 with multi-conn), the kernel as many as
/// it is told.
inline constexpr std::uint32_t kClientsMax = 256;

/// From the connection to the end of the negotiation. People do not negotiate, programs need
/// milliseconds; an idle client is welcome to stay as long as it likes after that.
inline constexpr Duration kHandshakeMax{std::chrono::seconds(10)};
/// The same while somebody waits because all places are taken.
inline constexpr Duration kHandshakeMaxWhenFull{std::chrono::seconds(1)};
/// Who finds all places taken waits this long for one, and then is closed. So many may wait.
inline constexpr Duration kPlaceWait{std::chrono::seconds(3)};
inline constexpr std::size_t kWaitingMax = 64;
/// While somebody waits, this is how often the places are looked at.
inline constexpr Duration kPlaceRetry{std::chrono::milliseconds(250)};

/// Disconnected clients that are told of one by one, for each reactor and period; of the rest only
/// the number. Whoever connects in a loop shall not fill the log.
inline constexpr std::uint32_t kSentencesMax = 20;
inline constexpr Duration kSentencesPeriod{std::chrono::seconds(10)};

/// How long replies may take to drain after the last one was queued, before the client is reset.
inline constexpr Duration kLinger{std::chrono::seconds(5)};
/// The same once the server's grace at shutdown is over.
inline constexpr Duration kLingerAfterGrace{std::chrono::milliseconds(300)};
/// While requests wait for buffers that other reactors hold, this is how often we look again; ever
/// more seldom when it is in vain.
inline constexpr Duration kBufferRetry{std::chrono::milliseconds(1)};
inline constexpr Duration kBufferRetryMax{std::chrono::milliseconds(64)};

}  // namespace nvmf::nbd
