#include "host/policy.h"

#include <fmt/format.h>

#include <string_view>

namespace nvmf::host {

namespace {

double seconds_of(Duration d) {
  return std::chrono::duration<double>(d).count();
}

Result<void> check_timer(std::string_view what, Duration value, Duration least,
                         std::string_view or_else) {
  if (value >= least && value <= kLossTimerMax) return {};
  return fail(fmt::format("{} is {:g} s but must be from {:g} to {:g} s{}", what, seconds_of(value),
                          seconds_of(least), seconds_of(kLossTimerMax), or_else),
              EINVAL);
}

}  // namespace

Result<void> check(const LossPolicy& p) {
  auto ok = check_timer("the longest pause between attempts to reconnect (--reconnect-delay)",
                        p.reconnect_delay, kReconnectDelayMin, "");
  if (ok && p.ctrl_loss) {
    ok = check_timer("the time after which a lost controller is given up (--ctrl-loss-tmo)",
                     *p.ctrl_loss, Duration::zero(), ", or -1 for never");
  }
  if (ok && p.fast_io_fail) {
    ok = check_timer("the time after which waiting I/O fails (--fast_io_fail_tmo)", *p.fast_io_fail,
                     Duration::zero(), ", or -1 for never");
  }
  return ok;
}

}  // namespace nvmf::host
