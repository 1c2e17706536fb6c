#include "controller/target.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "controller/hole_stream.h"
#include "nvme/address.h"
#include "nvme/check.h"
#include "transport/tcp/controller_qpair.h"

namespace nvmf::controller {

Target::Target(transport::Loop& loop, TargetConfig config)
    : loop_(loop),
      config_(std::move(config)),
      buffers_(config_.shared_buffers),
      discovery_subsystem_(Subsystem::create_discovery(loop.now())),
      listen_again_(loop.timers(), [this] { listen_again(); }),
      reaper_(loop.timers(), [this] { reap(); }),
      stop_deadline_(loop.timers(), [this] {
        if (!stopped_) return;
        std::exchange(stopped_, nullptr)(
            fail(fmt::format("Operations on a disk did not end within {} s", kStopTimeout.count()),
                 ETIMEDOUT));
      }) {}

Target::~Target() {
  NVMF_CHECK(sessions_.empty());
}

Result<std::unique_ptr<Target>> Target::create(transport::Loop& loop, TargetConfig config) {
  if (auto checked = check_config(config); !checked) {
    return std::unexpected(std::move(checked.error()));
  }
  std::unique_ptr<Target> target(new Target(loop, std::move(config)));
  for (const SubsystemConfig& wanted : target->config_.subsystems) {
    auto made = Subsystem::create(target->maker_, wanted);
    if (!made) return std::unexpected(std::move(made.error()));
    target->by_nqn_.emplace((*made)->nqn(), made->get());
    target->subsystems_.push_back(std::move(*made));
  }
  for (const nvme::HostPort& at : target->config_.referrals) {
    if (auto added = target->discovery_.add_referral(at); !added) {
      return std::unexpected(std::move(added.error()));
    }
  }
  return target;
}

Result<transport::Endpoint> Target::open_listener(const transport::Endpoint& at,
                                                  std::uint16_t port_id) {
  auto listener = loop_.listen(at, [this, port_id](std::unique_ptr<transport::Incoming> incoming) {
    accept(std::move(incoming), port_id);
  });
  if (!listener) return std::unexpected(std::move(listener.error()));
  transport::Endpoint local = (*listener)->local();
  places_[port_id - 1u].listener = std::move(*listener);
  return local;
}

Result<transport::Endpoint> Target::listen(const transport::Endpoint& at) {
  places_.emplace_back();
  auto local = open_listener(at, static_cast<std::uint16_t>(places_.size()));
  if (!local) {
    places_.pop_back();
    return local;
  }
  places_.back().at = *local;
  discovery_changed([](const std::string&) { return true; });
  return local;
}

void Target::accept(std::unique_ptr<transport::Incoming> incoming, std::uint16_t port_id) {
  if (stopping_ || sessions_.size() >= kConnectionsMax) {
    log(fmt::format("Refused the connection of {}: {}", incoming->peer(),
                    stopping_ ? "the target is stopping"
                              : fmt::format("there are {} connections", sessions_.size())));
    return;
  }
  if (faults_.refuses_connection()) {
    log(fmt::format("Refused the connection of {} on demand", incoming->peer()));
    return;
  }
  auto session = std::make_unique<Session>(*this, port_id, next_session_++);
  Session* const key = session.get();
  tcp::ControllerQpairOptions options;
  options.corrupt_digest = [this, key] { return faults_.corrupts(*key); };
  auto qpair = std::make_unique<tcp::ControllerQpair>(options, *session);
  auto stream = HoleStream::adopt(loop_, std::move(incoming), qpair->user());
  HoleStream* const hole = stream.get();
  qpair->start(std::move(stream));
  session->start(std::move(qpair), hole);
  sessions_.emplace(key, std::move(session));
  if (faults_.swallows_new()) key->set_hole(true);
}

Subsystem* Target::find(std::string_view subnqn) {
  if (subnqn == nvme::kDiscoveryNqn) return discovery_subsystem_.get();
  const auto found = by_nqn_.find(subnqn);
  return found == by_nqn_.end() ? nullptr : found->second;
}

// ---- controllers and sessions

Controller* Target::make_controller(Subsystem& subsystem, Controller::Identity identity) {
  identity.cntlid = subsystem.take_cntlid();
  if (identity.cntlid == 0) return nullptr;
  auto made = std::make_unique<Controller>(loop_, *this, subsystem, config_,
                                           subsystem.discovery() ? &discovery_ : nullptr,
                                           std::move(identity));
  Controller* const controller = made.get();
  controllers_.emplace(controller, std::move(made));
  return controller;
}

void Target::session_gone(Session& session) {
  const auto found = sessions_.find(&session);
  NVMF_CHECK(found != sessions_.end());
  dead_sessions_.push_back(std::move(found->second));
  sessions_.erase(found);
  reap_soon();
  if (session.controller() != nullptr) session.controller()->session_gone(session);
}

void Target::controller_gone(Controller& controller) {
  const auto found = controllers_.find(&controller);
  NVMF_CHECK(found != controllers_.end());
  dead_controllers_.push_back(std::move(found->second));
  controllers_.erase(found);
  reap_soon();
}

std::vector<Session*> Target::sessions() const {
  std::vector<Session*> all;
  for (const auto& [session, owned] : sessions_) all.push_back(session);
  std::ranges::sort(all, {}, &Session::number);  // not by address: the same run again
  return all;
}

std::vector<Controller*> Target::controllers() const {
  std::vector<Controller*> all;
  for (const auto& subsystem : subsystems_) {
    const auto& in = subsystem->controllers();
    all.insert(all.end(), in.begin(), in.end());
  }
  const auto& discovering = discovery_subsystem_->controllers();
  all.insert(all.end(), discovering.begin(), discovering.end());
  std::erase_if(all, [](const Controller* controller) { return controller->ended(); });
  return all;
}

void Target::reap_soon() {
  reaper_.arm(loop_.now());
}

void Target::reap() {
  dead_sessions_.clear();
  dead_controllers_.clear();
  for (const auto& subsystem : subsystems_) subsystem->purge();
  for (const auto& subsystem : retired_) subsystem->purge();
  std::erase_if(retired_, [](const auto& subsystem) { return subsystem->gone(); });
  if (!stopping_ || !sessions_.empty() || !controllers_.empty() || !stopped_) return;
  if (!faults_.idle()) return;
  stop_deadline_.cancel();
  std::exchange(stopped_, nullptr)(Result<void>{});
}

void Target::stop(std::move_only_function<void(Result<void>)> done) {
  NVMF_CHECK(!stopping_);
  stopping_ = true;
  stopped_ = std::move(done);
  listen_again_.cancel();
  places_.clear();
  const Error reason{"The target is stopping", ESHUTDOWN};
  // Neither removes itself from its map inside this call, except controllers without a connection.
  for (Controller* controller : controllers()) controller->end(reason);
  for (Session* session : sessions()) session->end(reason);
  faults_.stop();  // behind that: what a black hole has swallowed is not executed any more
  stop_deadline_.arm(loop_.now() + kStopTimeout);
  reap_soon();
}

// ---- restart

Result<void> Target::restart(const Restart& how) {
  TargetConfig next = config_;
  if (how.max_queues) next.max_queues = *how.max_queues;
  if (how.queue_entries) next.queue_entries = *how.queue_entries;
  if (auto checked = check_config(next); !checked) return checked;
  NVMF_CHECK(!stopping_);
  log(how.power_loss ? "Power is lost, on demand" : "Restarted on demand");
  config_.max_queues = next.max_queues;
  config_.queue_entries = next.queue_entries;
  for (Place& place : places_) place.listener.reset();
  const Error reason{"The target was restarted on demand", ECONNRESET};
  for (Controller* controller : controllers()) controller->end(reason);
  for (Session* session : sessions()) session->end_visibly(reason);
  if (how.power_loss) faults_.power_loss();
  for (const auto& subsystem : subsystems_) subsystem->forget_cntlids();
  discovery_subsystem_->forget_cntlids();
  listen_attempts_ = 0;
  listen_again_.arm(loop_.now() + how.down);
  return {};
}

void Target::listen_again() {
  // The system may need a moment to let go of the port.
  constexpr std::uint32_t kAttemptsMax = 100;
  constexpr std::chrono::milliseconds kAttemptEvery{50};
  for (std::size_t i = 0; i < places_.size(); ++i) {
    if (places_[i].listener != nullptr) continue;
    auto local = open_listener(places_[i].at, static_cast<std::uint16_t>(i + 1));
    if (local) continue;
    if (++listen_attempts_ >= kAttemptsMax) {
      log(fmt::format("Gave up to listen again: {}", local.error().message));
      return;
    }
    listen_again_.arm(loop_.now() + kAttemptEvery);
    return;
  }
  log("Listens again");
}

void Target::log(const std::string& line) {
  if (config_.log) config_.log(line);
}

}  // namespace nvmf::controller
