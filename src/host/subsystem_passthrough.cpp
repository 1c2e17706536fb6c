// RemoteSubsystem: commands of tools through the live association.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "host/log.h"
#include "host/namespace_scan.h"
#include "host/subsystem.h"
#include "nvme/admin.h"

namespace nvmf::host {

namespace {

std::string name_of(const PassthroughCommand& c) {
  return nvme::opcode_name(c.sqe, !c.io);
}

Result<CommandOutcome> result_of(PassedThrough passed, const PassthroughCommand& command) {
  if (passed.outcome) return *passed.outcome;
  if (!passed.sent) {
    return fail(fmt::format("{} was not sent: {}", name_of(command), passed.why.message),
                passed.why.code == EBUSY ? EBUSY : ENOTCONN);
  }
  return fail(fmt::format("{} was sent and may have been executed: {}", name_of(command),
                          passed.why.message),
              passed.overdue ? ETIMEDOUT : ECONNRESET);
}

}  // namespace

Task<Result<CommandOutcome>> RemoteSubsystem::passthrough(PassthroughCommand command) {
  const Gate::Pass inside(tasks_);
  if (!live()) co_return fail(params_.name + " is not connected; nothing was sent", ENOTCONN);
  const nvme::EffectsLog* effects = co_await association_->effects();
  if (!live()) co_return fail(params_.name + " is not connected; nothing was sent", ENOTCONN);
  const auto plan = plan_passthrough(
      command, {.info = association_->info,
                .effects = effects,
                .io_queues = static_cast<std::uint32_t>(association_->queues().size()),
                .read_only = params_.read_only,
                .events_needed = association_->info.events_configured});
  if (!plan) co_return std::unexpected(plan.error());
  if (!plan->note.empty()) log(LogLevel::info, params_.name + ": " + plan->note);
  if (command.timeout <= Duration::zero()) {
    command.timeout = command.io ? params_.command_timeout : params_.admin_timeout;
  }
  if (command.io || plan->quiesce != Scope::none) {
    co_return fail(name_of(command) + " cannot be passed through yet", EOPNOTSUPP);
  }
  co_return co_await pass_admin(command, *plan);
}

Task<Result<CommandOutcome>> RemoteSubsystem::pass_admin(const PassthroughCommand& command,
                                                         const PassthroughPlan& plan) {
  co_return result_of(co_await association_->pass(plan.sqe, command.direction, command.data,
                                                  command.timeout, plan.changes != Scope::none),
                      command);
}

/// check_namespaces() judges each that is served; what the list says beside that is for the report.
Task<Result<RescanReport>> RemoteSubsystem::rescan() {
  const Gate::Pass inside(tasks_);
  if (!live()) co_return fail(params_.name + " is not connected", ENOTCONN);
  auto active = co_await list_namespaces(*association_, params_.admin_timeout);
  if (!active) co_return std::unexpected(active.error());
  co_await check_namespaces({});
  if (!live()) co_return fail(params_.name + " was lost while it was looked at", ENOTCONN);
  RescanReport report;
  report.active = std::move(*active);
  for (const std::uint32_t nsid : report.active) {
    if (index_of(nsid) == namespaces_.size()) report.not_served.push_back(nsid);
  }
  for (std::size_t i = 0; i < namespaces_.size(); ++i) {
    const std::uint32_t nsid = namespaces_[i]->info.nsid;
    if (!std::ranges::binary_search(report.active, nsid)) report.gone.push_back(nsid);
    if (!states_[i].stopped.empty()) report.stopped.push_back({nsid, states_[i].stopped});
  }
  co_return report;
}

}  // namespace nvmf::host
