// Get Log Page and the log pages, as values in host byte order. NVMe Base 2.1 §5.1.12; discovery
// log page §5.1.12.3.1. As in identify.h: any bytes decode, decode() needs the structure's size.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nvme/command.h"
#include "nvme/result.h"
#include "nvme/uint128.h"

namespace nvmf::nvme {

enum class LogPage : std::uint8_t {
  supported_pages = 0x00,
  error_information = 0x01,
  smart = 0x02,
  firmware_slot = 0x03,
  changed_namespaces = 0x04,
  effects = 0x05,
  self_test = 0x06,
  ana = 0x0c,
  discovery = 0x70,
};

/// Get Log Page. Offset in bytes, a multiple of 4; length a multiple of 4, at least 4 (NVMF_CHECK
/// in to_sqe).
struct GetLogPage {
  LogPage page{};
  std::uint32_t nsid = 0;
  std::uint64_t length_bytes = 0;
  std::uint64_t offset_bytes = 0;
  bool retain_event = false;  // RAE: do not clear the asynchronous event
  std::uint8_t lsp = 0;       // bits 14:8 of CDW10
  std::uint16_t lsi = 0;
  std::uint8_t csi = 0;
  bool index_offset = false;  // OT: offset_bytes is an index
  std::uint8_t uuid_index = 0;

  [[nodiscard]] Sqe to_sqe() const;
  static GetLogPage from_sqe(const Sqe& sqe);
  friend bool operator==(const GetLogPage&, const GetLogPage&) = default;
};
/// RGO, "return groups only", an LSP bit of the ANA log.
inline constexpr std::uint8_t kLspAnaGroupsOnly = 1u << 0;

/// Error Information entry, 64 bytes.
inline constexpr std::size_t kErrorEntryBytes = 64;
struct ErrorEntry {
  std::uint64_t error_count = 0;  // 0: the entry is unused
  std::uint16_t sqid = 0;
  std::uint16_t cmdid = 0;
  std::uint16_t status_field = 0;  // bits 15:1 the status, bit 0 the phase tag
  std::uint16_t parm_error_location = 0;
  std::uint64_t lba = 0;
  std::uint32_t nsid = 0;
  std::uint8_t vs = 0;
  std::uint8_t trtype = 0;
  std::uint8_t csi = 0;
  std::uint8_t opcode = 0;
  std::uint64_t cs = 0;
  std::uint16_t trtype_spec_info = 0;
  std::uint8_t log_page_version = 0;

  [[nodiscard]] Status status() const { return Status::decode(status_field); }
  void encode(std::span<std::byte, kErrorEntryBytes> out) const;
  static ErrorEntry decode(std::span<const std::byte> in);
  friend bool operator==(const ErrorEntry&, const ErrorEntry&) = default;
};

/// SMART / Health Information, 512 bytes.
inline constexpr std::size_t kSmartBytes = 512;
/// critical_warning; the same bits of Asynchronous Event Configuration enable their events.
inline constexpr std::uint8_t kWarningSpare = 1u << 0;
inline constexpr std::uint8_t kWarningTemperature = 1u << 1;
inline constexpr std::uint8_t kWarningReliability = 1u << 2;
inline constexpr std::uint8_t kWarningReadOnly = 1u << 3;
inline constexpr std::uint8_t kWarningBackupFailed = 1u << 4;
inline constexpr std::uint8_t kWarningPmr = 1u << 5;
struct SmartLog {
  std::uint8_t critical_warning = 0;
  std::uint16_t composite_temperature = 0;  // kelvins
  std::uint8_t avail_spare = 0;             // percent, as the next two
  std::uint8_t spare_thresh = 0;
  std::uint8_t percent_used = 0;
  std::uint8_t endurance_group_critical_warning = 0;
  Uint128 data_units_read;  // thousands of 512 bytes
  Uint128 data_units_written;
  Uint128 host_read_commands;
  Uint128 host_write_commands;
  Uint128 controller_busy_time;  // minutes
  Uint128 power_cycles;
  Uint128 power_on_hours;
  Uint128 unsafe_shutdowns;  // Base 2.1 calls them Unexpected Power Losses
  Uint128 media_errors;
  Uint128 num_err_log_entries;
  std::uint32_t warning_temp_time = 0;         // minutes
  std::uint32_t critical_comp_time = 0;        // minutes
  std::array<std::uint16_t, 8> temp_sensor{};  // kelvins, 0: none
  std::array<std::uint32_t, 2> thm_temp_trans_count{};
  std::array<std::uint32_t, 2> thm_temp_total_time{};  // seconds

  void encode(std::span<std::byte, kSmartBytes> out) const;
  static SmartLog decode(std::span<const std::byte> in);
  friend bool operator==(const SmartLog&, const SmartLog&) = default;
};

/// Firmware Slot Information, 512 bytes.
inline constexpr std::size_t kFirmwareSlotBytes = 512;
struct FirmwareSlots {
  std::uint8_t afi = 0;            // bits 2:0 the active slot, 6:4 the next
  std::array<std::string, 7> frs;  // slot n is frs[n - 1], at most 8 characters
  /// The eight bytes of each slot as decode() found them, whatever they were padded with: nvme-cli
  /// prints them as numbers too. encode() writes frs.
  std::array<std::uint64_t, 7> frs_raw{};

