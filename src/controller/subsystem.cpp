#include "controller/subsystem.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "controller/controller.h"
#include "nvme/address.h"
#include "nvme/text.h"

namespace nvmf::controller {

namespace {

constexpr std::uint64_t kSerialSalt = 3;

}  // namespace

Result<std::unique_ptr<Subsystem>> Subsystem::create(NamespaceMaker& maker,
                                                     const SubsystemConfig& config) {
  std::unique_ptr<Subsystem> made(new Subsystem(config.nqn, maker.now()));
  // The same on every target that serves this NQN: paths of one subsystem must agree on it.
  made->serial_ = config.serial.empty()
                      ? nvme::format_hex(stable_bytes(config.nqn, kSerialSalt)).substr(0, 20)
                      : config.serial;
  made->hosts_ = config.hosts;
  made->any_host_ = config.hosts.empty();
  made->ana_groups_.resize(config.ana_groups);
  for (const NamespaceConfig& ns : config.namespaces) {
    auto added = made->add_namespace(maker, ns);
    if (!added) return std::unexpected(std::move(added.error()));
  }
  return made;
}

std::unique_ptr<Subsystem> Subsystem::create_discovery(Instant now) {
  std::unique_ptr<Subsystem> made(new Subsystem(std::string(nvme::kDiscoveryNqn), now));
  made->discovery_ = true;
  made->serial_ = nvme::format_hex(stable_bytes(made->nqn_, kSerialSalt)).substr(0, 20);
  return made;
}

bool Subsystem::allows(std::string_view hostnqn) const {
  return any_host_ || std::ranges::find(hosts_, hostnqn) != hosts_.end();
}

Result<void> Subsystem::allow(const std::string& hostnqn) {
  if (!nvme::usable_nqn(hostnqn)) {
    return fail(fmt::format("'{}' is no host NQN: it must be 1 to {} bytes of text",
                            nvme::printable(hostnqn), nvme::kMaxNqnBytes),
                EINVAL);
  }
  if (allows(hostnqn)) {
    return fail(fmt::format("{} may use {} already{}", nvme::printable(hostnqn), nqn_,
                            any_host_ ? ", as every host may" : ""),
                EEXIST);
  }
  if (hosts_.size() >= kHostsMax) {
    return fail(
        fmt::format("The subsystem {} allows {} hosts; no more are possible", nqn_, hosts_.size()),
        ENOSPC);
  }
  hosts_.push_back(hostnqn);
  return {};
}

Result<void> Subsystem::disallow(const std::string& hostnqn) {
  if (any_host_) {
    return fail(fmt::format("Every host may use {}: only where hosts are allowed by name can one "
                            "lose that",
                            nqn_),
                EINVAL);
  }
  if (std::erase(hosts_, hostnqn) == 0) {
    return fail(fmt::format("{} is not among the hosts of {}", nvme::printable(hostnqn), nqn_),
                ENOENT);
  }
  const std::vector<Controller*> all = controllers_;
  for (Controller* controller : all) {
    if (controller->identity().hostnqn != hostnqn) continue;
    controller->end(Error{"Its host may not use the subsystem any more", EACCES});
  }
  return {};
}

void Subsystem::retire() {
  const std::vector<Controller*> all = controllers_;
  for (Controller* controller : all) {
    controller->end(Error{"The subsystem was removed", ESHUTDOWN});
  }
  for (auto& ns : namespaces_) removed_.push_back(std::move(ns));
  namespaces_.clear();
}

Namespace* Subsystem::next(std::uint32_t nsid) const {
  const auto found =
      std::ranges::upper_bound(namespaces_, nsid, {}, [](const auto& ns) { return ns->nsid; });
  return found == namespaces_.end() ? nullptr : found->get();
}

Namespace* Subsystem::find(std::uint32_t nsid) const {
  // Nothing was removed, in nearly all cases.
  if (nsid >= 1 && nsid <= namespaces_.size() && namespaces_[nsid - 1]->nsid == nsid) {
    return namespaces_[nsid - 1].get();
  }
  Namespace* const found = nsid == 0 ? nullptr : next(nsid - 1);
  return found != nullptr && found->nsid == nsid ? found : nullptr;
}

std::uint32_t Subsystem::highest_nsid() const {
  return namespaces_.empty() ? 0 : namespaces_.back()->nsid;
}

void Subsystem::changed(std::uint32_t nsid) {
  for (Controller* controller : controllers_) controller->namespace_changed(nsid);
}

void Subsystem::health_changed() {
  for (Controller* controller : controllers_) controller->health_changed();
}

Error Subsystem::no_namespace(std::uint32_t nsid) const {
  return {fmt::format("The subsystem {} has no namespace {}", nqn_, nsid), ENOENT};
}

Result<std::uint32_t> Subsystem::add_namespace(NamespaceMaker& maker, const NamespaceConfig& config,
                                               std::uint32_t nsid) {
  if (namespaces_.size() >= kNamespacesMax) {
    return fail(fmt::format("The subsystem {} has {} namespaces already; no more are possible",
                            nqn_, namespaces_.size()),
                ENOSPC);
  }
  if (nsid == 0) nsid = highest_nsid() + 1;
  if (nsid > kNsidMax) {
    return fail(
        fmt::format("{} is no NSID for the subsystem {}: 1 to {} are", nsid, nqn_, kNsidMax),
        EINVAL);
  }
  if (find(nsid) != nullptr) {
    return fail(fmt::format("The subsystem {} has a namespace {} already: remove it first, or swap "
                            "it for another one",
                            nqn_, nsid),
                EEXIST);
  }
  if (auto good = check_ana_group(config, static_cast<std::uint32_t>(ana_groups_.size()), nqn_);
      !good) {
    return std::unexpected(std::move(good.error()));
  }
  auto made = maker.make(config, nsid, nqn_);
  if (!made) return std::unexpected(std::move(made.error()));
  namespaces_.insert(
      std::ranges::upper_bound(namespaces_, nsid, {}, [](const auto& ns) { return ns->nsid; }),
      std::move(*made));
  changed(nsid);
  return nsid;
}

Result<void> Subsystem::remove_namespace(std::uint32_t nsid) {
  const auto found = std::ranges::find(namespaces_, nsid, [](const auto& ns) { return ns->nsid; });
  if (found == namespaces_.end()) return std::unexpected(no_namespace(nsid));
  removed_.push_back(std::move(*found));
  namespaces_.erase(found);
  changed(nsid);
  return {};
}

Result<void> Subsystem::swap_namespace(NamespaceMaker& maker, std::uint32_t nsid,
                                       const NamespaceConfig& config) {
  const auto found = std::ranges::find(namespaces_, nsid, [](const auto& ns) { return ns->nsid; });
  if (found == namespaces_.end()) return std::unexpected(no_namespace(nsid));
  if (auto good = check_ana_group(config, static_cast<std::uint32_t>(ana_groups_.size()), nqn_);
      !good) {
    return good;
  }
  auto made = maker.make(config, nsid, nqn_);
  if (!made) return std::unexpected(std::move(made.error()));
  removed_.push_back(std::exchange(*found, std::move(*made)));
  changed(nsid);
  return {};
}

Result<void> Subsystem::resize_namespace(std::uint32_t nsid, std::uint64_t size_bytes) {
  Namespace* const ns = find(nsid);
  if (ns == nullptr) return std::unexpected(no_namespace(nsid));
  if (size_bytes == 0 || size_bytes % ns->block_bytes != 0) {
    return fail(fmt::format("Namespace {} of {} cannot have {} bytes: give a multiple of its block "
                            "size of {} bytes, and not 0",
                            nsid, nqn_, size_bytes, ns->block_bytes),
                EINVAL);
  }
  if (auto resized = ns->disk->resize(size_bytes); !resized) return resized;
  changed(nsid);
  return {};
}

Result<void> Subsystem::protect_namespace(std::uint32_t nsid, bool protect) {
  Namespace* const ns = find(nsid);
  if (ns == nullptr) return std::unexpected(no_namespace(nsid));
  if (!protect && ns->disk->read_only()) {
    return fail(fmt::format("Namespace {} of {} cannot be written: what is behind it is read-only",
                            nsid, nqn_),
                EROFS);
  }
  if (std::exchange(ns->write_protected, protect) != protect) changed(nsid);
  return {};
}

void Subsystem::formatted(const Namespace& ns) {
  if (find(ns.nsid) == &ns) changed(ns.nsid);  // it may have been removed meanwhile
}

Result<void> Subsystem::set_ana_state(std::uint32_t group, nvme::AnaState state,
                                      std::uint16_t port_id) {
  if (group < 1 || group > ana_groups_.size()) {
    return fail(fmt::format("The subsystem {} has no ANA group {}: {}", nqn_, group,
                            ana_groups_.empty()
                                ? std::string("it reports no asymmetric access (--ana)")
                                : fmt::format("its groups are 1 to {}", ana_groups_.size())),
                ENOENT);
  }
  AnaGroup& changed = ana_groups_[group - 1];
  const AnaGroup before = changed;
  if (port_id == 0) {
    changed.state = state;
    changed.by_port.clear();
  } else {
    changed.by_port[port_id] = state;
  }
  ++changed.changes;
  ++ana_changes_;
  for (Controller* controller : controllers_) {
    const std::uint16_t port = controller->identity().port_id;
    if (before.at(port) != changed.at(port)) controller->ana_changed();
  }
  return {};
}

nvme::AnaLog Subsystem::ana_log(std::uint16_t port_id, bool groups_only) const {
  nvme::AnaLog log;
  log.change_count = ana_changes_;
  for (const AnaGroup& group : ana_groups_) {
    log.groups.push_back({.group_id = static_cast<std::uint32_t>(log.groups.size() + 1),
                          .change_count = group.changes,
                          .state = group.at(port_id),
                          .nsids = {}});
  }
  if (groups_only) return log;
  for (const auto& ns : namespaces_) log.groups[ns->ana_group - 1].nsids.push_back(ns->nsid);
  return log;
}

void Subsystem::purge() {
  std::erase_if(removed_, [](const auto& ns) { return ns->users == 0 && ns->disk->idle(); });
}

bool Subsystem::volatile_cache() const {
  return std::ranges::any_of(namespaces_,
                             [](const auto& ns) { return ns->disk->volatile_cache(); });
}

std::uint16_t Subsystem::take_cntlid() {
  // Not the lowest free one: a host that is late must not meet a stranger under an old number.
  for (std::uint32_t tried = 0; tried < kCntlidMax; ++tried) {
    last_cntlid_ = last_cntlid_ >= kCntlidMax ? std::uint16_t{1}
                                              : static_cast<std::uint16_t>(last_cntlid_ + 1);
    if (controller(last_cntlid_) == nullptr) return last_cntlid_;
  }
  return 0;
}

void Subsystem::add(Controller& controller) {
  controllers_.push_back(&controller);
}

void Subsystem::remove(Controller& controller) {
  std::erase(controllers_, &controller);
}

Controller* Subsystem::controller(std::uint16_t cntlid) const {
  const auto found = std::ranges::find_if(
      controllers_, [cntlid](const Controller* c) { return c->cntlid() == cntlid; });
  return found == controllers_.end() ? nullptr : *found;
}

}  // namespace nvmf::controller
