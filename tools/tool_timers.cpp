#include "tool_timers.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "nvme/text.h"

namespace nvmf::tools {

namespace {

using std::chrono::milliseconds;

constexpr const char* kReconnectDelay = "-c,--reconnect-delay";
constexpr const char* kCtrlLoss = "-l,--ctrl-loss-tmo";
constexpr const char* kFastIoFail = "-F,--fast_io_fail_tmo";

std::int64_t whole_seconds(Duration d) {
  return std::chrono::duration_cast<std::chrono::seconds>(d).count();
}

/// A number and nothing else; no "inf", no "nan", no exponent.
std::optional<double> number(const std::string& text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value, std::chars_format::fixed);
  if (parsed.ec != std::errc() || parsed.ptr != end || !std::isfinite(value)) return std::nullopt;
  return value;
}

std::unexpected<Error> no_time(std::string_view option, const std::string& text, Duration most,
                               std::string_view also) {
  return fail(fmt::format("{} cannot be \"{}\": give seconds from 0 to {}, such as 10 or 0.5{}",
                          option, nvme::printable(text), whole_seconds(most), also),
              EINVAL);
}

}  // namespace

Result<Duration> parse_seconds(std::string_view option, const std::string& text, Duration most) {
  const auto seconds = number(text);
  if (!seconds || *seconds < 0 || *seconds > static_cast<double>(whole_seconds(most))) {
    return no_time(option, text, most, "");
  }
  return milliseconds(std::llround(*seconds * 1000));
}

Result<std::optional<Duration>> parse_seconds_or_never(std::string_view option,
                                                       const std::string& text, Duration most) {
  if (text == "-1") return std::optional<Duration>();
  auto given = parse_seconds(option, text, most);
  if (!given) return no_time(option, text, most, ", or -1 for never");
  return std::optional<Duration>(*given);
}

Result<host::LossPolicy> TimerWords::applied_to(host::LossPolicy policy) const {
  if (!reconnect_delay.empty()) {
    auto given = parse_seconds(kReconnectDelay, reconnect_delay, host::kLossTimerMax);
    if (!given) return std::unexpected(given.error());
    if (*given == Duration::zero()) {
      return fail(fmt::format("{} cannot be 0: it is the longest pause between two attempts to "
                              "connect again, such as 10 or 0.5",
                              kReconnectDelay),
                  EINVAL);
    }
    policy.reconnect_delay = *given;
  }
  if (!ctrl_loss.empty()) {
    auto given = parse_seconds_or_never(kCtrlLoss, ctrl_loss, host::kLossTimerMax);
    if (!given) return std::unexpected(given.error());
    policy.ctrl_loss = *given;
  }
  if (!fast_io_fail.empty()) {
    auto given = parse_seconds_or_never(kFastIoFail, fast_io_fail, host::kLossTimerMax);
    if (!given) return std::unexpected(given.error());
    policy.fast_io_fail = *given;
  }
  return policy;
}

std::string note_about(const host::LossPolicy& policy) {
  if (!policy.fast_io_fail || !policy.ctrl_loss || *policy.fast_io_fail < *policy.ctrl_loss) {
    return {};
  }
  return fmt::format(
      "note: {} {} has no effect: after {} without the target the connection is given up ({})",
      kFastIoFail, show_duration(*policy.fast_io_fail), show_duration(*policy.ctrl_loss),
      kCtrlLoss);
}

std::string note_about_hold(const host::LossPolicy& policy, std::optional<Duration> held_at_most) {
  if (!policy.ctrl_loss || !held_at_most || *policy.ctrl_loss >= *held_at_most) return {};
  return fmt::format(
      "note: {} {} is shorter than the {} for which writes may be held after a loss, until the "
      "target can no longer execute what it was sent before: they fail with EIO first. Give -l {} "
      "or more, or a shorter -k or --cqt",
      kCtrlLoss, show_duration(*policy.ctrl_loss), show_duration(*held_at_most),
      std::chrono::ceil<std::chrono::seconds>(*held_at_most).count());
}

std::string show_duration(Duration duration) {
  const std::int64_t ms = to_ms(duration);
  if (ms < 10'000 && ms % 1000 != 0) {
    std::string text = fmt::format("{:.2f}", static_cast<double>(ms) / 1000);
    while (text.ends_with('0')) text.pop_back();
    if (text.ends_with('.')) text.pop_back();
    return text + " s";
  }
  const std::int64_t s = (ms + 500) / 1000;
  if (s < 100) return fmt::format("{} s", s);
  if (s < 100 * 60) {
    return s % 60 == 0 ? fmt::format("{} min", s / 60) : fmt::format("{} min {} s", s / 60, s % 60);
  }
  const std::int64_t min = (s + 30) / 60;
  return min % 60 == 0 ? fmt::format("{} h", min / 60)
                       : fmt::format("{} h {} min", min / 60, min % 60);
}

std::int64_t to_ms(Duration duration) {
  return std::chrono::duration_cast<milliseconds>(duration).count();
}

nlohmann::json ms_or_null(const std::optional<Duration>& duration) {
  return duration ? nlohmann::json(to_ms(*duration)) : nlohmann::json(nullptr);
}

}  // namespace nvmf::tools
