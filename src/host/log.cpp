#include "host/log.h"

#include <atomic>
#include <utility>

namespace nvmf::host {

namespace {
std::atomic<LogSink> g_sink{nullptr};
}

void set_log_sink(LogSink sink) {
  g_sink.store(sink, std::memory_order_release);
}

void log(LogLevel level, std::string_view sentence) {
  if (const LogSink sink = g_sink.load(std::memory_order_acquire)) sink(level, sentence);
}

bool LogLimiter::admit(Instant now, std::uint64_t& suppressed) {
  if (start_ == Instant{} || now - start_ >= period_) {
    start_ = now;
    used_ = 0;
  }
  if (used_ >= burst_) {
    ++suppressed_;
    return false;
  }
  ++used_;
  suppressed = std::exchange(suppressed_, 0);
  return true;
}

}  // namespace nvmf::host
