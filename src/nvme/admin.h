// Commands as submission queue entries: admin, NVM I/O, and what travels beside them (DSM ranges,
// asynchronous events). A builder sets the command's own fields; the queue pair sets CID, PSDT and
// the SGL. NVMe Base 2.1 §5, NVM Command Set 1.2 §3. Get Log Page is in log_pages.h, the fabrics
// commands in fabrics.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nvme/command.h"
#include "nvme/identify.h"
#include "nvme/result.h"

namespace nvmf::nvme {

/// Identify. Base 2.1 §5.1.13.
struct IdentifyCommand {
  Cns cns = Cns::controller;
  std::uint32_t nsid = 0;
  std::uint16_t cntid = 0;
  Csi csi = Csi::nvm;
  std::uint16_t cns_specific = 0;  // CDW11 bits 15:0
  std::uint8_t uuid_index = 0;

  [[nodiscard]] Sqe to_sqe() const;
  static IdentifyCommand from_sqe(const Sqe& sqe);
  friend bool operator==(const IdentifyCommand&, const IdentifyCommand&) = default;
};
Sqe identify(Cns cns, std::uint32_t nsid = 0, Csi csi = Csi::nvm);

/// Feature identifiers. Base 2.1 §5.1.25.
enum class Feature : std::uint8_t {
  arbitration = 0x01,
  power_management = 0x02,
  lba_range = 0x03,
  temperature_threshold = 0x04,
  error_recovery = 0x05,
  volatile_write_cache = 0x06,
  number_of_queues = 0x07,
  interrupt_coalescing = 0x08,
  interrupt_vector = 0x09,
  write_atomicity = 0x0a,
  async_event_config = 0x0b,
  apst = 0x0c,
  host_memory_buffer = 0x0d,
  timestamp = 0x0e,
  keep_alive_timer = 0x0f,
  host_behavior = 0x16,
  command_set_profile = 0x19,
  host_id = 0x81,
  namespace_write_protect = 0x84,
};

/// Get Features' SEL.
enum class FeatureSelect : std::uint8_t { current = 0, fallback = 1, saved = 2, supported = 3 };

Sqe get_features(Feature feature, std::uint32_t nsid = 0, std::uint32_t cdw11 = 0,
                 FeatureSelect select = FeatureSelect::current);
Sqe set_features(Feature feature, std::uint32_t cdw11, std::uint32_t nsid = 0, bool save = false);
/// FID, SEL and SV of either command.
struct FeatureCommand {
  Feature feature{};
  FeatureSelect select = FeatureSelect::current;  // Get only
  bool save = false;                              // Set only
  std::uint32_t nsid = 0;
  std::uint32_t cdw11 = 0;

  static FeatureCommand from_sqe(const Sqe& sqe);
  friend bool operator==(const FeatureCommand&, const FeatureCommand&) = default;
};

/// Number of Queues (07h): asked in CDW11, granted in DW0. 1-based here, 0's based on the wire.
struct QueueCount {
  std::uint32_t submission = 1;  // 1 to 65535
  std::uint32_t completion = 1;

  [[nodiscard]] std::uint32_t encode() const;
  static QueueCount decode(std::uint32_t value);
  friend bool operator==(const QueueCount&, const QueueCount&) = default;
};
Sqe set_queue_count(std::uint32_t queues);
/// Asynchronous Event Configuration (0Bh): events are the kOaes* bits and SMART's bits 7:0.
Sqe set_async_events(std::uint32_t events);
/// Keep Alive Timer (0Fh), milliseconds; 0 disables.
Sqe set_keep_alive(std::uint32_t kato_ms);

/// Host Behavior Support (16h), 512 bytes of data. Base 2.1 §5.1.25.1.14.
inline constexpr std::size_t kHostBehaviorBytes = 512;
struct HostBehavior {
  bool acre = false;    // advanced command retry: statuses may carry CRD
  bool etdas = false;   // extended telemetry data area 4
  bool lbafee = false;  // LBA format extension

  void encode(std::span<std::byte, kHostBehaviorBytes> out) const;
  static HostBehavior decode(std::span<const std::byte> in);
  friend bool operator==(const HostBehavior&, const HostBehavior&) = default;
};
Sqe set_host_behavior();  // its data is a HostBehavior

/// Format NVM. Base 2.1 §5.1.10, NVM 1.1 §4.1.2. Without metadata.
struct FormatCommand {
  std::uint32_t nsid = 0;
  std::uint8_t format = 0;      // index of the LBA format: LBAFL and LBAFU
  std::uint8_t protection = 0;  // PI: 0 none
  std::uint8_t erase = 0;       // SES: kErase*

