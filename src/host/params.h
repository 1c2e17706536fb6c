// What a connection is asked to be, checked once before anything is tried.
#pragma once

#include <cstdint>
#include <string>

#include "host/policy.h"
#include "nvme/address.h"
#include "nvme/fabrics.h"
#include "nvme/result.h"
#include "transport/limits.h"
#include "transport/loop.h"

namespace nvmf::host {

/// nvme-cli's bounds for --queue-size.
inline constexpr std::uint32_t kIoQueueEntriesMin = 16;
inline constexpr std::uint32_t kIoQueueEntriesMax = transport::kQueueEntriesMax;
/// Base 2.1 §6.3: an admin queue over fabrics has at least 32 entries.
inline constexpr std::uint32_t kAdminQueueEntriesMin = 32;
/// Beyond this many queues a process gains nothing; Linux's own limit is the number of CPUs.
inline constexpr std::uint32_t kIoQueuesMax = 128;
/// An hour. KATO is 32 bits of milliseconds; whoever needs more means "off".
inline constexpr std::uint32_t kKeepAliveMsMax = 3'600'000;
/// CQT has 16 bits of milliseconds: an hour is more than any controller could ask for.
inline constexpr Duration kCqtUnreportedMax = std::chrono::hours(1);
/// Below, not one block of every format has room; above, more than a machine would give.
inline constexpr std::uint64_t kReplayBytesMin = 64u * 1024;
inline constexpr std::uint64_t kReplayBytesMax = 64ull * 1024 * 1024 * 1024;

struct ConnectParams {
  std::string name = "nvmf0";  // the connection's: its namespaces are called NAMEn<NSID>
  std::string traddr;          // a name or a numeric address, IPv6 without brackets
  std::uint16_t port = nvme::kDefaultPort;
  std::string subnqn;
  std::string hostnqn;
  nvme::HostId hostid{};
  /// Only this namespace; nothing: all of them.
  nvme::NamespaceSelector namespace_selector;
  bool read_only = false;

  /// I/O queues to ask for; fewer granted are fewer used. 0: an admin queue alone, no namespaces.
  std::uint32_t nr_io_queues = 1;
  std::uint32_t queue_size = 128;  // entries; the controller's CAP.MQES may lower it
  std::uint32_t admin_queue_size = 32;
  std::uint32_t keep_alive_ms = 5000;  // 0: none
  bool header_digest = false;
  bool data_digest = false;
  bool disable_sqflow = false;
  std::uint8_t hpda = 0;                       // 0's based, dwords, 0 to 31
  std::uint32_t r2t_max = transport::kR2tMax;  // R2Ts per command, 1-based

  std::string host_traddr;  // source address, numeric
  std::string host_iface;
  int tos = -1;
  transport::Connector* through = nullptr;  // see transport::ConnectOptions; outlives its use

  /// Until TCP is open, and until each of the first answers is there: ICResp, Connect.
  Duration connect_timeout{std::chrono::seconds(10)};
  Duration admin_timeout{std::chrono::seconds(60)};     // an admin command, in a live association
  Duration command_timeout{std::chrono::seconds(30)};   // an I/O command
  Duration bring_up_timeout{std::chrono::seconds(30)};  // all of bring-up

  LossPolicy loss;
  /// The Command Quiesce Time of a controller that does not report one.
  Duration cqt_unreported{std::chrono::seconds(10)};  // at most kCqtUnreportedMax
  bool fence = true;  // false: ranges with unanswered writes are written at once, whatever happens
  /// FIN and RST are the target's own; false where a proxy or forwarder may have sent them.
  bool trust_peer_close = true;
  Unflushed unflushed = Unflushed::trust;
  /// Unflushed::replay: memory for copies, from kReplayBytesMin to kReplayBytesMax.
  std::uint64_t replay_bytes_max = 64u * 1024 * 1024;
  /// Serial number and size stand for an identifier that no namespace has.
  bool weak_identity = false;
  /// From the first on_live() on, no write for so long: what a process that was killed had sent to
  /// this subsystem may still be executed. Duration::max(): never.
  Duration hold_writes{};
  std::uint64_t jitter_seed = 0;  // of the pauses between attempts; 0: from the host's identifier
  SafetyRules rules;

  /// Whether the values are possible; the error says which is not and what may stand there.
  [[nodiscard]] Result<void> validate() const;
  /// "[::1]:4420".
  [[nodiscard]] std::string address() const;
};

/// The I/O queues to ask for when nobody says: one per CPU, at most 4.
std::uint32_t default_io_queues();

}  // namespace nvmf::host
