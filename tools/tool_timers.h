// Times as people write and read them: the timers of a connection on command lines, deadlines in
// what is printed.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "host/policy.h"
#include "nvme/result.h"

namespace nvmf::tools {

/// "10", "0.5": seconds, from 0 to `most`. EINVAL with a sentence that names `option`.
Result<Duration> parse_seconds(std::string_view option, const std::string& text, Duration most);
/// The same, where -1 stands for nothing: "for ever", or "off".
Result<std::optional<Duration>> parse_seconds_or_never(std::string_view option,
                                                       const std::string& text, Duration most);

/// What a command line says about the three timers of a loss; what it leaves out is missing.
struct TimerWords {
  std::string reconnect_delay;
  std::string ctrl_loss;
  std::string fast_io_fail;

  [[nodiscard]] bool empty() const {
    return reconnect_delay.empty() && ctrl_loss.empty() && fast_io_fail.empty();
  }
  /// `policy` with what is said changed. EINVAL with a sentence for what cannot be.
  [[nodiscard]] Result<host::LossPolicy> applied_to(host::LossPolicy policy) const;
};

/// Something to know about a policy that is possible and not what one may think; empty if nothing.
std::string note_about(const host::LossPolicy& policy);

/// The same about a policy that gives writes up while they are still held; `held_at_most` is how
/// long that may be after a loss, nothing: for ever, which no policy can outlast.
std::string note_about_hold(const host::LossPolicy& policy, std::optional<Duration> held_at_most);

/// "0.35 s", "20 s", "9 min 48 s", "3 h 5 min".
std::string show_duration(Duration duration);

/// Milliseconds; what is missing is null.
std::int64_t to_ms(Duration duration);
nlohmann::json ms_or_null(const std::optional<Duration>& duration);

}  // namespace nvmf::tools