  [[nodiscard]] Sqe to_sqe() const;
  static FormatCommand from_sqe(const Sqe& sqe);
  friend bool operator==(const FormatCommand&, const FormatCommand&) = default;
};
inline constexpr std::uint8_t kEraseNone = 0;
inline constexpr std::uint8_t kEraseUserData = 1;
inline constexpr std::uint8_t kEraseCryptographic = 2;

Sqe async_event_request();
Sqe keep_alive();
/// Abort of command `cid` on submission queue `sqid`.
Sqe abort_command(std::uint16_t sqid, std::uint16_t cid);
/// What Abort names.
struct AbortCommand {
  std::uint16_t sqid = 0;
  std::uint16_t cid = 0;
  static AbortCommand from_sqe(const Sqe& sqe);
};
/// DW0 bit 0 of Abort's completion: set if the command was NOT aborted.
inline constexpr std::uint32_t kAbortNotAborted = 1u << 0;

/// NVM commands. `blocks` 1 to 65536, 1-based (NVMF_CHECK); cdw12 bits beside it: kCdw12Fua etc.
Sqe read_command(std::uint32_t nsid, std::uint64_t lba, std::uint32_t blocks,
                 std::uint32_t cdw12_bits = 0);
Sqe write_command(std::uint32_t nsid, std::uint64_t lba, std::uint32_t blocks,
                  std::uint32_t cdw12_bits = 0);
Sqe compare_command(std::uint32_t nsid, std::uint64_t lba, std::uint32_t blocks,
                    std::uint32_t cdw12_bits = 0);
Sqe write_zeroes_command(std::uint32_t nsid, std::uint64_t lba, std::uint32_t blocks,
                         std::uint32_t cdw12_bits = 0);
Sqe flush_command(std::uint32_t nsid);
inline constexpr std::uint32_t kMaxCommandBlocks = 65536;

/// Dataset Management. NVM 1.2 §3.3.3. `ranges` 1 to 256 (NVMF_CHECK), each 16 bytes of data.
inline constexpr std::size_t kDsmRangeBytes = 16;
inline constexpr std::size_t kMaxDsmRanges = 256;
Sqe dsm_command(std::uint32_t nsid, std::size_t ranges,
                std::uint32_t attributes = kCdw11DsmDeallocate);
/// How many ranges a Dataset Management SQE announces: 1 to 256.
constexpr std::size_t dsm_ranges(const Sqe& sqe) {
  return (sqe.cdw10 & 0xff) + 1;
}
struct DsmRange {
  std::uint32_t attributes = 0;
  std::uint32_t blocks = 0;  // 1-based; 0 is a range of nothing
  std::uint64_t lba = 0;

  void encode(std::span<std::byte, kDsmRangeBytes> out) const;
  static DsmRange decode(std::span<const std::byte, kDsmRangeBytes> in);
  friend constexpr bool operator==(const DsmRange&, const DsmRange&) = default;
};
std::vector<std::byte> encode_dsm_ranges(std::span<const DsmRange> ranges);
/// All whole ranges in `in`.
std::vector<DsmRange> decode_dsm_ranges(std::span<const std::byte> in);

/// Asynchronous events. Base 2.1 §5.1.2.
enum class AsyncEventType : std::uint8_t {
  error = 0,
  smart = 1,
  notice = 2,
  immediate = 3,
  one_shot = 4,
  io_command_set = 6,
  vendor = 7,
};
/// Informations of AsyncEventType::notice.
inline constexpr std::uint8_t kNoticeNamespaceChanged = 0x00;
inline constexpr std::uint8_t kNoticeFirmwareActivation = 0x01;
inline constexpr std::uint8_t kNoticeTelemetry = 0x02;
inline constexpr std::uint8_t kNoticeAnaChange = 0x03;
inline constexpr std::uint8_t kNoticeDiscoveryChange = 0xf0;
/// Informations of AsyncEventType::error.
inline constexpr std::uint8_t kErrorPersistentInternal = 0x03;
inline constexpr std::uint8_t kErrorTransientInternal = 0x04;

/// Informations of AsyncEventType::smart.
inline constexpr std::uint8_t kSmartReliability = 0x00;
inline constexpr std::uint8_t kSmartTemperature = 0x01;
inline constexpr std::uint8_t kSmartSpare = 0x02;

/// DW0 of an Asynchronous Event Request's completion.
struct AsyncEvent {
  AsyncEventType type = AsyncEventType::error;
  std::uint8_t info = 0;
  std::uint8_t log_page = 0;  // the log page whose reading clears the event

  [[nodiscard]] std::uint32_t encode() const;
  static AsyncEvent decode(std::uint32_t dw0);
  /// "Attached Namespace Attribute Changed (notice, log page 0x04)".
  [[nodiscard]] std::string describe() const;
  friend constexpr bool operator==(const AsyncEvent&, const AsyncEvent&) = default;
};

/// "Read", "Identify", "Connect" … or "opcode 0xc1"; admin tells the admin queue's from I/O's.
std::string opcode_name(const Sqe& sqe, bool admin);

}  // namespace nvmf::nvme
