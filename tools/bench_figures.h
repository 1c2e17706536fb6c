// What a benchmark is asked to do, and what it found: the values of nvmf-bench, to text and JSON.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "transport/timer.h"

namespace nvmf::tools {

/// Latencies in buckets of 1/32 of their size: 3 % wide, a fixed amount of memory. Not thread-safe:
/// one per reactor, added up at the end.
class LatencyHistogram {
 public:
  void record(Duration latency);
  void add(const LatencyHistogram& other);
  [[nodiscard]] std::uint64_t count() const { return count_; }
  /// The latency that `percent` of all did not exceed, as its bucket's upper edge.
  [[nodiscard]] Duration percentile(double percent) const;

 private:
  static constexpr unsigned kSubBits = 5;
  static std::size_t bucket_of(std::uint64_t ns);
  static std::uint64_t upper_edge_ns(std::size_t bucket);

  std::array<std::uint64_t, (64 - kSubBits + 1) << kSubBits> buckets_{};
  std::uint64_t count_ = 0;
};

enum class Pattern : std::uint8_t { read, write, randread, randwrite, randrw };

struct Workload {
  Pattern pattern = Pattern::randread;
  std::uint32_t block_bytes = 4096;
  std::uint32_t depth = 1;   // requests under way, on each queue
  std::uint32_t queues = 1;  // connections; the floor has one
  Duration time{std::chrono::seconds(5)};
  bool header_digest = false;
  bool data_digest = false;
  bool disable_sqflow = false;

  [[nodiscard]] bool random() const {
    return pattern != Pattern::read && pattern != Pattern::write;
  }
};

std::optional<Pattern> parse_pattern(const std::string& name);
const char* pattern_name(Pattern pattern);

struct Figures {
  std::string kind;    // "floor", "io"
  std::string detail;  // "epoll, spinning", "64 KiB buffers"
  Workload workload;
  std::uint32_t queues = 1;  // that there really were
  std::uint64_t commands = 0;
  std::uint64_t bytes = 0;  // of data
  double seconds = 0;
  double cpu_seconds = 0;                  // of this process, user and system
  std::optional<double> peer_cpu_seconds;  // of the other end, if it is a child of ours
  LatencyHistogram latency;
};

/// A few lines for people.
std::string to_text(const Figures& figures);
/// One line of JSON. Keys carry their units.
std::string to_json(const Figures& figures);

/// User and system time of this process so far, all its threads.
double process_cpu_seconds();
/// Waits until the child has ended. Its user and system time; `status` as waitpid() gives it.
double wait_for_child(int pid, int* status = nullptr);

}  // namespace nvmf::tools
