// Every limit of the transport, with its reason. Full means wait or refuse, never grow.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nvmf::transport {

/// CIDs carry the slot in the low bits; 1024 slots leave 6 bits of generation. nvme-cli's own
/// upper bound for --queue-size is 1024.
inline constexpr std::uint32_t kQueueEntriesMax = 1024;
/// NVMe Base 2.1: a queue has at least 2 entries; nvme-cli's lower bound for I/O is 16.
inline constexpr std::uint32_t kQueueEntriesMin = 2;

/// In-capsule data of admin and fabrics commands: NVMe/TCP 1.0 §3.3.1 (Figure 11).
inline constexpr std::uint32_t kAdminInCapsuleBytes = 8192;
/// The most in-capsule data that we offer or use on an I/O queue: beyond 64 KiB R2T costs nothing
/// that shows, and a controller keeps this much per slot.
inline constexpr std::uint32_t kInCapsuleBytesMax = 64 * 1024;

/// R2Ts outstanding for one command: 4 keep a pipe full at any segment size we use.
inline constexpr std::uint32_t kR2tMax = 4;

/// MAXH2CDATA: at least 4096 (NVMe/TCP 1.0 §3.6.2.3). What our controller announces.
inline constexpr std::uint32_t kH2cDataBytesMin = 4096;
inline constexpr std::uint32_t kH2cDataBytes = 256 * 1024;

/// Data of one command on our side: 32 MiB is the largest NBD request, split well below by MDTS.
inline constexpr std::uint32_t kCommandBytesMax = 32u * 1024 * 1024;

/// Staging for received headers and small payloads, per connection.
inline constexpr std::size_t kReceiveStagingBytes = 64 * 1024;

/// TermReq carries at most this much of the offending header (NVMe/TCP 1.0 §3.5).
inline constexpr std::size_t kTermReqDataBytesMax = 128;

}  // namespace nvmf::transport
