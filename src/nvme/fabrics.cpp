#include "nvme/fabrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "nvme/check.h"
#include "nvme/endian.h"
#include "nvme/fields.h"

namespace nvmf::nvme {
namespace {

constexpr std::size_t kNqnFieldBytes = 256;

Sqe fabrics_command(FabricsType type) {
  Sqe sqe;
  sqe.opcode = kFabricsOpcode;
  sqe.nsid = std::to_underlying(type);  // FCTYPE is byte 4, where other commands have the NSID
  return sqe;
}

Result<std::string> load_nqn(std::span<const std::byte> in, std::size_t offset,
                             std::string_view name) {
  const auto field = in.subspan(offset, kNqnFieldBytes);
  if (std::ranges::find(field, std::byte{0}) == field.end()) {
    return fail(fmt::format("The {} in the Connect data is not ended by a NUL", name), EPROTO);
  }
  return load_text(field, '\0');
}

// Reads and writes bit fields of a register, from the lowest bit up.
constexpr std::uint64_t bits(std::uint64_t value, unsigned low, unsigned width) {
  return value >> low & ((std::uint64_t{1} << width) - 1);
}
constexpr std::uint8_t bits8(std::uint64_t value, unsigned low, unsigned width) {
  return static_cast<std::uint8_t>(bits(value, low, width));
}
constexpr std::uint64_t place(std::uint64_t field, unsigned low, unsigned width) {
  return bits(field, 0, width) << low;
}

struct ConnectField {
  std::uint16_t first;
  std::uint16_t end;
  std::string_view name;
  std::string_view hint;  // goes on after "try "
};

constexpr std::string_view kReportIt = "to report it: this host sent what the target cannot read";

// Base 2.1 §6.3: where each parameter of Connect lies.
constexpr ConnectField kSqeFields[] = {
    {0, 1, "the opcode (OPC)", kReportIt},
    {1, 2, "the kind of its scatter-gather list (PSDT)", kReportIt},
    {2, 4, "the command identifier (CID)", kReportIt},
    {4, 5, "the fabrics command type (FCTYPE)", kReportIt},
    {24, 40, "the scatter-gather list (SGL1)", kReportIt},
    {kConnectSqeRecfmt, kConnectSqeQid, "the record format (RECFMT)",
     "a target of a newer NVMe over Fabrics version, and report it"},
    {kConnectSqeQid, kConnectSqeSqsize, "the queue identifier (QID)", "a smaller --nr-io-queues"},
    {kConnectSqeSqsize, kConnectSqeCattr, "the queue size (SQSIZE)", "a smaller --queue-size"},
    {kConnectSqeCattr, 47, "the connect attributes (CATTR)", kReportIt},
    {kConnectSqeKato, kConnectSqeNvmsetid, "the keep alive timeout (KATO)",
     "another --keep-alive-tmo"},
    {kConnectSqeNvmsetid, 54, "the NVM set identifier (NVMSETID)", kReportIt},
};
constexpr ConnectField kDataFields[] = {
    {kConnectDataHostid, kConnectDataCntlid, "the host identifier (HOSTID)",
     "another --hostid, and the same one for all connections of this host NQN"},
    {kConnectDataCntlid, 18, "the controller identifier (CNTLID)",
     "to connect again: the controller that the queue was for may have ended"},
    {kConnectDataSubnqn, kConnectDataHostnqn, "the subsystem NQN (SUBNQN)",
     "`nvmf discover`, which lists the subsystems that it has"},
    {kConnectDataHostnqn, 768, "the host NQN (HOSTNQN)",
     "to allow this host on the target, or another --hostnqn"},
};
constexpr ConnectField kReservedField = {0, 0, "a reserved field", kReportIt};

const ConnectField& connect_field(const ConnectInvalidParameter& where) {
  const auto fields = where.in_data ? std::span<const ConnectField>(kDataFields)
                                    : std::span<const ConnectField>(kSqeFields);
  for (const ConnectField& field : fields) {
    if (where.offset >= field.first && where.offset < field.end) return field;
  }
  return kReservedField;
}

bool property_is_eight_bytes(Property property) {
  return property == Property::cap;
}

}  // namespace

void ConnectData::encode(std::span<std::byte, kConnectDataBytes> out) const {
  const FieldWriter v(out);
  v(kConnectDataHostid, hostid);
  v(kConnectDataCntlid, cntlid);
  // One byte less than the field, so that there is always a NUL.
  v.text(kConnectDataSubnqn, kNqnFieldBytes - 1, '\0', subnqn);
  v.text(kConnectDataHostnqn, kNqnFieldBytes - 1, '\0', hostnqn);
}

Result<ConnectData> ConnectData::decode(std::span<const std::byte> in) {
  if (in.size() < kConnectDataBytes) {
    return fail(fmt::format("The Connect data is {} bytes long instead of {}", in.size(),
                            kConnectDataBytes),
                EPROTO);
  }
  ConnectData data;
  const FieldReader v(in, kConnectDataBytes);
  v(kConnectDataHostid, data.hostid);
  v(kConnectDataCntlid, data.cntlid);
  auto subnqn = load_nqn(in, kConnectDataSubnqn, "subsystem NQN");
  if (!subnqn) return std::unexpected(subnqn.error());
  auto hostnqn = load_nqn(in, kConnectDataHostnqn, "host NQN");
  if (!hostnqn) return std::unexpected(hostnqn.error());
  data.subnqn = *std::move(subnqn);
  data.hostnqn = *std::move(hostnqn);
  return data;
}

Sqe ConnectCommand::to_sqe() const {
  NVMF_CHECK(queue_entries >= 1 && queue_entries <= 65536);
  Sqe sqe = fabrics_command(FabricsType::connect);
  sqe.cdw10 = recfmt | static_cast<std::uint32_t>(qid) << 16;
  sqe.cdw11 = (queue_entries - 1) | static_cast<std::uint32_t>(cattr) << 16;
  sqe.cdw12 = kato_ms;
  return sqe;
}

ConnectCommand ConnectCommand::from_sqe(const Sqe& sqe) {
  ConnectCommand command;
  command.recfmt = static_cast<std::uint16_t>(sqe.cdw10);
  command.qid = static_cast<std::uint16_t>(sqe.cdw10 >> 16);
  command.queue_entries = (sqe.cdw11 & 0xffff) + 1;
  command.cattr = bits8(sqe.cdw11, 16, 8);
  command.kato_ms = sqe.cdw12;
  return command;
}

std::uint64_t ConnectResponse::encode() const {
  return cntlid | place(authentication_required, 17, 1) | place(secure_channel_required, 18, 1);
}

ConnectResponse ConnectResponse::decode(std::uint64_t result) {
  return {.cntlid = static_cast<std::uint16_t>(result),
          .authentication_required = bits(result, 17, 1) != 0,
          .secure_channel_required = bits(result, 18, 1) != 0};
}

std::uint64_t ConnectInvalidParameter::encode() const {
  return offset | place(in_data, 16, 1);
}

ConnectInvalidParameter ConnectInvalidParameter::decode(std::uint64_t result) {
  return {.in_data = bits(result, 16, 1) != 0, .offset = static_cast<std::uint16_t>(result)};
}

std::string ConnectInvalidParameter::describe() const {
  return fmt::format("{}, byte {} of the Connect {}", connect_field(*this).name, offset,
                     in_data ? "data" : "command");
}

std::string_view ConnectInvalidParameter::hint() const {
  return connect_field(*this).hint;
}

Sqe PropertyCommand::to_get() const {
  Sqe sqe = fabrics_command(FabricsType::property_get);
  sqe.cdw10 = eight_bytes ? 1 : 0;
  sqe.cdw11 = offset;
  return sqe;
}

Sqe PropertyCommand::to_set() const {
  Sqe sqe = fabrics_command(FabricsType::property_set);
  sqe.cdw10 = eight_bytes ? 1 : 0;
  sqe.cdw11 = offset;
  sqe.cdw12 = static_cast<std::uint32_t>(value);
  sqe.cdw13 = static_cast<std::uint32_t>(value >> 32);
  return sqe;
}

std::optional<PropertyCommand> PropertyCommand::from_sqe(const Sqe& sqe) {
  const std::uint64_t size = bits(sqe.cdw10, 0, 3);
  if (size > 1) return std::nullopt;
  PropertyCommand command;
  command.eight_bytes = size == 1;
  command.offset = sqe.cdw11;
  if (sqe.fabrics_type() == FabricsType::property_set) {
    command.value = sqe.cdw12;
    if (command.eight_bytes) command.value |= static_cast<std::uint64_t>(sqe.cdw13) << 32;
  }
  return command;
}

Sqe property_get(Property property) {
  return PropertyCommand{.offset = std::to_underlying(property),
                         .eight_bytes = property_is_eight_bytes(property)}
      .to_get();
}

Sqe property_set(Property property, std::uint32_t value) {
  NVMF_CHECK(!property_is_eight_bytes(property));
  return PropertyCommand{.offset = std::to_underlying(property), .value = value}.to_set();
}

Sqe disconnect_command() {
  return fabrics_command(FabricsType::disconnect);
}

std::uint64_t ControllerCapabilities::encode() const {
  return mqes | place(cqr, 16, 1) | place(ams, 17, 2) | place(to, 24, 8) | place(dstrd, 32, 4) |
         place(nssrs, 36, 1) | place(css, 37, 8) | place(bps, 45, 1) | place(cps, 46, 2) |
         place(mpsmin, 48, 4) | place(mpsmax, 52, 4) | place(pmrs, 56, 1) | place(cmbs, 57, 1) |
         place(nsss, 58, 1) | place(crms, 59, 2) | place(nsses, 61, 1);
}

ControllerCapabilities ControllerCapabilities::decode(std::uint64_t value) {
  ControllerCapabilities cap;
  cap.mqes = static_cast<std::uint16_t>(value);
  cap.cqr = bits(value, 16, 1) != 0;
  cap.ams = bits8(value, 17, 2);
  cap.to = bits8(value, 24, 8);
  cap.dstrd = bits8(value, 32, 4);
  cap.nssrs = bits(value, 36, 1) != 0;
  cap.css = bits8(value, 37, 8);
  cap.bps = bits(value, 45, 1) != 0;
  cap.cps = bits8(value, 46, 2);
  cap.mpsmin = bits8(value, 48, 4);
  cap.mpsmax = bits8(value, 52, 4);
  cap.pmrs = bits(value, 56, 1) != 0;
  cap.cmbs = bits(value, 57, 1) != 0;
  cap.nsss = bits(value, 58, 1) != 0;
  cap.crms = bits8(value, 59, 2);
  cap.nsses = bits(value, 61, 1) != 0;
  return cap;
}

std::uint32_t ControllerConfiguration::encode() const {
  return static_cast<std::uint32_t>(place(en, 0, 1) | place(css, 4, 3) | place(mps, 7, 4) |
                                    place(ams, 11, 3) | place(shn, 14, 2) | place(iosqes, 16, 4) |
                                    place(iocqes, 20, 4) | place(crime, 24, 1));
}

ControllerConfiguration ControllerConfiguration::decode(std::uint32_t value) {
  ControllerConfiguration cc;
  cc.en = bits(value, 0, 1) != 0;
  cc.css = bits8(value, 4, 3);
  cc.mps = bits8(value, 7, 4);
  cc.ams = bits8(value, 11, 3);
  cc.shn = bits8(value, 14, 2);
  cc.iosqes = bits8(value, 16, 4);
  cc.iocqes = bits8(value, 20, 4);
  cc.crime = bits(value, 24, 1) != 0;
  return cc;
}

std::uint32_t ControllerStatus::encode() const {
  return static_cast<std::uint32_t>(place(rdy, 0, 1) | place(cfs, 1, 1) | place(shst, 2, 2) |
                                    place(nssro, 4, 1) | place(pp, 5, 1) | place(st, 6, 1));
}

ControllerStatus ControllerStatus::decode(std::uint32_t value) {
  ControllerStatus csts;
  csts.rdy = bits(value, 0, 1) != 0;
  csts.cfs = bits(value, 1, 1) != 0;
  csts.shst = bits8(value, 2, 2);
  csts.nssro = bits(value, 4, 1) != 0;
  csts.pp = bits(value, 5, 1) != 0;
  csts.st = bits(value, 6, 1) != 0;
  return csts;
}

std::string version_text(std::uint32_t vs) {
  const std::uint32_t major = vs >> 16;
  const std::uint32_t minor = vs >> 8 & 0xff;
  const std::uint32_t tertiary = vs & 0xff;
  if (tertiary == 0) return fmt::format("{}.{}", major, minor);
  return fmt::format("{}.{}.{}", major, minor, tertiary);
}

}  // namespace nvmf::nvme
