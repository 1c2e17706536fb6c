#include "controller/features.h"

#include <algorithm>
#include <array>
#include <chrono>

#include "controller/controller.h"
#include "controller/limits.h"
#include "nvme/endian.h"
#include "nvme/fabrics.h"

namespace nvmf::controller {

using nvme::Feature;
using nvme::StatusCode;

namespace {

constexpr std::size_t kTimestampBytes = 8;
constexpr std::uint32_t kDulbe = 1u << 16;
constexpr std::uint32_t kSmartEventsMask = 0xff;

struct FeatureInfo {
  Feature feature;
  bool discovery = false;  // discovery controllers have it too
  bool changeable = true;
  bool per_namespace = false;
};

constexpr std::array kFeatures{
    FeatureInfo{Feature::arbitration},
    FeatureInfo{Feature::power_management},
    FeatureInfo{Feature::temperature_threshold},
    FeatureInfo{.feature = Feature::error_recovery, .per_namespace = true},
    FeatureInfo{Feature::volatile_write_cache},
    FeatureInfo{Feature::number_of_queues},
    FeatureInfo{Feature::write_atomicity},
    FeatureInfo{.feature = Feature::async_event_config, .discovery = true},
    FeatureInfo{Feature::timestamp},
    FeatureInfo{.feature = Feature::keep_alive_timer, .discovery = true},
    FeatureInfo{Feature::host_behavior},
    FeatureInfo{.feature = Feature::host_id, .discovery = true, .changeable = false},
};

const FeatureInfo* find_feature(const Controller& controller, Feature feature) {
  for (const FeatureInfo& info : kFeatures) {
    if (info.feature != feature) continue;
    if (controller.subsystem().discovery() && !info.discovery) return nullptr;
    // Without a cache there is nothing to switch. Base 2.1 §5.1.25.1.4.
    if (feature == Feature::volatile_write_cache && !controller.subsystem().volatile_cache()) {
      return nullptr;
    }
    return &info;
  }
  return nullptr;
}

/// TMPSEL 0, the composite temperature, is the only one; THSEL 0 is over, 1 is under.
bool threshold_known(std::uint32_t cdw11) {
  return (cdw11 >> 16 & 0xf) == 0 && (cdw11 >> 20 & 3) <= 1;
}

bool under_threshold(std::uint32_t cdw11) {
  return (cdw11 >> 20 & 3) == 1;
}

std::uint64_t timestamp_now(const Controller& controller) {
  const Features& features = controller.features();
  const auto since = std::chrono::duration_cast<std::chrono::milliseconds>(
      controller.now() -
      (features.timestamp_from_host ? features.timestamp_set : controller.subsystem().started()));
  return (features.timestamp_ms + static_cast<std::uint64_t>(since.count())) & 0xffff'ffff'ffffu;
}

/// Timestamp data, Base 2.1 §5.1.25.1.7: 48 bits of milliseconds; bits 3:1 of byte 6 say where they
/// come from (0: counting since the last reset, 1: set by the host).
std::vector<std::byte> timestamp_data(const Controller& controller) {
  std::vector<std::byte> data(kTimestampBytes);
  const std::uint64_t origin = controller.features().timestamp_from_host ? 1 : 0;
  store_le64(data.data(), timestamp_now(controller) | origin << (48 + 1));
  return data;
}

AdminReply set_async_events(Controller& controller, std::uint32_t events) {
  const std::uint32_t known = supported_events(controller.subsystem()) |
                              (controller.subsystem().discovery() ? 0 : kSmartEventsMask);
  if ((events & ~known) != 0) return AdminReply::refuse(StatusCode::invalid_field);
  controller.features().async_events = events;
  return AdminReply::ok();
}

/// Base 2.1 §5.1.25.1.5. The answer is what was granted, 0's based in both halves.
AdminReply set_queue_count(Controller& controller, std::uint32_t cdw11) {
  if ((cdw11 & 0xffff) == 0xffff || cdw11 >> 16 == 0xffff) {
    return AdminReply::refuse(StatusCode::invalid_field);
  }
  if (controller.io_queue_count() != 0) {
    return AdminReply::refuse(StatusCode::command_sequence_error);
  }
  const auto asked = nvme::QueueCount::decode(cdw11);
  const std::uint32_t queues =
      std::min({asked.submission, asked.completion, controller.config().max_queues});
  controller.features().io_queues = queues;
  return AdminReply::ok(nvme::QueueCount{queues, queues}.encode());
}

AdminReply set_error_recovery(Controller& controller, const nvme::FeatureCommand& command) {
  // Deallocated blocks read as zero and never as an error: NSFEAT bit 2 is clear.
  if ((command.cdw11 & kDulbe) != 0) return AdminReply::refuse(StatusCode::invalid_field);
  const auto tler = static_cast<std::uint16_t>(command.cdw11);
  auto& values = controller.features().error_recovery;
  if (command.nsid == nvme::kNsidAll) {
    for (const auto& ns : controller.subsystem().namespaces()) values[ns->nsid] = tler;
    return AdminReply::ok();
  }
  if (controller.subsystem().find(command.nsid) == nullptr) {
    return AdminReply::refuse(StatusCode::invalid_namespace);
  }
  values[command.nsid] = tler;
  return AdminReply::ok();
}

AdminReply set_temperature(Controller& controller, std::uint32_t cdw11) {
  if (!threshold_known(cdw11)) return AdminReply::refuse(StatusCode::invalid_field);
  Features& features = controller.features();
  (under_threshold(cdw11) ? features.temperature_under : features.temperature_over) =
      static_cast<std::uint16_t>(cdw11);
  controller.health_changed();
  return AdminReply::ok();
}

/// The value in DW0 of those features that have one; data is empty for them.
AdminReply value_of(const Controller& controller, const nvme::FeatureCommand& command,
                    const Features& features) {
  switch (command.feature) {
    case Feature::arbitration:
      return AdminReply::ok(features.arbitration);
    case Feature::power_management:
      return AdminReply::ok(features.power_management);
    case Feature::temperature_threshold:
      if (!threshold_known(command.cdw11)) return AdminReply::refuse(StatusCode::invalid_field);
      return AdminReply::ok(under_threshold(command.cdw11) ? features.temperature_under
                                                           : features.temperature_over);
    case Feature::error_recovery: {
      if (controller.subsystem().find(command.nsid) == nullptr) {
        return AdminReply::refuse(StatusCode::invalid_namespace);
      }
      const auto found = features.error_recovery.find(command.nsid);
      return AdminReply::ok(found == features.error_recovery.end() ? 0 : found->second);
    }
    case Feature::volatile_write_cache:
      return AdminReply::ok(features.write_cache ? 1 : 0);
    case Feature::number_of_queues: {
      const std::uint32_t queues =
          features.io_queues != 0 ? features.io_queues : controller.config().max_queues;
      return AdminReply::ok(nvme::QueueCount{queues, queues}.encode());
    }
    case Feature::write_atomicity:
      return AdminReply::ok(features.disable_normal_atomicity ? 1 : 0);
    case Feature::async_event_config:
      return AdminReply::ok(features.async_events);
    case Feature::keep_alive_timer:
      return AdminReply::ok(features.keep_alive_ms);
    case Feature::timestamp:
      return AdminReply::with(timestamp_data(controller));
    case Feature::host_behavior: {
      std::vector<std::byte> data(nvme::kHostBehaviorBytes);
      features.host_behavior.encode(std::span<std::byte, nvme::kHostBehaviorBytes>(data));
      return AdminReply::with(std::move(data));
    }
    case Feature::host_id: {
      // The extended form only: EXHID must be set. Base 2.1 §5.1.25.1.28.
      if ((command.cdw11 & 1) == 0) return AdminReply::refuse(StatusCode::invalid_field);
      const auto& id = controller.identity().hostid;
      return AdminReply::with({id.begin(), id.end()});
    }
    default:
      return AdminReply::refuse(StatusCode::invalid_field);
  }
}

}  // namespace

std::uint32_t supported_events(const Subsystem& subsystem) {
  if (subsystem.discovery()) return nvme::kOaesDiscoveryChange;
  return nvme::kOaesNamespaceAttributes | nvme::kOaesFirmwareActivation |
         (subsystem.ana_groups().empty() ? 0 : nvme::kOaesAnaChange);
}

std::uint32_t round_keep_alive(std::uint32_t ms) {
  const std::uint64_t units = (std::uint64_t{ms} + kKeepAliveUnitMs - 1) / kKeepAliveUnitMs;
  const std::uint64_t rounded = units * kKeepAliveUnitMs;
  return rounded > 0xffff'ffffu ? 0xffff'ffffu / kKeepAliveUnitMs * kKeepAliveUnitMs
                                : static_cast<std::uint32_t>(rounded);
}

std::size_t set_features_data_bytes(const nvme::Sqe& sqe) {
  switch (nvme::FeatureCommand::from_sqe(sqe).feature) {
    case Feature::timestamp:
      return kTimestampBytes;
    case Feature::host_behavior:
      return nvme::kHostBehaviorBytes;
    default:
      return 0;
  }
}

AdminReply set_features(Controller& controller, const nvme::Sqe& sqe,
                        std::span<const std::byte> data) {
  const auto command = nvme::FeatureCommand::from_sqe(sqe);
  const FeatureInfo* const info = find_feature(controller, command.feature);
  if (info == nullptr) return AdminReply::refuse(StatusCode::invalid_field);
  if (command.save) return AdminReply::refuse(StatusCode::feature_not_saveable);
  if (!info->changeable) return AdminReply::refuse(StatusCode::feature_not_changeable);
  if (!info->per_namespace && command.nsid != 0 && command.nsid != nvme::kNsidAll) {
    return AdminReply::refuse(StatusCode::feature_not_namespace_specific);
  }
  Features& features = controller.features();
  switch (command.feature) {
    case Feature::arbitration:
      features.arbitration = command.cdw11;
      return AdminReply::ok();
    case Feature::power_management:
      // NPSS is 0: power state 0 is the only one.
      if ((command.cdw11 & 0x1f) != 0) return AdminReply::refuse(StatusCode::invalid_field);
      features.power_management = command.cdw11 & 0xff;
      return AdminReply::ok();
    case Feature::temperature_threshold:
      return set_temperature(controller, command.cdw11);
    case Feature::error_recovery:
      return set_error_recovery(controller, command);
    case Feature::volatile_write_cache:
      features.write_cache = (command.cdw11 & 1) != 0;
      return AdminReply::ok();
    case Feature::number_of_queues:
      return set_queue_count(controller, command.cdw11);
    case Feature::write_atomicity:
      features.disable_normal_atomicity = (command.cdw11 & 1) != 0;
      return AdminReply::ok();
    case Feature::async_event_config:
      return set_async_events(controller, command.cdw11);
    case Feature::timestamp:
      features.timestamp_ms = load_le64(data.data()) & 0xffff'ffff'ffffu;
      features.timestamp_set = controller.now();
      features.timestamp_from_host = true;
      return AdminReply::ok();
    case Feature::keep_alive_timer:
      controller.set_keep_alive(command.cdw11);
      return AdminReply::ok();
    case Feature::host_behavior:
      features.host_behavior = nvme::HostBehavior::decode(data);
      return AdminReply::ok();
    default:
      return AdminReply::refuse(StatusCode::invalid_field);
  }
}

AdminReply get_features(Controller& controller, const nvme::Sqe& sqe) {
  const auto command = nvme::FeatureCommand::from_sqe(sqe);
  const FeatureInfo* const info = find_feature(controller, command.feature);
  if (info == nullptr) return AdminReply::refuse(StatusCode::invalid_field);
  switch (command.select) {
    case nvme::FeatureSelect::current:
      return value_of(controller, command, controller.features());
    case nvme::FeatureSelect::fallback:
    case nvme::FeatureSelect::saved: {  // nothing is saveable, so the saved value is the default
      Features defaults;
      defaults.keep_alive_ms = round_keep_alive(controller.identity().keep_alive_ms);
      return value_of(controller, command, defaults);
    }
    case nvme::FeatureSelect::supported:
      // Bit 0 saveable, bit 1 namespace specific, bit 2 changeable.
      return AdminReply::ok((info->per_namespace ? 2u : 0u) | (info->changeable ? 4u : 0u));
  }
  return AdminReply::refuse(StatusCode::invalid_field);  // SEL 4 to 7 are reserved
}

void encode_supported_features(const Controller& controller,
                               std::span<std::byte, kSupportedFeaturesBytes> out) {
  std::ranges::fill(out, std::byte{0});
  for (const FeatureInfo& info : kFeatures) {
    if (find_feature(controller, info.feature) == nullptr) continue;
    // Bit 0 supported; bits 31:20 the scope, bit 20 a namespace, bit 21 the controller.
    const std::uint32_t scope = info.per_namespace ? 1u << 20 : 1u << 21;
    store_le32(out.data() + 4 * static_cast<std::uint8_t>(info.feature), 1u | scope);
  }
}

}  // namespace nvmf::controller
