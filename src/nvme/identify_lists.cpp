#include "nvme/identify_lists.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "nvme/address.h"
#include "nvme/check.h"
#include "nvme/endian.h"
#include "nvme/fields.h"

namespace nvmf::nvme {
namespace {

std::vector<std::uint16_t> decode_identifiers(std::span<const std::byte> in) {
  NVMF_CHECK(in.size() >= kIdentifyBytes);
  std::vector<std::uint16_t> out(
      std::min<std::size_t>(load_le16(in.data()), kIdentifierListEntries));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = load_le16(in.data() + 2 + 2 * i);
  return out;
}

void encode_identifiers(std::span<const std::uint16_t> ids,
                        std::span<std::byte, kIdentifyBytes> out) {
  NVMF_CHECK(ids.size() <= kIdentifierListEntries);
  std::ranges::fill(out, std::byte{0});
  store_le16(out.data(), static_cast<std::uint16_t>(ids.size()));
  for (std::size_t i = 0; i < ids.size(); ++i) store_le16(out.data() + 2 + 2 * i, ids[i]);
}

constexpr std::size_t kNvmSetBytes = 128;
template <class Visitor, class Set>
void nvm_set_fields(const Visitor& v, std::size_t base, Set& set) {
  v(base + 0, set.nvmsetid);
  v(base + 2, set.endgid);
  v(base + 8, set.r4krt);
  v(base + 12, set.ows);
  v(base + 16, set.tnvmsetcap);
  v(base + 32, set.unvmsetcap);
}

template <class Visitor, class Caps>
void primary_fields(const Visitor& v, Caps& caps) {
  v(0, caps.cntlid);
  v(2, caps.portid);
  v(4, caps.crt);
  v(32, caps.vqfrt);
  v(36, caps.vqrfa);
  v(40, caps.vqrfap);
  v(42, caps.vqprt);
  v(44, caps.vqfrsm);
  v(46, caps.vqgran);
  v(64, caps.vifrt);
  v(68, caps.virfa);
  v(72, caps.virfap);
  v(74, caps.viprt);
  v(76, caps.vifrsm);
  v(78, caps.vigran);
}

constexpr std::size_t kSecondaryBytes = 32;
template <class Visitor, class Controller>
void secondary_fields(const Visitor& v, std::size_t base, Controller& controller) {
  v(base + 0, controller.scid);
  v(base + 2, controller.pcid);
  v(base + 4, controller.scs);
  v(base + 8, controller.vfn);
  v(base + 10, controller.nvq);
  v(base + 12, controller.nvi);
}

constexpr std::size_t kGranularityBase = 32;
constexpr std::size_t kGranularityBytes = 16;
template <class Visitor, class Granularity>
void granularity_fields(const Visitor& v, std::size_t base, Granularity& granularity) {
  v(base + 0, granularity.nszegran);
  v(base + 8, granularity.ncapgran);
}

constexpr std::size_t kUuidBytes = 32;
constexpr std::uint8_t kAssociationMask = 3;
template <class Visitor, class Entry>
void uuid_fields(const Visitor& v, std::size_t base, Entry& entry) {
  v(base + 0, entry.association);
  v(base + 16, entry.uuid);
}

constexpr std::size_t kDomainBytes = 128;
template <class Visitor, class Entry>
void domain_fields(const Visitor& v, std::size_t base, Entry& domain) {
  v(base + 0, domain.domainid);
  v(base + 16, domain.cap);
  v(base + 32, domain.unallocated);
  v(base + 48, domain.megcap);
}

constexpr std::size_t kDescriptorHeaderBytes = 4;

}  // namespace

void ControllerList::encode(std::span<std::byte, kIdentifyBytes> out) const {
  encode_identifiers(cntlids, out);
}

ControllerList ControllerList::decode(std::span<const std::byte> in) {
  return {.cntlids = decode_identifiers(in)};
}

void EnduranceGroupList::encode(std::span<std::byte, kIdentifyBytes> out) const {
  encode_identifiers(endgids, out);
}

EnduranceGroupList EnduranceGroupList::decode(std::span<const std::byte> in) {
  return {.endgids = decode_identifiers(in)};
}

std::vector<NamespaceDescriptor> decode_descriptor_list(std::span<const std::byte> in) {
  NVMF_CHECK(in.size() >= kIdentifyBytes);
  in = in.first(kIdentifyBytes);
  std::vector<NamespaceDescriptor> list;
  for (std::size_t at = 0; at + kDescriptorHeaderBytes < in.size();) {
    const std::size_t length = load_u8(in.data() + at + 1);
    const std::size_t begin = at + kDescriptorHeaderBytes;
    if (length == 0 || length > in.size() - begin) break;
    const auto nid = in.subspan(begin, length);
    list.push_back({.offset = static_cast<std::uint16_t>(at),
                    .nidt = load_u8(in.data() + at),
                    .nid = {nid.begin(), nid.end()}});
    at = begin + length;
  }
  return list;
}

std::string_view descriptor_name(std::uint8_t nidt) {
  constexpr std::array<std::string_view, 5> kNames = {"", "eui64", "nguid", "uuid", "csi"};
  return nidt < kNames.size() ? kNames[nidt] : "";
}

std::string descriptor_text(const NamespaceDescriptor& descriptor) {
  const std::vector<std::byte>& nid = descriptor.nid;
  if (descriptor.nidt == kNidtUuid && nid.size() == sizeof(Uuid)) {
    Uuid uuid{};
    std::ranges::copy(nid, uuid.begin());
    return format_uuid(uuid);
  }
  if (descriptor.nidt == kNidtCsi && nid.size() == 1) {
    const unsigned csi = load_u8(nid.data());
    return csi == 0 ? "0" : fmt::format("{:#x}", csi);
  }
  return format_hex(nid);
}

void NvmSetList::encode(std::span<std::byte, kIdentifyBytes> out) const {
  NVMF_CHECK(sets.size() <= kNvmSets);
  const FieldWriter v(out);
  v(0, static_cast<std::uint8_t>(sets.size()));
  for (std::size_t i = 0; i < sets.size(); ++i) nvm_set_fields(v, kNvmSetBytes * (i + 1), sets[i]);
}

NvmSetList NvmSetList::decode(std::span<const std::byte> in) {
  const FieldReader v(in, kIdentifyBytes);
  NvmSetList list;
  list.sets.resize(std::min<std::size_t>(load_u8(in.data()), kNvmSets));
  for (std::size_t i = 0; i < list.sets.size(); ++i) {
    nvm_set_fields(v, kNvmSetBytes * (i + 1), list.sets[i]);
  }
  return list;
}

void PrimaryControllerCapabilities::encode(std::span<std::byte, kIdentifyBytes> out) const {
  primary_fields(FieldWriter(out), *this);
}

PrimaryControllerCapabilities PrimaryControllerCapabilities::decode(std::span<const std::byte> in) {
  PrimaryControllerCapabilities caps;
  primary_fields(FieldReader(in, kIdentifyBytes), caps);
  return caps;
}

void SecondaryControllerList::encode(std::span<std::byte, kIdentifyBytes> out) const {
  NVMF_CHECK(controllers.size() <= kSecondaryControllers);
  const FieldWriter v(out);
  v(0, static_cast<std::uint8_t>(controllers.size()));
  for (std::size_t i = 0; i < controllers.size(); ++i) {
    secondary_fields(v, kSecondaryBytes * (i + 1), controllers[i]);
  }
}

SecondaryControllerList SecondaryControllerList::decode(std::span<const std::byte> in) {
  const FieldReader v(in, kIdentifyBytes);
  SecondaryControllerList list;
  list.controllers.resize(std::min<std::size_t>(load_u8(in.data()), kSecondaryControllers));
  for (std::size_t i = 0; i < list.controllers.size(); ++i) {
    secondary_fields(v, kSecondaryBytes * (i + 1), list.controllers[i]);
  }
  return list;
}

void NamespaceGranularityList::encode(std::span<std::byte, kIdentifyBytes> out) const {
  NVMF_CHECK(!descriptors.empty() && descriptors.size() <= kNamespaceGranularities);
  const FieldWriter v(out);
  v(0, attributes);
  v(4, static_cast<std::uint8_t>(descriptors.size() - 1));
  for (std::size_t i = 0; i < descriptors.size(); ++i) {
    granularity_fields(v, kGranularityBase + kGranularityBytes * i, descriptors[i]);
  }
}

NamespaceGranularityList NamespaceGranularityList::decode(std::span<const std::byte> in) {
  const FieldReader v(in, kIdentifyBytes);
  NamespaceGranularityList list;
  v(0, list.attributes);
  list.descriptors.resize(
      std::min<std::size_t>(load_u8(in.data() + 4) + 1u, kNamespaceGranularities));
  for (std::size_t i = 0; i < list.descriptors.size(); ++i) {
    granularity_fields(v, kGranularityBase + kGranularityBytes * i, list.descriptors[i]);
  }
  return list;
}

void UuidList::encode(std::span<std::byte, kIdentifyBytes> out) const {
  NVMF_CHECK(entries.size() <= kUuids);
  const FieldWriter v(out);
  for (std::size_t i = 0; i < entries.size(); ++i) uuid_fields(v, kUuidBytes * (i + 1), entries[i]);
}

UuidList UuidList::decode(std::span<const std::byte> in) {
  const FieldReader v(in, kIdentifyBytes);
  UuidList list;
  for (std::size_t i = 0; i < kUuids; ++i) {
    UuidEntry entry;
    uuid_fields(v, kUuidBytes * (i + 1), entry);
    if (entry.uuid == Uuid{}) break;
    entry.association &= kAssociationMask;
    list.entries.push_back(entry);
  }
  return list;
}

void DomainList::encode(std::span<std::byte, kIdentifyBytes> out) const {
  NVMF_CHECK(domains.size() <= kDomains);
  const FieldWriter v(out);
  v(0, static_cast<std::uint8_t>(domains.size()));
  for (std::size_t i = 0; i < domains.size(); ++i) {
    domain_fields(v, kDomainBytes * (i + 1), domains[i]);
  }
}

DomainList DomainList::decode(std::span<const std::byte> in) {
  const FieldReader v(in, kIdentifyBytes);
  DomainList list;
  list.domains.resize(std::min<std::size_t>(load_u8(in.data()), kDomains));
  for (std::size_t i = 0; i < list.domains.size(); ++i) {
    domain_fields(v, kDomainBytes * (i + 1), list.domains[i]);
  }
  return list;
}

}  // namespace nvmf::nvme
