#include "nvme/log_pages.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "nvme/check.h"
#include "nvme/endian.h"
#include "nvme/fields.h"

namespace nvmf::nvme {
namespace {

template <class Visitor, class Entry>
void error_fields(const Visitor& v, Entry& e) {
  v(0, e.error_count);
  v(8, e.sqid);
  v(10, e.cmdid);
  v(12, e.status_field);
  v(14, e.parm_error_location);
  v(16, e.lba);
  v(24, e.nsid);
  v(28, e.vs);
  v(29, e.trtype);
  v(30, e.csi);
  v(31, e.opcode);
  v(32, e.cs);
  v(40, e.trtype_spec_info);
  v(63, e.log_page_version);
}

template <class Visitor, class Log>
void smart_fields(const Visitor& v, Log& s) {
  v(0, s.critical_warning);
  v(1, s.composite_temperature);
  v(3, s.avail_spare);
  v(4, s.spare_thresh);
  v(5, s.percent_used);
  v(6, s.endurance_group_critical_warning);
  v(32, s.data_units_read);
  v(48, s.data_units_written);
  v(64, s.host_read_commands);
  v(80, s.host_write_commands);
  v(96, s.controller_busy_time);
  v(112, s.power_cycles);
  v(128, s.power_on_hours);
  v(144, s.unsafe_shutdowns);
  v(160, s.media_errors);
  v(176, s.num_err_log_entries);
  v(192, s.warning_temp_time);
  v(196, s.critical_comp_time);
  v(200, s.temp_sensor);
  v(216, s.thm_temp_trans_count);
  v(224, s.thm_temp_total_time);
}

template <class Visitor, class Log>
void firmware_fields(const Visitor& v, Log& log) {
  v(0, log.afi);
  for (std::size_t i = 0; i < log.frs.size(); ++i) v.text(8 + 8 * i, 8, ' ', log.frs[i]);
}

template <class Visitor, class Log>
void effects_fields(const Visitor& v, Log& log) {
  v(0, log.acs);
  v(1024, log.iocs);
}

constexpr std::size_t kSelfTestHeaderBytes = 4;
constexpr std::size_t kSelfTestResultBytes = 28;
static_assert(kSelfTestHeaderBytes + kSelfTestResults * kSelfTestResultBytes == kSelfTestBytes);

template <class Visitor, class Log>
void self_test_fields(const Visitor& v, Log& log) {
  v(0, log.current_operation);
  v(1, log.current_completion);
  std::size_t at = kSelfTestHeaderBytes;
  for (auto& result : log.results) {
    v(at, result.dsts);
    v(at + 1, result.seg);
    v(at + 2, result.vdi);
    v(at + 4, result.poh);
    v(at + 12, result.nsid);
    v(at + 16, result.flba);
    v(at + 24, result.sct);
    v(at + 25, result.sc);
    v(at + 26, result.vs);
    at += kSelfTestResultBytes;
  }
}

template <class Visitor, class Header>
void discovery_header_fields(const Visitor& v, Header& h) {
  v(0, h.genctr);
  v(8, h.numrec);
  v(16, h.recfmt);
}
constexpr std::size_t kDiscoveryHeaderFieldBytes = 18;

// Base 2.1 §5.1.12.3.1, figure of the discovery log page entry.
template <class Visitor, class Entry>
void discovery_entry_fields(const Visitor& v, Entry& e) {
  v(0, e.trtype);
  v(1, e.adrfam);
  v(2, e.subtype);
  v(3, e.treq);
  v(4, e.portid);
  v(6, e.cntlid);
  v(8, e.asqsz);
  v(10, e.eflags);
  v.text(32, 32, ' ', e.trsvcid);
  v.text(256, 256, '\0', e.subnqn);
  v.text(512, 256, ' ', e.traddr);
  v(768, e.sectype);
  v(769, e.rdma_prtype);
  v(770, e.rdma_cms);
  v(776, e.rdma_pkey);
}

Result<AnaGroup> decode_ana_group(std::span<const std::byte> in) {
  if (in.size() < kAnaGroupBytes) {
    return fail("The ANA log ends within a group descriptor", EPROTO);
  }
  AnaGroup group;
  group.group_id = load_le32(in.data());
  const std::uint64_t count = load_le32(in.data() + 4);
  group.change_count = load_le64(in.data() + 8);
  group.state = static_cast<AnaState>(load_u8(in.data() + 16) & 0xf);
  if (count > (in.size() - kAnaGroupBytes) / 4) {
    return fail(fmt::format("The ANA log announces {} namespaces in group {} and ends before them",
                            count, group.group_id),
                EPROTO);
  }
  group.nsids.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    group.nsids.push_back(load_le32(in.data() + kAnaGroupBytes + 4 * i));
  }
  return group;
}

}  // namespace

