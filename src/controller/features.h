// The features of a controller: their values, and Get and Set Features. NVMe Base 2.1 §5.1.25
// (Set), §5.1.11 (Get). Nothing can be saved: every controller starts with the defaults.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>

#include "controller/admin_reply.h"
#include "nvme/admin.h"
#include "nvme/command.h"
#include "transport/timer.h"

namespace nvmf::controller {

class Controller;
class Subsystem;

struct Features {
  std::uint32_t arbitration = 0;
  std::uint32_t power_management = 0;
  std::uint16_t temperature_over = 0xffff;  // kelvins; FFFFh: never
  std::uint16_t temperature_under = 0;
  std::map<std::uint32_t, std::uint16_t> error_recovery;  // TLER by NSID, where it is not 0
  bool write_cache = true;                                // WCE, of namespaces that have a cache
  std::uint32_t async_events = 0;
  bool disable_normal_atomicity = false;
  std::uint32_t keep_alive_ms = 0;  // as rounded up to KAS
  std::uint32_t io_queues = 0;      // granted by Number of Queues; 0: not asked yet
  nvme::HostBehavior host_behavior;
  /// Timestamp: milliseconds since 1970 that the host gave, and when it did.
  std::uint64_t timestamp_ms = 0;
  Instant timestamp_set{};
  bool timestamp_from_host = false;
};

/// OAES: the notices that a controller of this subsystem has.
std::uint32_t supported_events(const Subsystem& subsystem);

/// Milliseconds rounded up to the keep-alive granularity, 0 stays 0.
std::uint32_t round_keep_alive(std::uint32_t ms);

/// Bytes that Set Features of this kind takes from the host.
std::size_t set_features_data_bytes(const nvme::Sqe& sqe);

/// `data` is what set_features_data_bytes() asked for.
AdminReply set_features(Controller& controller, const nvme::Sqe& sqe,
                        std::span<const std::byte> data);
AdminReply get_features(Controller& controller, const nvme::Sqe& sqe);
/// Log page 12h, Feature Identifiers Supported and Effects. Base 2.1 §5.1.12.1.18.
inline constexpr std::size_t kSupportedFeaturesBytes = 1024;
void encode_supported_features(const Controller& controller,
                               std::span<std::byte, kSupportedFeaturesBytes> out);

}  // namespace nvmf::controller
