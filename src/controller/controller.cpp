#include "controller/controller.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "controller/limits.h"
#include "controller/session.h"
#include "nvme/check.h"
#include "nvme/text.h"

namespace nvmf::controller {

namespace {

/// CAP.TO and CRTO, units of 500 ms: nothing here takes long but a flush of the disks.
constexpr std::uint8_t kReadyTimeout = 60;
constexpr std::uint8_t kCrmsWithMedia = 1;  // CRMS.CRWMS, asked of 2.0 controllers

nvme::ControllerCapabilities capabilities(const TargetConfig& config) {
  nvme::ControllerCapabilities cap;
  cap.mqes = static_cast<std::uint16_t>(config.queue_entries - 1);
  cap.cqr = true;
  cap.to = kReadyTimeout;
  cap.css = nvme::kCapCssNvm;
  cap.crms = kCrmsWithMedia;
  return cap;
}

}  // namespace

Controller::Controller(transport::Loop& loop, ControllerOwner& owner, Subsystem& subsystem,
                       const TargetConfig& config, const DiscoveryService* discovery,
                       Identity identity)
    : loop_(loop),
      owner_(owner),
      subsystem_(subsystem),
      config_(config),
      discovery_(discovery),
      identity_(std::move(identity)),
      timer_(loop.timers(), [this] { on_timer(); }),
      grace_(loop.timers(), [this] {
        if (shst_ != nvme::kShstNone) return end_io("the controller was shut down");
        end(Error{fmt::format("An I/O connection of {} was lost", describe()), ECONNRESET});
      }) {
  features_.keep_alive_ms = round_keep_alive(identity_.keep_alive_ms);
  async_requests_.reserve(kAsyncEventsMax);
  flush_op_.kind = DiskOp::Kind::flush;
  flush_op_.complete = &Controller::on_flushed;
  flush_op_.controller = this;
  subsystem_.add(*this);
  known_warnings_ = critical_warnings();
  arm_timer();
}

Controller::~Controller() {
  subsystem_.remove(*this);
}

std::string Controller::describe() const {
  return fmt::format("controller {} of {} (host {})", identity_.cntlid, subsystem_.nqn(),
                     nvme::printable(identity_.hostnqn));
}

// ---- connections

void Controller::attach_admin(Session& session) {
  NVMF_CHECK(admin_ == nullptr);
  admin_ = &session;
}

void Controller::attach_io(std::uint16_t qid, Session& session) {
  NVMF_CHECK(!io_.contains(qid));
  io_.emplace(qid, &session);
}

std::uint32_t Controller::io_queue_limit() const {
  if (subsystem_.discovery()) return 0;
  return features_.io_queues != 0 ? features_.io_queues : config_.max_queues;
}

void Controller::connection_lost(Session& session, const Error& reason) {
  if (ended_) return;
  if (&session == admin_) {
    admin_lost_ = true;
    end(reason);
    return;
  }
  if (stopping_ || identity_.individual_deletion) return;
  if (!grace_.armed()) grace_.arm(loop_.now() + kQueueLossGrace);
}

void Controller::session_gone(Session& session) {
  if (&session == admin_) {
    admin_ = nullptr;
  } else {
    std::erase_if(io_, [&session](const auto& entry) { return entry.second == &session; });
  }
  if (stopping_) continue_stop();
  check_gone();
}

void Controller::end(const Error& reason) {
  if (ended_) return;
  if (ready()) ++subsystem_.counters.unsafe_shutdowns;
  ended_ = true;
  timer_.cancel();
  grace_.cancel();
  // Requests that wait for an event go with the admin connection, which may be gone long before a
  // disk lets go of the last I/O queue.
  async_requests_.clear();
  for (const auto& job : formats_) job->forget_command();
  for (const auto& job : lookups_) {
    job->forget_command();
    job->abandon();
  }
  owner_.log(fmt::format("End of {}: {}", describe(), reason.message));
  for (const auto& [qid, session] : io_) session->end(reason);
  if (admin_ != nullptr && !admin_lost_) admin_->end(reason);
  check_gone();
}

void Controller::check_gone() {
  if (gone_ || !ended_ || admin_ != nullptr || !io_.empty() || flushing_) return;
  if (!formats_.empty() || !lookups_.empty()) return;
  gone_ = true;
  owner_.controller_gone(*this);
}

// ---- properties

std::optional<std::uint64_t> Controller::property_get(const nvme::PropertyCommand& get) const {
  const auto property = static_cast<nvme::Property>(get.offset);
  if (get.eight_bytes != (property == nvme::Property::cap)) return std::nullopt;
  switch (property) {
    case nvme::Property::cap:
      return capabilities(config_).encode();
    case nvme::Property::vs:
      return nvme::kVersion20;
    case nvme::Property::cc:
      return cc_.encode();
    case nvme::Property::csts: {
      nvme::ControllerStatus status;
      status.rdy = rdy_;
      status.cfs = cfs_;
      status.shst = shst_;
      return status.encode();
    }
    case nvme::Property::crto:
      return kReadyTimeout;  // CRWMT; CRIMT is 0, as CRMS.CRIMS is
    default:
      return std::nullopt;
  }
}

nvme::Status Controller::property_set(const nvme::PropertyCommand& set) {
  if (set.eight_bytes || static_cast<nvme::Property>(set.offset) != nvme::Property::cc) {
    return {nvme::StatusCode::invalid_field, true};
  }
  set_configuration(nvme::ControllerConfiguration::decode(static_cast<std::uint32_t>(set.value)));
  return {};
}

bool Controller::configuration_valid(const nvme::ControllerConfiguration& cc) const {
  if (cc.mps != 0 || cc.ams != 0 || cc.css != 0) return false;
  // Entries of I/O queues have 64 and 16 bytes; a discovery controller has no such queues.
  return subsystem_.discovery() || (cc.iosqes == 6 && cc.iocqes == 4);
}

void Controller::set_configuration(const nvme::ControllerConfiguration& next) {
  const nvme::ControllerConfiguration before = std::exchange(cc_, next);
  if (next.shn != nvme::kShnNone && before.shn == nvme::kShnNone) {
    shst_ = nvme::kShstInProgress;
    flushed_ = false;
    stop();
  } else if (next.shn == nvme::kShnNone && shst_ == nvme::kShstComplete) {
    shst_ = nvme::kShstNone;
  }
  if (before.en && !next.en) {
    cfs_ = false;
    fatal_ = false;
    stopping_ = true;
    end_io("its host disabled the controller");
    continue_stop();
  } else if (!before.en && next.en && !stopping_) {
    // A configuration that cannot be is answered with CSTS.CFS, as nvmet does: Property Set itself
    // has succeeded.
    cfs_ = !configuration_valid(next);
    rdy_ = !cfs_;
  }
  arm_timer();
}

void Controller::end_io(const char* why) {
  grace_.cancel();
  const Error reason{fmt::format("The queue ended because {}", why), ESHUTDOWN};
  for (const auto& [qid, session] : io_) session->end_visibly(reason);
}

/// Brings the disks to rest; the connections stay.
void Controller::stop() {
  stopping_ = true;
  grace_.cancel();
  for (const auto& [qid, session] : io_) session->io()->quiesce();
  for (const auto& job : lookups_) job->abandon();
  continue_stop();
}

bool Controller::io_at_rest() const {
  if (!formats_.empty() || !lookups_.empty()) return false;
  // Disabled, the connections themselves must be gone: what waits in one could be executed when
  // the controller is enabled again.
  if (!cc_.en) return io_.empty();
  return std::ranges::all_of(io_, [](const auto& entry) { return entry.second->io()->idle(); });
}

void Controller::continue_stop() {
  if (!io_at_rest() || flushing_) return;
  if (shst_ == nvme::kShstInProgress && !flushed_) {
    flushing_ns_ = nullptr;
    flush_next();
    if (flushing_) return;
  }
  stopping_ = false;
  if (shst_ == nvme::kShstInProgress) {
    shst_ = nvme::kShstComplete;
    if (!io_.empty()) grace_.arm(loop_.now() + kShutdownGrace);
  }
  if (!cc_.en) {
    rdy_ = false;
    reset_state();
  }
  arm_timer();
}

/// Flushes one disk after the other; a loop, not a recursion, over those that complete inside.
void Controller::flush_next() {
  do {
    Namespace* const done = flushing_ns_;
    flushing_ns_ = subsystem_.next(done == nullptr ? 0 : done->nsid);
    if (done != nullptr) --done->users;
    while (flushing_ns_ != nullptr && !flushing_ns_->disk->volatile_cache()) {
      flushing_ns_ = subsystem_.next(flushing_ns_->nsid);
    }
    flushing_ = flushing_ns_ != nullptr;
    if (!flushing_) {
      flushed_ = true;
      return;
    }
    ++flushing_ns_->users;
    flush_op_.error = 0;
    flush_inside_ = true;
    flush_complete_ = false;
    flushing_ns_->disk->submit(flush_op_);
    flush_inside_ = false;
  } while (flush_complete_);
}

void Controller::on_flushed(DiskOp& op) {
  Controller& self = *static_cast<FlushOp&>(op).controller;
  if (op.error != 0) ++self.subsystem_.counters.media_errors;
  self.flush_complete_ = true;
  if (self.flush_inside_) return;
  self.flush_next();
  if (self.flushing_) return;
  self.continue_stop();
  self.check_gone();
}

void Controller::reset_state() {
  // The admin queue lives on for the properties; commands that wait on it end here.
  for (transport::ControllerCommand* request : std::exchange(async_requests_, {})) {
    admin_->respond(*request, nvme::StatusCode::aborted_sq_deletion, 0);
  }
  const std::uint32_t keep_alive_ms = features_.keep_alive_ms;
  features_ = Features{};
  features_.keep_alive_ms = keep_alive_ms;
  changed_ = {};
  events_.reset();
  known_warnings_ = critical_warnings();
}

// ---- keep-alive

void Controller::arm_timer() {
  if (ended_) return;
  traffic_ = false;
  if (!ready()) {
    timer_.arm(loop_.now() + kIdleControllerTimeout);
  } else if (features_.keep_alive_ms != 0) {
    timer_.arm(loop_.now() + std::chrono::milliseconds(features_.keep_alive_ms));
  } else if (subsystem_.discovery()) {
    timer_.arm(loop_.now() + kDiscoveryIdleTimeout);
  } else {
    timer_.cancel();
  }
}

void Controller::keep_alive() {
  arm_timer();
}

void Controller::set_keep_alive(std::uint32_t ms) {
  features_.keep_alive_ms = round_keep_alive(ms);
  arm_timer();
}

void Controller::on_timer() {
  // Traffic-based keep-alive: commands since the timer was started are as good as a Keep Alive.
  // Base 2.1 §3.9.4.
  if (traffic_) {
    arm_timer();
    return;
  }
  if (!ready()) {
    end(Error{fmt::format("The controller was not in use for {} s", kIdleControllerTimeout.count()),
              ETIMEDOUT});
    return;
  }
  const bool idle_discovery = features_.keep_alive_ms == 0;
  end(Error{idle_discovery ? std::string("The discovery controller was not in use")
                           : fmt::format("Keep Alive expired: no command came for {} ms",
                                         features_.keep_alive_ms),
            ETIMEDOUT});
}

// ---- asynchronous events

AdminReply Controller::take_async_event_request(transport::ControllerCommand& command) {
  if (async_requests_.size() >= kAsyncEventsMax) {
    return AdminReply::refuse(nvme::StatusCode::aer_limit_exceeded);
  }
  async_requests_.push_back(&command);
  deliver();
  AdminReply reply;
  reply.later = true;
  return reply;
}

bool Controller::abort_async_event_request(std::uint16_t cid) {
  const auto found = std::ranges::find_if(
      async_requests_, [cid](const auto* request) { return request->sqe.cid == cid; });
  if (found == async_requests_.end()) return false;
  transport::ControllerCommand& request = **found;
  async_requests_.erase(found);
  admin_->respond(request, nvme::StatusCode::abort_requested, 0);
  return true;
}

bool Controller::abort_io(std::uint16_t qid, std::uint16_t cid) {
  const auto found = io_.find(qid);
  return found != io_.end() && !found->second->ended() && found->second->io()->abort(cid);
}

void Controller::namespace_changed(std::uint32_t nsid) {
  if (!changed_.overflow && std::ranges::find(changed_.nsids, nsid) == changed_.nsids.end()) {
    if (changed_.nsids.size() >= nvme::kNamespaceListEntries) {
      changed_ = {.overflow = true, .nsids = {}};
    } else {
      changed_.nsids.insert(std::ranges::upper_bound(changed_.nsids, nsid), nsid);
    }
  }
  raise(EventKind::namespaces, nvme::kNoticeNamespaceChanged);
}

std::uint8_t Controller::critical_warnings() const {
  const Health& health = subsystem_.health;
  std::uint8_t warnings = health.critical_warning;
  const std::uint16_t kelvins = health.temperature_kelvins;
  if (kelvins != 0 &&
      (kelvins >= features_.temperature_over || kelvins <= features_.temperature_under)) {
    warnings |= nvme::kWarningTemperature;
  }
  return warnings;
}

void Controller::health_changed() {
  const std::uint8_t warnings = critical_warnings();
  const auto fresh = static_cast<std::uint8_t>(warnings & ~known_warnings_);
  known_warnings_ = warnings;
  // Bits 7:0 of Asynchronous Event Configuration are those of the warnings.
  const auto told = static_cast<std::uint8_t>(fresh & features_.async_events);
  if (!ready() || told == 0) return;
  const std::uint8_t info = (told & nvme::kWarningSpare) != 0         ? nvme::kSmartSpare
                            : (told & nvme::kWarningTemperature) != 0 ? nvme::kSmartTemperature
                                                                      : nvme::kSmartReliability;
  raise(EventKind::smart, info);
}

void Controller::raise(EventKind kind, std::uint8_t info) {
  const std::uint32_t bit = AsyncEvents::config_bit(kind);
  if (!ready() || (features_.async_events & bit) != bit) return;
  events_.raise(kind, info);
  deliver();
}

void Controller::deliver() {
  while (!async_requests_.empty()) {
    const auto event = events_.take();
    if (!event) return;
    transport::ControllerCommand& request = *async_requests_.front();
    async_requests_.erase(async_requests_.begin());
    admin_->respond(request, nvme::Status{}, event->encode());
  }
}

void Controller::log_page_read(nvme::LogPage page) {
  if (page == nvme::LogPage::changed_namespaces) changed_ = {};
  events_.log_read(page);
  deliver();
}

nvme::Status Controller::path_status(const Namespace& ns) const {
  switch (subsystem_.ana_state(ns, identity_.port_id)) {
    case nvme::AnaState::optimized:
    case nvme::AnaState::non_optimized:
      break;
    case nvme::AnaState::inaccessible:
      return nvme::StatusCode::ana_inaccessible;
    case nvme::AnaState::persistent_loss:
      return nvme::StatusCode::ana_persistent_loss;
    case nvme::AnaState::change:
      return nvme::StatusCode::ana_transition;
  }
  return {};
}

// ---- Format NVM

void Controller::start_format(Namespace& ns, std::uint32_t block_bytes,
                              transport::ControllerCommand& command) {
  formats_.push_back(std::make_unique<FormatJob>(*this, loop_.timers(), ns, block_bytes, command));
  formats_.back()->step();
}

void Controller::format_ended(FormatJob& job, nvme::Status status) {
  Namespace& ns = job.ns();
  transport::ControllerCommand* const command = job.command();
  std::erase_if(formats_, [&job](const auto& one) { return one.get() == &job; });
  if (command != nullptr && !fatal_) admin_->respond(*command, status, 0);
  if (status.ok()) subsystem_.formatted(ns);
  if (stopping_) continue_stop();
  check_gone();
}

// ---- Get LBA Status

void Controller::start_lba_status(Namespace& ns, const nvme::GetLbaStatus& wanted,
                                  std::uint64_t end_lba, transport::ControllerCommand& command) {
  lookups_.push_back(std::make_unique<LbaStatusJob>(*this, ns, wanted, end_lba, command));
  lookups_.back()->step();
}

void Controller::lba_status_ended(LbaStatusJob& job, AdminReply reply) {
  transport::ControllerCommand* const command = job.command();
  std::erase_if(lookups_, [&job](const auto& one) { return one.get() == &job; });
  if (command != nullptr && !fatal_) admin_->finish(*command, std::move(reply));
  if (stopping_) continue_stop();
  check_gone();
}

// ---- errors

void Controller::record_error(std::uint16_t sqid, const nvme::Sqe& sqe, nvme::Status status,
                              bool has_lba) {
  nvme::ErrorEntry entry;
  entry.error_count = ++error_count_;
  entry.sqid = sqid;
  entry.cmdid = sqe.cid;
  entry.status_field = status.encode();
  entry.parm_error_location = 0xffff;  // not told which byte
  entry.lba = has_lba ? sqe.slba() : 0;
  entry.nsid = sqe.is_fabrics() ? 0 : sqe.nsid;
  entry.trtype = static_cast<std::uint8_t>(nvme::TransportType::tcp);
  entry.opcode = sqe.opcode;
  keep_error(entry);
}

void Controller::internal_error(nvme::Status status, std::uint8_t info) {
  nvme::ErrorEntry entry;
  entry.error_count = ++error_count_;
  entry.sqid = 0xffff;  // of no queue and no command
  entry.cmdid = 0xffff;
  entry.status_field = status.encode();
  entry.parm_error_location = 0xffff;
  entry.trtype = static_cast<std::uint8_t>(nvme::TransportType::tcp);
  keep_error(entry);
  raise(EventKind::error, info);
}

void Controller::keep_error(nvme::ErrorEntry entry) {
  errors_.push_front(entry);
  if (errors_.size() > kErrorEntriesMax) errors_.pop_back();
  ++subsystem_.counters.error_entries;
}

}  // namespace nvmf::controller