Sqe GetLogPage::to_sqe() const {
  constexpr std::uint64_t kMaxBytes = std::uint64_t{4} << 32;
  NVMF_CHECK(length_bytes >= 4 && length_bytes % 4 == 0 && length_bytes <= kMaxBytes);
  NVMF_CHECK(index_offset || offset_bytes % 4 == 0);
  const std::uint64_t numd = length_bytes / 4 - 1;
  Sqe sqe;
  sqe.opcode = std::to_underlying(AdminOpcode::get_log_page);
  sqe.nsid = nsid;
  sqe.cdw10 = std::to_underlying(page) | (lsp & 0x7fu) << 8 | (retain_event ? 1u << 15 : 0u) |
              static_cast<std::uint32_t>(numd & 0xffff) << 16;
  sqe.cdw11 = static_cast<std::uint32_t>(numd >> 16) | static_cast<std::uint32_t>(lsi) << 16;
  sqe.cdw12 = static_cast<std::uint32_t>(offset_bytes);
  sqe.cdw13 = static_cast<std::uint32_t>(offset_bytes >> 32);
  sqe.cdw14 =
      (uuid_index & 0x7fu) | (index_offset ? 1u << 23 : 0u) | static_cast<std::uint32_t>(csi) << 24;
  return sqe;
}

GetLogPage GetLogPage::from_sqe(const Sqe& sqe) {
  GetLogPage command;
  command.page = static_cast<LogPage>(sqe.cdw10 & 0xff);
  command.nsid = sqe.nsid;
  const std::uint64_t numd = sqe.cdw10 >> 16 | static_cast<std::uint64_t>(sqe.cdw11 & 0xffff) << 16;
  command.length_bytes = (numd + 1) * 4;
  command.offset_bytes = static_cast<std::uint64_t>(sqe.cdw13) << 32 | sqe.cdw12;
  command.retain_event = (sqe.cdw10 >> 15 & 1) != 0;
  command.lsp = sqe.cdw10 >> 8 & 0x7f;
  command.lsi = static_cast<std::uint16_t>(sqe.cdw11 >> 16);
  command.csi = static_cast<std::uint8_t>(sqe.cdw14 >> 24);
  command.index_offset = (sqe.cdw14 >> 23 & 1) != 0;
  command.uuid_index = sqe.cdw14 & 0x7f;
  return command;
}

void ErrorEntry::encode(std::span<std::byte, kErrorEntryBytes> out) const {
  error_fields(FieldWriter(out), *this);
}

ErrorEntry ErrorEntry::decode(std::span<const std::byte> in) {
  ErrorEntry entry;
  error_fields(FieldReader(in, kErrorEntryBytes), entry);
  return entry;
}

void SmartLog::encode(std::span<std::byte, kSmartBytes> out) const {
  smart_fields(FieldWriter(out), *this);
}

SmartLog SmartLog::decode(std::span<const std::byte> in) {
  SmartLog log;
  smart_fields(FieldReader(in, kSmartBytes), log);
  return log;
}

void FirmwareSlots::encode(std::span<std::byte, kFirmwareSlotBytes> out) const {
  firmware_fields(FieldWriter(out), *this);
  // An empty slot is zeroes, not spaces: Base 2.1 §5.1.12.1.4.
  for (std::size_t i = 0; i < frs.size(); ++i) {
    if (frs[i].empty()) std::ranges::fill(out.subspan(8 + 8 * i, 8), std::byte{0});
  }
}

FirmwareSlots FirmwareSlots::decode(std::span<const std::byte> in) {
  FirmwareSlots log;
  const FieldReader reader(in, kFirmwareSlotBytes);
  firmware_fields(reader, log);
  reader(8, log.frs_raw);
  return log;
}

void ChangedNamespaces::encode(std::span<std::byte, kChangedNamespacesBytes> out) const {
  std::ranges::fill(out, std::byte{0});
  if (overflow || nsids.size() > kChangedNamespacesBytes / 4) {
    store_le32(out.data(), kNsidAll);
    return;
  }
  for (std::size_t i = 0; i < nsids.size(); ++i) store_le32(out.data() + 4 * i, nsids[i]);
}

ChangedNamespaces ChangedNamespaces::decode(std::span<const std::byte> in) {
  NVMF_CHECK(in.size() >= kChangedNamespacesBytes);
  ChangedNamespaces log;
  for (std::size_t at = 0; at < kChangedNamespacesBytes; at += 4) {
    const std::uint32_t nsid = load_le32(in.data() + at);
    if (nsid == 0) break;
    // Only the first entry may say it, but wherever it stands the list is not to be trusted.
    if (nsid == kNsidAll) return {.overflow = true, .nsids = {}};
    log.nsids.push_back(nsid);
  }
  return log;
}

void EffectsLog::encode(std::span<std::byte, kEffectsBytes> out) const {
  effects_fields(FieldWriter(out), *this);
}

