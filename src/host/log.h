// What the host has to say while it works, one sentence at a time, to whoever listens.
//
// One sink for the process: a program sets it to its logger before it starts; without one nothing
// is written. Any thread may log; the sink must bear that.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "transport/timer.h"

namespace nvmf::host {

enum class LogLevel : std::uint8_t { debug, info, warning, error };

/// `sentence` is valid during the call only.
using LogSink = void (*)(LogLevel level, std::string_view sentence);

/// Replaces the sink; nullptr is silence. From any thread.
void set_log_sink(LogSink sink);
void log(LogLevel level, std::string_view sentence);

/// Lets `burst` sentences through in each `period` and counts the rest, so that a disk that fails
/// every command doesn't fill a log. One thread.
class LogLimiter {
 public:
  explicit LogLimiter(unsigned burst = 10, Duration period = std::chrono::seconds(10))
      : burst_(burst), period_(period) {}

  /// Whether the caller may log now. `suppressed` gets the number that were not since the last one
  /// that was.
  bool admit(Instant now, std::uint64_t& suppressed);

 private:
  unsigned burst_;
  Duration period_;
  Instant start_{};
  unsigned used_ = 0;
  std::uint64_t suppressed_ = 0;
};

}  // namespace nvmf::host
