// A remote namespace as values: what it is, which commands it takes, how requests are split.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host/block_device.h"
#include "nvme/address.h"
#include "nvme/command.h"
#include "nvme/identify.h"
#include "nvme/result.h"

namespace nvmf::host {

/// The most one read or write command carries although the controller would take more: what Linux's
/// own hosts send at most by default, so what targets have been tried with; it also lets the parts
/// of a large request travel at the same time.
inline constexpr std::uint32_t kCommandBytesPreferred = 1024 * 1024;
/// Zeroes written as data where the controller has no Write Zeroes, per command.
inline constexpr std::uint32_t kZeroBufferBytes = 256 * 1024;

/// The size of single commands. In logical blocks unless named otherwise; all at least 1.
struct CommandLimits {
  std::uint32_t transfer_blocks = 1;           // read, write; at most 65536
  std::uint32_t zeroes_blocks = 1;             // Write Zeroes; at most 65536
  std::uint32_t zeroes_deallocate_blocks = 1;  // Write Zeroes with DEAC
  std::uint32_t zero_data_blocks = 1;          // writes of zeroes instead of Write Zeroes
  std::uint32_t dsm_ranges = 256;              // Dataset Management: ranges
  std::uint32_t dsm_range_blocks = 0xffffffff;
  std::uint64_t dsm_blocks = ~std::uint64_t{0};

  /// From MDTS and, where CNS 06h could be read, WZSL, DMRL, DMRSL and DMSL (NVM 1.1 §4.1.5.4);
  /// MDTS for Write Zeroes otherwise. transfer_blocks is 0 if one block is more than MDTS allows.
  static CommandLimits from(const nvme::IdentifyController& id,
                            const std::optional<nvme::IdentifyNvmController>& nvm,
                            std::uint8_t mpsmin, std::uint32_t block_bytes);
  friend bool operator==(const CommandLimits&, const CommandLimits&) = default;
};

/// Everything about a namespace that was read when it was identified.
struct Namespace {
  BlockInfo info;  // name, size, block size…
  std::uint64_t blocks = 0;
  std::uint32_t block_shift = 9;
  CommandLimits limits;
  /// Write Zeroes may be told to deallocate and the blocks read as zero: DLFEAT bit 3 and 001b.
  bool zeroes_may_deallocate = false;
  /// The controller can be asked which blocks are allocated (AOCS bit 0 of the NVM command set),
  /// and all others read as zero (DLFEAT).
  bool tells_allocated = false;
  // How it is told from others. Zero or missing: the controller does not say.
  nvme::Eui64 eui64{};
  nvme::Nguid nguid{};
  std::optional<nvme::Uuid> uuid;
  // What else has to be the same for it to be the same disk (same_namespace.h).
  nvme::Csi csi = nvme::Csi::nvm;
  std::uint16_t metadata_bytes = 0;  // per block; as long as only plain blocks are served: 0
  bool metadata_with_data = false;   // FLBAS bit 4: at the end of each block's data
  std::uint8_t protection_type = 0;  // DPS bits 2:0, 0: none
  std::string subnqn;                // as Identify Controller says
  std::string serial;                // SN of the controller, likewise
};

/// What goes into a Namespace.
struct NamespaceSource {
  std::uint32_t nsid = 0;
  std::string_view connection_name;
  const nvme::IdentifyController& controller;
  const std::optional<nvme::IdentifyNvmController>& nvm_controller;
  std::uint8_t mpsmin = 0;
  const nvme::IdentifyNamespace& id;
  const nvme::NamespaceDescriptors& descriptors;
  bool read_only = false;
};

/// Fails with a sentence if it is of a kind that cannot be served as blocks of plain data.
Result<std::shared_ptr<const Namespace>> make_namespace(const NamespaceSource& source);

/// Whether it is the one that `selector` names; the empty selector matches all.
bool matches(const Namespace& ns, const nvme::NamespaceSelector& selector);
/// "namespace 7", "namespace with UUID …".
std::string describe(const nvme::NamespaceSelector& selector);

/// The errno for a command that the controller refused.
int errno_of(nvme::Status status, BlockOp op);

}  // namespace nvmf::host
