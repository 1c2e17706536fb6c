// Lists and rarer structures that Identify returns, as values in host byte order. As in identify.h:
// any bytes decode, a count that promises more than its page holds is cut to what is there, and
// decode() needs a whole page (NVMF_CHECK). NVMe Base 2.1 §5.1.13.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nvme/identify.h"
#include "nvme/uint128.h"

namespace nvmf::nvme {

/// Most identifiers of 16 bits in a page: its first two bytes are their number.
inline constexpr std::size_t kIdentifierListEntries = kIdentifyBytes / 2 - 1;

/// CNS 12h and 13h. Base 2.1 §5.1.13.2.11.
struct ControllerList {
  std::vector<std::uint16_t> cntlids;

  /// At most kIdentifierListEntries (NVMF_CHECK).
  void encode(std::span<std::byte, kIdentifyBytes> out) const;
  static ControllerList decode(std::span<const std::byte> in);
  friend bool operator==(const ControllerList&, const ControllerList&) = default;
};

/// CNS 19h. Base 2.1 §5.1.13.2.18.
struct EnduranceGroupList {
  std::vector<std::uint16_t> endgids;

  /// At most kIdentifierListEntries (NVMF_CHECK).
  void encode(std::span<std::byte, kIdentifyBytes> out) const;
  static EnduranceGroupList decode(std::span<const std::byte> in);
  friend bool operator==(const EnduranceGroupList&, const EnduranceGroupList&) = default;
};

/// CNS 03h as it is on the wire: NamespaceDescriptors judges it, this is for showing it.
struct NamespaceDescriptor {
  std::uint16_t offset = 0;  // of its header in the page
  std::uint8_t nidt = 0;
  std::vector<std::byte> nid;

  friend bool operator==(const NamespaceDescriptor&, const NamespaceDescriptor&) = default;
};
/// Namespace Identifier Types. Base 2.1 §5.1.13.2.3.
inline constexpr std::uint8_t kNidtEui64 = 1;
inline constexpr std::uint8_t kNidtNguid = 2;
inline constexpr std::uint8_t kNidtUuid = 3;
inline constexpr std::uint8_t kNidtCsi = 4;
/// "eui64", "nguid", "uuid" or "csi", as nvme-cli names them; empty for the rest.
std::string_view descriptor_name(std::uint8_t nidt);
/// The identifier as nvme-cli writes it: hexadecimal, a UUID with dashes, a command set as "0x2".
/// One whose length is not that of its type is hexadecimal, as long as it is.
std::string descriptor_text(const NamespaceDescriptor& descriptor);
/// The descriptors up to the first of length 0, or the first that would leave the page.
std::vector<NamespaceDescriptor> decode_descriptor_list(std::span<const std::byte> in);

/// CNS 04h. Base 2.1 §5.1.13.2.4.
struct NvmSet {
  std::uint16_t nvmsetid = 0;
  std::uint16_t endgid = 0;
  std::uint32_t r4krt = 0;  // random 4 KiB read typical, units of 100 ns
  std::uint32_t ows = 0;    // optimal write size, bytes
  Uint128 tnvmsetcap;       // bytes
  Uint128 unvmsetcap;       // bytes

  friend bool operator==(const NvmSet&, const NvmSet&) = default;
};
inline constexpr std::size_t kNvmSets = 31;
struct NvmSetList {
  std::vector<NvmSet> sets;

  /// At most kNvmSets (NVMF_CHECK).
  void encode(std::span<std::byte, kIdentifyBytes> out) const;
  static NvmSetList decode(std::span<const std::byte> in);
  friend bool operator==(const NvmSetList&, const NvmSetList&) = default;
};

/// CNS 14h. Base 2.1 §5.1.13.2.13.
struct PrimaryControllerCapabilities {
  std::uint16_t cntlid = 0;
  std::uint16_t portid = 0;
  std::uint8_t crt = 0;  // bit 0 VQ resources, bit 1 VI resources
  std::uint32_t vqfrt = 0;
  std::uint32_t vqrfa = 0;
  std::uint16_t vqrfap = 0;
  std::uint16_t vqprt = 0;
  std::uint16_t vqfrsm = 0;
  std::uint16_t vqgran = 0;
  std::uint32_t vifrt = 0;
  std::uint32_t virfa = 0;
  std::uint16_t virfap = 0;
  std::uint16_t viprt = 0;
  std::uint16_t vifrsm = 0;
  std::uint16_t vigran = 0;

