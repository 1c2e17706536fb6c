// RemoteSubsystem: commands of tools through the live association.
//
// The control loop is the first reactor: what passthrough asks of that reactor's devices it asks
// here. Whatever waits is known to own_requests_, so that the end of the association, or of a
// namespace, ends it unsent.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "host/log.h"
#include "host/namespace_scan.h"
#include "host/subsystem.h"
#include "nvme/admin.h"

namespace nvmf::host {

namespace {

constexpr Duration kDrainPoll = std::chrono::milliseconds(2);

std::string name_of(const PassthroughCommand& c) {
  return nvme::opcode_name(c.sqe, !c.io);
}

std::string seconds_text(Duration d) {
  return fmt::format("{:g} s", std::chrono::duration<double>(d).count());
}

std::unexpected<Error> not_sent(const PassthroughCommand& c, std::string_view why, int code) {
  return fail(fmt::format("{} was not sent: {}", name_of(c), why), code);
}

std::unexpected<Error> unanswered(const PassthroughCommand& c, std::string_view why, bool overdue) {
  return fail(fmt::format("{} was sent and may have been executed: {}", name_of(c), why),
              overdue ? ETIMEDOUT : ECONNRESET);
}

bool is_set_cache(const PassthroughCommand& c) {
  return !c.io && c.sqe.opcode == static_cast<std::uint8_t>(nvme::AdminOpcode::set_features) &&
         nvme::FeatureCommand::from_sqe(c.sqe).feature == nvme::Feature::volatile_write_cache;
}

/// A request that wakes who waits for it.
template <class Request>
struct Awaited : Request {
  explicit Awaited(transport::Loop& loop) : done(loop) {
    this->complete = [](BlockRequest& r) { static_cast<Awaited&>(r).done.fire(); };
  }
  Signal done;
};

}  // namespace

/// One namespace that stands still, or is about to.
struct OwnBarrier {
  OwnBarrier(transport::Loop& loop, std::size_t i) : request(loop), settled(loop), index(i) {
    request.owner = this;
    request.granted = [](BarrierRequest& r) {
      OwnBarrier& b = *static_cast<Owned&>(r).owner;
      b.held = true;
      b.settled.fire();
    };
    request.complete = [](BlockRequest& r) { static_cast<Owned&>(r).owner->settled.fire(); };
  }
  struct Owned : BarrierRequest {
    explicit Owned(transport::Loop&) {}
    OwnBarrier* owner = nullptr;
  };
  Owned request;
  Signal settled;  // granted, or come to nothing
  std::size_t index;
  bool held = false;
  bool quiet = false;  // the devices were told to issue nothing
};

Task<Result<CommandOutcome>> RemoteSubsystem::passthrough(PassthroughCommand command) {
  const Gate::Pass inside(tasks_);
  if (command.timeout <= Duration::zero()) {
    command.timeout = command.io ? params_.command_timeout : params_.admin_timeout;
  }
  const auto planned = co_await plan(command);
  if (!planned) co_return std::unexpected(planned.error());
  if (!planned->note.empty()) log(LogLevel::info, params_.name + ": " + planned->note);
  co_return co_await send(command, *planned);
}

Task<Result<PassthroughPlan>> RemoteSubsystem::plan(const PassthroughCommand& command) {
  const std::string not_live = params_.name + " is not connected; nothing was sent";
  if (!live()) co_return fail(not_live, ENOTCONN);
  const auto effects = co_await association_->effects();
  if (!live()) co_return fail(not_live, ENOTCONN);
  if (!effects) co_return not_sent(command, effects.error().message, effects.error().code);
  auto planned = plan_passthrough(
      command, {.info = association_->info,
                .effects = *effects,
                .io_queues = static_cast<std::uint32_t>(association_->queues().size()),
                .read_only = params_.read_only,
                // Warnings and firmware are for people: they may be switched off.
                .events_needed = association_->info.events_configured &
                                 (nvme::kOaesNamespaceAttributes | nvme::kOaesAnaChange |
                                  nvme::kOaesDiscoveryChange)});
  if (planned && command.io) {
    if (auto ok = check_not_stopped(command); !ok) co_return std::unexpected(ok.error());
  }
  co_return planned;
}

std::vector<std::size_t> RemoteSubsystem::reached(Scope scope, std::uint32_t nsid) const {
  std::vector<std::size_t> all;
  for (std::size_t i = 0; i < namespaces_.size() && scope != Scope::none; ++i) {
    if (scope == Scope::all_namespaces || namespaces_[i]->info.nsid == nsid) all.push_back(i);
  }
  return all;
}

std::ptrdiff_t RemoteSubsystem::stopped_of(const std::vector<std::size_t>& indexes) const {
  return std::ranges::count_if(indexes,
                               [this](std::size_t i) { return !states_[i].stopped.empty(); });
}

Result<void> RemoteSubsystem::check_not_stopped(const PassthroughCommand& command) const {
  const std::uint32_t nsid = command.sqe.nsid;
  for (std::size_t i = 0; i < states_.size(); ++i) {
    if (nsid != nvme::kNsidAll && namespaces_[i]->info.nsid != nsid) continue;
    if (!states_[i].stopped.empty()) return not_sent(command, states_[i].stopped, ESTALE);
    if (states_[i].replaying || states_[i].must_replay) {
      return not_sent(command, namespaces_[i]->info.name + " is just being written again to",
                      EBUSY);
    }
  }
  return {};
}

Task<Result<CommandOutcome>> RemoteSubsystem::send(const PassthroughCommand& command,
                                                   const PassthroughPlan& plan) {
  if (plan.quiesce != Scope::none) co_return co_await send_alone(command, plan);
  const std::uint64_t losses = losses_;
  bool lost = false;
  if (!command.io) co_return co_await send_admin(command, plan, lost);
  const std::size_t index = index_of(plan.sqe.nsid);
  if (index == kNoIndex) co_return co_await send_io(*bare_, command, plan, lost);
  auto outcome = co_await send_io(*states_[index].devices[0], command, plan, lost);
  // Copies of what was written before (--unflushed=replay) must not come over it after a loss.
  const UnflushedWrites& unflushed = states_[index].shared->unflushed;
  const bool copies = unflushed.mode() == Unflushed::replay && unflushed.count() != 0;
  if (!outcome || plan.changes == Scope::none || !copies) co_return outcome;
  Result<void> flushed = fail("the connection was lost");
  if (still(losses)) flushed = co_await flush_own(index, Instant::max());
  if (flushed && losses == losses_) co_return outcome;
  co_return fail(
      fmt::format("{} was executed, but older copies may come over what it changed "
                  "(--unflushed=replay): {}",
                  name_of(command), flushed ? "the connection was lost" : flushed.error().message),
      ECONNRESET);
}

// ---- one command ----

/// `lost`: it was sent and not answered.
Task<Result<CommandOutcome>> RemoteSubsystem::send_admin(const PassthroughCommand& command,
                                                         const PassthroughPlan& plan, bool& lost) {
  const bool cache = is_set_cache(command);
  const bool enables = cache && (plan.sqe.cdw11 & 1) != 0;
  if (enables) {
    // Before it can be: a write that is answered meanwhile counts.
    association_->info.volatile_write_cache = true;
    for (const NamespaceState& s : states_) s.shared->unflushed.set_cache(true);
  }
  const PassedThrough passed = co_await association_->pass(
      plan.sqe, command.direction, command.data, command.timeout, plan.changes != Scope::none);
  lost = passed.sent && !passed.outcome;
  if (lost) co_return unanswered(command, passed.why.message, passed.overdue);
  if (!passed.outcome) {
    co_return not_sent(command, passed.why.message, passed.why.code == EBUSY ? EBUSY : ENOTCONN);
  }
  // With copies to be written again, what is written past them has to be known, too.
  if (cache && !enables && passed.outcome->cqe.status.ok() &&
      params_.unflushed != Unflushed::replay) {
    association_->info.volatile_write_cache = false;
    for (const NamespaceState& s : states_) s.shared->unflushed.set_cache(false);
  }
  co_return *passed.outcome;
}

Task<Result<CommandOutcome>> RemoteSubsystem::send_io(NamespaceDevice& device,
                                                      const PassthroughCommand& command,
                                                      const PassthroughPlan& plan, bool& lost) {
  transport::Loop& loop = *loops_[0];
  const Instant until = loop.now() + command.timeout;
  const std::uint64_t losses = losses_;
  switch (co_await io_share_.take(until)) {
    case SlotShare::Took::yes:
      break;
    case SlotShare::Took::too_many_wait:
      co_return not_sent(command, "too many commands wait to be passed through; try again later",
                         EBUSY);
    case SlotShare::Took::too_late:
      co_return not_sent(command,
                         fmt::format("others that are passed through left it no room within {}",
                                     seconds_text(command.timeout)),
                         EBUSY);
  }
  count(counters_->passthrough_commands);
  Awaited<PassthroughRequest> r(loop);
  OwnRequest own{.device = &device, .request = &r};
  const Scope named =
      plan.sqe.nsid == nvme::kNsidAll ? Scope::all_namespaces : Scope::one_namespace;
  if (!still(losses)) {
    own.error = ENOTCONN;
  } else if (stopped_of(reached(named, plan.sqe.nsid)) != 0) {
    own.error = ESTALE;
  } else {
    r.sqe = plan.sqe;
    r.direction = command.direction;
    r.bytes = command.data;
    r.timeout = command.timeout;
    r.changes = plan.changes != Scope::none;
    const std::size_t index = index_of(plan.sqe.nsid);
    if (plan.blocks_known && index != kNoIndex) {
      const std::uint32_t shift = namespaces_[index]->block_shift;
      const std::uint64_t most = kWholeNamespaceBytes >> shift;
      r.offset_bytes = std::min(plan.first_lba, most) << shift;
      r.length_bytes = (std::min(plan.end_lba, most) << shift) - r.offset_bytes;
    } else {
      r.length_bytes = kWholeNamespaceBytes;
    }
    transport::Timer limit(loop.timers(), [this, &own] { cancel_own(own, EBUSY); });
    limit.arm(until);
    own_requests_.push_back(&own);
    device.submit_passthrough(r);
    co_await r.done;
    std::erase(own_requests_, &own);
  }
  io_share_.give_back();
  if (r.issued && r.delivery == transport::Delivery::answered) {
    co_return CommandOutcome{r.cqe, r.received_bytes};
  }
  lost = r.issued && r.delivery == transport::Delivery::unanswered;
  if (r.issued) {
    co_await association_->ended();  // its queue's end is the association's
    const std::string& why = association_->end_reason().message;
    co_return lost ? unanswered(command, why, r.overdue) : not_sent(command, why, ENOTCONN);
  }
  co_return not_issued(command, own.error, losses);
}

/// An I/O command that came to nothing: why it was cancelled, 0 if nobody did that.
std::unexpected<Error> RemoteSubsystem::not_issued(const PassthroughCommand& command, int error,
                                                   std::uint64_t losses) const {
  if (error == EBUSY) {
    return not_sent(command,
                    fmt::format("within {} there was no time at which its blocks were free: "
                                "they are held by requests, or by a write of before a loss "
                                "that may still be executed, or the queues are full",
                                seconds_text(command.timeout)),
                    EBUSY);
  }
  if (error == ESTALE) {
    return not_sent(command, "the namespace was stopped; see `nvmf list`", ESTALE);
  }
  if (error == 0 && still(losses)) {
    return not_sent(command,
                    "its blocks are held by a write of before a loss that may still be executed, "
                    "for longer than requests wait on this connection (see `nvmf list`)",
                    EBUSY);
  }
  return not_sent(command, params_.name + " is not connected any more", ENOTCONN);
}

void RemoteSubsystem::cancel_own(OwnRequest& own, int error) {
  if (own.device->cancel(*own.request, error)) own.error = error;
}

void RemoteSubsystem::cancel_passthrough(const NamespaceDevice* device, int error) {
  for (OwnRequest* own : std::vector<OwnRequest*>(own_requests_)) {
    if (device == nullptr || own->device == device) cancel_own(*own, error);
  }
}

// ---- alone ----

/// No frontend's request is under way, nor begins, in the namespaces that it reaches; and they are
/// looked at again before those go on.
Task<Result<CommandOutcome>> RemoteSubsystem::send_alone(const PassthroughCommand& command,
                                                         const PassthroughPlan& plan) {
  const Instant until = loops_[0]->now() + command.timeout;
  const std::uint64_t losses = losses_;
  if (co_await alone_.take(until) != SlotShare::Took::yes) {
    co_return not_sent(command, "another command that must be alone is under way; try again later",
                       EBUSY);
  }
  std::vector<std::unique_ptr<OwnBarrier>> barriers;
  const std::vector<std::size_t> all = reached(plan.quiesce, plan.sqe.nsid);
  const std::ptrdiff_t stopped = stopped_of(all);
  barriers.reserve(all.size());
  for (const std::size_t i : all) {
    barriers.push_back(std::make_unique<OwnBarrier>(*loops_[0], i));
  }
  Result<void> quiet = co_await stand_still(barriers, until);
  if (quiet && !still(losses)) {
    quiet = fail(params_.name + " is not connected any more", ENOTCONN);
  }
  // What it was meant for may be another disk by now.
  if (quiet && stopped_of(all) > stopped) {
    quiet = fail("a namespace that it reaches was stopped meanwhile; see `nvmf list`", ESTALE);
  }
  Result<CommandOutcome> outcome = std::unexpected(Error{});
  bool lost = false;
  if (!quiet) {
    outcome = not_sent(command, quiet.error().message, quiet.error().code);
  } else if (command.io) {
    outcome = co_await send_io(*bare_, command, plan, lost);
  } else {
    outcome = co_await send_admin(command, plan, lost);
  }
  if (outcome && still(losses)) co_await identify_again(plan);
  const std::vector<std::size_t> changed = reached(plan.changes, plan.sqe.nsid);
  for (const auto& b : barriers) {
    NamespaceDevice& device = *states_[b->index].devices[0];
    if (b->quiet) on_devices(b->index, [](NamespaceDevice& d) { d.quiesce(false); });
    if (b->held) {
      device.release_barrier(b->request,
                             lost && std::ranges::find(changed, b->index) != changed.end());
    }
  }
  alone_.give_back();
  co_return outcome;
}

/// First those that change data, then all others. Whatever it says, `barriers` tell what was taken.
Task<Result<void>> RemoteSubsystem::stand_still(std::vector<std::unique_ptr<OwnBarrier>>& barriers,
                                                Instant until) {
  std::vector<OwnRequest> own(barriers.size());
  transport::Timer limit(loops_[0]->timers(), [this, &own] {
    for (OwnRequest& o : own) cancel_own(o, EBUSY);
  });
  limit.arm(until);
  for (std::size_t i = 0; i < barriers.size(); ++i) {
    own[i] = {.device = states_[barriers[i]->index].devices[0].get(),
              .request = &barriers[i]->request};
    own_requests_.push_back(&own[i]);
    own[i].device->submit_barrier(barriers[i]->request);
  }
  bool all = true;
  for (const auto& b : barriers) {
    co_await b->settled;
    all = all && b->held;
  }
  for (OwnRequest& o : own) std::erase(own_requests_, &o);
  limit.cancel();
  const auto busy = [] {
    return fail(
        "requests that were under way, or writes of before a loss that may still be "
        "executed, left the namespace no quiet moment in time; try again later",
        EBUSY);
  };
  const bool late = std::ranges::any_of(own, [](const OwnRequest& o) { return o.error == EBUSY; });
  if (late) co_return busy();
  if (!all) co_return fail(params_.name + " is not connected any more", ENOTCONN);
  for (const auto& b : barriers) {
    if (!live() || stop_asked_) break;  // who asked for it sees that
    if (auto ok = co_await flush_own(b->index, until); !ok) co_return ok;
  }
  for (const auto& b : barriers) {
    b->quiet = true;
    on_devices(b->index, [](NamespaceDevice& d) { d.quiesce(true); });
  }
  for (const auto& b : barriers) {
    while (!co_await drained(b->index)) {
      if (!live() || stop_asked_) co_return Result<void>{};  // likewise
      if (loops_[0]->now() >= until) co_return busy();
      co_await sleep(*loops_[0], kDrainPoll);
    }
  }
  co_return Result<void>{};
}

/// Nothing of the namespace is in flight on any reactor.
Task<bool> RemoteSubsystem::drained(std::size_t index) {
  bool empty = true;
  for (std::size_t r = 0; r < groups_.size(); ++r) {
    const NamespaceDevice& device = *states_[index].devices[r];
    co_await switch_to(*loops_[r]);
    empty = empty && device.in_flight() == 0;
    co_await switch_to(*loops_[0]);
  }
  co_return empty;
}

/// What was written is made safe: what counts as unflushed is flushed, and copies of it are void.
Task<Result<void>> RemoteSubsystem::flush_own(std::size_t index, Instant until) {
  NamespaceDevice& device = *states_[index].devices[0];
  if (states_[index].shared->unflushed.count() == 0) co_return Result<void>{};
  Awaited<BlockRequest> flush(*loops_[0]);
  flush.op = BlockOp::flush;
  OwnRequest own{.device = &device, .request = &flush};
  transport::Timer limit(loops_[0]->timers(), [this, &own] { cancel_own(own, EBUSY); });
  if (until != Instant::max()) limit.arm(until);
  own_requests_.push_back(&own);
  device.submit(flush);
  co_await flush.done;
  std::erase(own_requests_, &own);
  if (flush.error == 0) co_return Result<void>{};
  co_return fail(fmt::format("{} could not be flushed", namespaces_[index]->info.name),
                 own.error != 0 ? own.error : flush.error);
}

Task<void> RemoteSubsystem::identify_again(const PassthroughPlan& plan) {
  if (plan.identify == Scope::none) co_return;
  std::vector<std::uint32_t> nsids;
  if (plan.identify == Scope::one_namespace) nsids.push_back(plan.sqe.nsid);
  const bool all = nsids.empty();
  co_await check_namespaces(std::move(nsids));
  if (plan.list_changes && !all && live()) (void)co_await look_for_new({});
}

/// One after the other: what asks for it must not take the slots that are needed to act on the
/// controller's own notices.
Task<Result<RescanReport>> RemoteSubsystem::rescan() {
  const Gate::Pass inside(tasks_);
  if (co_await look_.take() != SlotShare::Took::yes) {
    co_return fail(fmt::format("the namespaces of {} are being looked at already, for {} others; "
                               "try again later",
                               params_.name, kRescanWaitersMax + 1),
                   EBUSY);
  }
  auto report = co_await look_again();
  look_.give_back();
  co_return report;
}

Task<Result<RescanReport>> RemoteSubsystem::look_again() {
  if (!live()) co_return fail(params_.name + " is not connected", ENOTCONN);
  std::vector<bool> there;
  there.reserve(states_.size());
  for (const NamespaceState& s : states_) there.push_back(s.attached);
  auto active = co_await check_all_namespaces();
  if (!active && live()) co_return std::unexpected(active.error());
  if (!live()) co_return fail(params_.name + " was lost while it was looked at", ENOTCONN);
  RescanReport report;
  report.active = std::move(*active);
  report.not_served = not_served_of(report.active);
  for (std::size_t i = 0; i < namespaces_.size(); ++i) {
    const std::uint32_t nsid = namespaces_[i]->info.nsid;
    if (states_[i].attached && (i >= there.size() || !there[i])) report.added.push_back(nsid);
    if (!std::ranges::binary_search(report.active, nsid)) report.gone.push_back(nsid);
    if (!states_[i].stopped.empty()) report.stopped.push_back({nsid, states_[i].stopped});
  }
  co_return report;
}

}  // namespace nvmf::host