  void encode(std::span<std::byte, kFirmwareSlotBytes> out) const;
  static FirmwareSlots decode(std::span<const std::byte> in);
  friend bool operator==(const FirmwareSlots& a, const FirmwareSlots& b) {
    return a.afi == b.afi && a.frs == b.frs;
  }
};

/// Changed Attached Namespace List (before Base 2.1: Changed Namespace List), 4096 bytes:
/// identifiers, or "too many: look at all of them".
inline constexpr std::size_t kChangedNamespacesBytes = 4096;
struct ChangedNamespaces {
  bool overflow = false;  // the first entry was FFFFFFFFh
  std::vector<std::uint32_t> nsids;

  /// More than 1024 identifiers are written as overflow.
  void encode(std::span<std::byte, kChangedNamespacesBytes> out) const;
  static ChangedNamespaces decode(std::span<const std::byte> in);
  friend bool operator==(const ChangedNamespaces&, const ChangedNamespaces&) = default;
};

/// Commands Supported and Effects, 4096 bytes.
inline constexpr std::size_t kEffectsBytes = 4096;
inline constexpr std::uint32_t kEffectSupported = 1u << 0;  // CSUPP
inline constexpr std::uint32_t kEffectLbcc = 1u << 1;       // logical block content may change
inline constexpr std::uint32_t kEffectNcc = 1u << 2;
inline constexpr std::uint32_t kEffectNic = 1u << 3;
inline constexpr std::uint32_t kEffectCcc = 1u << 4;
inline constexpr std::uint32_t kEffectCseNamespace = 1u << 16;   // no other for its namespace
inline constexpr std::uint32_t kEffectUuidSelection = 1u << 19;  // USS
struct EffectsLog {
  std::array<std::uint32_t, 256> acs{};   // by admin opcode
  std::array<std::uint32_t, 256> iocs{};  // by I/O opcode

  void encode(std::span<std::byte, kEffectsBytes> out) const;
  static EffectsLog decode(std::span<const std::byte> in);
  friend bool operator==(const EffectsLog&, const EffectsLog&) = default;
};

/// Device Self-test, 564 bytes. Base 2.1 §5.1.12.1.7.
inline constexpr std::size_t kSelfTestBytes = 564;
inline constexpr std::size_t kSelfTestResults = 20;
inline constexpr std::uint8_t kSelfTestUnused = 0xf;  // a result of DSTS that says "no result here"
inline constexpr std::uint8_t kSelfTestVdiNsid = 1u << 0;
inline constexpr std::uint8_t kSelfTestVdiFlba = 1u << 1;
inline constexpr std::uint8_t kSelfTestVdiSct = 1u << 2;
inline constexpr std::uint8_t kSelfTestVdiSc = 1u << 3;
struct SelfTestResult {
  std::uint8_t dsts = 0;  // bits 3:0 the result, 7:4 the self-test code
  std::uint8_t seg = 0;   // segment number, of result 7h
  std::uint8_t vdi = 0;   // which of nsid, flba, sct, sc are valid
  std::uint64_t poh = 0;  // power on hours
  std::uint32_t nsid = 0;
  std::uint64_t flba = 0;
  std::uint8_t sct = 0;
  std::uint8_t sc = 0;
  std::array<std::uint8_t, 2> vs{};

  [[nodiscard]] std::uint8_t result() const { return dsts & 0xfu; }
  [[nodiscard]] std::uint8_t code() const { return static_cast<std::uint8_t>(dsts >> 4u); }
  friend bool operator==(const SelfTestResult&, const SelfTestResult&) = default;
};
struct SelfTestLog {
  std::uint8_t current_operation = 0;                      // bits 3:0; 0: none runs
  std::uint8_t current_completion = 0;                     // bits 6:0, percent
  std::array<SelfTestResult, kSelfTestResults> results{};  // the newest first

  void encode(std::span<std::byte, kSelfTestBytes> out) const;
  static SelfTestLog decode(std::span<const std::byte> in);
  friend bool operator==(const SelfTestLog&, const SelfTestLog&) = default;
};

/// Supported Log Pages, 1024 bytes: per identifier bit 0 LSUPP, bit 1 IOS, bits 31:16 specific.
inline constexpr std::size_t kSupportedLogPagesBytes = 1024;
inline constexpr std::uint32_t kLogPageSupported = 1u << 0;
struct SupportedLogPages {
  std::array<std::uint32_t, 256> lids{};

