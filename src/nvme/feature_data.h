// The data of features in words, laid out as nvme-cli 2.3 prints them below `get-feature -H`. For
// features.h's .cpp files. Data that end before what they should hold are shown as hex_dump().
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace nvmf::nvme {

/// Autonomous Power State Transition. Base 2.1 §5.1.25.1.6.
std::string power_transitions_text(std::span<const std::byte> data);
/// Host Memory Buffer attributes. §5.1.25.2.4.
std::string host_memory_text(std::span<const std::byte> data);
/// Timestamp, in the process's time zone. §5.1.25.1.7.
std::string timestamp_text(std::span<const std::byte> data);
/// Predictable Latency Mode thresholds. §5.1.25.1.12.
std::string predictable_latency_text(std::span<const std::byte> data);
/// The first `count` Flexible Data Placement events, at most those that the data hold.
std::string placement_events_text(std::span<const std::byte> data, std::size_t count);
/// Host metadata: its elements up to the first that does not fit. §5.1.25.1.22.
enum class HostMetadata : std::uint8_t { controller, name_space };
std::string host_metadata_text(std::span<const std::byte> data, HostMetadata kind);
/// Host Identifier: its first eight bytes as a number, all that nvme-cli shows of it.
std::string host_id_text(std::span<const std::byte> data);

}  // namespace nvmf::nvme
