// What a connection has to say about its health: for `nvmf list`, `nvmf policy` and logs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "host/policy.h"
#include "nvme/status.h"

namespace nvmf::host {

enum class ConnectionState : std::uint8_t {
  connecting,    // the first association is being made
  live,          // all queues are there
  lost,          // none is; the next attempt has not begun
  reconnecting,  // an attempt is under way
  failing,       // fast_io_fail has passed: requests fail with EIO until it is live again
  gone,          // it is over
};

const char* name_of(ConnectionState state);  // "connecting", "live", …

struct Health {
  ConnectionState state = ConnectionState::connecting;
  /// Why the association was lost last, and why the last attempt to reconnect failed; empty if
  /// none was lost, or no attempt failed since.
  std::string last_loss;
  std::string last_attempt;
  std::uint64_t losses = 0;                 // since the start
  std::uint32_t attempts = 0;               // since the loss
  std::optional<Duration> lost_for;         // since when, if not live
  std::optional<Duration> next_attempt_in;  // these three only in a loss
  std::optional<Duration> io_fails_in;      // zero: it has passed
  std::optional<Duration> gone_in;
  LossPolicy policy;
};

/// A range in which nothing may be written yet.
struct FenceInfo {
  std::uint64_t offset_bytes = 0;
  std::uint64_t length_bytes = 0;
  /// Until the fence is lifted; nothing: the association is still being ended, or never.
  std::optional<Duration> lifts_in;
  bool never = false;
};

struct NamespaceHealth {
  std::uint32_t nsid = 0;
  bool attached = true;  // false: the controller has removed it
  /// Why I/O does not go on although the connection is live; empty if it does.
  std::string stopped;
  /// The user may say `accept`: what is there differs from what was there.
  bool acceptable = false;
  std::vector<FenceInfo> fences;
  std::uint64_t waiting = 0;    // requests that wait for a queue, a fence, or another try
  std::uint64_t refused = 0;    // of these, those that the controller has refused before
  nvme::Status refusal;         // the latest of theirs
  std::uint64_t unflushed = 0;  // writes answered since the last good flush
};

}  // namespace nvmf::host
