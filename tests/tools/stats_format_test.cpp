// Statistics over the control socket and in their three forms. What Prometheus gets is read by a
// strict little parser of OpenMetrics here, and by Prometheus' own in openmetrics_test.py.
#include "stats_format.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <sstream>

#include "control/protocol.h"
#include "host/params.h"

namespace nvmf::tools {
namespace {

using host::ConnectionStatistics;
using host::LatencyKind;
using host::QueueStatistics;
using nlohmann::json;
using testing::HasSubstr;

void count(host::Latencies& latencies, LatencyKind kind, std::uint64_t ns, std::uint64_t times) {
  host::LatencyHistogram& h = latencies.kinds[static_cast<std::size_t>(kind)];
  h.buckets[host::latency_bucket(ns)] += times;
  h.sum_ns += ns * times;
  h.max_ns = std::max(h.max_ns, ns);
}

ConnectionStatistics example(std::string name = "nvmf0") {
  ConnectionStatistics s;
  s.name = std::move(name);
  s.subnqn = "nqn.2024-05.org.example:disk";
  s.address = "192.0.2.7:4420";
  s.state = host::ConnectionState::live;
  s.age = std::chrono::seconds(100);
  s.losses = 2;
  s.reconnects = 1;
  s.failed_attempts = 7;
  s.aborts = 3;
  s.keep_alives = 40;
  s.async_events = 5;
  s.passthrough_commands = 6;
  s.requests = {.read_bytes = 4096, .written_bytes = 8192, .errors = 1};
  count(s.requests.latencies, LatencyKind::read, 20'000, 1);
  for (std::uint16_t qid = 0; qid < 3; ++qid) {
    QueueStatistics& q = s.queues.emplace_back();
    q.qid = qid;
    q.reactor = qid == 2 ? 1 : 0;
    q.live = qid != 2;
    q.commands = 1000u * (qid + 1u);
    q.read_bytes = 5'000'000;
    q.written_bytes = 12;
    q.errors = 4;
    q.retries = 3;
    q.timeouts = 2;
  }
  count(s.queues[0].latencies, LatencyKind::other, 150'000, 10);
  count(s.queues[1].latencies, LatencyKind::read, 80'000, 990);
  count(s.queues[1].latencies, LatencyKind::read, 3'000'000, 10);
  count(s.queues[1].latencies, LatencyKind::write, 200'000'000'000, 1);
  return s;
}

TEST(StatsWire, NothingIsLostOnTheWay) {
  const ConnectionStatistics s = example();
  const json sent = json::parse(statistics_to_json(s).dump());
  const auto read = parse_statistics(sent);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(statistics_to_json(*read), statistics_to_json(s));
  EXPECT_EQ(read->age, s.age);
  EXPECT_EQ(read->state, s.state);
  EXPECT_EQ(read->queues[1].latencies[LatencyKind::read], s.queues[1].latencies[LatencyKind::read]);
  EXPECT_EQ(read->requests.latencies[LatencyKind::read], s.requests.latencies[LatencyKind::read]);
}

TEST(StatsWire, TheLargestFitsInALine) {
  ConnectionStatistics s = example();
  s.queues.resize(host::kIoQueuesMax + 1);
  for (std::size_t i = 0; i < s.queues.size(); ++i) {
    s.queues[i].qid = static_cast<std::uint16_t>(i);
    s.queues[i].commands = ~std::uint64_t{0};
    for (auto& kind : s.queues[i].latencies.kinds) kind.buckets.fill(std::uint64_t{1} << 40);
  }
  for (auto& kind : s.requests.latencies.kinds) kind.buckets.fill(std::uint64_t{1} << 40);
  const json sent = statistics_to_json(s);
  EXPECT_LT(control::success_line(sent).size(), control::kLineBytesMax);
  const auto read = parse_statistics(sent);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->queues.size(), s.queues.size());
  EXPECT_EQ(read->requests.latencies[LatencyKind::read].count(), host::kLatencyBuckets << 40);
}

TEST(StatsWire, WhatCanBeNoStatisticsIsRefused) {
  const json good = statistics_to_json(example());
  const auto with = [&](auto change) {
    json bad = good;
    change(bad);
    return parse_statistics(bad);
  };
  EXPECT_FALSE(parse_statistics(json::array()));
  EXPECT_FALSE(parse_statistics(json::object())) << "no scale";
  EXPECT_FALSE(with([](json& j) { j["scale"] = "other"; }));
  EXPECT_FALSE(with([](json& j) { j["queues"] = 3; }));
  EXPECT_FALSE(with([](json& j) { j["queues"][0] = 3; }));
  EXPECT_FALSE(with([](json& j) { j["queues"][0]["qid"] = 70000u; }));
  EXPECT_FALSE(with([](json& j) { j["queues"][1]["qid"] = 0; })) << "twice";
  EXPECT_FALSE(with([](json& j) { j["requests"] = json::array(); }));
  const auto buckets = [&](const json& value) {
    return with([&](json& j) { j["queues"][1]["latency"]["read"]["buckets"] = value; });
  };
  EXPECT_FALSE(buckets({1, 2, 3}));
  EXPECT_FALSE(buckets({1, -2}));
  EXPECT_FALSE(buckets({1, 2.5}));
  EXPECT_FALSE(buckets({host::kLatencyBuckets, 1}));
  EXPECT_FALSE(buckets({0, ~std::uint64_t{0}, 1, 1})) << "more than can be counted";
  EXPECT_FALSE(buckets("x"));
  EXPECT_TRUE(buckets(json::array()));
  // Another release may leave things out, and know others.
  const auto little = parse_statistics({{"scale", good["scale"]}, {"new", 1}, {"losses", "many"}});
  ASSERT_TRUE(little);
  EXPECT_EQ(little->losses, 0u);
}

TEST(StatsWire, AnyChangedDocumentIsReadOrRefused) {
  const std::string good = statistics_to_json(example()).dump();
  std::mt19937 random(3);
  int read = 0;
  for (int i = 0; i < 2000; ++i) {
    std::string text = good;
    for (int n = 0; n < 3; ++n)
      text[random() % text.size()] = "0123456789-{}[]\",:ex"[random() % 20];
    const json document = json::parse(text, nullptr, false);
    if (document.is_discarded()) continue;
    const auto parsed = parse_statistics(document);
    if (!parsed) continue;
    ++read;
    EXPECT_FALSE(stats_text({&*parsed, 1}).empty());
    EXPECT_FALSE(stats_openmetrics({&*parsed, 1}).empty());
    EXPECT_FALSE(stats_json({&*parsed, 1}).empty());
  }
  EXPECT_GT(read, 100);
}

TEST(StatsText, ShowsQueuesAsRowsAndPercentilesInReadableUnits) {
  const ConnectionStatistics all[] = {example(), example("nvmf1")};
  const std::string text = stats_text(all);
  EXPECT_THAT(text, testing::StartsWith(
                        "nvmf0  live  192.0.2.7:4420  nqn.2024-05.org.example:disk\n"
                        "  since 1 min 40 s: losses 2, reconnects 1, failed attempts 7, aborts 3, "
                        "keep-alives 40, events 5, passed through 6\n"
                        "  requests: 4.10 kB read, 8.19 kB written, 1 failed\n"
                        "\n"
                        "  Queue     Reactor  Commands  per s     Read  Written  MB/s  Errors  "
                        "Retries  Timeouts\n"
                        "  admin           0      1000   10.0  5.00 MB     12 B   0.1       4  "
                        "      3         2\n"));
  EXPECT_THAT(text, HasSubstr("\n  2 (gone)        1      3000   30.0"));
  EXPECT_THAT(text, HasSubstr("\n\nnvmf1  live"));
  EXPECT_THAT(text, testing::ContainsRegex(
                        "queue 1 +read +1000 +109 µs +79.9 µs +79.9 µs +79.9 µs +2.95 ms"));
  EXPECT_THAT(text, testing::ContainsRegex("queue 1 +write +1 +200 s"));
  EXPECT_EQ(stats_text({}), "no connections\n");
}

TEST(StatsText, Latencies) {
  EXPECT_EQ(show_latency(0), "0 ns");
  EXPECT_EQ(show_latency(850), "850 ns");
  EXPECT_EQ(show_latency(1'234), "1.23 µs");
  EXPECT_EQ(show_latency(45'678), "45.7 µs");
  EXPECT_EQ(show_latency(999'000), "999 µs");
  EXPECT_EQ(show_latency(1'200'000'000), "1.20 s");
}

TEST(StatsJson, HasPercentilesInMicroseconds) {
  const ConnectionStatistics s = example();
  const json document = json::parse(stats_json({&s, 1}));
  const json& one = document["connections"][0];
  EXPECT_EQ(one["state"], "live");
  EXPECT_EQ(one["age_ms"], 100'000);
  EXPECT_EQ(one["queues"].size(), 3u);
  const json& read = one["queues"][1]["latency"]["read"];
  EXPECT_EQ(read["count"], 1000);
  EXPECT_NEAR(read["p50_us"].get<double>(), 80, 80 / 31.0);
  EXPECT_NEAR(read["p99_9_us"].get<double>(), 3000, 3000 / 31.0);
  EXPECT_EQ(read["max_us"], 3000.0);
  EXPECT_FALSE(one["queues"][2]["latency"].contains("read"));
  EXPECT_EQ(json::parse(stats_json({}))["connections"], json::array());
}

/// What OpenMetrics 1.0 asks for, as far as it concerns what we have: counters, gauges, histograms.
class OpenMetricsReader {
 public:
  using Labels = std::map<std::string, std::string>;
  std::map<std::pair<std::string, Labels>, double> samples;
  std::map<std::string, std::string> types;

  /// Empty, or what is wrong.
  std::string read(const std::string& text) {
    if (!text.ends_with("# EOF\n")) return "no EOF at the end";
    std::istringstream lines(text);
    std::string line;
    while (std::getline(lines, line)) {
      if (eof_) return "something behind EOF";
      const std::string wrong = line.starts_with("# ") ? meta(line.substr(2)) : sample(line);
      if (!wrong.empty()) return wrong + ": " + line;
    }
    return histograms();
  }

 private:
  std::string meta(const std::string& line) {
    if (line == "EOF") {
      eof_ = true;
      return {};
    }
    std::istringstream words(line);
    std::string what, name, value;
    words >> what >> name;
    std::getline(words, value);
    if (value.size() < 2 || value[0] != ' ') return "no value";
    value.erase(0, 1);
    if (what == "TYPE") {
      if (!types.emplace(name, value).second) return "a family twice";
      family_ = name;
      if (value != "counter" && value != "gauge" && value != "histogram") return "no such type";
      if (name.ends_with("_total")) return "a reserved suffix";
      return {};
    }
    if (name != family_) return "a family's words are not together";
    if (what == "UNIT") return name.ends_with("_" + value) ? "" : "the unit is not in the name";
    return what == "HELP" ? "" : "neither TYPE nor UNIT nor HELP";
  }

  std::string sample(const std::string& line) {
    const std::size_t brace = line.find('{');
    if (brace == std::string::npos) return "no labels";
    const std::string name = line.substr(0, brace);
    if (!std::ranges::all_of(name, [](char c) { return std::isalnum(c) != 0 || c == '_'; })) {
      return "a bad name";
    }
    const std::string& type = types[family_];
    const std::string suffix = name.starts_with(family_) ? name.substr(family_.size()) : "?";
    const std::set<std::string> allowed = type == "counter" ? std::set<std::string>{"_total"}
                                          : type == "histogram"
                                              ? std::set<std::string>{"_bucket", "_count", "_sum"}
                                              : std::set<std::string>{""};
    if (!allowed.contains(suffix)) return "a sample of another family";
    Labels labels;
    std::size_t at = brace + 1;
    for (;;) {
      const std::size_t equals = line.find("=\"", at);
      if (equals == std::string::npos) return "no label";
      const std::string key = line.substr(at, equals - at);
      std::string value;
      for (at = equals + 2; at < line.size() && line[at] != '"'; ++at) {
        if (line[at] != '\\') {
          value += line[at];
          continue;
        }
        const char next = line[++at];
        if (next != 'n' && next != '\\' && next != '"') return "a bad escape";
        value += next == 'n' ? '\n' : next;
      }
      if (!labels.emplace(key, value).second) return "a label twice";
      if (at + 1 >= line.size()) return "no end of labels";
      ++at;
      if (line[at] == '}') break;
      if (line[at++] != ',') return "no comma";
    }
    double value = 0;
    const char* begin = line.data() + at + 2;
    const char* end = line.data() + line.size();
    if (at + 2 >= line.size() || line[at + 1] != ' ') return "no value";
    if (const auto [p, error] = std::from_chars(begin, end, value);
        error != std::errc() || p != end) {
      return "a bad value";
    }
    if (!samples.emplace(std::pair(name, labels), value).second) return "a sample twice";
    return {};
  }

  std::string histograms() {
    std::map<std::pair<std::string, Labels>, std::map<double, double>> all;
    for (const auto& [key, value] : samples) {
      auto [name, labels] = key;
      if (!name.ends_with("_bucket")) continue;
      const std::string le = labels["le"];
      labels.erase("le");
      all[{name.substr(0, name.size() - 7), labels}][le == "+Inf" ? HUGE_VAL : std::stod(le)] =
          value;
    }
    for (const auto& [key, buckets] : all) {
      double before = 0;
      for (const auto& [le, value] : buckets) {
        if (value < before) return "buckets do not add up";
        before = value;
      }
      if (!buckets.contains(HUGE_VAL)) return "no bucket +Inf";
      const auto count = samples.find({key.first + "_count", key.second});
      if (count == samples.end() || count->second != before) return "count is not that of +Inf";
      if (!samples.contains({key.first + "_sum", key.second})) return "no sum";
    }
    return {};
  }

  std::string family_;
  bool eof_ = false;
};

TEST(StatsOpenMetrics, IsWhatTheStandardAsksFor) {
  const ConnectionStatistics all[] = {example(), example("nvmf1")};
  const std::string text = stats_openmetrics(all);
  OpenMetricsReader reader;
  ASSERT_EQ(reader.read(text), "");
  using Labels = OpenMetricsReader::Labels;
  EXPECT_EQ((reader.samples.at({"nvmf_connection_losses_total", Labels{{"connection", "nvmf1"}}})),
            2);
  EXPECT_EQ((reader.samples.at(
                {"nvmf_queue_read_bytes_total", Labels{{"connection", "nvmf0"}, {"queue", "2"}}})),
            5'000'000);
  EXPECT_EQ(
      (reader.samples.at({"nvmf_queue_live", Labels{{"connection", "nvmf0"}, {"queue", "2"}}})), 0);
  const Labels read{{"connection", "nvmf0"}, {"queue", "1"}, {"kind", "read"}};
  Labels below = read;
  below["le"] = "0.000131072";
  EXPECT_EQ(reader.samples.at({"nvmf_command_latency_seconds_count", read}), 1000);
  EXPECT_NEAR(reader.samples.at({"nvmf_command_latency_seconds_sum", read}), 0.1092, 1e-9);
  EXPECT_EQ(reader.samples.at({"nvmf_command_latency_seconds_bucket", below}), 990);
  // For openmetrics_test.py.
  if (const char* path = std::getenv("NVMF_STATS_EXAMPLE")) std::ofstream(path) << text;
}

TEST(StatsOpenMetrics, LabelsAreEscaped) {
  ConnectionStatistics s = example("a\"b\\c\nd");
  OpenMetricsReader reader;
  ASSERT_EQ(reader.read(stats_openmetrics({&s, 1})), "");
  EXPECT_TRUE(reader.samples.contains(
      {"nvmf_connection_losses_total", OpenMetricsReader::Labels{{"connection", s.name}}}));
}

TEST(StatsOpenMetrics, WithoutConnections) {
  OpenMetricsReader reader;
  EXPECT_EQ(reader.read(stats_openmetrics({})), "");
  EXPECT_TRUE(reader.samples.empty());
}

}  // namespace
}  // namespace nvmf::tools
