#include "frontends/nbd/kernel_timeouts.h"

#include <algorithm>

namespace nvmf::nbd {
namespace {

using std::chrono::seconds;

std::uint64_t in_seconds(Duration d) {
  return static_cast<std::uint64_t>(std::chrono::ceil<seconds>(d).count());
}

}  // namespace

KernelTimeouts kernel_timeouts(std::size_t wanted, std::optional<Duration> ctrl_loss,
                               std::optional<Duration> fence) {
  KernelTimeouts t;
  t.dead_conn_s = ctrl_loss ? in_seconds(std::max(*ctrl_loss, kRestartMin)) : kKernelForEver_s;
  if (wanted <= 1 || !ctrl_loss || !fence) return t;
  t.connections = wanted;
  const Duration limit = *ctrl_loss + *fence + kKernelMargin;
  t.timeout_s = std::min(in_seconds(limit), kKernelForEver_s);
  t.answer_after = seconds(t.timeout_s) - kAnswerBefore;
  return t;
}

KernelTimeouts fit_timeouts(KernelTimeouts t, std::size_t connections) {
  t.connections = connections;
  // 0 would mean 30 s there.
  if (connections > 1 && t.timeout_s == 0) {
    t.timeout_s = kKernelForEver_s;
    t.answer_after = seconds(kKernelForEver_s) - kAnswerBefore;
  }
  return t;
}

}  // namespace nvmf::nbd
