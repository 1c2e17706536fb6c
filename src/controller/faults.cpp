#include "controller/faults.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "controller/controller.h"
#include "controller/faulty_disk.h"
#include "controller/session.h"
#include "controller/target.h"
#include "nvme/admin.h"
#include "nvme/fabrics.h"

namespace nvmf::controller {

namespace {

bool writes(const DiskOp& op) {
  return op.kind != DiskOp::Kind::read && op.kind != DiskOp::Kind::flush;
}

bool covers_op(const FaultScope& scope, std::string_view subnqn, std::uint32_t nsid,
               const DiskOp& op) {
  return (scope.subnqn.empty() || scope.subnqn == subnqn) &&
         (scope.nsid == 0 || scope.nsid == nsid) &&
         (scope.cntlid == 0 || scope.cntlid == op.cntlid) && (!scope.qid || *scope.qid == op.qid);
}

/// Takes one of a number; false if there is none left.
bool take(std::optional<std::uint64_t>& count) {
  if (!count) return true;
  if (*count == 0) return false;
  --*count;
  return true;
}

/// The last one of a number has been taken.
bool spent(const std::optional<std::uint64_t>& count) {
  return count && *count == 0;
}

bool touches(const FailFault& fault, const nvme::Sqe& sqe) {
  if (!fault.first_lba) return true;
  switch (static_cast<nvme::NvmOpcode>(sqe.opcode)) {
    case nvme::NvmOpcode::read:
    case nvme::NvmOpcode::write:
    case nvme::NvmOpcode::compare:
    case nvme::NvmOpcode::write_zeroes:
      return sqe.slba() <= fault.last_lba && sqe.slba() + (sqe.blocks() - 1) >= *fault.first_lba;
    default:
      return false;
  }
}

}  // namespace

Faults::Hole::Hole(Target& target, FaultScope s, std::uint64_t number)
    : scope(std::move(s)),
      id(number),
      timer(target.loop().timers(), [&target, number] { target.faults().lift(number); }) {}

Faults::Faults(Target& target) : target_(target) {}
Faults::~Faults() = default;

bool Faults::covers(const FaultScope& scope, const Session& session) const {
  const Controller* const controller = session.controller();
  if (controller == nullptr) return scope.everything();
  return (scope.subnqn.empty() || scope.subnqn == controller->subsystem().nqn()) &&
         (scope.cntlid == 0 || scope.cntlid == controller->cntlid()) &&
         (!scope.qid || *scope.qid == session.qid());
}

std::vector<Session*> Faults::sessions_in(const FaultScope& scope) const {
  std::vector<Session*> found;
  for (Session* session : target_.sessions()) {
    if (covers(scope, *session)) found.push_back(session);
  }
  return found;
}

// ---- at once

std::size_t Faults::drop(const FaultScope& scope) {
  const std::vector<Session*> concerned = sessions_in(scope);
  for (Session* session : concerned) {
    session->end_visibly(Error{"The connection was dropped on demand", ECONNRESET});
  }
  counters_.dropped += concerned.size();
  return concerned.size();
}

std::size_t Faults::close_queue(std::uint16_t qid, bool reset, FaultScope scope) {
  scope.qid = qid;
  std::vector<Session*> concerned = sessions_in(scope);
  std::erase_if(concerned, [](const Session* session) { return session->controller() == nullptr; });
  for (Session* session : concerned) session->close_alone(reset);
  counters_.dropped += concerned.size();
  return concerned.size();
}

std::vector<Controller*> Faults::controllers_in(const FaultScope& scope) const {
  std::vector<Controller*> found = target_.controllers();
  std::erase_if(found, [&scope](const Controller* controller) {
    const bool covered = (scope.subnqn.empty() || scope.subnqn == controller->subsystem().nqn()) &&
                         (scope.cntlid == 0 || scope.cntlid == controller->cntlid());
    return !covered || controller->subsystem().discovery() || !controller->ready();
  });
  return found;
}

std::size_t Faults::fatal(const FaultScope& scope) {
  const std::vector<Controller*> concerned = controllers_in(scope);
  for (Controller* controller : concerned) controller->set_fatal();
  return concerned.size();
}

std::size_t Faults::health(const FaultScope& scope, const HealthChange& change) {
  std::size_t concerned = 0;
  for (const auto& subsystem : target_.subsystems()) {
    if (!scope.subnqn.empty() && scope.subnqn != subsystem->nqn()) continue;
    Health& health = subsystem->health;
    health.critical_warning = change.critical_warning.value_or(health.critical_warning);
    health.temperature_kelvins = change.temperature_kelvins.value_or(health.temperature_kelvins);
    health.spare_percent = change.spare_percent.value_or(health.spare_percent);
    health.used_percent = change.used_percent.value_or(health.used_percent);
    subsystem->health_changed();
    ++concerned;
  }
  return concerned;
}

std::size_t Faults::error_event(const FaultScope& scope, nvme::Status status, bool persistent) {
  const std::vector<Controller*> concerned = controllers_in(scope);
  for (Controller* controller : concerned) {
    controller->internal_error(
        status, persistent ? nvme::kErrorPersistentInternal : nvme::kErrorTransientInternal);
  }
  return concerned.size();
}

std::size_t Faults::firmware_event(const FaultScope& scope) {
  const std::vector<Controller*> concerned = controllers_in(scope);
  for (Controller* controller : concerned) controller->firmware_activation();
  return concerned.size();
}

// ---- refuse

void Faults::refuse(RefuseFault fault) {
  Refusal refusal{std::move(fault), std::nullopt};
  if (refusal.fault.lasts) refusal.until = target_.loop().now() + *refusal.fault.lasts;
  refusals_.push_back(std::move(refusal));
}

Faults::Refusal* Faults::refusal(bool connect, std::string_view subnqn, std::uint16_t qid) {
  const Instant now = target_.loop().now();
  std::erase_if(refusals_, [now](const Refusal& r) {
    return (r.until && *r.until <= now) || spent(r.fault.count);
  });
  for (Refusal& refusal : refusals_) {
    const FaultScope& scope = refusal.fault.scope;
    if (refusal.fault.status.has_value() != connect) continue;
    if (connect && !scope.subnqn.empty() && scope.subnqn != subnqn) continue;
    if (connect && scope.qid && *scope.qid != qid) continue;
    if (take(refusal.fault.count)) return &refusal;
  }
  return nullptr;
}

bool Faults::refuses_connection() {
  if (refusals_.empty() || refusal(false, {}, 0) == nullptr) return false;
  ++counters_.refused;
  return true;
}

std::optional<nvme::Status> Faults::refuses_connect(std::string_view subnqn, std::uint16_t qid) {
  if (refusals_.empty()) return std::nullopt;
  const Refusal* const refusal = this->refusal(true, subnqn, qid);
  if (refusal == nullptr) return std::nullopt;
  ++counters_.refused;
  return refusal->fault.status;
}

// ---- black holes

void Faults::blackhole(const BlackholeFault& fault) {
  holes_.push_back(std::make_unique<Hole>(target_, fault.scope, next_hole_++));
  if (fault.lasts) holes_.back()->timer.arm(target_.loop().now() + *fault.lasts);
  update_holes();
}

bool Faults::swallows_new() const {
  return std::ranges::any_of(holes_, [](const auto& hole) { return hole->scope.everything(); });
}

bool Faults::in_hole(const Session& session) const {
  return std::ranges::any_of(holes_,
                             [&](const auto& hole) { return covers(hole->scope, session); });
}

void Faults::update_holes() {
  // Turned off, a hole may deliver what ends other sessions: the list is made anew each time.
  for (Session* session : target_.sessions()) {
    if (target_.has(*session)) session->set_hole(in_hole(*session));
  }
}

void Faults::lift(std::uint64_t hole) {
  std::erase_if(holes_, [hole](const auto& h) { return h->id == hole; });
  update_holes();
}

void Faults::connected(Session& session) {
  // Connect is being executed inside the stream's call: the hole opens right after it.
  if (!in_hole(session)) return;
  target_.loop().post([this, &session] {
    if (target_.has(session)) session.set_hole(in_hole(session));
  });
}

// ---- commands

void Faults::fail(FailFault fault) {
  fails_.push_back(std::move(fault));
}

std::optional<nvme::Status> Faults::fail_status(const Session& session, const nvme::Sqe& sqe) {
  if (fails_.empty()) return std::nullopt;
  for (FailFault& fault : fails_) {
    if (!covers(fault.scope, session)) continue;
    if (!fault.scope.qid && session.qid() == 0) continue;
    if (fault.opcode ? *fault.opcode != sqe.opcode : sqe.is_fabrics()) continue;
    if (fault.scope.nsid != 0 && (sqe.is_fabrics() || fault.scope.nsid != sqe.nsid)) continue;
    if (!touches(fault, sqe)) continue;
    nvme::Status status = fault.status;
    // Base 2.1 §4.2.3: without ACRE the field is reserved.
    if (!session.controller()->features().host_behavior.acre) status.crd = 0;
    ++counters_.failed;
    (void)take(fault.count);
    std::erase_if(fails_, [](const FailFault& f) { return spent(f.count); });
    return status;
  }
  return std::nullopt;
}

void Faults::ignore_keep_alive(KeepAliveFault fault) {
  keep_alives_.push_back(std::move(fault));
}

bool Faults::ignores(const Session& session, const nvme::Sqe& sqe) {
  if (keep_alives_.empty() || session.qid() != 0 || sqe.is_fabrics() ||
      static_cast<nvme::AdminOpcode>(sqe.opcode) != nvme::AdminOpcode::keep_alive) {
    return false;
  }
  const bool found = std::ranges::any_of(
      keep_alives_, [&](const KeepAliveFault& fault) { return covers(fault.scope, session); });
  if (found) ++counters_.keep_alives;
  return found;
}

void Faults::corrupt(CorruptFault fault) {
  corrupts_.push_back(std::move(fault));
}

bool Faults::corrupts(const Session& session) {
  for (CorruptFault& fault : corrupts_) {
    if (!covers(fault.scope, session) || fault.count == 0) continue;
    --fault.count;
    ++counters_.corrupted;
    std::erase_if(corrupts_, [](const CorruptFault& f) { return f.count == 0; });
    return true;
  }
  return false;
}

// ---- disks

void Faults::delay(DelayFault fault) {
  delays_.push_back(std::move(fault));
}

void Faults::late(LateFault fault) {
  lates_.push_back(std::move(fault));
}

Faults::Plan Faults::plan(std::string_view subnqn, std::uint32_t nsid, const DiskOp& op) {
  Plan plan;
  for (DelayFault& fault : delays_) {
    if (!covers_op(fault.scope, subnqn, nsid, op)) continue;
    if (fault.opcode && *fault.opcode != op.opcode) continue;
    if (!take(fault.count)) continue;
    plan.before += fault.before;
    plan.after += fault.after;
  }
  if (!plan.plain()) ++counters_.delayed;
  std::erase_if(delays_, [](const DelayFault& f) { return spent(f.count); });
  // Only what belongs to a connection can wait for its loss.
  if (!writes(op) || op.cntlid == 0) return plan;
  for (LateFault& fault : lates_) {
    if (fault.hold == 0 || !covers_op(fault.scope, subnqn, nsid, op)) continue;
    --fault.hold;
    plan.hold = true;
    ++counters_.held;
    break;
  }
  return plan;
}

std::optional<Duration> Faults::ghost(std::string_view subnqn, std::uint32_t nsid, const DiskOp& op,
                                      Disk::Abandoned why) const {
  if (!writes(op)) return std::nullopt;
  for (const LateFault& fault : lates_) {
    if (!covers_op(fault.scope, subnqn, nsid, op)) continue;
    if (why == Disk::Abandoned::stopped && !fault.even_if_stopped) continue;
    return fault.after;
  }
  return std::nullopt;
}

void Faults::executed_late(const std::string& what) {
  ++counters_.ghosts;
  target_.log("Executed late, on demand: " + what);
}

void Faults::ghost_ended() {
  target_.reap_soon();
}

std::size_t Faults::ghosts() const {
  std::size_t count = 0;
  for (const FaultyDisk* disk : disks_) count += disk->ghosts();
  return count;
}

bool Faults::idle() const {
  return std::ranges::all_of(disks_, [](const FaultyDisk* disk) { return disk->idle(); });
}

// ---- ends

void Faults::clear() {
  refusals_.clear();
  delays_.clear();
  lates_.clear();
  fails_.clear();
  corrupts_.clear();
  keep_alives_.clear();
  for (FaultyDisk* disk : disks_) disk->release(true);
  holes_.clear();
  update_holes();
}

void Faults::stop() {
  lates_.clear();
  for (FaultyDisk* disk : disks_) disk->release(false);
  holes_.clear();
  update_holes();
}

void Faults::power_loss() {
  for (FaultyDisk* disk : disks_) disk->power_loss();
}

}  // namespace nvmf::controller
