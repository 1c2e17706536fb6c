// A namespace: its identifiers and the disk behind it; and how one is made of its configuration.
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

class Faults;

struct Namespace {
  std::uint32_t nsid = 0;
  std::uint32_t block_bytes = 512;
  std::uint32_t ana_group = 1;
  nvme::Uuid uuid{};
  nvme::Nguid nguid{};
  std::unique_ptr<Disk> disk;
  /// Commands that use it; a namespace that was removed stays in memory until there is none.
  std::size_t users = 0;
  bool formatting = false;       // no command may begin to use it
  bool write_protected = false;  // whatever its disk could do

  /// Commands that change data are refused, and NSATTR says so.
  [[nodiscard]] bool read_only() const { return write_protected || disk->read_only(); }
  [[nodiscard]] std::uint64_t blocks() const { return disk->size_bytes() / block_bytes; }
};

/// The block sizes between which Format NVM can choose, in the order of the LBA formats.
std::vector<std::uint32_t> block_sizes(const Namespace& ns);

/// Makes the namespaces of a target. Loop's thread.
class NamespaceMaker {
 public:
  /// `config` (its wrap_disk and uuid_seed) and `faults` live as long as this; either may be null.
  explicit NamespaceMaker(transport::Loop& loop, const TargetConfig* config = nullptr,
                          Faults* faults = nullptr);

  /// Opens the disk: the configuration's own, then wrap_disk around it, then the filter for faults.
  /// The error names what is wrong with which.
  Result<std::unique_ptr<Namespace>> make(const NamespaceConfig& wanted, std::uint32_t nsid,
                                          const std::string& subnqn);
  [[nodiscard]] Instant now() const { return loop_.now(); }

 private:
  Result<std::unique_ptr<Disk>> open(const NamespaceConfig& wanted);
  [[nodiscard]] nvme::Uuid fresh_id();

  transport::Loop& loop_;
  const TargetConfig* config_;
  Faults* faults_;
  std::uint64_t made_ids_ = 0;
};

/// 16 bytes that depend on nothing but `text` and `salt`: stable identifiers.
std::array<std::byte, 16> stable_bytes(std::string_view text, std::uint64_t salt);

}  // namespace nvmf::controller
