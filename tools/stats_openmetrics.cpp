// Statistics for Prometheus: OpenMetrics 1.0.
#include <fmt/format.h>

#include <functional>

#include "stats_format.h"

namespace nvmf::tools {

using host::ConnectionStatistics;
using host::Latencies;
using host::LatencyHistogram;
using host::LatencyKind;
using host::QueueStatistics;

namespace {

/// Borders of what is reported: octaves, as borders of our buckets, so that nothing is guessed.
constexpr unsigned kFirstOctave = 12;  // 4.096 µs
constexpr unsigned kLastOctave = 35;   // 34.4 s

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

std::string label(const char* name, const std::string& value) {
  return fmt::format("{}=\"{}\"", name, escaped(value));
}

std::string connection_label(const ConnectionStatistics& s) {
  return label("connection", s.name);
}

std::string queue_labels(const ConnectionStatistics& s, const QueueStatistics& q) {
  return connection_label(s) + "," + label("queue", std::to_string(q.qid));
}

/// `unit` is nullptr, or how the name ends.
void family(std::string& out, const char* name, const char* type, const char* unit,
            const char* help) {
  out += fmt::format("# TYPE {} {}\n", name, type);
  if (unit != nullptr) out += fmt::format("# UNIT {} {}\n", name, unit);
  out += fmt::format("# HELP {} {}\n", name, help);
}

struct ConnectionCounter {
  const char* name;
  const char* unit;
  const char* help;
  std::uint64_t (*value)(const ConnectionStatistics&);
};
constexpr ConnectionCounter kConnectionCounters[] = {
    {"nvmf_connection_losses", nullptr, "Associations lost.",
     [](const ConnectionStatistics& s) { return s.losses; }},
    {"nvmf_connection_reconnects", nullptr, "Associations made after a loss.",
     [](const ConnectionStatistics& s) { return s.reconnects; }},
    {"nvmf_connection_failed_attempts", nullptr, "Attempts to reconnect that failed.",
     [](const ConnectionStatistics& s) { return s.failed_attempts; }},
    {"nvmf_connection_aborts", nullptr, "Abort commands sent for overdue commands.",
     [](const ConnectionStatistics& s) { return s.aborts; }},
    {"nvmf_connection_keep_alives", nullptr, "Keep Alive commands sent.",
     [](const ConnectionStatistics& s) { return s.keep_alives; }},
    {"nvmf_connection_async_events", nullptr, "Events that the controller reported.",
     [](const ConnectionStatistics& s) { return s.async_events; }},
    {"nvmf_connection_passthrough_commands", nullptr, "Commands sent on behalf of tools.",
     [](const ConnectionStatistics& s) { return s.passthrough_commands; }},
    {"nvmf_request_read_bytes", "bytes", "Bytes of reads of local clients that succeeded.",
     [](const ConnectionStatistics& s) { return s.requests.read_bytes; }},
    {"nvmf_request_written_bytes", "bytes", "Bytes of writes of local clients that succeeded.",
     [](const ConnectionStatistics& s) { return s.requests.written_bytes; }},
    {"nvmf_request_errors", nullptr, "Requests of local clients that failed.",
     [](const ConnectionStatistics& s) { return s.requests.errors; }}};

struct QueueCounter {
  const char* name;
  const char* unit;
  const char* help;
  std::uint64_t QueueStatistics::* value;
};
constexpr QueueCounter kQueueCounters[] = {
    {"nvmf_queue_commands", nullptr, "Commands sent.", &QueueStatistics::commands},
    {"nvmf_queue_read_bytes", "bytes", "Bytes read by commands that succeeded.",
     &QueueStatistics::read_bytes},
    {"nvmf_queue_written_bytes", "bytes", "Bytes written by commands that succeeded.",
     &QueueStatistics::written_bytes},
    {"nvmf_queue_errors", nullptr, "Commands refused by the controller, or never answered.",
     &QueueStatistics::errors},
    {"nvmf_queue_retries", nullptr, "Commands whose end made them be done again.",
     &QueueStatistics::retries},
    {"nvmf_queue_timeouts", nullptr, "Commands not answered in time.", &QueueStatistics::timeouts}};

void add_histogram(std::string& out, const char* name, const std::string& labels,
                   const LatencyHistogram& h) {
  const std::uint64_t count = h.count();
  for (unsigned octave = kFirstOctave; octave <= kLastOctave; ++octave) {
    const std::uint64_t border_ns = std::uint64_t{1} << octave;
    out += fmt::format("{}_bucket{{{},le=\"{}\"}} {}\n", name, labels,
                       static_cast<double>(border_ns) / 1e9, h.count_below(border_ns));
  }
  out += fmt::format("{}_bucket{{{},le=\"+Inf\"}} {}\n", name, labels, count);
  out += fmt::format("{}_count{{{}}} {}\n", name, labels, count);
  out += fmt::format("{}_sum{{{}}} {}\n", name, labels, static_cast<double>(h.sum_ns) / 1e9);
}

void add_latencies(std::string& out, const char* name, const std::string& labels,
                   const Latencies& latencies) {
  for (const LatencyKind kind :
       {LatencyKind::read, LatencyKind::write, LatencyKind::flush, LatencyKind::other}) {
    if (latencies[kind].count() == 0) continue;
    add_histogram(out, name, labels + "," + label("kind", host::name_of(kind)), latencies[kind]);
  }
}

void add_gauges(std::string& out, std::span<const ConnectionStatistics> all) {
  family(out, "nvmf_connection_info", "gauge", nullptr,
         "Where a connection leads to; the value says nothing.");
  for (const ConnectionStatistics& s : all) {
    out += fmt::format("nvmf_connection_info{{{},{},{}}} 1\n", connection_label(s),
                       label("address", s.address), label("subnqn", s.subnqn));
  }
  family(out, "nvmf_connection_live", "gauge", nullptr, "1 while there is an association, or 0.");
  for (const ConnectionStatistics& s : all) {
    out += fmt::format("nvmf_connection_live{{{}}} {}\n", connection_label(s),
                       s.state == host::ConnectionState::live ? 1 : 0);
  }
  family(out, "nvmf_connection_age_seconds", "gauge", "seconds",
         "Since when everything is counted.");
  for (const ConnectionStatistics& s : all) {
    out += fmt::format("nvmf_connection_age_seconds{{{}}} {:.3f}\n", connection_label(s),
                       std::chrono::duration<double>(s.age).count());
  }
  family(out, "nvmf_queue_live", "gauge", nullptr,
         "1 while a queue of this number is there, or 0.");
  for (const ConnectionStatistics& s : all) {
    for (const QueueStatistics& q : s.queues) {
      out += fmt::format("nvmf_queue_live{{{}}} {}\n", queue_labels(s, q), q.live ? 1 : 0);
    }
  }
}

}  // namespace

std::string stats_openmetrics(std::span<const ConnectionStatistics> all) {
  std::string out;
  add_gauges(out, all);
  for (const ConnectionCounter& c : kConnectionCounters) {
    family(out, c.name, "counter", c.unit, c.help);
    for (const ConnectionStatistics& s : all) {
      out += fmt::format("{}_total{{{}}} {}\n", c.name, connection_label(s), c.value(s));
    }
  }
  for (const QueueCounter& c : kQueueCounters) {
    family(out, c.name, "counter", c.unit, c.help);
    for (const ConnectionStatistics& s : all) {
      for (const QueueStatistics& q : s.queues) {
        out += fmt::format("{}_total{{{}}} {}\n", c.name, queue_labels(s, q), q.*c.value);
      }
    }
  }
  constexpr const char* kRequests = "nvmf_request_latency_seconds";
  family(out, kRequests, "histogram", "seconds",
         "How long requests of local clients took, with all that they waited for.");
  for (const ConnectionStatistics& s : all) {
    add_latencies(out, kRequests, connection_label(s), s.requests.latencies);
  }
  constexpr const char* kCommands = "nvmf_command_latency_seconds";
  family(out, kCommands, "histogram", "seconds",
         "How long answered commands took, from being sent to their response.");
  for (const ConnectionStatistics& s : all) {
    for (const QueueStatistics& q : s.queues) {
      add_latencies(out, kCommands, queue_labels(s, q), q.latencies);
    }
  }
  return out + "# EOF\n";
}

}  // namespace nvmf::tools
