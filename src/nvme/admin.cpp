#include "nvme/admin.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "nvme/check.h"
#include "nvme/endian.h"
#include "nvme/print_logs.h"

namespace nvmf::nvme {
namespace {

Sqe admin_command(AdminOpcode opcode, std::uint32_t nsid = 0) {
  Sqe sqe;
  sqe.opcode = std::to_underlying(opcode);
  sqe.nsid = nsid;
  return sqe;
}

Sqe block_command(NvmOpcode opcode, std::uint32_t nsid, std::uint64_t lba, std::uint32_t blocks,
                  std::uint32_t cdw12_bits) {
  NVMF_CHECK(blocks >= 1 && blocks <= kMaxCommandBlocks);
  NVMF_CHECK((cdw12_bits & 0xffff) == 0);  // these bits are the number of blocks
  Sqe sqe;
  sqe.opcode = std::to_underlying(opcode);
  sqe.nsid = nsid;
  sqe.set_slba(lba);
  sqe.cdw12 = cdw12_bits | (blocks - 1);
  return sqe;
}

// The names of events: Base 2.1 §5.1.2.1, a figure per type.
std::string_view notice_name(std::uint8_t info) {
  switch (info) {
    case kNoticeNamespaceChanged:
      return "Attached Namespace Attribute Changed";
    case kNoticeFirmwareActivation:
      return "Firmware Activation Starting";
    case kNoticeTelemetry:
      return "Telemetry Log Changed";
    case kNoticeAnaChange:
      return "Asymmetric Namespace Access Change";
    case 0x04:
      return "Predictable Latency Event Aggregate Log Change";
    case 0x05:
      return "LBA Status Information Alert";
    case 0x06:
      return "Endurance Group Event Aggregate Log Page Change";
    case 0x07:
      return "Reachability Group Change";
    case 0x08:
      return "Reachability Association Change";
    case 0x09:
      return "Allocated Namespace Attribute Changed";
    case 0xef:
      return "Zone Descriptor Changed";
    case kNoticeDiscoveryChange:
      return "Discovery Log Page Change";
    case 0xf1:
      return "Host Discovery Log Page Change";
    case 0xf2:
      return "AVE Discovery Log Page Change";
    case 0xf3:
      return "Pull Model DDC Request";
    default:
      return "Unknown notice";
  }
}

std::string_view error_event_name(std::uint8_t info) {
  switch (info) {
    case 0x00:
      return "Write to Invalid Doorbell Register";
    case 0x01:
      return "Invalid Doorbell Write Value";
    case 0x02:
      return "Diagnostic Failure";
    case kErrorPersistentInternal:
      return "Persistent Internal Error";
    case kErrorTransientInternal:
      return "Transient Internal Error";
    case 0x05:
      return "Firmware Image Load Error";
    default:
      return "Unknown error";
  }
}

std::string_view smart_event_name(std::uint8_t info) {
  switch (info) {
    case 0x00:
      return "NVM Subsystem Reliability";
    case 0x01:
      return "Temperature Threshold";
    case 0x02:
      return "Spare Below Threshold";
    default:
      return "Unknown health event";
  }
}

std::string_view immediate_event_name(std::uint8_t info) {
  switch (info) {
    case 0x00:
      return "NVM Subsystem Normal Shutdown";
    case 0x01:
      return "Temperature Threshold Hysteresis Recovery";
    default:
      return "Unknown immediate event";
  }
}

std::string_view one_shot_event_name(std::uint8_t info) {
  switch (info) {
    case 0x00:
      return "Controller Data Queue Tail Pointer";
    case 0x01:
      return "Controller Data Queue Full Error";
    default:
      return "Unknown one-shot event";
  }
}

std::string_view io_command_event_name(std::uint8_t info) {
  switch (info) {
    case 0x00:
      return "Reservation Log Page Available";
    case 0x01:
      return "Sanitize Operation Completed";
    case 0x02:
      return "Sanitize Operation Completed With Unexpected Deallocation";
    case 0x03:
      return "Sanitize Operation Entered Media Verification State";
    default:
      return "Unknown I/O command event";
  }
}

std::string_view fabrics_type_name(FabricsType type) {
  switch (type) {
    case FabricsType::property_set:
      return "Property Set";
    case FabricsType::connect:
      return "Connect";
    case FabricsType::property_get:
      return "Property Get";
    case FabricsType::authentication_send:
      return "Authentication Send";
    case FabricsType::authentication_receive:
      return "Authentication Receive";
    case FabricsType::disconnect:
      return "Disconnect";
  }
  return {};
}

}  // namespace

Sqe IdentifyCommand::to_sqe() const {
  Sqe sqe = admin_command(AdminOpcode::identify, nsid);
  sqe.cdw10 = std::to_underlying(cns) | static_cast<std::uint32_t>(cntid) << 16;
  sqe.cdw11 = cns_specific | static_cast<std::uint32_t>(std::to_underlying(csi)) << 24;
  sqe.cdw14 = uuid_index & 0x7fu;
  return sqe;
}

IdentifyCommand IdentifyCommand::from_sqe(const Sqe& sqe) {
  IdentifyCommand command;
  command.cns = static_cast<Cns>(sqe.cdw10 & 0xff);
  command.nsid = sqe.nsid;
  command.cntid = static_cast<std::uint16_t>(sqe.cdw10 >> 16);
  command.csi = static_cast<Csi>(sqe.cdw11 >> 24);
  command.cns_specific = static_cast<std::uint16_t>(sqe.cdw11);
  command.uuid_index = sqe.cdw14 & 0x7f;
  return command;
}

Sqe identify(Cns cns, std::uint32_t nsid, Csi csi) {
  return IdentifyCommand{.cns = cns, .nsid = nsid, .csi = csi}.to_sqe();
}

Sqe get_features(Feature feature, std::uint32_t nsid, std::uint32_t cdw11, FeatureSelect select) {
  Sqe sqe = admin_command(AdminOpcode::get_features, nsid);
  sqe.cdw10 = std::to_underlying(feature) | static_cast<std::uint32_t>(std::to_underlying(select))
                                                << 8;
  sqe.cdw11 = cdw11;
  return sqe;
}

Sqe set_features(Feature feature, std::uint32_t cdw11, std::uint32_t nsid, bool save) {
  Sqe sqe = admin_command(AdminOpcode::set_features, nsid);
  sqe.cdw10 = std::to_underlying(feature) | (save ? 1u << 31 : 0u);
  sqe.cdw11 = cdw11;
  return sqe;
}

FeatureCommand FeatureCommand::from_sqe(const Sqe& sqe) {
  FeatureCommand command;
  command.feature = static_cast<Feature>(sqe.cdw10 & 0xff);
  command.nsid = sqe.nsid;
  command.cdw11 = sqe.cdw11;
  if (sqe.opcode == std::to_underlying(AdminOpcode::get_features)) {
    command.select = static_cast<FeatureSelect>(sqe.cdw10 >> 8 & 7);
  } else {
    command.save = (sqe.cdw10 >> 31) != 0;
  }
  return command;
}

std::uint32_t QueueCount::encode() const {
  NVMF_CHECK(submission >= 1 && submission <= 65536);
  NVMF_CHECK(completion >= 1 && completion <= 65536);
  return (submission - 1) | (completion - 1) << 16;
}

QueueCount QueueCount::decode(std::uint32_t value) {
  return {.submission = (value & 0xffff) + 1, .completion = (value >> 16) + 1};
}

Sqe set_queue_count(std::uint32_t queues) {
  // FFFFh on the wire is not allowed: Base 2.1 §5.1.25.2.1.
  NVMF_CHECK(queues >= 1 && queues <= 65535);
  return set_features(Feature::number_of_queues,
                      QueueCount{.submission = queues, .completion = queues}.encode());
}

Sqe set_async_events(std::uint32_t events) {
  return set_features(Feature::async_event_config, events);
}

Sqe set_keep_alive(std::uint32_t kato_ms) {
  return set_features(Feature::keep_alive_timer, kato_ms);
}

void HostBehavior::encode(std::span<std::byte, kHostBehaviorBytes> out) const {
  std::ranges::fill(out, std::byte{0});
  store_u8(out.data(), acre);
  store_u8(out.data() + 1, etdas);
  store_u8(out.data() + 2, lbafee);
}

HostBehavior HostBehavior::decode(std::span<const std::byte> in) {
  NVMF_CHECK(in.size() >= 3);
  return {.acre = load_u8(in.data()) == 1,
          .etdas = load_u8(in.data() + 1) == 1,
          .lbafee = load_u8(in.data() + 2) == 1};
}

Sqe set_host_behavior() {
  return set_features(Feature::host_behavior, 0);
}

Sqe FormatCommand::to_sqe() const {
  Sqe sqe;
  sqe.opcode = static_cast<std::uint8_t>(AdminOpcode::format_nvm);
  sqe.nsid = nsid;
  sqe.cdw10 = (format & 0xfu) | (protection & 7u) << 5 | (erase & 7u) << 9 |
              static_cast<std::uint32_t>(format >> 4 & 3) << 12;
  return sqe;
}

FormatCommand FormatCommand::from_sqe(const Sqe& sqe) {
  return {.nsid = sqe.nsid,
          .format = static_cast<std::uint8_t>((sqe.cdw10 & 0xf) | (sqe.cdw10 >> 12 & 3) << 4),
          .protection = static_cast<std::uint8_t>(sqe.cdw10 >> 5 & 7),
          .erase = static_cast<std::uint8_t>(sqe.cdw10 >> 9 & 7)};
}

Sqe async_event_request() {
  return admin_command(AdminOpcode::async_event_request);
}

Sqe keep_alive() {
  return admin_command(AdminOpcode::keep_alive);
}

Sqe abort_command(std::uint16_t sqid, std::uint16_t cid) {
  Sqe sqe = admin_command(AdminOpcode::abort);
  sqe.cdw10 = sqid | static_cast<std::uint32_t>(cid) << 16;
  return sqe;
}

AbortCommand AbortCommand::from_sqe(const Sqe& sqe) {
  return {.sqid = static_cast<std::uint16_t>(sqe.cdw10),
          .cid = static_cast<std::uint16_t>(sqe.cdw10 >> 16)};
}

Sqe read_command(std::uint32_t nsid, std::uint64_t lba, std::uint32_t blocks,
                 std::uint32_t cdw12_bits) {
  return block_command(NvmOpcode::read, nsid, lba, blocks, cdw12_bits);
}

Sqe write_command(std::uint32_t nsid, std::uint64_t lba, std::uint32_t blocks,
                  std::uint32_t cdw12_bits) {
  return block_command(NvmOpcode::write, nsid, lba, blocks, cdw12_bits);
}

Sqe compare_command(std::uint32_t nsid, std::uint64_t lba, std::uint32_t blocks,
                    std::uint32_t cdw12_bits) {
  return block_command(NvmOpcode::compare, nsid, lba, blocks, cdw12_bits);
}

Sqe write_zeroes_command(std::uint32_t nsid, std::uint64_t lba, std::uint32_t blocks,
                         std::uint32_t cdw12_bits) {
  return block_command(NvmOpcode::write_zeroes, nsid, lba, blocks, cdw12_bits);
}

Sqe flush_command(std::uint32_t nsid) {
  Sqe sqe;
  sqe.opcode = std::to_underlying(NvmOpcode::flush);
  sqe.nsid = nsid;
  return sqe;
}

Sqe dsm_command(std::uint32_t nsid, std::size_t ranges, std::uint32_t attributes) {
  NVMF_CHECK(ranges >= 1 && ranges <= kMaxDsmRanges);
  Sqe sqe;
  sqe.opcode = std::to_underlying(NvmOpcode::dataset_management);
  sqe.nsid = nsid;
  sqe.cdw10 = static_cast<std::uint32_t>(ranges - 1);
  sqe.cdw11 = attributes;
  return sqe;
}

void DsmRange::encode(std::span<std::byte, kDsmRangeBytes> out) const {
  store_le32(out.data(), attributes);
  store_le32(out.data() + 4, blocks);
  store_le64(out.data() + 8, lba);
}

DsmRange DsmRange::decode(std::span<const std::byte, kDsmRangeBytes> in) {
  return {.attributes = load_le32(in.data()),
          .blocks = load_le32(in.data() + 4),
          .lba = load_le64(in.data() + 8)};
}

std::vector<std::byte> encode_dsm_ranges(std::span<const DsmRange> ranges) {
  std::vector<std::byte> out(ranges.size() * kDsmRangeBytes);
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    ranges[i].encode(
        std::span<std::byte, kDsmRangeBytes>(out.data() + i * kDsmRangeBytes, kDsmRangeBytes));
  }
  return out;
}

