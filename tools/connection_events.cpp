#include "connection_events.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <nlohmann/json.hpp>
#include <utility>

#include "nvme/text.h"

namespace nvmf::tools {

using nlohmann::json;

namespace {

std::string timestamp(std::chrono::system_clock::time_point time) {
  const auto seconds = std::chrono::time_point_cast<std::chrono::seconds>(time);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(time - seconds).count();
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z",
                     fmt::gmtime(std::chrono::system_clock::to_time_t(seconds)), ms);
}

json to_json(const nvme::ErrorEntry& entry) {
  return {{"error_count", entry.error_count},        {"sqid", entry.sqid}, {"cmdid", entry.cmdid},
          {"status_field", entry.status_field >> 1}, {"lba", entry.lba},   {"nsid", entry.nsid}};
}

json to_json(const nvme::AnaLog& log) {
  json groups = json::array();
  for (const nvme::AnaGroup& group : log.groups) {
    if (groups.size() == kEventNsidsShown) break;
    groups.push_back({{"grpid", group.group_id},
                      {"state", nvme::ana_state_name(group.state)},
                      {"chgcnt", group.change_count}});
  }
  return groups;
}

void add_pages(json& to, const host::HostEvent& event) {
  if (!event.errors.empty()) {
    json& errors = to["errors"] = json::array();
    for (const nvme::ErrorEntry& entry : event.errors) errors.push_back(to_json(entry));
  }
  if (event.smart) {
    to["critical_warning"] = event.smart->critical_warning;
    to["temperature"] = event.smart->composite_temperature;
    to["avail_spare"] = event.smart->avail_spare;
    to["percent_used"] = event.smart->percent_used;
  }
  if (event.firmware) {
    to["afi"] = event.firmware->afi;
    const unsigned slot = event.firmware->afi & 7u;
    if (slot != 0) to["firmware"] = nvme::printable(event.firmware->frs[slot - 1]);
  }
  if (event.generation) to["genctr"] = *event.generation;
  if (event.ana) to["ana_groups"] = to_json(*event.ana);
}

}  // namespace

json event_to_json(const host::HostEvent& event, const std::string& connection) {
  json to = {{"time", timestamp(event.time)},
             {"connection", connection},
             {"event", host::name_of(event.kind)},
             {"message", nvme::printable(event.message)}};
  if (event.dw0) to["dw0"] = *event.dw0;
  if (!event.nsids.empty()) {
    const std::size_t shown = std::min(event.nsids.size(), kEventNsidsShown);
    to["nsids"] = std::vector(event.nsids.begin(), event.nsids.begin() + static_cast<long>(shown));
    if (shown < event.nsids.size()) to["truncated"] = true;
  }
  if (event.kind == host::EventKind::namespaces_changed) to["overflow"] = event.overflow;
  if (event.kind == host::EventKind::namespace_resized) {
    to["size_bytes_before"] = event.size_bytes_before;
    to["size_bytes"] = event.size_bytes;
  }
  add_pages(to, event);
  return to;
}

json event_counts_to_json(const host::EventCounts& counts) {
  json to = json::object();
  for (std::size_t kind = 0; kind < counts.size(); ++kind) {
    to[std::string(host::name_of(static_cast<host::EventKind>(kind)))] = counts[kind];
  }
  return to;
}

struct EventBoard::Kept {
  struct One {
    json event;
    std::size_t bytes;  // as it is sent
  };
  std::deque<One> events;
  std::size_t bytes = 0;

  void forget_oldest() {
    bytes -= events.front().bytes;
    events.pop_front();
  }
};

EventBoard::EventBoard(std::string connection)
    : connection_(std::move(connection)), kept_(std::make_unique<Kept>()) {}

EventBoard::~EventBoard() = default;

void EventBoard::happened(const host::HostEvent& event) {
  Kept& k = *kept_;
  json news = event_to_json(event, connection_);
  const std::size_t bytes = news.dump(-1, ' ', false, json::error_handler_t::replace).size();
  std::erase_if(followers_, [&](control::Follower& follower) { return !follower.tell(news); });
  k.events.push_back({.event = std::move(news), .bytes = bytes});
  k.bytes += bytes;
  while (k.events.size() > kEventsKept || k.bytes > kEventBytesKept) k.forget_oldest();
}

void EventBoard::serve(const json& args, const host::EventCounts& counts,
                       control::Responder respond) {
  json latest = json::array();
  for (const Kept::One& one : kept_->events) latest.push_back(one.event);
  // Where nothing happens, nothing else finds out who has gone.
  std::erase_if(followers_, [](const control::Follower& follower) { return follower.gone(); });
  const json answer = {{"events", std::move(latest)},
                       {"counts", event_counts_to_json(counts)},
                       {"followers", followers_.size()}};
  const auto follow = args.find("follow");
  if (follow == args.end() || *follow != true) return respond.succeed(answer);
  if (auto follower = respond.succeed_and_follow(answer)) {
    followers_.push_back(std::move(*follower));
  }
}

std::size_t EventBoard::kept() const {
  return kept_->events.size();
}

}  // namespace nvmf::tools
