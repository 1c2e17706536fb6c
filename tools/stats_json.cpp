// Statistics as JSON: what goes over the control socket, and what `-o json` prints.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "host/params.h"
#include "nvme/text.h"
#include "stats_format.h"
#include "tool_health.h"

namespace nvmf::tools {

using host::ConnectionStatistics;
using host::Latencies;
using host::LatencyHistogram;
using host::LatencyKind;
using host::QueueStatistics;
using nlohmann::json;
using nlohmann::ordered_json;

namespace {

constexpr std::size_t kQueuesMax = host::kIoQueuesMax + 1;
constexpr std::size_t kTextBytesMax = 512;  // an NQN has at most 223
/// Which buckets there are: a reader with others must not guess.
constexpr const char* kScale = "log-linear-64ns-16";

struct ConnectionNumber {
  const char* name;
  std::uint64_t ConnectionStatistics::* value;
};
constexpr ConnectionNumber kConnectionNumbers[] = {
    {"losses", &ConnectionStatistics::losses},
    {"reconnects", &ConnectionStatistics::reconnects},
    {"failed_attempts", &ConnectionStatistics::failed_attempts},
    {"aborts", &ConnectionStatistics::aborts},
    {"keep_alives", &ConnectionStatistics::keep_alives},
    {"async_events", &ConnectionStatistics::async_events},
    {"passthrough_commands", &ConnectionStatistics::passthrough_commands}};

struct QueueNumber {
  const char* name;
  std::uint64_t QueueStatistics::* value;
};
constexpr QueueNumber kQueueNumbers[] = {{"commands", &QueueStatistics::commands},
                                         {"read_bytes", &QueueStatistics::read_bytes},
                                         {"written_bytes", &QueueStatistics::written_bytes},
                                         {"errors", &QueueStatistics::errors},
                                         {"retries", &QueueStatistics::retries},
                                         {"timeouts", &QueueStatistics::timeouts}};

constexpr LatencyKind kKinds[] = {LatencyKind::read, LatencyKind::write, LatencyKind::flush,
                                  LatencyKind::other};

constexpr host::ConnectionState kStates[] = {
    host::ConnectionState::connecting, host::ConnectionState::live,
    host::ConnectionState::lost,       host::ConnectionState::reconnecting,
    host::ConnectionState::failing,    host::ConnectionState::gone};

/// Buckets as number, count, number, count …; empty ones are left out.
json to_json(const Latencies& latencies) {
  json all = json::object();
  for (const LatencyKind kind : kKinds) {
    const LatencyHistogram& h = latencies[kind];
    json buckets = json::array();
    for (std::size_t i = 0; i < h.buckets.size(); ++i) {
      if (h.buckets[i] == 0) continue;
      buckets.push_back(i);
      buckets.push_back(h.buckets[i]);
    }
    if (buckets.empty()) continue;
    all[host::name_of(kind)] = {
        {"sum_ns", h.sum_ns}, {"max_ns", h.max_ns}, {"buckets", std::move(buckets)}};
  }
  return all;
}

Error no_statistics(const char* what) {
  return {fmt::format("what was sent are no statistics that this program knows: {} is wrong; are "
                      "both of the same release?",
                      what),
          EPROTO};
}

Result<LatencyHistogram> parse_histogram(const json& object) {
  LatencyHistogram h;
  if (!object.is_object()) return std::unexpected(no_statistics("a latency"));
  h.sum_ns = number_of(object, "sum_ns");
  h.max_ns = number_of(object, "max_ns");
  const auto buckets = object.find("buckets");
  if (buckets == object.end()) return h;
  if (!buckets->is_array() || buckets->size() % 2 != 0 ||
      buckets->size() > 2 * host::kLatencyBuckets) {
    return std::unexpected(no_statistics("a histogram"));
  }
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < buckets->size(); i += 2) {
    const json& number = (*buckets)[i];
    const json& count = (*buckets)[i + 1];
    if (!number.is_number_unsigned() || !count.is_number_unsigned() ||
        number.get<std::uint64_t>() >= host::kLatencyBuckets ||
        __builtin_add_overflow(total, count.get<std::uint64_t>(), &total)) {
      return std::unexpected(no_statistics("a histogram"));
    }
    // A number that is there twice: the last one counts; the sum stays below `total`.
    h.buckets[number.get<std::size_t>()] = count.get<std::uint64_t>();
  }
  return h;
}

Result<Latencies> parse_latencies(const json& object) {
  Latencies latencies;
  const auto given = object.find("latency");
  if (given == object.end()) return latencies;
  if (!given->is_object()) return std::unexpected(no_statistics("latency"));
  for (const LatencyKind kind : kKinds) {
    const auto one = given->find(host::name_of(kind));
    if (one == given->end()) continue;
    auto h = parse_histogram(*one);
    if (!h) return std::unexpected(h.error());
    latencies.kinds[static_cast<std::size_t>(kind)] = *h;
  }
  return latencies;
}

Result<QueueStatistics> parse_queue(const json& object) {
  if (!object.is_object()) return std::unexpected(no_statistics("a queue"));
  QueueStatistics queue;
  const std::uint64_t qid = number_of(object, "qid");
  const std::uint64_t reactor = number_of(object, "reactor");
  if (qid >= kQueuesMax || reactor >= kQueuesMax) {
    return std::unexpected(no_statistics("a queue's number"));
  }
  queue.qid = static_cast<std::uint16_t>(qid);
  queue.reactor = reactor;
  const auto live = object.find("live");
  queue.live = live != object.end() && *live == true;
  for (const QueueNumber& n : kQueueNumbers) queue.*n.value = number_of(object, n.name);
  auto latencies = parse_latencies(object);
  if (!latencies) return std::unexpected(latencies.error());
  queue.latencies = *latencies;
  return queue;
}

std::string short_text(const json& object, const char* key) {
  return text_of(object, key).substr(0, kTextBytesMax);
}

/// In microseconds, to the nanosecond.
double microseconds(double ns) {
  return std::round(ns) / 1000;
}

ordered_json summary(const Latencies& latencies) {
  ordered_json all = ordered_json::object();
  for (const LatencyKind kind : kKinds) {
    const LatencyHistogram& h = latencies[kind];
    if (h.count() == 0) continue;
    const auto at = [&h](double q) { return microseconds(static_cast<double>(h.quantile_ns(q))); };
    all[host::name_of(kind)] = {
        {"count", h.count()},      {"mean_us", microseconds(h.mean_ns())},
        {"p50_us", at(0.5)},       {"p90_us", at(0.9)},
        {"p99_us", at(0.99)},      {"p99_9_us", at(0.999)},
        {"p99_99_us", at(0.9999)}, {"max_us", microseconds(static_cast<double>(h.max_ns))}};
  }
  return all;
}

ordered_json for_programs(const ConnectionStatistics& s) {
  ordered_json one = {
      {"name", s.name},
      {"subnqn", s.subnqn},
      {"address", s.address},
      {"state", host::name_of(s.state)},
      {"age_ms", std::chrono::duration_cast<std::chrono::milliseconds>(s.age).count()}};
  for (const ConnectionNumber& n : kConnectionNumbers) one[n.name] = s.*n.value;
  one["requests"] = {{"read_bytes", s.requests.read_bytes},
                     {"written_bytes", s.requests.written_bytes},
                     {"errors", s.requests.errors},
                     {"latency", summary(s.requests.latencies)}};
  ordered_json& queues = one["queues"] = ordered_json::array();
  for (const QueueStatistics& queue : s.queues) {
    ordered_json& q = queues.emplace_back(
        ordered_json{{"qid", queue.qid}, {"reactor", queue.reactor}, {"live", queue.live}});
    for (const QueueNumber& n : kQueueNumbers) q[n.name] = queue.*n.value;
    q["latency"] = summary(queue.latencies);
  }
  return one;
}

}  // namespace

