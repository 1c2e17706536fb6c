#include "tool_health.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "host/retry_rules.h"
#include "nvme/text.h"
#include "tool_timers.h"

namespace nvmf::tools {

using nlohmann::json;

namespace {

bool is_true(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && *found == true;
}

std::string plural(std::uint64_t n, std::string_view one, std::string_view more) {
  return fmt::format("{} {}", n, n == 1 ? one : more);
}

/// Powers of two, as ranges are made of.
std::string show_bytes(std::uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  std::size_t unit = 0;
  auto value = static_cast<double>(bytes);
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return value == static_cast<double>(static_cast<std::uint64_t>(value))
             ? fmt::format("{} {}", static_cast<std::uint64_t>(value), kUnits[unit])
             : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

/// What becomes of requests, and of the connection.
std::string about_deadlines(const json& health) {
  const auto fails = duration_of(health, "io_fails_in_ms");
  const auto gone = duration_of(health, "gone_in_ms");
  std::string text =
      !fails ? "requests wait"
      : *fails > Duration::zero()
          ? fmt::format("requests wait, and fail with EIO in {} (-F)", show_duration(*fails))
          : std::string("requests fail with EIO until the target is back (-F)");
  text += gone ? fmt::format("; the connection is given up in {} (-l)", show_duration(*gone))
               : std::string("; the connection is never given up (-l -1)");
  return text;
}

std::string about_attempts(const json& health) {
  const std::uint64_t attempts = number_of(health, "attempts");
  const std::string last = text_of(health, "last_attempt");
  const auto next = duration_of(health, "next_attempt_in_ms");
  std::string text = attempts == 0
                         ? std::string("it has not tried to connect again yet")
                         : "it has tried to connect again " + plural(attempts, "time", "times");
  if (!last.empty()) text += fmt::format(", and the last attempt failed: {}", last);
  if (text_of(health, "state") == "reconnecting") return text + "; an attempt is under way";
  if (next) text += fmt::format("; the next attempt is in {}", show_duration(*next));
  return text;
}

/// Ranges that are closed to writes.
std::string about_fences(const std::string& name, const json& ns) {
  const auto fences = ns.find("fences");
  if (fences == ns.end() || !fences->is_array() || fences->empty()) return {};
  std::uint64_t bytes = 0;
  std::uint64_t never = 0;
  bool open_end = false;
  Duration last{};
  for (const json& fence : *fences) {
    if (!fence.is_object()) continue;
    bytes += number_of(fence, "length_bytes");
    const auto lifts = duration_of(fence, "lifts_in_ms");
    if (is_true(fence, "never")) {
      ++never;
    } else if (!lifts) {
      open_end = true;
    } else {
      last = std::max(last, *lifts);
    }
  }
  const std::uint64_t count = std::max<std::uint64_t>(number_of(ns, "fence_count"), fences->size());
  std::string text = fmt::format(
      "{}: {}{} for writes sent there earlier, which were not answered and may still be executed",
      name, plural(count, "range waits", "ranges wait"),
      count > fences->size() ? std::string() : fmt::format(" ({})", show_bytes(bytes)));
  if (never > 0) {
    return text + fmt::format(
                      "; nobody knows until when for {} of them, because there is no "
                      "keep-alive timeout (-k 0): when you know that the target has been "
                      "restarted since, end the connection and connect again with "
                      "--no-fence",
                      never);
  }
  if (open_end) return text + "; for how long is known when the old connection is closed";
  return text + fmt::format("; the last may be written again in {}", show_duration(last));
}

/// `all_held`: it is said already that nothing may be written anywhere.
void add_namespace(const json& ns, bool all_held, std::vector<std::string>& all) {
  const std::string name = text_of(ns, "name");
  if (const std::string stopped = text_of(ns, "stopped"); !stopped.empty() && !has_gone(ns)) {
    all.push_back(fmt::format("{} does not go on: {}", name, stopped));
  }
  if (!all_held) {
    if (std::string fences = about_fences(name, ns); !fences.empty()) all.push_back(fences);
  }
  if (const std::uint64_t n = number_of(ns, "waiting"); n != 0) {
    std::string text = fmt::format("{}: {}", name, plural(n, "request waits", "requests wait"));
    if (const std::uint64_t refused = number_of(ns, "refused"); refused != 0) {
      text += fmt::format(
          "; the controller refused {}, the latest with {}, and {} tried again for "
          "{} at most",
          refused == n ? std::string(n == 1 ? "it" : "them") : fmt::format("{} of them", refused),
          text_of(ns, "refusal"), refused == 1 ? "it is" : "they are",
          show_duration(host::kRetryTimeMax));
    }
    all.push_back(std::move(text));
  }
  if (const std::uint64_t n = number_of(ns, "unflushed"); n != 0) {
    all.push_back(
        fmt::format("{}: {} since the last flush; the target has {} in its cache, and "
                    "loses {} with its power",
                    name, plural(n, "write was answered", "writes were answered"),
                    n == 1 ? "it" : "them", n == 1 ? "it" : "them"));
  }
}

/// Those that have gone, in one sentence: a controller may have had thousands.
void add_gone(const json& namespaces, std::vector<std::string>& all) {
  constexpr std::size_t kNamed = 8;
  std::string names;
  std::size_t count = 0;
  for (const json& ns : namespaces) {
    if (!ns.is_object() || !has_gone(ns) || ++count > kNamed) continue;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", text_of(ns, "name"));
  }
  if (count == 0) return;
  if (count > kNamed) names += fmt::format(" and {} more", count - kNamed);
  all.push_back(
      fmt::format("the controller has removed {}; what still uses {} gets errors until {} back",
                  names, count == 1 ? "it" : "them", count == 1 ? "it is" : "they are"));
}

}  // namespace

bool has_gone(const json& ns) {
  const auto attached = ns.find("attached");
  return attached != ns.end() && *attached == false && !is_true(ns, "acceptable");
}

std::string text_of(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) return "";
  return found->is_string() ? nvme::printable(found->get<std::string>()) : found->dump();
}

std::uint64_t number_of(const json& object, const char* key) {
  const auto found = object.find(key);
  // Whoever made it may have put a signed number in.
  if (found == object.end() || !found->is_number_integer()) return 0;
  return !found->is_number_unsigned() && found->get<std::int64_t>() < 0
             ? 0
             : found->get<std::uint64_t>();
}

std::optional<Duration> duration_of(const json& object, const char* key) {
  constexpr std::int64_t kMost = std::chrono::milliseconds(std::chrono::years(100)).count();
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number_integer()) return std::nullopt;
  return std::chrono::milliseconds(std::clamp<std::int64_t>(found->get<std::int64_t>(), 0, kMost));
}