std::vector<DsmRange> decode_dsm_ranges(std::span<const std::byte> in) {
  std::vector<DsmRange> ranges;
  ranges.reserve(in.size() / kDsmRangeBytes);
  for (std::size_t at = 0; at + kDsmRangeBytes <= in.size(); at += kDsmRangeBytes) {
    ranges.push_back(DsmRange::decode(
        std::span<const std::byte, kDsmRangeBytes>(in.data() + at, kDsmRangeBytes)));
  }
  return ranges;
}

std::uint32_t AsyncEvent::encode() const {
  return (std::to_underlying(type) & 7u) | static_cast<std::uint32_t>(info) << 8 |
         static_cast<std::uint32_t>(log_page) << 16;
}

AsyncEvent AsyncEvent::decode(std::uint32_t dw0) {
  return {.type = static_cast<AsyncEventType>(dw0 & 7),
          .info = static_cast<std::uint8_t>(dw0 >> 8),
          .log_page = static_cast<std::uint8_t>(dw0 >> 16)};
}

std::string AsyncEvent::describe() const {
  const auto with = [this](std::string_view name, std::string_view kind) {
    return fmt::format("{} ({}, log page 0x{:02x})", name, kind, log_page);
  };
  switch (type) {
    case AsyncEventType::error:
      return with(error_event_name(info), "error");
    case AsyncEventType::smart:
      return with(smart_event_name(info), "health");
    case AsyncEventType::notice:
      return with(notice_name(info), "notice");
    case AsyncEventType::immediate:
      return with(immediate_event_name(info), "immediate");
    case AsyncEventType::one_shot:
      return with(one_shot_event_name(info), "one-shot");
    case AsyncEventType::io_command_set:
      return with(io_command_event_name(info), "I/O command specific");
    case AsyncEventType::vendor:
      return with(fmt::format("event 0x{:02x}", info), "vendor specific");
  }
  return with(fmt::format("event 0x{:02x}", info), "reserved type");
}

std::string opcode_name(const Sqe& sqe, bool admin) {
  std::string_view name;
  if (sqe.is_fabrics()) {
    name = fabrics_type_name(sqe.fabrics_type());
    if (name.empty()) return fmt::format("fabrics command type 0x{:02x}", sqe.nsid & 0xff);
  } else {
    name = admin ? admin_opcode_name(sqe.opcode) : io_opcode_name(sqe.opcode);
    if (name == kUnknownName) return fmt::format("opcode 0x{:02x}", sqe.opcode);
  }
  return std::string(name);
}

}  // namespace nvmf::nvme
