#include "bench_figures.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <utility>

namespace nvmf::tools {
namespace {

constexpr std::array<std::pair<Pattern, const char*>, 5> kPatterns{{
    {Pattern::read, "read"},
    {Pattern::write, "write"},
    {Pattern::randread, "randread"},
    {Pattern::randwrite, "randwrite"},
    {Pattern::randrw, "randrw"},
}};

double us(Duration d) {
  return std::chrono::duration<double, std::micro>(d).count();
}

double per_command_us(double cpu_seconds, std::uint64_t commands) {
  return commands == 0 ? 0 : cpu_seconds * 1e6 / static_cast<double>(commands);
}

double cpu_seconds(const rusage& usage) {
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double per_second(std::uint64_t n, double seconds) {
  return seconds > 0 ? static_cast<double>(n) / seconds : 0;
}

}  // namespace

std::size_t LatencyHistogram::bucket_of(std::uint64_t ns) {
  const auto width = static_cast<unsigned>(std::bit_width(ns));
  if (width <= kSubBits + 1) return ns;
  const unsigned shift = width - kSubBits - 1;
  // The leading bit counts as one step of the exponent.
  return (std::size_t{shift} << kSubBits) + (ns >> shift);
}

std::uint64_t LatencyHistogram::upper_edge_ns(std::size_t bucket) {
  const std::size_t exponent = bucket >> kSubBits;
  if (exponent <= 1) return bucket;
  const std::uint64_t mantissa = (bucket & ((1u << kSubBits) - 1)) | (1u << kSubBits);
  return ((mantissa + 1) << (exponent - 1)) - 1;
}

void LatencyHistogram::record(Duration latency) {
  const auto ns = static_cast<std::uint64_t>(std::max<std::int64_t>(latency.count(), 0));
  ++buckets_[bucket_of(ns)];
  ++count_;
}

void LatencyHistogram::add(const LatencyHistogram& other) {
  for (std::size_t i = 0; i < buckets_.size(); ++i) buckets_[i] += other.buckets_[i];
  count_ += other.count_;
}

Duration LatencyHistogram::percentile(double percent) const {
  const double rank = percent / 100 * static_cast<double>(count_);
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < buckets_.size(); ++i) {
    seen += buckets_[i];
    if (seen != 0 && static_cast<double>(seen) >= rank) {
      return Duration(static_cast<std::int64_t>(upper_edge_ns(i)));
    }
  }
  return {};
}

std::optional<Pattern> parse_pattern(const std::string& name) {
  for (const auto& [pattern, text] : kPatterns) {
    if (name == text) return pattern;
  }
  return std::nullopt;
}

const char* pattern_name(Pattern pattern) {
  return std::ranges::find(kPatterns, pattern, &std::pair<Pattern, const char*>::first)->second;
}

std::string to_text(const Figures& f) {
  const Workload& w = f.workload;
  std::string cpu = fmt::format("{:.2f}", per_command_us(f.cpu_seconds, f.commands));
  if (f.peer_cpu_seconds) {
    cpu += fmt::format(" here + {:.2f} there", per_command_us(*f.peer_cpu_seconds, f.commands));
  }
  const auto& l = f.latency;
  return fmt::format(
      "{} ({}): {} of {} bytes, depth {}, {} queue{}, {:.1f} s\n"
      "  {:.0f} commands/s, {:.1f} MiB/s\n"
      "  CPU per command, in us: {}\n"
      "  latency in us: p50 {:.1f}, p90 {:.1f}, p99 {:.1f}, p99.9 {:.1f}, p99.99 {:.1f}\n",
      f.kind, f.detail, pattern_name(w.pattern), w.block_bytes, w.depth, f.queues,
      f.queues == 1 ? "" : "s", f.seconds, per_second(f.commands, f.seconds),
      per_second(f.bytes, f.seconds) / (1 << 20), cpu, us(l.percentile(50)), us(l.percentile(90)),
      us(l.percentile(99)), us(l.percentile(99.9)), us(l.percentile(99.99)));
}

std::string to_json(const Figures& f) {
  const Workload& w = f.workload;
  nlohmann::ordered_json out;
  out["kind"] = f.kind;
  out["detail"] = f.detail;
  out["pattern"] = pattern_name(w.pattern);
  out["block_bytes"] = w.block_bytes;
  out["depth"] = w.depth;
  out["queues"] = f.queues;
  out["header_digest"] = w.header_digest;
  out["data_digest"] = w.data_digest;
  out["disable_sqflow"] = w.disable_sqflow;
  out["seconds"] = f.seconds;
  out["commands"] = f.commands;
  out["commands_per_second"] = per_second(f.commands, f.seconds);
  out["bytes_per_second"] = per_second(f.bytes, f.seconds);
  out["cpu_per_command_us"] = per_command_us(f.cpu_seconds, f.commands);
  if (f.peer_cpu_seconds) {
    out["peer_cpu_per_command_us"] = per_command_us(*f.peer_cpu_seconds, f.commands);
  }
  for (const double p : {50.0, 90.0, 99.0, 99.9, 99.99}) {
    out["latency_us"][fmt::format("p{:g}", p)] = us(f.latency.percentile(p));
  }
  return out.dump();
}

double process_cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return cpu_seconds(usage);
}

double wait_for_child(int pid, int* status) {
  rusage usage{};
  while (::wait4(pid, status, 0, &usage) < 0 && errno == EINTR) {
  }
  return cpu_seconds(usage);
}

}  // namespace nvmf::tools
