// What changes while a target runs: subsystems, who may use them, namespaces, referrals.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "controller/target.h"
#include "nvme/text.h"

namespace nvmf::controller {

namespace {

bool everybody(const std::string& /*hostnqn*/) {
  return true;
}

}  // namespace

// ---- subsystems

void Target::discovery_changed(const std::function<bool(const std::string&)>& visible) {
  discovery_.changed();
  for (Controller* controller : discovery_subsystem_->controllers()) {
    if (visible(controller->identity().hostnqn)) controller->discovery_changed();
  }
}

Result<void> Target::add_subsystem(const SubsystemConfig& config) {
  if (auto checked = check_subsystem(config); !checked) return checked;
  if (by_nqn_.contains(config.nqn)) {
    return fail(fmt::format("There is a subsystem {} already", config.nqn), EEXIST);
  }
  if (subsystems_.size() >= kSubsystemsMax) {
    return fail(fmt::format("There are {} subsystems; no more are possible", subsystems_.size()),
                ENOSPC);
  }
  auto made = Subsystem::create(maker_, config);
  if (!made) return std::unexpected(std::move(made.error()));
  const Subsystem& added = **made;
  by_nqn_.emplace(added.nqn(), made->get());
  subsystems_.push_back(std::move(*made));
  discovery_changed([&added](const std::string& hostnqn) { return added.allows(hostnqn); });
  return {};
}

Result<void> Target::remove_subsystem(std::string_view subnqn) {
  const auto subsystem = changeable(subnqn);
  if (!subsystem) return std::unexpected(subsystem.error());
  const auto found = std::ranges::find(subsystems_, *subsystem, &std::unique_ptr<Subsystem>::get);
  by_nqn_.erase((*subsystem)->nqn());
  retired_.push_back(std::move(*found));
  subsystems_.erase(found);
  Subsystem& removed = *retired_.back();
  removed.retire();
  discovery_changed([&removed](const std::string& hostnqn) { return removed.allows(hostnqn); });
  return {};
}

Result<void> Target::allow_host(std::string_view subnqn, const std::string& hostnqn) {
  const auto subsystem = changeable(subnqn);
  if (!subsystem) return std::unexpected(subsystem.error());
  if (auto done = (*subsystem)->allow(hostnqn); !done) return done;
  discovery_changed([&hostnqn](const std::string& one) { return one == hostnqn; });
  return {};
}

Result<void> Target::disallow_host(std::string_view subnqn, const std::string& hostnqn) {
  const auto subsystem = changeable(subnqn);
  if (!subsystem) return std::unexpected(subsystem.error());
  if (auto done = (*subsystem)->disallow(hostnqn); !done) return done;
  discovery_changed([&hostnqn](const std::string& one) { return one == hostnqn; });
  return {};
}

Result<void> Target::add_referral(const nvme::HostPort& at) {
  if (auto done = discovery_.add_referral(at); !done) return done;
  discovery_changed(everybody);
  return {};
}

Result<void> Target::remove_referral(const nvme::HostPort& at) {
  if (auto done = discovery_.remove_referral(at); !done) return done;
  discovery_changed(everybody);
  return {};
}

// ---- namespaces

Result<void> Target::set_ana_state(std::string_view subnqn, std::uint32_t group,
                                   nvme::AnaState state, std::uint16_t port_id) {
  const auto subsystem = changeable(subnqn);
  if (!subsystem) return std::unexpected(subsystem.error());
  if (port_id > places_.size()) {
    return fail(fmt::format("There is no port {}: this target listens in {} places", port_id,
                            places_.size()),
                ENOENT);
  }
  return (*subsystem)->set_ana_state(group, state, port_id);
}

Result<Subsystem*> Target::changeable(std::string_view subnqn) {
  Subsystem* const subsystem = find(subnqn);
  if (subsystem == nullptr || subsystem->discovery()) {
    return fail(fmt::format("There is no subsystem {} here that has namespaces",
                            nvme::printable(std::string(subnqn))),
                ENOENT);
  }
  reap_soon();  // what is removed may be destroyed
  return subsystem;
}

Result<std::uint32_t> Target::add_namespace(std::string_view subnqn, const NamespaceConfig& config,
                                            std::uint32_t nsid) {
  const auto subsystem = changeable(subnqn);
  if (!subsystem) return std::unexpected(subsystem.error());
  return (*subsystem)->add_namespace(maker_, config, nsid);
}

Result<void> Target::remove_namespace(std::string_view subnqn, std::uint32_t nsid) {
  const auto subsystem = changeable(subnqn);
  if (!subsystem) return std::unexpected(subsystem.error());
  return (*subsystem)->remove_namespace(nsid);
}

Result<void> Target::swap_namespace(std::string_view subnqn, std::uint32_t nsid,
                                    const NamespaceConfig& config) {
  const auto subsystem = changeable(subnqn);
  if (!subsystem) return std::unexpected(subsystem.error());
  return (*subsystem)->swap_namespace(maker_, nsid, config);
}

Result<void> Target::resize_namespace(std::string_view subnqn, std::uint32_t nsid,
                                      std::uint64_t size_bytes) {
  const auto subsystem = changeable(subnqn);
  if (!subsystem) return std::unexpected(subsystem.error());
  return (*subsystem)->resize_namespace(nsid, size_bytes);
}

Result<void> Target::protect_namespace(std::string_view subnqn, std::uint32_t nsid, bool protect) {
  const auto subsystem = changeable(subnqn);
  if (!subsystem) return std::unexpected(subsystem.error());
  return (*subsystem)->protect_namespace(nsid, protect);
}

}  // namespace nvmf::controller