  [[nodiscard]] bool supports(LogPage page) const {
    return (lids[static_cast<std::uint8_t>(page)] & kLogPageSupported) != 0;
  }
  void encode(std::span<std::byte, kSupportedLogPagesBytes> out) const;
  static SupportedLogPages decode(std::span<const std::byte> in);
  friend bool operator==(const SupportedLogPages&, const SupportedLogPages&) = default;
};

/// Discovery log page: a header of 1024 bytes, then records of 1024 bytes.
inline constexpr std::size_t kDiscoveryHeaderBytes = 1024;
inline constexpr std::size_t kDiscoveryEntryBytes = 1024;
struct DiscoveryHeader {
  std::uint64_t genctr = 0;
  std::uint64_t numrec = 0;
  std::uint16_t recfmt = 0;

  void encode(std::span<std::byte, kDiscoveryHeaderBytes> out) const;
  static DiscoveryHeader decode(std::span<const std::byte> in);  // 18 bytes suffice
  friend bool operator==(const DiscoveryHeader&, const DiscoveryHeader&) = default;
};

enum class TransportType : std::uint8_t {
  not_indicated = 0,
  rdma = 1,
  fibre_channel = 2,
  tcp = 3,
  loop = 254
};
enum class AddressFamily : std::uint8_t { pci = 0, ipv4 = 1, ipv6 = 2, ib = 3, fc = 4, loop = 254 };
enum class SubsystemType : std::uint8_t { referral = 1, nvme = 2, current_discovery = 3 };
/// TREQ.
inline constexpr std::uint8_t kTreqSecureMask = 3;
inline constexpr std::uint8_t kTreqSecureNotSpecified = 0;
inline constexpr std::uint8_t kTreqSecureRequired = 1;
inline constexpr std::uint8_t kTreqSecureNotRequired = 2;
inline constexpr std::uint8_t kTreqSqFlowControlOff = 1u << 2;  // may be disabled
/// EFLAGS.
inline constexpr std::uint16_t kEflagsDuplicate = 1u << 0;  // same as another port: DUPRETINFO
inline constexpr std::uint16_t kEflagsPersistent = 1u
                                                   << 1;  // EPCSD: explicit persistent connections
inline constexpr std::uint16_t kEflagsNoCdc = 1u << 2;
/// SECTYPE of TCP, byte 0 of TSAS. NVMe/TCP 1.0 §3.6.1.1.
inline constexpr std::uint8_t kSectypeNone = 0;
inline constexpr std::uint8_t kSectypeTls12 = 1;
inline constexpr std::uint8_t kSectypeTls13 = 2;

struct DiscoveryEntry {
  TransportType trtype = TransportType::tcp;
  AddressFamily adrfam = AddressFamily::ipv4;
  SubsystemType subtype = SubsystemType::nvme;
  std::uint8_t treq = 0;
  std::uint16_t portid = 0;
  std::uint16_t cntlid = 0xffff;
  std::uint16_t asqsz = 32;
  std::uint16_t eflags = 0;
  std::string trsvcid;  // without padding, at most 32 characters
  std::string subnqn;   // at most 223
  std::string traddr;   // at most 256
  // TSAS. SECTYPE of TCP is its first byte, as is the queue pair service type of RDMA. The others
  // are RDMA's; of TCP they are reserved. The rest of TSAS is not kept.
  std::uint8_t sectype = 0;
  std::uint8_t rdma_prtype = 0;
  std::uint8_t rdma_cms = 0;
  std::uint16_t rdma_pkey = 0;

  void encode(std::span<std::byte, kDiscoveryEntryBytes> out) const;
  static DiscoveryEntry decode(std::span<const std::byte> in);
  friend bool operator==(const DiscoveryEntry&, const DiscoveryEntry&) = default;
};
/// "tcp", "rdma"… and "ipv4"…, "nvme subsystem"…; "unrecognized" for the rest, as nvme-cli.
std::string_view transport_name(TransportType type);
std::string_view address_family_name(AddressFamily family);
std::string_view subsystem_type_name(SubsystemType type);

/// Asymmetric Namespace Access log. Base 2.1 §5.1.12.1.13.
enum class AnaState : std::uint8_t {
  optimized = 0x1,
  non_optimized = 0x2,
  inaccessible = 0x3,
  persistent_loss = 0x4,
  change = 0xf,
};
std::string_view ana_state_name(AnaState state);
inline constexpr std::size_t kAnaHeaderBytes = 16;
inline constexpr std::size_t kAnaGroupBytes = 32;  // plus 4 for each NSID
struct AnaGroup {
  std::uint32_t group_id = 0;
  std::uint64_t change_count = 0;
  AnaState state = AnaState::optimized;
  std::vector<std::uint32_t> nsids;

  friend bool operator==(const AnaGroup&, const AnaGroup&) = default;
};
struct AnaLog {
  std::uint64_t change_count = 0;
  std::vector<AnaGroup> groups;

  /// The whole log, as long as it needs to be.
  [[nodiscard]] std::vector<std::byte> encode() const;
  /// Fails if the groups and NSIDs announced do not fit in `in`.
  static Result<AnaLog> decode(std::span<const std::byte> in);
  friend bool operator==(const AnaLog&, const AnaLog&) = default;
};

}  // namespace nvmf::nvme