EffectsLog EffectsLog::decode(std::span<const std::byte> in) {
  EffectsLog log;
  effects_fields(FieldReader(in, kEffectsBytes), log);
  return log;
}

void SelfTestLog::encode(std::span<std::byte, kSelfTestBytes> out) const {
  self_test_fields(FieldWriter(out), *this);
}

SelfTestLog SelfTestLog::decode(std::span<const std::byte> in) {
  SelfTestLog log;
  self_test_fields(FieldReader(in, kSelfTestBytes), log);
  return log;
}

void SupportedLogPages::encode(std::span<std::byte, kSupportedLogPagesBytes> out) const {
  const FieldWriter v(out);
  v(0, lids);
}

SupportedLogPages SupportedLogPages::decode(std::span<const std::byte> in) {
  SupportedLogPages log;
  const FieldReader v(in, kSupportedLogPagesBytes);
  v(0, log.lids);
  return log;
}

void DiscoveryHeader::encode(std::span<std::byte, kDiscoveryHeaderBytes> out) const {
  discovery_header_fields(FieldWriter(out), *this);
}

DiscoveryHeader DiscoveryHeader::decode(std::span<const std::byte> in) {
  DiscoveryHeader header;
  discovery_header_fields(FieldReader(in, kDiscoveryHeaderFieldBytes), header);
  return header;
}

void DiscoveryEntry::encode(std::span<std::byte, kDiscoveryEntryBytes> out) const {
  discovery_entry_fields(FieldWriter(out), *this);
}

DiscoveryEntry DiscoveryEntry::decode(std::span<const std::byte> in) {
  DiscoveryEntry entry;
  discovery_entry_fields(FieldReader(in, kDiscoveryEntryBytes), entry);
  return entry;
}

std::string_view transport_name(TransportType type) {
  switch (type) {
    case TransportType::not_indicated:
      break;
    case TransportType::rdma:
      return "rdma";
    case TransportType::fibre_channel:
      return "fc";
    case TransportType::tcp:
      return "tcp";
    case TransportType::loop:
      return "loop";
  }
  return "unrecognized";
}

std::string_view address_family_name(AddressFamily family) {
  switch (family) {
    case AddressFamily::pci:
      return "pci";
    case AddressFamily::ipv4:
      return "ipv4";
    case AddressFamily::ipv6:
      return "ipv6";
    case AddressFamily::ib:
      return "infiniband";
    case AddressFamily::fc:
      return "fibre-channel";
    case AddressFamily::loop:
      break;
  }
  return "unrecognized";
}

std::string_view subsystem_type_name(SubsystemType type) {
  switch (type) {
    case SubsystemType::referral:
      return "discovery subsystem referral";
    case SubsystemType::nvme:
      return "nvme subsystem";
    case SubsystemType::current_discovery:
      return "current discovery subsystem";
  }
  return "unrecognized";
}

std::string_view ana_state_name(AnaState state) {
  switch (state) {
    case AnaState::optimized:
      return "optimized";
    case AnaState::non_optimized:
      return "non-optimized";
    case AnaState::inaccessible:
      return "inaccessible";
    case AnaState::persistent_loss:
      return "persistent-loss";
    case AnaState::change:
      return "change";
  }
  return "invalid state";
}

std::vector<std::byte> AnaLog::encode() const {
  NVMF_CHECK(groups.size() <= 0xffff);
  std::size_t size = kAnaHeaderBytes;
  for (const AnaGroup& group : groups) size += kAnaGroupBytes + 4 * group.nsids.size();
  std::vector<std::byte> out(size);
  store_le64(out.data(), change_count);
  store_le16(out.data() + 8, static_cast<std::uint16_t>(groups.size()));
  std::byte* p = out.data() + kAnaHeaderBytes;
  for (const AnaGroup& group : groups) {
    store_le32(p, group.group_id);
    store_le32(p + 4, static_cast<std::uint32_t>(group.nsids.size()));
    store_le64(p + 8, group.change_count);
    store_u8(p + 16, std::to_underlying(group.state));
    p += kAnaGroupBytes;
    for (const std::uint32_t nsid : group.nsids) {
      store_le32(p, nsid);
      p += 4;
    }
  }
  return out;
}

Result<AnaLog> AnaLog::decode(std::span<const std::byte> in) {
  if (in.size() < kAnaHeaderBytes) return fail("The ANA log ends within its header", EPROTO);
  AnaLog log;
  log.change_count = load_le64(in.data());
  const std::size_t count = load_le16(in.data() + 8);
  std::span<const std::byte> rest = in.subspan(kAnaHeaderBytes);
  for (std::size_t i = 0; i < count; ++i) {
    auto group = decode_ana_group(rest);
    if (!group) return std::unexpected(group.error());
    rest = rest.subspan(kAnaGroupBytes + 4 * group->nsids.size());
    log.groups.push_back(*std::move(group));
  }
  return log;
}

}  // namespace nvmf::nvme