json statistics_to_json(const ConnectionStatistics& s) {
  json all = {{"name", s.name},
              {"subnqn", s.subnqn},
              {"address", s.address},
              {"state", host::name_of(s.state)},
              {"age_ns", std::max<std::int64_t>(s.age.count(), 0)},
              {"scale", kScale},
              {"requests",
               {{"read_bytes", s.requests.read_bytes},
                {"written_bytes", s.requests.written_bytes},
                {"errors", s.requests.errors},
                {"latency", to_json(s.requests.latencies)}}}};
  for (const ConnectionNumber& n : kConnectionNumbers) all[n.name] = s.*n.value;
  json& queues = all["queues"] = json::array();
  for (const QueueStatistics& queue : s.queues) {
    json q = {{"qid", queue.qid},
              {"reactor", queue.reactor},
              {"live", queue.live},
              {"latency", to_json(queue.latencies)}};
    for (const QueueNumber& n : kQueueNumbers) q[n.name] = queue.*n.value;
    queues.push_back(std::move(q));
  }
  if (all.dump(-1, ' ', false, json::error_handler_t::replace).size() > kStatisticsBytesMax) {
    for (json& q : queues) q.erase("latency");
  }
  return all;
}

Result<ConnectionStatistics> parse_statistics(const json& object) {
  if (!object.is_object()) return std::unexpected(no_statistics("all of it"));
  if (text_of(object, "scale") != kScale) return std::unexpected(no_statistics("the scale"));
  ConnectionStatistics s;
  s.name = short_text(object, "name");
  s.subnqn = short_text(object, "subnqn");
  s.address = short_text(object, "address");
  const std::string state = text_of(object, "state");
  s.state = host::ConnectionState::gone;
  for (const host::ConnectionState one : kStates) {
    if (state == host::name_of(one)) s.state = one;
  }
  const std::uint64_t age_ns = number_of(object, "age_ns");
  s.age = Duration(static_cast<std::int64_t>(
      std::min<std::uint64_t>(age_ns, std::numeric_limits<std::int64_t>::max())));
  for (const ConnectionNumber& n : kConnectionNumbers) s.*n.value = number_of(object, n.name);
  const auto requests = object.find("requests");
  if (requests != object.end()) {
    if (!requests->is_object()) return std::unexpected(no_statistics("requests"));
    s.requests.read_bytes = number_of(*requests, "read_bytes");
    s.requests.written_bytes = number_of(*requests, "written_bytes");
    s.requests.errors = number_of(*requests, "errors");
    auto latencies = parse_latencies(*requests);
    if (!latencies) return std::unexpected(latencies.error());
    s.requests.latencies = *latencies;
  }
  const auto queues = object.find("queues");
  if (queues == object.end()) return s;
  if (!queues->is_array() || queues->size() > kQueuesMax) {
    return std::unexpected(no_statistics("the number of queues"));
  }
  for (const json& one : *queues) {
    auto queue = parse_queue(one);
    if (!queue) return std::unexpected(queue.error());
    // So each number is there once: metrics with the same labels twice would be none.
    if (!s.queues.empty() && queue->qid <= s.queues.back().qid) {
      return std::unexpected(no_statistics("the order of queues"));
    }
    s.queues.push_back(*queue);
  }
  return s;
}

std::string stats_json(std::span<const ConnectionStatistics> all) {
  ordered_json document = {{"connections", ordered_json::array()}};
  for (const ConnectionStatistics& s : all) document["connections"].push_back(for_programs(s));
  return document.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace nvmf::tools
