#include "host/params.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

namespace nvmf::host {

namespace {

Result<void> check_range(std::string_view what, std::uint64_t value, std::uint64_t least,
                         std::uint64_t most) {
  if (value >= least && value <= most) return {};
  return fail(fmt::format("{} is {} but must be from {} to {}", what, value, least, most), EINVAL);
}

double seconds_of(Duration d) {
  return std::chrono::duration<double>(d).count();
}

Result<void> check_names(const ConnectParams& p) {
  if (p.traddr.empty()) return fail("the target's address is missing", EINVAL);
  if (p.port == 0) return fail("the target's port is 0 but must be from 1 to 65535", EINVAL);
  if (p.subnqn.empty()) return fail("the subsystem NQN is missing", EINVAL);
  if (!nvme::usable_nqn(p.subnqn)) {
    return fail(fmt::format("\"{}\" cannot be a subsystem NQN: it must be 1 to {} bytes of UTF-8 "
                            "without control characters",
                            p.subnqn, nvme::kMaxNqnBytes),
                EINVAL);
  }
  if (!nvme::usable_nqn(p.hostnqn)) {
    return fail(fmt::format("\"{}\" cannot be a host NQN: it must be 1 to {} bytes of UTF-8 "
                            "without control characters",
                            p.hostnqn, nvme::kMaxNqnBytes),
                EINVAL);
  }
  if (p.hostid == nvme::HostId{}) {
    return fail("the host identifier is all zero, which stands for none (give --hostid)", EINVAL);
  }
  return {};
}

Result<void> check_recovery(const ConnectParams& p) {
  if (auto ok = check(p.loss); !ok) return ok;
  if (p.cqt_unreported < Duration::zero() || p.cqt_unreported > kCqtUnreportedMax) {
    return fail(fmt::format("the Command Quiesce Time to assume (--cqt) is {:g} s but must be from "
                            "0 to {:g} s",
                            seconds_of(p.cqt_unreported), seconds_of(kCqtUnreportedMax)),
                EINVAL);
  }
  if (p.hold_writes < Duration::zero()) {
    return fail("the time for which writes are held must not be negative", EINVAL);
  }
  return check_range("the memory for copies of unflushed writes in bytes", p.replay_bytes_max,
                     kReplayBytesMin, kReplayBytesMax);
}

}  // namespace

Result<void> ConnectParams::validate() const {
  if (auto ok = check_names(*this); !ok) return ok;
  const struct {
    std::string_view what;
    std::uint64_t value, least, most;
  } ranges[] = {
      {"the number of I/O queues", nr_io_queues, 0, kIoQueuesMax},
      {"the queue size", queue_size, kIoQueueEntriesMin, kIoQueueEntriesMax},
      {"the admin queue's size", admin_queue_size, kAdminQueueEntriesMin, kIoQueueEntriesMax},
      {"the keep-alive timeout in milliseconds", keep_alive_ms, 0, kKeepAliveMsMax},
      {"HPDA", hpda, 0, 31},
      {"the number of R2Ts per command", r2t_max, 1, transport::kR2tMax},
  };
  for (const auto& r : ranges) {
    if (auto ok = check_range(r.what, r.value, r.least, r.most); !ok) return ok;
  }
  if (tos < -1 || tos > 255) {
    return fail(fmt::format("the type of service is {} but must be from 0 to 255", tos), EINVAL);
  }
  const Duration least =
      std::min({connect_timeout, admin_timeout, command_timeout, bring_up_timeout});
  if (least <= Duration::zero()) return fail("a timeout must be longer than 0", EINVAL);
  return check_recovery(*this);
}

std::string ConnectParams::address() const {
  transport::Endpoint at;
  at.host = traddr;
  at.port = port;
  return at.to_string();
}

std::uint32_t default_io_queues() {
  return std::clamp(std::thread::hardware_concurrency(), 1u, 4u);
}

}  // namespace nvmf::host
