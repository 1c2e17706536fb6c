// Every limit of the controller's side, with its reason. Full means wait or refuse, never grow.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "transport/limits.h"

namespace nvmf::controller {

/// MDTS, as a power of two of 4 KiB pages (CAP.MPSMIN 0): 1 MiB, what Linux splits at anyway.
inline constexpr std::uint8_t kMdts = 8;
inline constexpr std::uint32_t kTransferBytesMax = 4096u << kMdts;
/// WZSL, likewise: 4 MiB. Zeroes are written by this thread; more would hold up every other queue.
inline constexpr std::uint8_t kWzsl = 10;
inline constexpr std::uint32_t kWriteZeroesBytesMax = 4096u << kWzsl;

/// Data moves through buffers of this size, a larger command in several pieces.
inline constexpr std::size_t kBufferBytes = 128 * 1024;
/// Shared by all I/O queues of a target: 64 MiB. Memory is touched as it is used.
inline constexpr std::size_t kSharedBuffers = 512;
/// Of the shared ones, at most this many are one queue's, beside one that is its own: a host which
/// stops in the middle of its transfers must not stop the others.
inline constexpr std::size_t kSharedBuffersPerQueue = 128;

/// Connections (queues) of a target: a file descriptor and some staging each.
inline constexpr std::size_t kConnectionsMax = 1024;
/// Subsystems of a target: the discovery log has a KiB for each.
inline constexpr std::size_t kSubsystemsMax = 4096;
/// Hosts that a subsystem allows by name: each Connect looks through them.
inline constexpr std::size_t kHostsMax = 1024;
/// Other discovery services that ours refers to: a network has a few, each follows them all.
inline constexpr std::size_t kReferralsMax = 64;
/// Namespaces of a subsystem: several active namespace lists, and as many as our host takes.
inline constexpr std::size_t kNamespacesMax = 4096;
/// ANA groups of a subsystem: as many as Linux's target has.
inline constexpr std::uint32_t kAnaGroupsMax = 128;
/// ANATT: a transition is over by then. What ctl begins it also ends; Linux waits twice that.
inline constexpr std::uint8_t kAnaTransitionSeconds = 10;
/// NN, which a host may scan up to: the same number, so that gaps stay few.
inline constexpr std::uint32_t kNsidMax = 4096;
/// I/O queues of a controller: as many as Linux has CPUs to ask for, within reason.
inline constexpr std::uint32_t kIoQueuesMax = 256;
inline constexpr std::uint32_t kIoQueuesDefault = 64;
inline constexpr std::uint32_t kQueueEntriesDefault = 128;
/// The admin queue. Hosts ask for 32.
inline constexpr std::uint32_t kAdminQueueEntriesMax = 128;
inline constexpr std::uint32_t kInCapsuleBytesDefault = 8192;

/// CNTLIDs are 1 to FFEFh: FFF0h and above are reserved (Base 2.1 §3.1.2).
inline constexpr std::uint16_t kCntlidMax = 0xffef;

/// Asynchronous Event Requests outstanding per controller (AERL + 1), as nvmet and SPDK allow.
inline constexpr std::size_t kAsyncEventsMax = 4;
/// Error Information entries kept (ELPE + 1).
inline constexpr std::size_t kErrorEntriesMax = 64;

/// KAS is 1: a keep-alive timeout is rounded up to a multiple of 100 ms.
inline constexpr std::uint16_t kKas = 1;
inline constexpr std::uint32_t kKeepAliveUnitMs = 100;

/// A connection must have sent ICReq and a good Connect by then.
inline constexpr std::chrono::seconds kHandshakeTimeout{10};
/// After a Disconnect command the host is to close the connection.
inline constexpr std::chrono::seconds kDisconnectLinger{1};
/// A controller that is not enabled (not yet, disabled, or shut down) is kept this long, so that
/// its host can read CSTS; the specification suggests two minutes for associations without use.
inline constexpr std::chrono::seconds kIdleControllerTimeout{120};
/// A discovery controller without a keep-alive timeout: Base 2.1 §3.1.3.3 suggests 2 minutes.
inline constexpr std::chrono::seconds kDiscoveryIdleTimeout{120};
/// stop() gives the disks this long to finish what they are doing.
inline constexpr std::chrono::seconds kStopTimeout{5};

/// Format NVM waits this long for the commands that use its namespace, and looks that often.
inline constexpr std::chrono::seconds kFormatWait{10};
inline constexpr std::chrono::milliseconds kFormatPoll{1};

/// File operations that one file_disk has under way; more wait.
inline constexpr std::size_t kFileOpsMax = 256;

// nbd_disk. Its times are below the 30 s after which hosts (ours, Linux's) give a command up.
/// Connections to one NBD server, where it allows several; as many as nbdcopy makes.
inline constexpr std::size_t kNbdLinks = 4;
/// Requests under way on one of them; servers work on 16 or so at once, and read no more.
inline constexpr std::size_t kNbdInFlightPerLink = 64;
/// An NBD server is connected to, and has described its export, by then.
inline constexpr std::chrono::seconds kNbdConnectTimeout{10};
/// What it may say until then: greeting, export and one context are some hundred bytes. libnbd
/// keeps every context that it is told of.
inline constexpr std::uint64_t kNbdHandshakeBytesMax = 256 * 1024;
/// A request without an answer for this long ends the connection: timeout= changes it.
inline constexpr std::chrono::seconds kNbdRequestTimeout{10};
inline constexpr std::chrono::seconds kNbdRequestTimeoutMax{3600};
/// A flush gets as many times that.
inline constexpr int kNbdFlushTimeouts = 3;
/// A namespace whose server is gone is Not Ready after this long; until then its commands wait.
inline constexpr std::chrono::seconds kNbdPatience{20};
/// A request that was sent so often, and each time the connection ended instead of an answer, ends
/// in the same way, although others are answered: it may be what ends them.
inline constexpr std::uint32_t kNbdSendsMax = 5;
/// From then on a command waits this long for the same answer: hosts that repeat it at once do not
/// spin, and Linux's has not used up its five repetitions in a millisecond.
inline constexpr std::chrono::seconds kNbdNotReadyPace{1};
/// Hosts that know of command retry delays (ACRE) are asked to wait this long before they repeat a
/// command that met Namespace Not Ready: Linux's five repetitions then last for half a minute.
inline constexpr std::chrono::seconds kNotReadyRetryDelay{5};
/// CRDT1 as nvmf-target sets it, units of 100 ms.
inline constexpr std::uint16_t kNotReadyRetryUnits =
    kNotReadyRetryDelay / std::chrono::milliseconds(100);
/// Writes that may be under way in the server are repeated this long after the connection's end:
/// where the server ended it, and where nothing was heard of it (the CQT that hosts assume).
inline constexpr std::chrono::seconds kNbdQuiesceClosed{1};
inline constexpr std::chrono::seconds kNbdQuiesceSilent{10};
/// Between attempts to connect again: doubling, from the first to the last of these.
inline constexpr std::chrono::milliseconds kNbdRetryFirst{100};
inline constexpr std::chrono::milliseconds kNbdRetryLast{5000};
/// How often times are looked at, while there is anything to look at.
inline constexpr std::chrono::milliseconds kNbdTick{100};
/// Zeroes are asked for in pieces of this size: a server writes as much in a second or so.
inline constexpr std::uint64_t kNbdZeroBytesMax = 64 * 1024 * 1024;
/// And written in pieces of this size, where a server has no command for them.
inline constexpr std::uint64_t kNbdZeroBufferBytes = 128 * 1024;
/// What is allocated is asked of so much at a time, and so many ranges are kept of an answer.
inline constexpr std::uint64_t kNbdExtentsBytesMax = 1024 * 1024 * 1024;
inline constexpr std::size_t kNbdRunsMax = 4096;
/// NBD namespaces that are being opened at the same time.
inline constexpr std::size_t kNbdOpeningMax = 64;

}  // namespace nvmf::controller
