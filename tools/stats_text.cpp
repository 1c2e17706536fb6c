// Statistics for people.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "stats_format.h"
#include "tool_timers.h"

namespace nvmf::tools {

using host::ConnectionStatistics;
using host::Latencies;
using host::LatencyHistogram;
using host::LatencyKind;
using host::QueueStatistics;

namespace {

using Row = std::vector<std::string>;

std::string show_bytes(std::uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1000 && unit + 1 < std::size(kUnits)) {
    value /= 1000;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.2f} {}", value, kUnits[unit]);
}

std::string per_second(double n, Duration age) {
  const double seconds = std::chrono::duration<double>(age).count();
  return seconds > 0 ? fmt::format("{:.1f}", n / seconds) : "-";
}

/// Columns as far as what they show, as a terminal counts: µ is one character.
std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

/// The first `left` columns are words, the others numbers.
std::string table(const std::vector<Row>& rows, std::size_t left) {
  std::vector<std::size_t> widths(rows.front().size());
  for (const Row& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  }
  std::string out;
  for (const Row& row : rows) {
    std::string line = " ";
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string space(widths[i] - width_of(row[i]), ' ');
      line += i < left ? " " + row[i] + space : "  " + space + row[i];
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string name_of(const QueueStatistics& queue) {
  const std::string name = queue.qid == 0 ? "admin" : std::to_string(queue.qid);
  return queue.live ? name : name + " (gone)";
}

std::string queue_table(const ConnectionStatistics& s) {
  std::vector<Row> rows = {{"Queue", "Reactor", "Commands", "per s", "Read", "Written", "MB/s",
                            "Errors", "Retries", "Timeouts"}};
  for (const QueueStatistics& q : s.queues) {
    const double megabytes =
        (static_cast<double>(q.read_bytes) + static_cast<double>(q.written_bytes)) / 1e6;
    rows.push_back({name_of(q), std::to_string(q.reactor), std::to_string(q.commands),
                    per_second(static_cast<double>(q.commands), s.age), show_bytes(q.read_bytes),
                    show_bytes(q.written_bytes), per_second(megabytes, s.age),
                    std::to_string(q.errors), std::to_string(q.retries),
                    std::to_string(q.timeouts)});
  }
  return table(rows, 1);
}

void add_latencies(std::vector<Row>& rows, const std::string& whose, const Latencies& latencies) {
  for (const LatencyKind kind :
       {LatencyKind::read, LatencyKind::write, LatencyKind::flush, LatencyKind::other}) {
    const LatencyHistogram& h = latencies[kind];
    const std::uint64_t count = h.count();
    if (count == 0) continue;
    Row row = {whose, host::name_of(kind), std::to_string(count), show_latency(h.mean_ns())};
    for (const double q : {0.5, 0.9, 0.99, 0.999, 0.9999}) {
      row.push_back(show_latency(static_cast<double>(h.quantile_ns(q))));
    }
    row.push_back(show_latency(static_cast<double>(h.max_ns)));
    rows.push_back(std::move(row));
  }
}

std::string latency_table(const ConnectionStatistics& s) {
  std::vector<Row> rows = {
      {"Latency of", "", "Count", "Mean", "p50", "p90", "p99", "p99.9", "p99.99", "Max"}};
  add_latencies(rows, "requests", s.requests.latencies);
  for (const QueueStatistics& q : s.queues) {
    add_latencies(rows, q.qid == 0 ? "admin queue" : fmt::format("queue {}", q.qid), q.latencies);
  }
  return rows.size() == 1 ? std::string() : table(rows, 2);
}

std::string block(const ConnectionStatistics& s) {
  std::string out =
      fmt::format("{}  {}  {}  {}\n", s.name, host::name_of(s.state), s.address, s.subnqn);
  out += fmt::format(
      "  since {}: losses {}, reconnects {}, failed attempts {}, aborts {}, keep-alives {}, "
      "events {}, passed through {}\n",
      show_duration(s.age), s.losses, s.reconnects, s.failed_attempts, s.aborts, s.keep_alives,
      s.async_events, s.passthrough_commands);
  out +=
      fmt::format("  requests: {} read, {} written, {} failed\n", show_bytes(s.requests.read_bytes),
                  show_bytes(s.requests.written_bytes), s.requests.errors);
  if (!s.queues.empty()) out += "\n" + queue_table(s);
  const std::string latencies = latency_table(s);
  return latencies.empty() ? out : out + "\n" + latencies;
}

}  // namespace

std::string show_latency(double ns) {
  struct Unit {
    double ns;
    const char* name;
  };
  static constexpr Unit kUnits[] = {{1e9, "s"}, {1e6, "ms"}, {1e3, "µs"}};
  for (const Unit& unit : kUnits) {
    if (ns < unit.ns) continue;
    const double value = ns / unit.ns;
    const int digits = value < 10 ? 2 : value < 100 ? 1 : 0;
    return fmt::format("{:.{}f} {}", value, digits, unit.name);
  }
  return fmt::format("{:.0f} ns", ns);
}

std::string stats_text(std::span<const ConnectionStatistics> all) {
  std::string out;
  for (const ConnectionStatistics& s : all) out += (out.empty() ? "" : "\n") + block(s);
  return out.empty() ? "no connections\n" : out;
}

}  // namespace nvmf::tools
