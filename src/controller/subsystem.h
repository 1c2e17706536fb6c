// An NVM subsystem: its name, who may use it, its namespaces, and the controllers that live in it.
//
// One thread, the target's. Controllers come and go with associations; namespaces stay as long as
// the subsystem does.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "controller/config.h"
#include "controller/disk.h"
#include "nvme/identify.h"
#include "nvme/result.h"
#include "transport/loop.h"

namespace nvmf::controller {

class Controller;

struct Namespace {
  std::uint32_t nsid = 0;
  std::uint32_t block_bytes = 512;
  nvme::Uuid uuid{};
  nvme::Nguid nguid{};
  std::unique_ptr<Disk> disk;

  [[nodiscard]] std::uint64_t blocks() const { return disk->size_bytes() / block_bytes; }
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

class Subsystem {
 public:
  /// Opens the namespaces. The error names the one that failed.
  static Result<std::unique_ptr<Subsystem>> create(transport::Loop& loop,
                                                   const SubsystemConfig& config);
  /// The discovery subsystem: no namespaces, open to every host.
  static std::unique_ptr<Subsystem> create_discovery(Instant now);

  [[nodiscard]] const std::string& nqn() const { return nqn_; }
  [[nodiscard]] const std::string& serial() const { return serial_; }
  [[nodiscard]] bool discovery() const { return discovery_; }
  [[nodiscard]] bool allows(std::string_view hostnqn) const;
  [[nodiscard]] Instant started() const { return started_; }

  /// In the order of their NSIDs, which are 1, 2, …
  [[nodiscard]] const std::vector<std::unique_ptr<Namespace>>& namespaces() const {
    return namespaces_;
  }
  [[nodiscard]] Namespace* find(std::uint32_t nsid) const;
  /// Adds one behind the last and tells every controller. Its NSID, or why not.
  Result<std::uint32_t> add_namespace(transport::Loop& loop, const NamespaceConfig& config);
  /// Whether any namespace may lose writes before a flush.
  [[nodiscard]] bool volatile_cache() const;

  /// A CNTLID that no live controller has, the longest unused first; 0 if all are taken.
  [[nodiscard]] std::uint16_t take_cntlid();
  void add(Controller& controller);
  void remove(Controller& controller);
  [[nodiscard]] Controller* controller(std::uint16_t cntlid) const;
  [[nodiscard]] const std::vector<Controller*>& controllers() const { return controllers_; }

  Counters counters;

 private:
  Subsystem(std::string nqn, Instant now) : nqn_(std::move(nqn)), started_(now) {}

  std::string nqn_;
  Instant started_;
  std::string serial_;
  bool discovery_ = false;
  std::vector<std::string> hosts_;
  std::vector<std::unique_ptr<Namespace>> namespaces_;
  std::vector<Controller*> controllers_;
  std::uint16_t last_cntlid_ = 0;
};

/// 16 bytes that depend on nothing but `text` and `salt`: stable identifiers.
std::array<std::byte, 16> stable_bytes(std::string_view text, std::uint64_t salt);

}  // namespace nvmf::controller
