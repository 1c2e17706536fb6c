// What a target is to be: subsystems, their namespaces and hosts, and its limits. Filled in from
// the command line or from a JSON file; judged by check_config().
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "controller/limits.h"
#include "nvme/address.h"
#include "nvme/result.h"

namespace nvmf::controller {

struct NamespaceConfig {
  enum class Kind : std::uint8_t { memory, file };
  Kind kind = Kind::memory;
  std::uint64_t size_bytes = 0;  // memory only
  std::string path;              // file only
  std::uint32_t block_bytes = 512;

  /// "memory:SIZE[,block=512|4096]" or "file:PATH[,block=512|4096]". A path may contain commas:
  /// only a last ",block=…" counts.
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
};

struct TargetConfig {
  std::vector<SubsystemConfig> subsystems;
  std::uint32_t max_queues = kIoQueuesDefault;              // I/O queues of a controller
  std::uint32_t queue_entries = kQueueEntriesDefault;       // of an I/O queue: CAP.MQES + 1
  std::uint32_t in_capsule_bytes = kInCapsuleBytesDefault;  // of an I/O command; 0: none
  std::uint16_t cqt_ms = 0;                                 // Command Quiesce Time; 0: not reported
  std::function<void(const std::string&)> log;  // a line per connect and end; may be empty
};

/// The error is one sentence that names the value and what would be allowed.
Result<void> check_config(const TargetConfig& config);

/// A configuration file: the target and where it listens.
struct ConfigFile {
  TargetConfig target;
  std::vector<nvme::HostPort> listen;
};
/// {"listen": ["ADDR:PORT", …], "max_queues": n, "queue_size": n, "in_capsule": n, "cqt": ms,
///  "subsystems": [{"nqn": "…", "serial": "…", "hosts": ["…"],
///                  "namespaces": ["memory:1G", "file:PATH,block=4096"]}]}
/// Unknown keys are errors, so that a misspelt one is not silently without effect.
Result<ConfigFile> parse_config(std::string_view json);

}  // namespace nvmf::controller
