// An NVM subsystem: its name, who may use it, its namespaces, and the controllers that live in it.
//
// One thread, the target's. Controllers come and go with associations. A namespace that is removed
// is not found any more; commands that use it are brought to their end on its disk.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "controller/config.h"
#include "controller/namespace.h"
#include "nvme/log_pages.h"
#include "nvme/result.h"
#include "transport/loop.h"

namespace nvmf::controller {

class Controller;

/// A group of namespaces whose way to them is equally good. Base 2.1 §8.1.1.
struct AnaGroup {
  nvme::AnaState state = nvme::AnaState::optimized;
  std::map<std::uint16_t, nvme::AnaState> by_port;  // where it is another one, by port ID
  std::uint64_t changes = 0;

  [[nodiscard]] nvme::AnaState at(std::uint16_t port_id) const {
    const auto found = by_port.find(port_id);
    return found == by_port.end() ? state : found->second;
  }
};

/// What the SMART log counts, over all controllers since the target started.
struct Counters {
  std::uint64_t read_commands = 0;
  std::uint64_t write_commands = 0;
  std::uint64_t read_bytes = 0;
  std::uint64_t written_bytes = 0;
  std::uint64_t media_errors = 0;
  std::uint64_t error_entries = 0;
  std::uint64_t unsafe_shutdowns = 0;  // associations that ended without a shutdown

  void count_read(std::uint64_t bytes) {
    ++read_commands;
    read_bytes += bytes;
  }
  void count_written(std::uint64_t bytes) {
    ++write_commands;
    written_bytes += bytes;
  }
};

/// What the SMART log says of the state of things; set on demand.
struct Health {
  std::uint8_t critical_warning = 0;      // kWarning* bits
  std::uint16_t temperature_kelvins = 0;  // 0: not reported
  std::uint8_t spare_percent = 100;       // nothing here wears out
  std::uint8_t used_percent = 0;
};

class Subsystem {
 public:
  /// Opens the namespaces. The error names the one that failed.
  static Result<std::unique_ptr<Subsystem>> create(NamespaceMaker& maker,
                                                   const SubsystemConfig& config);
  /// The discovery subsystem: no namespaces, open to every host.
  static std::unique_ptr<Subsystem> create_discovery(Instant now);

  [[nodiscard]] const std::string& nqn() const { return nqn_; }
  [[nodiscard]] const std::string& serial() const { return serial_; }
  [[nodiscard]] bool discovery() const { return discovery_; }
  [[nodiscard]] bool allows(std::string_view hostnqn) const;
  /// Every host may use it; otherwise those of hosts(), which may be none.
  [[nodiscard]] bool allows_any() const { return any_host_; }
  [[nodiscard]] const std::vector<std::string>& hosts() const { return hosts_; }
  /// Only where not every host may: the error says so, or that there is nothing to change.
  Result<void> allow(const std::string& hostnqn);
  /// Ends the host's controllers.
  Result<void> disallow(const std::string& hostnqn);
  [[nodiscard]] Instant started() const { return started_; }

  /// In the order of their NSIDs: 1, 2, … until one is removed.
  [[nodiscard]] const std::vector<std::unique_ptr<Namespace>>& namespaces() const {
    return namespaces_;
  }
  [[nodiscard]] Namespace* find(std::uint32_t nsid) const;
  /// The namespace with the lowest NSID above `nsid`, or nullptr.
  [[nodiscard]] Namespace* next(std::uint32_t nsid) const;
  /// 0 if there is none.
  [[nodiscard]] std::uint32_t highest_nsid() const;

  // Changes; each tells every controller. The error says why not.
  /// `nsid` 0: one above the highest. Its NSID.
  Result<std::uint32_t> add_namespace(NamespaceMaker& maker, const NamespaceConfig& config,
                                      std::uint32_t nsid = 0);
  Result<void> remove_namespace(std::uint32_t nsid);
  /// Another disk, with other identifiers, under the same NSID.
  Result<void> swap_namespace(NamespaceMaker& maker, std::uint32_t nsid,
                              const NamespaceConfig& config);
  Result<void> resize_namespace(std::uint32_t nsid, std::uint64_t size_bytes);
  /// Write protection, of commands that come from now on. EROFS where the disk takes no writes.
  Result<void> protect_namespace(std::uint32_t nsid, bool protect);
  /// The namespace's blocks have another size, or its data is gone: tells every controller.
  void formatted(const Namespace& ns);
  /// Destroys what was removed and is no longer used. Not inside a call of a disk's.
  void purge();
  /// Asymmetric namespace access: groups 1 to size(); empty if it is not reported.
  [[nodiscard]] const std::vector<AnaGroup>& ana_groups() const { return ana_groups_; }
  /// The way from a port to a namespace; optimized where access is not reported.
  [[nodiscard]] nvme::AnaState ana_state(const Namespace& ns, std::uint16_t port_id) const {
    return ana_groups_.empty() ? nvme::AnaState::optimized
                               : ana_groups_[ns.ana_group - 1].at(port_id);
  }
  /// On one port or, with 0, on every one. Tells the controllers for which it is another state.
  Result<void> set_ana_state(std::uint32_t group, nvme::AnaState state, std::uint16_t port_id);
  [[nodiscard]] nvme::AnaLog ana_log(std::uint16_t port_id, bool groups_only) const;
  /// It is no subsystem any more: ends its controllers and removes its namespaces. Until gone(),
  /// they, and the disks, may still need it.
  void retire();
  [[nodiscard]] bool gone() const { return controllers_.empty() && removed_.empty(); }
  /// Whether any namespace may lose writes before a flush.
  [[nodiscard]] bool volatile_cache() const;

  /// A CNTLID that no live controller has, the longest unused first; 0 if all are taken.
  [[nodiscard]] std::uint16_t take_cntlid();
  /// CNTLIDs are given from the lowest again, as after a start.
  void forget_cntlids() { last_cntlid_ = 0; }
  void add(Controller& controller);
  void remove(Controller& controller);
  [[nodiscard]] Controller* controller(std::uint16_t cntlid) const;
  [[nodiscard]] const std::vector<Controller*>& controllers() const { return controllers_; }

  Counters counters;
  Health health;
  /// Tells every controller.
  void health_changed();

 private:
  Subsystem(std::string nqn, Instant now) : nqn_(std::move(nqn)), started_(now) {}

  [[nodiscard]] Error no_namespace(std::uint32_t nsid) const;
  void changed(std::uint32_t nsid);

  std::string nqn_;
  Instant started_;
  std::string serial_;
  bool discovery_ = false;
  std::vector<AnaGroup> ana_groups_;
  std::uint64_t ana_changes_ = 0;
  bool any_host_ = true;
  std::vector<std::string> hosts_;
  std::vector<std::unique_ptr<Namespace>> namespaces_;
  std::vector<std::unique_ptr<Namespace>> removed_;  // and still in use
  std::vector<Controller*> controllers_;
  std::uint16_t last_cntlid_ = 0;
};

}  // namespace nvmf::controller
