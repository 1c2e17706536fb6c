#include "controller/target.h"

#include <fmt/format.h>

#include <utility>

#include "nvme/address.h"
#include "nvme/check.h"
#include "transport/tcp/controller_qpair.h"

namespace nvmf::controller {

Target::Target(transport::Loop& loop, TargetConfig config)
    : loop_(loop),
      config_(std::move(config)),
      discovery_subsystem_(Subsystem::create_discovery(loop.now())),
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
    auto made = Subsystem::create(loop, wanted);
    if (!made) return std::unexpected(std::move(made.error()));
    target->by_nqn_.emplace((*made)->nqn(), made->get());
    target->subsystems_.push_back(std::move(*made));
  }
  return target;
}

Result<transport::Endpoint> Target::listen(const transport::Endpoint& at) {
  const auto port_id = static_cast<std::uint16_t>(listeners_.size() + 1);
  auto listener = loop_.listen(at, [this, port_id](std::unique_ptr<transport::Incoming> incoming) {
    accept(std::move(incoming), port_id);
  });
  if (!listener) return std::unexpected(std::move(listener.error()));
  transport::Endpoint local = (*listener)->local();
  listeners_.push_back(std::move(*listener));
  discovery_.changed();
  for (Controller* controller : discovery_subsystem_->controllers()) {
    controller->discovery_changed();
  }
  return local;
}

void Target::accept(std::unique_ptr<transport::Incoming> incoming, std::uint16_t port_id) {
  if (stopping_ || sessions_.size() >= kConnectionsMax) {
    log(fmt::format("Refused the connection of {}: {}", incoming->peer(),
                    stopping_ ? "the target is stopping"
                              : fmt::format("there are {} connections", sessions_.size())));
    return;
  }
  auto session = std::make_unique<Session>(*this, port_id);
  auto qpair = std::make_unique<tcp::ControllerQpair>(tcp::ControllerQpairOptions{}, *session);
  tcp::ControllerQpair& started = *qpair;
  session->start(std::move(qpair));
  Session* const key = session.get();
  sessions_.emplace(key, std::move(session));
  started.start(loop_, std::move(incoming));
}

Subsystem* Target::find(std::string_view subnqn) {
  if (subnqn == nvme::kDiscoveryNqn) return discovery_subsystem_.get();
  const auto found = by_nqn_.find(subnqn);
  return found == by_nqn_.end() ? nullptr : found->second;
}

Result<std::uint32_t> Target::add_namespace(std::string_view subnqn,
                                            const NamespaceConfig& config) {
  Subsystem* const subsystem = find(subnqn);
  if (subsystem == nullptr || subsystem->discovery()) {
    return fail(fmt::format("There is no subsystem {} to add a namespace to", subnqn), ENOENT);
  }
  return subsystem->add_namespace(loop_, config);
}

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
  reaper_.arm(loop_.now());
  if (session.controller() != nullptr) session.controller()->session_gone(session);
}

void Target::controller_gone(Controller& controller) {
  const auto found = controllers_.find(&controller);
  NVMF_CHECK(found != controllers_.end());
  dead_controllers_.push_back(std::move(found->second));
  controllers_.erase(found);
  reaper_.arm(loop_.now());
}

void Target::reap() {
  dead_sessions_.clear();
  dead_controllers_.clear();
  if (!stopping_ || !sessions_.empty() || !controllers_.empty() || !stopped_) return;
  stop_deadline_.cancel();
  std::exchange(stopped_, nullptr)(Result<void>{});
}

void Target::stop(std::move_only_function<void(Result<void>)> done) {
  NVMF_CHECK(!stopping_);
  stopping_ = true;
  stopped_ = std::move(done);
  listeners_.clear();
  const Error reason{"The target is stopping", ESHUTDOWN};
  // Neither removes itself from its map inside this call, except controllers without a connection.
  std::vector<Controller*> controllers;
  for (const auto& [controller, owned] : controllers_) controllers.push_back(controller);
  for (Controller* controller : controllers) controller->end(reason);
  for (const auto& [session, owned] : sessions_) session->end(reason);
  stop_deadline_.arm(loop_.now() + kStopTimeout);
  reaper_.arm(loop_.now());
}

void Target::log(const std::string& line) {
  if (config_.log) config_.log(line);
}

}  // namespace nvmf::controller
