#include "host/namespace.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <type_traits>

#include "nvme/admin.h"
#include "transport/limits.h"

namespace nvmf::host {

namespace {

// Blocks of 512 bytes to 64 KiB: below is not defined, above nothing that exists.
constexpr unsigned kBlockShiftMin = 9;
constexpr unsigned kBlockShiftMax = 16;
constexpr std::uint32_t kPreferredBytes = 4096;
constexpr std::uint32_t kPreferredBytesMax = 1024 * 1024;
// Identify Namespace (NVM 1.1 §4.1.5.1): metadata at the end of each block's data; the type of
// protection information.
constexpr std::uint8_t kFlbasMetadataWithData = 1u << 4;
constexpr std::uint8_t kDpsTypeMask = 7;

std::uint32_t at_most(std::uint64_t value, std::uint32_t most) {
  return value < most ? static_cast<std::uint32_t>(value) : most;
}

/// 2^exponent pages of 2^(12 + mpsmin) bytes, in blocks.
std::uint64_t pages_to_blocks(std::uint8_t exponent, std::uint8_t mpsmin,
                              std::uint32_t block_bytes) {
  const unsigned shift = 12u + mpsmin + exponent;
  if (shift >= 63) return ~std::uint64_t{0};
  return (std::uint64_t{1} << shift) / block_bytes;
}

bool all_zero(std::span<const std::byte> bytes) {
  return std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
}

std::uint32_t preferred_bytes(const nvme::IdentifyNamespace& id, std::uint32_t block_bytes) {
  std::uint64_t preferred = kPreferredBytes;
  if ((id.nsfeat & nvme::kNsfeatOptimal) != 0) {
    preferred = std::bit_floor((std::uint64_t{id.npwg} + 1) * block_bytes);
  }
  return at_most(std::max<std::uint64_t>(preferred, block_bytes), kPreferredBytesMax);
}

Result<void> check_format(const NamespaceSource& s, std::string_view name) {
  if (s.descriptors.csi && *s.descriptors.csi != nvme::Csi::nvm) {
    return fail(fmt::format("{} has command set {} and is no plain block device (only the NVM "
                            "command set is supported)",
                            name, static_cast<unsigned>(*s.descriptors.csi)),
                ENOTSUP);
  }
  const nvme::LbaFormat& format = s.id.format();
  if (s.id.block_bytes() == 0 || format.lbads < kBlockShiftMin || format.lbads > kBlockShiftMax) {
    return fail(fmt::format("{} has blocks of 2^{} bytes; 2^{} to 2^{} are supported", name,
                            format.lbads, kBlockShiftMin, kBlockShiftMax),
                ENOTSUP);
  }
  if (format.ms != 0) {
    return fail(fmt::format("{} is formatted with {} bytes of metadata per block, which is not "
                            "supported; format it without metadata",
                            name, format.ms),
                ENOTSUP);
  }
  if (s.id.nsze > (~std::uint64_t{0} >> 1) >> format.lbads) {
    return fail(fmt::format("{} reports {} blocks, more than a device can have", name, s.id.nsze));
  }
  return {};
}

}  // namespace

CommandLimits CommandLimits::from(const nvme::IdentifyController& id,
                                  const std::optional<nvme::IdentifyNvmController>& nvm,
                                  std::uint8_t mpsmin, std::uint32_t block_bytes) {
  const std::uint64_t mdts =
      id.max_transfer_bytes(mpsmin).value_or(transport::kCommandBytesMax) / block_bytes;
  CommandLimits l;
  l.transfer_blocks =
      at_most(std::min<std::uint64_t>(mdts, std::max(kCommandBytesPreferred / block_bytes, 1u)),
              nvme::kMaxCommandBlocks);
  // MDTS does not limit Write Zeroes by the letter; with nothing else said it is the safe bound.
  std::uint64_t zeroes =
      id.max_transfer_bytes(mpsmin).has_value() ? mdts : std::uint64_t{nvme::kMaxCommandBlocks};
  if (nvm && nvm->wzsl != 0) zeroes = pages_to_blocks(nvm->wzsl, mpsmin, block_bytes);
  std::uint64_t deallocate = zeroes;
  if (nvm && nvm->wzdsl != 0) {
    deallocate = std::min(zeroes, pages_to_blocks(nvm->wzdsl, mpsmin, block_bytes));
  }
  l.zeroes_blocks = std::max(at_most(zeroes, nvme::kMaxCommandBlocks), 1u);
  l.zeroes_deallocate_blocks = std::max(at_most(deallocate, nvme::kMaxCommandBlocks), 1u);
  l.zero_data_blocks = std::max(std::min(l.transfer_blocks, kZeroBufferBytes / block_bytes), 1u);
  if (nvm && nvm->dmrl != 0) l.dsm_ranges = nvm->dmrl;
  if (nvm && nvm->dmrsl != 0) l.dsm_range_blocks = nvm->dmrsl;
  if (nvm && nvm->dmsl != 0) l.dsm_blocks = nvm->dmsl;
  return l;
}

Result<std::shared_ptr<const Namespace>> make_namespace(const NamespaceSource& s) {
  const std::string name = fmt::format("namespace {}", s.nsid);
  if (auto ok = check_format(s, name); !ok) return std::unexpected(ok.error());
  auto ns = std::make_shared<Namespace>();
  const std::uint32_t block_bytes = s.id.block_bytes();
  ns->blocks = s.id.nsze;
  ns->block_shift = s.id.format().lbads;
  ns->limits = CommandLimits::from(s.controller, s.nvm_controller, s.mpsmin, block_bytes);
  if (ns->limits.transfer_blocks == 0) {
    return fail(fmt::format("{} has blocks of {} bytes, more than the controller's MDTS lets one "
                            "command carry",
                            name, block_bytes),
                ENOTSUP);
  }
  const std::uint8_t dlfeat = s.id.dlfeat;
  ns->zeroes_may_deallocate = (dlfeat & nvme::kDlfeatWriteZeroesDeac) != 0 &&
                              (dlfeat & nvme::kDlfeatReadMask) == nvme::kDlfeatReadsZero;
  ns->tells_allocated = s.nvm_controller &&
                        (s.nvm_controller->aocs & nvme::kAocsReportsAllocated) != 0 &&
                        (dlfeat & nvme::kDlfeatReadMask) == nvme::kDlfeatReadsZero;
  // The descriptors are newer and say the same where both speak.
  ns->eui64 = s.descriptors.eui64.value_or(s.id.eui64);
  ns->nguid = s.descriptors.nguid.value_or(s.id.nguid);
  if (s.descriptors.uuid && !all_zero(*s.descriptors.uuid)) ns->uuid = s.descriptors.uuid;
  ns->csi = s.descriptors.csi.value_or(nvme::Csi::nvm);
  ns->metadata_bytes = s.id.format().ms;
  ns->metadata_with_data = ns->metadata_bytes != 0 && (s.id.flbas & kFlbasMetadataWithData) != 0;
  ns->protection_type = s.id.dps & kDpsTypeMask;
  ns->subnqn = s.controller.subnqn;
  ns->serial = s.controller.sn;

  BlockInfo& info = ns->info;
  info.name = fmt::format("{}n{}", s.connection_name, s.nsid);
  info.description = fmt::format("{} namespace {}, {}", s.controller.subnqn, s.nsid,
                                 s.controller.mn.empty() ? "NVMe" : s.controller.mn);
  info.nsid = s.nsid;
  info.size_bytes = s.id.nsze << ns->block_shift;
  info.block_bytes = block_bytes;
  info.preferred_bytes = preferred_bytes(s.id, block_bytes);
  info.transfer_bytes_max = transport::kCommandBytesMax;
  info.read_only = s.read_only || (s.id.nsattr & nvme::kNsattrWriteProtected) != 0;
  // Flush is mandatory and harmless without a cache: asked for rather than left out on the word of
  // a controller that says it has none (Base 2.1 §7.2).
  info.flush = true;
  info.write_zeroes = (s.controller.oncs & nvme::kOncsWriteZeroes) != 0;
  info.deallocate = (s.controller.oncs & nvme::kOncsDsm) != 0;
  return ns;
}

bool matches(const Namespace& ns, const nvme::NamespaceSelector& selector) {
  if (const auto* nsid = std::get_if<1>(&selector)) return ns.info.nsid == *nsid;
  if (const auto* uuid = std::get_if<2>(&selector)) return ns.uuid == *uuid;
  if (const auto* nguid = std::get_if<3>(&selector)) return ns.nguid == *nguid;
  if (const auto* eui64 = std::get_if<4>(&selector)) return ns.eui64 == *eui64;
  return true;
}

std::string describe(const nvme::NamespaceSelector& selector) {
  if (const auto* nsid = std::get_if<1>(&selector)) return fmt::format("namespace {}", *nsid);
  if (const auto* uuid = std::get_if<2>(&selector)) {
    return "namespace with UUID " + nvme::format_uuid(*uuid);
  }
  if (const auto* nguid = std::get_if<3>(&selector)) {
    return "namespace with NGUID " + nvme::format_hex(*nguid);
  }
  if (const auto* eui64 = std::get_if<4>(&selector)) {
    return "namespace with EUI64 " + nvme::format_hex(*eui64);
  }
  return "any namespace";
}

int errno_of(nvme::Status status, BlockOp op) {
  using enum nvme::StatusCode;
  if (status.ok()) return 0;
  const bool changes = op == BlockOp::write || op == BlockOp::write_zeroes;
  switch (status.code()) {
    case lba_out_of_range:
      return changes ? ENOSPC : EINVAL;
    case capacity_exceeded:
      return ENOSPC;
    case namespace_write_protected:
    case access_denied:
      return EPERM;
    case invalid_opcode:
      // A controller that announces what it then does not know.
      return op == BlockOp::write_zeroes || op == BlockOp::deallocate ? ENOTSUP : EIO;
    default:
      return EIO;
  }
}

}  // namespace nvmf::host
