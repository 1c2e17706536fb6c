#include "tool_log.h"

#include <fmt/format.h>
#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
#include <memory>

#include "host/log.h"

namespace nvmf::tools {

namespace {

constexpr std::size_t kLogBytesMax = 1024 * 1024;
constexpr std::size_t kOldLogs = 1;

spdlog::level::level_enum level_of(host::LogLevel level) {
  switch (level) {
    case host::LogLevel::debug:
      return spdlog::level::debug;
    case host::LogLevel::info:
      return spdlog::level::info;
    case host::LogLevel::warning:
      return spdlog::level::warn;
    case host::LogLevel::error:
      break;
  }
  return spdlog::level::err;
}

std::atomic<bool> quiet{true};

void write(host::LogLevel level, std::string_view sentence) {
  if (level_of(level) >= spdlog::level::warn) quiet.store(false, std::memory_order_relaxed);
  spdlog::log(level_of(level), "{}", sentence);
}

void use(std::shared_ptr<spdlog::logger> logger) {
  logger->flush_on(spdlog::level::debug);
  spdlog::set_default_logger(std::move(logger));
  host::set_log_sink(&write);
}

}  // namespace

void log_to_stderr(const std::string& program, bool verbose) {
  auto logger =
      std::make_shared<spdlog::logger>(program, std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("%n: %v");
  logger->set_level(verbose ? spdlog::level::info : spdlog::level::warn);
  use(std::move(logger));
}

Result<void> log_to_file(const std::string& path) {
  try {
    spdlog::file_event_handlers handlers;
    // What others write to stderr (failed checks, sanitizers) is worth keeping, too.
    handlers.after_open = [](const spdlog::filename_t&, std::FILE* file) {
      ::dup2(::fileno(file), STDERR_FILENO);
    };
    auto logger = std::make_shared<spdlog::logger>(
        "nvmf", std::make_shared<spdlog::sinks::rotating_file_sink_mt>(path, kLogBytesMax, kOldLogs,
                                                                       true, handlers));
    logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z [%P] %l: %v");
    use(std::move(logger));
  } catch (const spdlog::spdlog_ex& problem) {
    return fail(fmt::format("cannot write the log {}: {}", path, problem.what()));
  }
  return {};
}

bool log_is_quiet() {
  return quiet.load(std::memory_order_relaxed);
}

}  // namespace nvmf::tools
