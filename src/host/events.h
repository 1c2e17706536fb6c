// What happens to a connection, as values: what its controller reports by asynchronous events (Base
// 2.1 §5.1.2) and what this host sees for itself. Delivered by SubsystemEvents::on_event() on the
// control loop, after it was acted on (the page that the event names has been read, namespaces have
// been identified again), and counted by kind.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nvme/log_pages.h"

namespace nvmf::host {

enum class EventKind : std::uint8_t {
  // Reported by the controller.
  namespaces_changed,   // nsids, or overflow
  firmware_activation,  // firmware, if its page could be read
  error,                // errors: entries of the error log that are new
  smart,                // smart: with its critical warning
  discovery_changed,    // generation
  ana_changed,          // ana
  other,                // dw0 alone says what
  // Seen by this host.
  connection_lost,        // message: why
  connection_live,        // again, after a loss
  attempt_failed,         // message: why; equal ones that follow one another are told once
  namespace_stopped,      // nsids: one; message: why
  namespace_resumed,      // nsids: one
  namespace_resized,      // nsids: one; size_bytes_before, size_bytes
  namespaces_not_served,  // nsids: what the controller has and this connection does not serve
  namespace_added,        // nsids: one; it is served from now on: new, or back
  namespace_removed,      // nsids: one; the controller has it no more
  namespace_protected,    // nsids: one; it may be read only
  namespace_writable      // nsids: one; it may be written again
};
inline constexpr std::size_t kEventKinds = 18;

/// "namespaces_changed" …: as in the enumeration.
std::string_view name_of(EventKind kind);

/// Entries of the error log that one event carries at most: the latest.
inline constexpr std::size_t kEventErrorsMax = 16;

struct HostEvent {
  EventKind kind = EventKind::other;
  std::chrono::system_clock::time_point time;
  /// A sentence for people: what happened, of which connection or namespace. May carry the peer's
  /// text: to be printed as such.
  std::string message;
  /// DW0 of the Asynchronous Event Request's completion; nothing for what this host saw itself.
  std::optional<std::uint32_t> dw0;

  std::vector<std::uint32_t> nsids;
  bool overflow = false;  // namespaces_changed: more than can be listed; any may have
  std::uint64_t size_bytes_before = 0;
  std::uint64_t size_bytes = 0;
  // What the page that the event names said; nothing, or empty, if it could not be read.
  std::vector<nvme::ErrorEntry> errors;  // the latest first
  std::optional<nvme::SmartLog> smart;
  std::optional<nvme::FirmwareSlots> firmware;
  std::optional<std::uint64_t> generation;  // GENCTR of the discovery log
  std::optional<nvme::AnaLog> ana;          // without NSIDs: groups only
};

/// Since the start of the connection, by kind (index: the enumerator).
using EventCounts = std::array<std::uint64_t, kEventKinds>;

}  // namespace nvmf::host
