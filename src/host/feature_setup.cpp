#include "host/feature_setup.h"

#include <fmt/format.h>

#include <vector>

#include "host/log.h"
#include "nvme/admin.h"

namespace nvmf::host {

namespace {

// Get Features 06h, DW0 (Base 2.1 §5.1.25.1.4).
constexpr std::uint32_t kCacheEnabled = 1u << 0;
// Byte 0 of Host Behavior Support.
constexpr std::byte kAcreEnabled{1};

void log_refusal(const Association& a, const char* what, nvme::Status status) {
  log(LogLevel::info, fmt::format("{} {}: {}", a.info.endpoint.to_string(), what,
                                  nvme::describe(status, nvme::StatusContext::admin)));
}

/// ACRE (Base 2.1 §5.1.25.1.14): from then on CRD in a status names one of the CRDTs. The other
/// behaviours stay as they are, known or not.
Task<Result<void>> set_up_retry_delays(Association& a, Duration timeout) {
  const nvme::IdentifyController& id = a.info.controller;
  if (id.crdt1 == 0) co_return Result<void>{};
  std::vector<std::byte> behavior(nvme::kHostBehaviorBytes);
  auto now =
      co_await a.admin().execute(nvme::get_features(nvme::Feature::host_behavior),
                                 transport::DataDirection::from_controller, behavior, timeout);
  if (!now) co_return std::unexpected(now.error());
  if (!now->cqe.status.ok()) {
    log_refusal(a, "does not tell its host behavior support", now->cqe.status);
    co_return Result<void>{};
  }
  behavior.front() = kAcreEnabled;
  auto set = co_await a.admin().execute(nvme::set_host_behavior(),
                                        transport::DataDirection::to_controller, behavior, timeout);
  if (!set) co_return std::unexpected(set.error());
  if (set->cqe.status.ok()) {
    a.info.retry_delays = {id.crdt1, id.crdt2, id.crdt3};
  } else {
    log_refusal(a, "does not take Advanced Command Retry", set->cqe.status);
  }
  co_return Result<void>{};
}

Task<Result<void>> read_write_cache(Association& a, Duration timeout) {
  if ((a.info.controller.vwc & nvme::kVwcPresent) == 0) co_return Result<void>{};
  auto now =
      co_await a.admin().execute(nvme::get_features(nvme::Feature::volatile_write_cache), timeout);
  if (!now) co_return std::unexpected(now.error());
  a.info.volatile_write_cache = !now->cqe.status.ok() || (now->cqe.dw0() & kCacheEnabled) != 0;
  co_return Result<void>{};
}

}  // namespace

Task<Result<void>> set_up_features(Association& association, Duration timeout) {
  if (auto ok = co_await set_up_retry_delays(association, timeout); !ok) co_return ok;
  co_return co_await read_write_cache(association, timeout);
}

}  // namespace nvmf::host
