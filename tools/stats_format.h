// What a connection has done, on its way from its process to whoever asked: as JSON over the
// control socket, and then for people, for programs and for Prometheus.
//
// Verb "stats" of the control socket: no arguments; answers with what statistics_to_json() gives.
// The renderings are made by the reader, from values that parse_statistics() has checked. Each
// takes any number of connections and ends with a newline.
#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

#include "host/statistics.h"
#include "nvme/result.h"

namespace nvmf::tools {

/// An answer's most, so that it fits in a line of the control socket with what is around it. When
/// every queue of a large connection has seen every latency, those of single queues are left out.
inline constexpr std::size_t kStatisticsBytesMax = 960u * 1024;

nlohmann::json statistics_to_json(const host::ConnectionStatistics& statistics);
/// What another process sent: unknown members are ignored, missing numbers are 0, text is made fit
/// to be shown. EPROTO for what can be no statistics.
Result<host::ConnectionStatistics> parse_statistics(const nlohmann::json& object);

/// A block for each connection: what happened to it, its queues, latencies with percentiles.
std::string stats_text(std::span<const host::ConnectionStatistics> all);
/// {"connections":[...]}, indented; latencies as count, mean and percentiles in microseconds.
std::string stats_json(std::span<const host::ConnectionStatistics> all);
/// OpenMetrics text 1.0, each family once, "# EOF" at the end. Only counters, gauges and histograms
/// without timestamps: node_exporter's textfile collector, which knows the older format, takes it.
std::string stats_openmetrics(std::span<const host::ConnectionStatistics> all);

/// "850 ns", "12.3 µs", "4.56 ms", "1.20 s", "75 s".
std::string show_latency(double ns);

}  // namespace nvmf::tools
