// The events of a running connection, for those who ask on its control socket: the latest ones are
// kept, each new one is told to all who follow.
//
// Everything on the control loop.
#pragma once

#include <cstddef>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "control/server.h"
#include "host/events.h"

namespace nvmf::tools {

/// Events that are kept for those who come later: what one wants to see after a bad night.
inline constexpr std::size_t kEventsKept = 256;
/// And as many bytes of them, as they are sent: the controller decides how much one lists, and what
/// is kept takes some ten times as much memory. One answer has room for them.
inline constexpr std::size_t kEventBytesKept = 512u * 1024;
static_assert(kEventBytesKept < control::kLineBytesMax / 2);
/// NSIDs and entries that one event lists; "truncated" says that there were more.
inline constexpr std::size_t kEventNsidsShown = 1024;

/// One event as it is sent: "time" (RFC 3339, UTC, milliseconds), "connection", "event",
/// "message", and what there is of the rest. Text of the peer's is fit to be shown.
nlohmann::json event_to_json(const host::HostEvent& event, const std::string& connection);

class EventBoard {
 public:
  explicit EventBoard(std::string connection);
  ~EventBoard();

  void happened(const host::HostEvent& event);
  /// The verb "events": args {"follow":true} to be told of what comes. Answers with the latest
  /// events, the oldest first, `counts`, and how many followed before.
  void serve(const nlohmann::json& args, const host::EventCounts& counts,
             control::Responder respond);
  /// At the end: everybody's stream ends.
  void close() { followers_.clear(); }
  [[nodiscard]] std::size_t kept() const;
  /// Those that are told of the next event; who has gone may still be among them.
  [[nodiscard]] std::size_t followers() const { return followers_.size(); }

 private:
  struct Kept;  // behind a pointer: its type is incomplete here
  std::string connection_;
  std::unique_ptr<Kept> kept_;
  std::vector<control::Follower> followers_;
};

/// The number of each kind of event that there was.
nlohmann::json event_counts_to_json(const host::EventCounts& counts);

}  // namespace nvmf::tools
