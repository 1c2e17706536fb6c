// What a target is to be: subsystems, their namespaces and hosts, and its limits. Filled in from
// the command line or from a JSON file; judged by check_config().
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "controller/disk.h"
#include "controller/limits.h"
#include "nvme/address.h"
#include "nvme/result.h"

namespace nvmf::controller {

/// Opens the disk of a namespace.
using DiskFactory = std::function<Result<std::unique_ptr<Disk>>()>;

struct NamespaceConfig {
  enum class Kind : std::uint8_t { memory, file, nbd, custom };
  Kind kind = Kind::memory;
  std::uint64_t size_bytes = 0;  // memory only
  std::string path;              // file: its path; nbd: the URI
  std::uint32_t block_bytes = 512;
  bool block_given = false;           // otherwise an NBD server that takes no less may make it 4096
  std::uint32_t ana_group = 1;        // counts where the subsystem has such groups
  bool read_only = false;             // hosts may not write; a file is opened for reading only
  bool volatile_cache = false;        // memory only: writes are lost with the power until a flush
  std::uint32_t timeout_seconds = 0;  // nbd only: of a request; 0: the default
  bool fail_unflushed = false;        // nbd only: see nbd_disk.h
  /// The UUID to have; the NGUID follows from it. None: memory a new one at each start, a file
  /// and an NBD URI always the same.
  std::optional<nvme::Uuid> uuid;
  /// Of custom; of nbd once NbdOpener has opened it, without which it cannot be used.
  std::shared_ptr<const DiskFactory> factory;

  /// "memory:SIZE", "file:PATH" or "nbd:URI" (an NBD URI alone is good, too), each with
  /// ",block=512|4096", ",uuid=UUID", ",anagrp=GROUP" and ",readonly" after it, memory also with
  /// ",cache=volatile", nbd with ",timeout=SECONDS" and ",unflushed=trust|fail". A path may contain
  /// commas: only what stands at the end and reads like one of these counts.
  static Result<NamespaceConfig> parse(std::string_view text);
  friend bool operator==(const NamespaceConfig&, const NamespaceConfig&) = default;
};

/// "64M", "1T", "4096": bytes, with a suffix K, M, G or T (powers of 1024) in either case.
Result<std::uint64_t> parse_size(std::string_view text);

struct SubsystemConfig {
  std::string nqn;
  std::vector<NamespaceConfig> namespaces;  // NSIDs from 1
  std::vector<std::string> hosts;           // NQNs that may connect; empty: any host
  std::string serial;                       // at most 20 printable characters; empty: from the NQN
  /// Asymmetric namespace access is reported, with groups 1 to this; 0: it is not.
  std::uint32_t ana_groups = 0;
};

/// "tcp://ADDR:PORT", "ADDR:PORT" or "ADDR" (port 8009) of a discovery service to refer hosts to;
/// the address must be numeric, for hosts look nothing up.
Result<nvme::HostPort> parse_referral(std::string_view text);

struct TargetConfig {
  std::vector<SubsystemConfig> subsystems;
  std::vector<nvme::HostPort> referrals;                    // other discovery services
  std::uint32_t max_queues = kIoQueuesDefault;              // I/O queues of a controller
  std::uint32_t queue_entries = kQueueEntriesDefault;       // of an I/O queue: CAP.MQES + 1
  std::uint32_t in_capsule_bytes = kInCapsuleBytesDefault;  // of an I/O command; 0: none
  std::uint16_t cqt_ms = 0;                                 // Command Quiesce Time; 0: not reported
  /// CRDT1 to 3, units of 100 ms; 0: not reported. Namespace Not Ready refers to CRDT1.
  std::array<std::uint16_t, 3> crdt{};
  std::size_t shared_buffers = kSharedBuffers;  // of kBufferBytes, for all I/O queues; 1 and up
  /// Puts a disk of the caller's around (or in the place of) that of a namespace; may be empty.
  std::function<std::unique_ptr<Disk>(std::unique_ptr<Disk>, std::uint32_t nsid,
                                      std::string_view subnqn)>
      wrap_disk;
  /// With a seed, the identifiers that are new at each start follow from it: the same run again.
  std::optional<std::uint64_t> uuid_seed;
  std::function<void(const std::string&)> log;  // a line per connect and end; may be empty
};

/// The errors are one sentence that names the value and what would be allowed.
Result<void> check_ana_group(const NamespaceConfig& ns, std::uint32_t groups,
                             const std::string& subnqn);
Result<void> check_subsystem(const SubsystemConfig& subsystem);
Result<void> check_config(const TargetConfig& config);

/// A configuration file: the target and where it listens.
struct ConfigFile {
  TargetConfig target;
  std::vector<nvme::HostPort> listen;
};
/// {"listen": ["ADDR:PORT", …], "referrals": ["tcp://ADDR:PORT", …], "max_queues": n, "queue_size":
/// n, "in_capsule": n, "cqt": ms,
///  "subsystems": [{"nqn": "…", "serial": "…", "hosts": ["…"], "ana_groups": n,
///                  "namespaces": ["memory:1G", "file:PATH,block=4096"]}]}
/// Unknown keys are errors, so that a misspelt one is not silently without effect.
Result<ConfigFile> parse_config(std::string_view json);

}  // namespace nvmf::controller
