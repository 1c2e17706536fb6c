#include "simulator/checker.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "nvme/check.h"

namespace nvmf::simulator {

Checker::Checker(const std::vector<std::size_t>& granules, host::Unflushed promise, bool replays)
    : promise_(promise), replays_(replays || promise == host::Unflushed::replay) {
  requests_.push_back(
      {.what = What::zeroes, .fua = true, .ok = true, .submitted = 0, .ended = 0, .closed = 0});
  for (const std::size_t n : granules) disks_.emplace_back(n);
}

Id Checker::submitted(What what, std::size_t ns, std::size_t begin, std::size_t end, bool fua) {
  NVMF_CHECK(ns < disks_.size() && begin <= end && end <= disks_[ns].size());
  const Id id = static_cast<Id>(requests_.size());
  requests_.push_back({.what = what,
                       .ns = ns,
                       .begin = begin,
                       .end = end,
                       .fua = fua,
                       .ok = false,
                       .process = process_,
                       .submitted = ++now_});
  if (what == What::flush) flushes_.push_back(id);
  if (what == What::write || what == What::zeroes) {
    for (std::size_t g = begin; g < end; ++g) disks_[ns][g].writes.push_back(id);
  }
  return id;
}

void Checker::ended(Id id, bool ok) {
  Request& r = requests_.at(id);
  if (r.ended != kOpen) return violate(fmt::format("{} was completed twice", name(id)));
  r.ok = ok;
  r.ended = ++now_;
  r.closed = std::min(r.closed, r.ended);
}

void Checker::ended_with(Id id, std::span<const Id> values) {
  const Request read = requests_.at(id);
  NVMF_CHECK(read.what == What::read && values.size() == read.end - read.begin);
  ended(id, true);
  const Interval when{read.submitted, now_};
  const std::string who = name(id);
  for (std::size_t i = 0; i < values.size(); ++i) {
    judge(read.ns, read.begin + i, values[i], when, who);
  }
}

void Checker::orphaned(Id id) {
  Request& r = requests_.at(id);
  r.closed = std::min(r.closed, ++now_);
}

void Checker::power_lost() {
  powers_.push_back(
      {.at = ++now_, .process = process_, .replayed = promise_ == host::Unflushed::replay});
}

void Checker::process_gone() {
  ++process_;
  for (Power& power : powers_) power.replayed = false;
}

void Checker::look(std::size_t ns, std::span<const Id> values) {
  NVMF_CHECK(values.size() == disks_.at(ns).size());
  ++now_;
  for (std::size_t g = 0; g < values.size(); ++g) {
    judge(ns, g, values[g], {now_, now_}, "the disk at the end");
  }
}

std::string Checker::name(Id id) const {
  if (id == 0) return "the zeroes of the beginning";
  if (id >= requests_.size()) return fmt::format("request {}, which never was", id);
  constexpr const char* kNames[] = {"read", "write", "zeroes", "flush"};
  const Request& r = requests_[id];
  const char* const end = r.ended == kOpen ? (r.closed == kOpen ? "open" : "orphaned")
                          : r.ok           ? "acknowledged"
                                           : "failed";
  return fmt::format("{} #{} of granules {} to {} on disk {}{} ({})",
                     kNames[static_cast<std::size_t>(r.what)], id, r.begin, r.end, r.ns,
                     r.fua ? " with FUA" : "", end);
}

void Checker::violate(std::string sentence) {
  if (!violation_) violation_ = std::move(sentence);
}

/// Somebody was told, after this write and before this flush had ended, that writes may be lost:
/// once, and perhaps after a loss of the connection that was none of power.
bool Checker::warned(const Request& write, const Request& flush) const {
  return std::ranges::any_of(requests_, [&](const Request& r) {
    return (r.what == What::flush || r.fua) && !r.ok && r.ended != kOpen && r.ns == flush.ns &&
           r.process == flush.process && r.ended > write.ended && r.submitted < flush.ended;
  });
}

bool Checker::durable_at(const Request& write, const Power& power) const {
  if (!write.ok) return false;
  if (write.fua) return true;
  if (power.replayed && write.process == power.process) return true;
  return std::ranges::any_of(flushes_, [&](Id id) {
    const Request& f = requests_[id];
    if (!f.ok || f.ns != write.ns || write.ended >= f.submitted) return false;
    if (f.ended < power.at) return true;
    return promise_ == host::Unflushed::fail && f.process == write.process &&
           write.process == power.process && !warned(write, f);
  });
}

bool Checker::lost_by_power(const Request& write, Seq from, Seq until) const {
  return std::ranges::any_of(powers_, [&](const Power& p) {
    return from < p.at && p.at < until && !durable_at(write, p);
  });
}

/// Why nothing can read the value of `value` any more; empty if something can.
std::string Checker::hidden(const Granule& at, Id value, Interval read) const {
  const Seq closed = requests_[value].closed;
  for (const Id id : at.writes) {
    const Request& newer = requests_[id];
    if (!newer.ok || closed >= newer.submitted || newer.ended >= read.begin) continue;
    if (lost_by_power(newer, newer.submitted, read.end)) continue;
    return name(id) + " was submitted after it was over, and acknowledged before";
  }
  for (const Sight& sight : at.sights) {
    const Request& newer = requests_[sight.id];
    if (closed >= newer.submitted || sight.ended >= read.begin) continue;
    if (!newer.ok && replays_) continue;
    if (lost_by_power(newer, sight.submitted, read.end)) continue;
    return name(sight.id) + " was submitted after it was over, and has been read before";
  }
  return {};
}

void Checker::see(Granule& at, Id value, Interval read) {
  for (const Sight& sight : at.sights) {
    // The earlier sight says as much, unless power was lost since.
    const bool power = !powers_.empty() && powers_.back().at > sight.submitted;
    if (sight.id == value && !power) return;
  }
  at.sights.push_back({value, read.begin, read.end});
}

void Checker::judge(std::size_t ns, std::size_t granule, Id value, Interval read,
                    const std::string& who) {
  Granule& at = disks_[ns][granule];
  ++judged_;
  if (value != 0) {
    ++stamped_;
    if (value >= requests_.size() || requests_[value].what != What::write ||
        std::ranges::find(at.writes, value) == at.writes.end()) {
      return violate(fmt::format("{}: granule {} of disk {} holds what nobody wrote there: {}", who,
                                 granule, ns, name(value)));
    }
    const std::string why = hidden(at, value, read);
    if (!why.empty()) {
      return violate(fmt::format("{}: granule {} of disk {} holds the value of {}, but {}", who,
                                 granule, ns, name(value), why));
    }
    return see(at, value, read);
  }
  // Zeroes do not say whose they are: one possible origin is enough.
  std::vector<Id> origins;
  std::string why = hidden(at, 0, read);
  if (why.empty()) origins.push_back(0);
  for (const Id id : at.writes) {
    if (requests_[id].what != What::zeroes) continue;
    std::string not_its = hidden(at, id, read);  // of the last ones: it says most
    if (not_its.empty()) origins.push_back(id);
    why = std::move(not_its);
  }
  if (origins.empty()) {
    return violate(fmt::format("{}: granule {} of disk {} is zero, but {}", who, granule, ns, why));
  }
  if (origins.size() == 1) see(at, origins.front(), read);
}

}  // namespace nvmf::simulator
