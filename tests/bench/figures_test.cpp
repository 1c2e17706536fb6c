#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "bench_figures.h"

namespace nvmf::tools {
namespace {

using namespace std::chrono_literals;

TEST(LatencyHistogram, IsEmptyAtFirst) {
  const LatencyHistogram h;
  EXPECT_EQ(h.count(), 0u);
  EXPECT_EQ(h.percentile(99), Duration(0));
}

TEST(LatencyHistogram, KeepsEveryLatencyWithinAThirtiethOfItself) {
  for (std::int64_t ns = 1; ns > 0 && ns < (std::int64_t{1} << 62); ns = ns * 5 / 3 + 1) {
    LatencyHistogram h;
    h.record(Duration(ns));
    const auto found = static_cast<double>(h.percentile(100).count());
    EXPECT_GE(found, static_cast<double>(ns));
    EXPECT_LE(found, static_cast<double>(ns) * (1 + 1.0 / 30)) << ns;
  }
}

TEST(LatencyHistogram, CountsWhatHasNoPlace) {
  LatencyHistogram h;
  h.record(Duration(-5));
  h.record(Duration::max());
  EXPECT_EQ(h.count(), 2u);
  EXPECT_EQ(h.percentile(50), Duration(0));
  EXPECT_GT(h.percentile(100), 24h * 365);
}

TEST(LatencyHistogram, GivesPercentilesOfTheSum) {
  LatencyHistogram a;
  LatencyHistogram b;
  for (int i = 1; i <= 50; ++i) a.record(i * 1us);
  for (int i = 51; i <= 100; ++i) b.record(i * 1us);
  a.add(b);
  EXPECT_EQ(a.count(), 100u);
  for (const double p : {10.0, 50.0, 90.0, 99.0}) {
    EXPECT_NEAR(static_cast<double>(a.percentile(p).count()), p * 1000, p * 1000 / 30) << p;
  }
}

TEST(Workload, NamesItsPatterns) {
  for (const char* name : {"read", "write", "randread", "randwrite", "randrw"}) {
    const auto pattern = parse_pattern(name);
    ASSERT_TRUE(pattern);
    EXPECT_STREQ(pattern_name(*pattern), name);
  }
  EXPECT_FALSE(parse_pattern("trim"));
}

TEST(FiguresText, SaysWhatOneCommandCosts) {
  Figures f;
  f.kind = "io";
  f.detail = "epoll";
  f.workload.depth = 4;
  f.commands = 1000;
  f.bytes = 4096000;
  f.seconds = 2;
  f.cpu_seconds = 0.003;
  f.peer_cpu_seconds = 0.005;
  f.latency.record(10us);
  const std::string text = to_text(f);
  EXPECT_NE(text.find("500 commands/s"), std::string::npos) << text;
  EXPECT_NE(text.find("3.00 here + 5.00 there"), std::string::npos) << text;
  const auto json = nlohmann::json::parse(to_json(f));
  EXPECT_EQ(json["commands_per_second"], 500.0);
  EXPECT_EQ(json["cpu_per_command_us"], 3.0);
  EXPECT_EQ(json["peer_cpu_per_command_us"], 5.0);
  EXPECT_NEAR(json["latency_us"]["p99.99"].get<double>(), 10, 0.4);
}

TEST(FiguresText, HasNoNumberWhereNothingWasMeasured) {
  const auto json = nlohmann::json::parse(to_json(Figures{}));
  EXPECT_EQ(json["commands_per_second"], 0.0);
  EXPECT_EQ(json["cpu_per_command_us"], 0.0);
  EXPECT_FALSE(json.contains("peer_cpu_per_command_us"));
}

}  // namespace
}  // namespace nvmf::tools