std::vector<std::string> about_loss(const json& health) {
  const auto lost_for = duration_of(health, "lost_for_ms");
  if (!lost_for) return {};
  const std::string name = text_of(health, "name");
  return {fmt::format("{} lost its target {} ago: {}", name, show_duration(*lost_for),
                      text_of(health, "last_loss")),
          fmt::format("{}: {}", name, about_attempts(health)),
          fmt::format("{}: {}", name, about_deadlines(health))};
}

namespace {

/// What its controller reported so far, by kind; empty if nothing.
std::string about_events(const json& status) {
  static constexpr std::pair<const char*, const char*> kShown[] = {
      {"smart", "about its health"},
      {"error", "about errors"},
      {"ana_changed", "about paths"},
      {"firmware_activation", "about firmware"},
      {"namespaces_changed", "about namespaces"},
      {"discovery_changed", "about what it discovers"},
      {"other", "about something else"}};
  const auto counts = status.find("events");
  if (counts == status.end() || !counts->is_object()) return {};
  std::string all;
  for (const auto& [kind, words] : kShown) {
    const std::uint64_t n = number_of(*counts, kind);
    if (n != 0) all += fmt::format("{}{} {}", all.empty() ? "" : ", ", n, words);
  }
  if (all.empty()) return {};
  return fmt::format("{}: its controller sent events: {}; `nvmf events {}` shows them",
                     text_of(status, "name"), all, text_of(status, "name"));
}

}  // namespace

std::vector<std::string> about_connection(const json& status) {
  std::vector<std::string> all = about_loss(status);
  const std::string name = text_of(status, "name");
  if (const std::uint64_t n = number_of(status, "losses"); all.empty() && n != 0) {
    all.push_back(fmt::format("{} was lost {} and is live again; the last reason: {}", name,
                              plural(n, "time", "times"), text_of(status, "last_loss")));
  }
  if (std::string sentence = about_events(status); !sentence.empty()) all.push_back(sentence);
  if (const auto fence = status.find("fence"); fence != status.end() && *fence == false) {
    all.push_back(
        fmt::format("{}: --no-fence is on: a write that was sent before a loss may be "
                    "executed after what is written later, and undo it",
                    name));
  }
  const auto held = duration_of(status, "writes_held_for_ms");
  const bool for_ever = is_true(status, "writes_held_for_ever");
  const bool all_held = for_ever || (held && *held > Duration::zero());
  if (for_ever) {
    all.push_back(
        fmt::format("{}: all writes are held for good, because a connection before it was "
                    "killed that had no keep-alive timeout; when you know that the target "
                    "has been restarted since, end it and connect again with --no-fence",
                    name));
  } else if (all_held) {
    all.push_back(
        fmt::format("{}: all writes are held for another {}, because what an earlier "
                    "connection had sent may still be executed; reads are served",
                    name, show_duration(*held)));
  }
  const auto namespaces = status.find("namespaces");
  if (namespaces == status.end() || !namespaces->is_array()) return all;
  for (const json& ns : *namespaces) {
    if (ns.is_object()) add_namespace(ns, all_held, all);
  }
  add_gone(*namespaces, all);
  return all;
}

}  // namespace nvmf::tools
