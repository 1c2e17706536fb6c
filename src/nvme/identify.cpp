#include "nvme/identify.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "nvme/check.h"
#include "nvme/endian.h"
#include "nvme/fields.h"

namespace nvmf::nvme {
namespace {

// Power State Descriptor, at `base`. Base 2.1 §5.1.13.2.1, figure of the descriptor.
template <class Visitor, class Power>
void power_state_fields(const Visitor& v, std::size_t base, Power& ps) {
  v(base + 0, ps.mp);
  v(base + 3, ps.flags);
  v(base + 4, ps.enlat);
  v(base + 8, ps.exlat);
  v(base + 12, ps.rrt);
  v(base + 13, ps.rrl);
  v(base + 14, ps.rwt);
  v(base + 15, ps.rwl);
  v(base + 16, ps.idlp);
  v(base + 18, ps.ips);
  v(base + 20, ps.actp);
  v(base + 22, ps.apws);
}

// Bytes 0 to 255: capabilities and features.
template <class Visitor, class Id>
void controller_capability_fields(const Visitor& v, Id& id) {
  v(0, id.vid);
  v(2, id.ssvid);
  v.text(4, 20, ' ', id.sn);
  v.text(24, 40, ' ', id.mn);
  v.text(64, 8, ' ', id.fr);
  v(72, id.rab);
  v.u24(73, id.ieee);
  v(76, id.cmic);
  v(77, id.mdts);
  v(78, id.cntlid);
  v(80, id.ver);
  v(84, id.rtd3r);
  v(88, id.rtd3e);
  v(92, id.oaes);
  v(96, id.ctratt);
  v(100, id.rrls);
  v(111, id.cntrltype);
  v(112, id.fguid);
  v(128, id.crdt1);
  v(130, id.crdt2);
  v(132, id.crdt3);
  v(253, id.nvmsr);
  v(254, id.vwci);
  v(255, id.mec);
}

// Bytes 256 to 511: admin command set.
template <class Visitor, class Id>
void controller_admin_fields(const Visitor& v, Id& id) {
  v(256, id.oacs);
  v(258, id.acl);
  v(259, id.aerl);
  v(260, id.frmw);
  v(261, id.lpa);
  v(262, id.elpe);
  v(263, id.npss);
  v(264, id.avscc);
  v(265, id.apsta);
  v(266, id.wctemp);
  v(268, id.cctemp);
  v(270, id.mtfa);
  v(272, id.hmpre);
  v(276, id.hmmin);
  v(280, id.tnvmcap);
  v(296, id.unvmcap);
  v(312, id.rpmbs);
  v(316, id.edstt);
  v(318, id.dsto);
  v(319, id.fwug);
  v(320, id.kas);
  v(322, id.hctma);
  v(324, id.mntmt);
  v(326, id.mxtmt);
  v(328, id.sanicap);
  v(332, id.hmminds);
  v(336, id.hmmaxd);
  v(338, id.nsetidmax);
  v(340, id.endgidmax);
  v(342, id.anatt);
  v(343, id.anacap);
  v(344, id.anagrpmax);
  v(348, id.nanagrpid);
  v(352, id.pels);
  v(356, id.domainid);
  v(368, id.megcap);
  v(386, id.cqt);
}

// Bytes 512 to 4095: NVM command set, fabrics, power states, vendor.
template <class Visitor, class Id>
void controller_io_fields(const Visitor& v, Id& id) {
  v(512, id.sqes);
  v(513, id.cqes);
  v(514, id.maxcmd);
  v(516, id.nn);
  v(520, id.oncs);
  v(522, id.fuses);
  v(524, id.fna);
  v(525, id.vwc);
  v(526, id.awun);
  v(528, id.awupf);
  v(530, id.icsvscc);
  v(531, id.nwpc);
  v(532, id.acwu);
  v(534, id.ocfs);
  v(536, id.sgls);
  v(540, id.mnan);
  v(544, id.maxdna);
  v(560, id.maxcna);
  v(564, id.oaqd);
  v.text(768, 256, '\0', id.subnqn);
  v(1792, id.ioccsz);
  v(1796, id.iorcsz);
  v(1800, id.icdoff);
  v(1802, id.fcatt);
  v(1803, id.msdbd);
  v(1804, id.ofcs);
  v(1806, id.dctype);
  for (std::size_t i = 0; i < kPowerStates; ++i) power_state_fields(v, 2048 + 32 * i, id.psd[i]);
  v(3072, id.vs);
}

template <class Visitor, class Id>
void controller_fields(const Visitor& v, Id& id) {
  controller_capability_fields(v, id);
  controller_admin_fields(v, id);
  controller_io_fields(v, id);
}

template <class Visitor, class Id>
void namespace_fields(const Visitor& v, Id& id) {
  v(0, id.nsze);
  v(8, id.ncap);
  v(16, id.nuse);
  v(24, id.nsfeat);
  v(25, id.nlbaf);
  v(26, id.flbas);
  v(27, id.mc);
  v(28, id.dpc);
  v(29, id.dps);
  v(30, id.nmic);
  v(31, id.rescap);
  v(32, id.fpi);
  v(33, id.dlfeat);
  v(34, id.nawun);
  v(36, id.nawupf);
  v(38, id.nacwu);
  v(40, id.nabsn);
  v(42, id.nabo);
  v(44, id.nabspf);
  v(46, id.noiob);
  v(48, id.nvmcap);
  v(64, id.npwg);
  v(66, id.npwa);
  v(68, id.npdg);
  v(70, id.npda);
  v(72, id.nows);
  v(74, id.mssrl);
  v(76, id.mcl);
  v(80, id.msrc);
  v(82, id.nulbaf);
  v(92, id.anagrpid);
  v(99, id.nsattr);
  v(100, id.nvmsetid);
  v(102, id.endgid);
  v(104, id.nguid);
  v(120, id.eui64);
  for (std::size_t i = 0; i < kLbaFormats; ++i) {
    v(128 + 4 * i, id.lbaf[i].ms);
    v(130 + 4 * i, id.lbaf[i].lbads);
    v(131 + 4 * i, id.lbaf[i].rp);
  }
  v(384, id.vs);
}

template <class Visitor, class Id>
void nvm_controller_fields(const Visitor& v, Id& id) {
  v(0, id.vsl);
  v(1, id.wzsl);
  v(2, id.wusl);
  v(3, id.dmrl);
  v(4, id.dmrsl);
  v(8, id.dmsl);
  v(16, id.kpiocap);
  v(17, id.wzdsl);
  v(18, id.aocs);
  v(20, id.ver);
}

template <class Visitor, class Id>
void nvm_namespace_fields(const Visitor& v, Id& id) {
  v(0, id.lbstm);
  v(8, id.pic);
  v(9, id.pifa);
  v(12, id.elbaf);
  v(268, id.npdgl);
}

template <class Visitor, class Id>
void independent_namespace_fields(const Visitor& v, Id& id) {
  v(0, id.nsfeat);
  v(1, id.nmic);
  v(2, id.rescap);
  v(3, id.fpi);
  v(4, id.anagrpid);
  v(8, id.nsattr);
  v(10, id.nvmsetid);
  v(12, id.endgid);
  v(14, id.nstat);
}

// Namespace Identifier Types. Base 2.1 §5.1.13.2.3.
constexpr std::uint8_t kTypeEui64 = 1;
constexpr std::uint8_t kTypeNguid = 2;
constexpr std::uint8_t kTypeUuid = 3;
constexpr std::uint8_t kTypeCsi = 4;
constexpr std::size_t kDescriptorHeaderBytes = 4;

// Takes one identifier of a known type; the name of what is wrong, or nothing.
template <std::size_t N>
std::string_view take_identifier(std::span<const std::byte> nid,
                                 std::optional<std::array<std::byte, N>>& field) {
  if (nid.size() != N) return "a wrong length";
  std::array<std::byte, N> value{};
  std::ranges::copy(nid, value.begin());
  // Two different answers to "who are you" would let the caller's choice decide which disk this is.
  if (field && *field != value) return "two different values";
  field = value;
  return {};
}

std::string_view take_descriptor(std::uint8_t type, std::span<const std::byte> nid,
                                 NamespaceDescriptors& ids) {
  switch (type) {
    case kTypeEui64:
      return take_identifier(nid, ids.eui64);
    case kTypeNguid:
      return take_identifier(nid, ids.nguid);
    case kTypeUuid:
      return take_identifier(nid, ids.uuid);
    case kTypeCsi:
      if (nid.size() != 1) return "a wrong length";
      ids.csi = static_cast<Csi>(load_u8(nid.data()));
      return {};
    default:
      return {};
  }
}

}  // namespace

std::string load_text(std::span<const std::byte> field, char pad) {
  std::string text;
  for (const std::byte b : field) {
    if (b == std::byte{0}) break;
    text.push_back(static_cast<char>(b));
  }
  while (pad == ' ' && !text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

void store_text(std::span<std::byte> field, std::string_view text, char pad) {
  const std::size_t length = std::min(field.size(), text.size());
  for (std::size_t i = 0; i < length; ++i) field[i] = static_cast<std::byte>(text[i]);
  std::ranges::fill(field.subspan(length), static_cast<std::byte>(pad));
}

std::uint64_t IdentifyController::in_capsule_bytes() const {
  constexpr std::uint64_t kUnit = 16;
  const std::uint64_t capsule = ioccsz * kUnit;
  return capsule > kSqeBytes ? capsule - kSqeBytes : 0;
}

std::optional<std::uint64_t> IdentifyController::max_transfer_bytes(std::uint8_t mpsmin) const {
  const unsigned shift = 12u + mpsmin + mdts;
  if (mdts == 0 || shift >= 64) return std::nullopt;
  return std::uint64_t{1} << shift;
}

void IdentifyController::encode(std::span<std::byte, kIdentifyBytes> out) const {
  controller_fields(FieldWriter(out), *this);
}

IdentifyController IdentifyController::decode(std::span<const std::byte> in) {
  IdentifyController id;
  controller_fields(FieldReader(in, kIdentifyBytes), id);
  return id;
}

std::size_t IdentifyNamespace::format_index() const {
  // Bits 6:5 are to be ignored where there are at most 16 formats. NVM 1.2 §4.1.5.1.
  const std::size_t low = flbas & 0x0fu;
  const std::size_t high = static_cast<std::size_t>(flbas >> 1) & 0x30u;
  return nlbaf + nulbaf > 15 ? low | high : low;
}

std::uint32_t IdentifyNamespace::block_bytes() const {
  const std::size_t index = format_index();
  if (index > std::size_t{nlbaf} + nulbaf) return 0;
  const unsigned shift = lbaf[index].lbads;
  return shift >= 9 && shift <= 31 ? 1u << shift : 0;
}

void IdentifyNamespace::encode(std::span<std::byte, kIdentifyBytes> out) const {
  namespace_fields(FieldWriter(out), *this);
}

IdentifyNamespace IdentifyNamespace::decode(std::span<const std::byte> in) {
  IdentifyNamespace id;
  namespace_fields(FieldReader(in, kIdentifyBytes), id);
  return id;
}

Result<std::vector<std::uint32_t>> decode_namespace_list(std::span<const std::byte> in) {
  std::vector<std::uint32_t> nsids;
  for (std::size_t at = 0; at + 4 <= in.size(); at += 4) {
    const std::uint32_t nsid = load_le32(in.data() + at);
    if (nsid == 0) break;
    if (nsid == kNsidAll)
      return fail("The namespace list contains FFFFFFFFh, which names none", EPROTO);
    if (!nsids.empty() && nsid <= nsids.back()) {
      return fail(fmt::format("The namespace list is not in rising order: {} follows {}", nsid,
                              nsids.back()),
                  EPROTO);
    }
    nsids.push_back(nsid);
  }
  return nsids;
}

void encode_namespace_list(std::span<const std::uint32_t> nsids,
                           std::span<std::byte, kIdentifyBytes> out) {
  NVMF_CHECK(nsids.size() <= kNamespaceListEntries);
  std::ranges::fill(out, std::byte{0});
  for (std::size_t i = 0; i < nsids.size(); ++i) store_le32(out.data() + 4 * i, nsids[i]);
}

void NamespaceDescriptors::encode(std::span<std::byte, kIdentifyBytes> out) const {
  std::ranges::fill(out, std::byte{0});
  std::byte* p = out.data();
  const auto put = [&p](std::uint8_t type, std::span<const std::byte> nid) {
    store_u8(p, type);
    store_u8(p + 1, static_cast<std::uint8_t>(nid.size()));
    std::ranges::copy(nid, p + kDescriptorHeaderBytes);
    p += kDescriptorHeaderBytes + nid.size();
  };
  if (eui64) put(kTypeEui64, *eui64);
  if (nguid) put(kTypeNguid, *nguid);
  if (uuid) put(kTypeUuid, *uuid);
  if (csi) put(kTypeCsi, std::array{static_cast<std::byte>(*csi)});
}

Result<NamespaceDescriptors> NamespaceDescriptors::decode(std::span<const std::byte> in) {
  NamespaceDescriptors ids;
  std::size_t at = 0;
  while (at + kDescriptorHeaderBytes <= in.size()) {
    const std::uint8_t type = load_u8(in.data() + at);
    const std::size_t length = load_u8(in.data() + at + 1);
    if (length == 0) break;
    at += kDescriptorHeaderBytes;
    if (length > in.size() - at) {
      return fail(
          fmt::format("The namespace descriptor at byte {} is longer than its list", at - 4),
          EPROTO);
    }
    const std::string_view wrong = take_descriptor(type, in.subspan(at, length), ids);
    if (!wrong.empty()) {
      return fail(fmt::format("The namespace descriptors give type {} {}", type, wrong), EPROTO);
    }
    at += length;
  }
  return ids;
}

void IdentifyNvmController::encode(std::span<std::byte, kIdentifyBytes> out) const {
  nvm_controller_fields(FieldWriter(out), *this);
}

IdentifyNvmController IdentifyNvmController::decode(std::span<const std::byte> in) {
  IdentifyNvmController id;
  nvm_controller_fields(FieldReader(in, kIdentifyBytes), id);
  return id;
}

void IdentifyNvmNamespace::encode(std::span<std::byte, kIdentifyBytes> out) const {
  nvm_namespace_fields(FieldWriter(out), *this);
}

IdentifyNvmNamespace IdentifyNvmNamespace::decode(std::span<const std::byte> in) {
  IdentifyNvmNamespace id;
  nvm_namespace_fields(FieldReader(in, kIdentifyBytes), id);
  return id;
}

void IdentifyIndependentNamespace::encode(std::span<std::byte, kIdentifyBytes> out) const {
  independent_namespace_fields(FieldWriter(out), *this);
}

IdentifyIndependentNamespace IdentifyIndependentNamespace::decode(std::span<const std::byte> in) {
  IdentifyIndependentNamespace id;
  independent_namespace_fields(FieldReader(in, kIdentifyBytes), id);
  return id;
}

std::vector<std::uint64_t> decode_command_sets(std::span<const std::byte> in) {
  std::vector<std::uint64_t> combinations;
  const std::size_t bytes = std::min(in.size(), kIdentifyBytes);
  for (std::size_t at = 0; at + 8 <= bytes; at += 8) {
    combinations.push_back(load_le64(in.data() + at));
  }
  while (!combinations.empty() && combinations.back() == 0) combinations.pop_back();
  return combinations;
}

void encode_command_sets(std::span<const std::uint64_t> combinations,
                         std::span<std::byte, kIdentifyBytes> out) {
  NVMF_CHECK(combinations.size() <= kIdentifyBytes / 8);
  std::ranges::fill(out, std::byte{0});
  for (std::size_t i = 0; i < combinations.size(); ++i) {
    store_le64(out.data() + 8 * i, combinations[i]);
  }
}

}  // namespace nvmf::nvme