  void encode(std::span<std::byte, kIdentifyBytes> out) const;
  static PrimaryControllerCapabilities decode(std::span<const std::byte> in);
  friend bool operator==(const PrimaryControllerCapabilities&,
                         const PrimaryControllerCapabilities&) = default;
};

/// CNS 15h. Base 2.1 §5.1.13.2.14.
struct SecondaryController {
  std::uint16_t scid = 0;
  std::uint16_t pcid = 0;
  std::uint8_t scs = 0;  // bit 0: online
  std::uint16_t vfn = 0;
  std::uint16_t nvq = 0;
  std::uint16_t nvi = 0;

  friend bool operator==(const SecondaryController&, const SecondaryController&) = default;
};
inline constexpr std::size_t kSecondaryControllers = 127;
struct SecondaryControllerList {
  std::vector<SecondaryController> controllers;

  /// At most kSecondaryControllers (NVMF_CHECK).
  void encode(std::span<std::byte, kIdentifyBytes> out) const;
  static SecondaryControllerList decode(std::span<const std::byte> in);
  friend bool operator==(const SecondaryControllerList&, const SecondaryControllerList&) = default;
};

/// CNS 16h. NVM 1.2 §4.1.5.7.
struct NamespaceGranularity {
  std::uint64_t nszegran = 0;  // bytes
  std::uint64_t ncapgran = 0;  // bytes

  friend bool operator==(const NamespaceGranularity&, const NamespaceGranularity&) = default;
};
inline constexpr std::size_t kNamespaceGranularities = 16;
struct NamespaceGranularityList {
  std::uint32_t attributes = 0;                   // bit 0: one descriptor for each LBA format
  std::vector<NamespaceGranularity> descriptors;  // 1 to kNamespaceGranularities

  /// 1 to kNamespaceGranularities descriptors (NVMF_CHECK).
  void encode(std::span<std::byte, kIdentifyBytes> out) const;
  static NamespaceGranularityList decode(std::span<const std::byte> in);
  friend bool operator==(const NamespaceGranularityList&,
                         const NamespaceGranularityList&) = default;
};

/// CNS 17h. Base 2.1 §5.1.13.2.15.
struct UuidEntry {
  std::uint8_t association = 0;  // 1 PCI vendor, 2 PCI subsystem vendor
  Uuid uuid{};

  friend bool operator==(const UuidEntry&, const UuidEntry&) = default;
};
inline constexpr std::size_t kUuids = 127;
struct UuidList {
  std::vector<UuidEntry> entries;  // entry 0 has UUID index 1; a UUID of zeroes ends them

  /// At most kUuids (NVMF_CHECK).
  void encode(std::span<std::byte, kIdentifyBytes> out) const;
  static UuidList decode(std::span<const std::byte> in);
  friend bool operator==(const UuidList&, const UuidList&) = default;
};

/// CNS 18h. Base 2.1 §5.1.13.2.16.
struct Domain {
  std::uint16_t domainid = 0;
  Uint128 cap;          // total, bytes
  Uint128 unallocated;  // bytes
  Uint128 megcap;       // most of one endurance group, bytes

  friend bool operator==(const Domain&, const Domain&) = default;
};
inline constexpr std::size_t kDomains = 31;
struct DomainList {
  std::vector<Domain> domains;

  /// At most kDomains (NVMF_CHECK).
  void encode(std::span<std::byte, kIdentifyBytes> out) const;
  static DomainList decode(std::span<const std::byte> in);
  friend bool operator==(const DomainList&, const DomainList&) = default;
};

}  // namespace nvmf::nvme
