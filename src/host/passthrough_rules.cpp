#include <fmt/format.h>

#include <algorithm>

#include "host/association.h"
#include "host/passthrough.h"
#include "nvme/admin.h"

namespace nvmf::host {

namespace {

using nvme::AdminOpcode;
using nvme::Feature;
using nvme::NvmOpcode;

// Opcodes that nothing else in this project has a use for. Base 2.3 §5, NVM Command Set §3.
constexpr std::uint8_t kAdminFirmwareCommit = 0x10;
constexpr std::uint8_t kAdminFirmwareDownload = 0x11;
constexpr std::uint8_t kAdminSelfTest = 0x14;
constexpr std::uint8_t kAdminNamespaceAttachment = 0x15;
constexpr std::uint8_t kAdminDirectiveSend = 0x19;
constexpr std::uint8_t kAdminDirectiveReceive = 0x1a;
constexpr std::uint8_t kAdminMiReceive = 0x1e;
constexpr std::uint8_t kAdminSecurityReceive = 0x82;
constexpr std::uint8_t kAdminGetLbaStatus = 0x86;
constexpr std::uint8_t kIoReservationRegister = 0x0d;
constexpr std::uint8_t kIoReservationReport = 0x0e;
constexpr std::uint8_t kIoReservationAcquire = 0x11;
constexpr std::uint8_t kIoManagementReceive = 0x12;
constexpr std::uint8_t kIoReservationRelease = 0x15;
constexpr std::uint8_t kIoCancel = 0x18;

constexpr std::uint8_t kFused = 3;  // bits 1:0 of the SQE's byte 1
// Bits 1:0 of an opcode: which way its data goes. Base 2.3 §3.1.3.
constexpr std::uint8_t kOpcodeToController = 1;
constexpr std::uint8_t kOpcodeFromController = 2;
constexpr std::uint8_t kOpcodeBothWays = 3;

// Commands Supported and Effects, Base 2.3 §5.2.12.1.6: CSE, bits 18:16.
constexpr unsigned kCseShift = 16;
constexpr std::uint32_t kCseMask = 7;
constexpr std::uint32_t kCseOneNamespace = 1;  // no other command to the same namespace
constexpr std::uint32_t kCseAnyNamespace = 2;  // no other command to any

constexpr std::uint32_t kDulbe = 1u << 16;          // Error Recovery: deallocated blocks are errors
constexpr std::uint32_t kZeroAll = 1u << 23;        // Write Zeroes, CDW12: NSZ
constexpr std::uint32_t kDeleteNamespace = 1;       // Namespace Management's SEL
constexpr std::uint8_t kFnaFormatAll = 1u << 0;     // Format is for all namespaces
constexpr std::uint8_t kFnaEraseAll = 1u << 1;      // and so is its secure erase
constexpr std::uint32_t kFormatEraseMask = 7 << 9;  // SES in CDW10

std::string name(const PassthroughCommand& c) {
  return nvme::opcode_name(c.sqe, !c.io);
}

Scope scope_of(std::uint32_t nsid) {
  return nsid == 0 || nsid == nvme::kNsidAll ? Scope::all_namespaces : Scope::one_namespace;
}

Result<void> check_shape(const PassthroughCommand& c, const PassthroughRules& rules) {
  if (c.sqe.mptr != 0 || c.metadata_bytes != 0) {
    return fail("nvmf passes no metadata through: NVMe/TCP has no separate metadata buffer",
                EOPNOTSUPP);
  }
  if ((c.sqe.flags & kFused) != 0) {
    return fail(
        "fused commands are not passed through: the two would have to be sent next to one "
        "another",
        EOPNOTSUPP);
  }
  if (c.data.empty()) return {};
  const std::uint8_t way = c.sqe.opcode & 3;
  if (c.sqe.is_fabrics()) return fail(name(c) + " has no data", EINVAL);
  if (way == kOpcodeBothWays) {
    return fail(fmt::format("opcode {:#04x} moves data in both directions, which NVMe/TCP cannot",
                            c.sqe.opcode),
                EOPNOTSUPP);
  }
  const auto wanted = way == kOpcodeToController     ? transport::DataDirection::to_controller
                      : way == kOpcodeFromController ? transport::DataDirection::from_controller
                                                     : transport::DataDirection::none;
  if (c.direction != wanted) {
    return fail(fmt::format("{} {}; ask for it that way", name(c),
                            way == kOpcodeToController     ? "sends data to the controller"
                            : way == kOpcodeFromController ? "gets data from the controller"
                                                           : "has no data"),
                EINVAL);
  }
  const auto mdts = rules.info.controller.max_transfer_bytes(rules.info.cap.mpsmin);
  const std::uint64_t most = std::min<std::uint64_t>(mdts.value_or(transport::kCommandBytesMax),
                                                     transport::kCommandBytesMax);
  if (c.data.size() > most) {
    return fail(fmt::format("{} bytes of data are more than the {} that {}; ask for less at a time",
                            c.data.size(), most,
                            mdts && *mdts == most ? "the controller takes in one command (MDTS)"
                                                  : "one command may carry here"),
                EINVAL);
  }
  return {};
}

Result<void> refuse_own(const PassthroughCommand& c, std::string_view whose) {
  return fail(fmt::format("{} is not passed through: {}", name(c), whose), EPERM);
}

Result<void> check_fabrics(const PassthroughCommand& c) {
  switch (c.sqe.fabrics_type()) {
    case nvme::FabricsType::property_get:
      return {};
    case nvme::FabricsType::property_set: {
      const auto set = nvme::PropertyCommand::from_sqe(c.sqe);
      if (set && set->offset != static_cast<std::uint32_t>(nvme::Property::cc)) return {};
      return refuse_own(c,
                        "CC enables and ends the controller that this connection lives by; to "
                        "reset it, say `nvmf reset`");
    }
    default:
      return refuse_own(c,
                        "connecting, authenticating and disconnecting is the connection's own "
                        "affair; say `nvmf connect` or `nvmf disconnect`");
  }
}

Result<void> check_feature(const PassthroughCommand& c) {
  const auto f = nvme::FeatureCommand::from_sqe(c.sqe);
  const auto own = [&](std::string_view what) {
    return fail(fmt::format("Set Features {:#04x} is not passed through: {}",
                            static_cast<unsigned>(f.feature), what),
                EPERM);
  };
  switch (f.feature) {
    case Feature::number_of_queues:
      return own(
          "the number of queues is settled when the connection is made; connect with "
          "--nr-io-queues");
    case Feature::keep_alive_timer:
      return own(
          "how long writes stay fenced after a loss is counted by the Keep Alive timer; "
          "connect with --keep-alive-tmo");
    case Feature::host_behavior:
      return own("what a refused command may say is settled when the connection is made");
    case Feature::error_recovery:
      if ((f.cdw11 & kDulbe) == 0) return {};
      return own(
          "with DULBE, reads of deallocated blocks would fail for everybody who uses the "
          "disk");
    default:
      return {};
  }
}

Result<void> check_admin_opcode(const PassthroughCommand& c) {
  if (c.sqe.is_fabrics()) return check_fabrics(c);
  switch (static_cast<AdminOpcode>(c.sqe.opcode)) {
    case AdminOpcode::delete_sq:
    case AdminOpcode::create_sq:
    case AdminOpcode::delete_cq:
    case AdminOpcode::create_cq:
      return refuse_own(c, "over fabrics queues are made by Connect");
    case AdminOpcode::async_event_request:
      return refuse_own(c, "events come to the connection itself; say `nvmf events`");
    case AdminOpcode::keep_alive:
      return refuse_own(c,
                        "how long writes stay fenced after a loss is counted from the "
                        "connection's own");
    case AdminOpcode::abort:
      return refuse_own(c,
                        "the identifiers of commands are the connection's own; give the command "
                        "a timeout, it is aborted then");
    case AdminOpcode::set_features:
      return check_feature(c);
    default:
      return {};
  }
}

Result<void> check_io_opcode(const PassthroughCommand& c, const PassthroughRules& rules) {
  if (rules.io_queues == 0) {
    return fail(
        "the connection has no I/O queues: it was made for administration only (a "
        "discovery controller, or --nr-io-queues 0)",
        EOPNOTSUPP);
  }
  if (c.sqe.is_fabrics()) {
    return refuse_own(c, "the queues of a connection are its own");
  }
  if (c.sqe.opcode == kIoCancel) {
    return fail(
        "Cancel is not passed through: the identifiers of commands are the connection's "
        "own",
        EPERM);
  }
  return {};
}

// ---- effects ----

/// Admin commands that change no data, unless the controller's effects log says that they do.
bool harmless_admin(const nvme::Sqe& sqe) {
  if (sqe.is_fabrics()) return true;
  switch (static_cast<AdminOpcode>(sqe.opcode)) {
    case AdminOpcode::get_log_page:
    case AdminOpcode::identify:
    case AdminOpcode::get_features:
      return true;
    case AdminOpcode::set_features:
      // Features from C0h on are the vendor's.
      return (sqe.cdw10 & 0xff) < 0xc0;
    case AdminOpcode::namespace_management:
      return (sqe.cdw10 & 0xf) != kDeleteNamespace;
    default:
      break;
  }
  switch (sqe.opcode) {
    case kAdminFirmwareCommit:
    case kAdminFirmwareDownload:
    case kAdminSelfTest:
    case kAdminNamespaceAttachment:
    case kAdminDirectiveSend:
    case kAdminDirectiveReceive:
    case kAdminMiReceive:
    case kAdminSecurityReceive:
    case kAdminGetLbaStatus:
      return true;
    default:
      return false;
  }
}

/// What is known of a command whatever the controller says of it.
std::uint32_t known_effects(const nvme::Sqe& sqe) {
  switch (static_cast<AdminOpcode>(sqe.opcode)) {
    case AdminOpcode::format_nvm:
      return nvme::kEffectLbcc | nvme::kEffectNcc | kCseOneNamespace << kCseShift;
    case AdminOpcode::sanitize:
      return nvme::kEffectLbcc | kCseAnyNamespace << kCseShift;
    case AdminOpcode::namespace_management:
      return nvme::kEffectNcc | nvme::kEffectNic;
    case AdminOpcode::set_features:
      switch (static_cast<Feature>(sqe.cdw10 & 0xff)) {
        case Feature::namespace_write_protect:
          return nvme::kEffectNcc;
        case Feature::command_set_profile:
          return nvme::kEffectNcc | nvme::kEffectNic;
        default:
          return 0;
      }
    default:
      return sqe.opcode == kAdminNamespaceAttachment ? nvme::kEffectNcc | nvme::kEffectNic : 0;
  }
}

/// Format for one namespace may be for all of them.
Scope admin_scope(const nvme::Sqe& sqe, std::uint8_t fna) {
  switch (static_cast<AdminOpcode>(sqe.opcode)) {
    case AdminOpcode::sanitize:
      return Scope::all_namespaces;
    case AdminOpcode::format_nvm: {
      const bool erases = (sqe.cdw10 & kFormatEraseMask) != 0;
      if ((fna & kFnaFormatAll) != 0 || (erases && (fna & kFnaEraseAll) != 0)) {
        return Scope::all_namespaces;
      }
      return scope_of(sqe.nsid);
    }
    default:
      return scope_of(sqe.nsid);
  }
}

void plan_effects(PassthroughPlan& plan, std::uint32_t effects, Scope scope) {
  const std::uint32_t cse = effects >> kCseShift & kCseMask;
  const bool content = (effects & (nvme::kEffectLbcc | nvme::kEffectNcc | nvme::kEffectNic)) != 0;
  if (content || cse == kCseOneNamespace) plan.quiesce = scope;
  if (cse >= kCseAnyNamespace) plan.quiesce = Scope::all_namespaces;
  plan.list_changes = (effects & nvme::kEffectNic) != 0;
  if (content) plan.identify = plan.list_changes ? Scope::all_namespaces : scope;
}

void plan_admin(PassthroughPlan& plan, const PassthroughRules& rules) {
  const nvme::Sqe& sqe = plan.sqe;
  if (sqe.is_fabrics()) return;
  const Scope scope = admin_scope(sqe, rules.info.controller.fna);
  std::uint32_t effects = known_effects(sqe);
  const std::uint32_t says = rules.effects != nullptr ? rules.effects->acs[sqe.opcode] : 0;
  if ((says & nvme::kEffectSupported) != 0) effects |= says;
  const bool described = (says & nvme::kEffectSupported) != 0;
  const bool known = harmless_admin(sqe) || known_effects(sqe) != 0;
  // Of what neither this host nor the controller knows, the worst is assumed.
  if (!known && !described) effects |= nvme::kEffectLbcc;
  plan_effects(plan, effects, scope);
  if ((effects & nvme::kEffectLbcc) != 0) plan.changes = scope;
  if (sqe.opcode == static_cast<std::uint8_t>(AdminOpcode::namespace_management) &&
      (sqe.cdw10 & 0xf) == kDeleteNamespace) {
    plan.changes = scope;
  }
}

void keep_events(PassthroughPlan& plan, std::uint32_t needed) {
  const auto f = nvme::FeatureCommand::from_sqe(plan.sqe);
  if (f.feature != Feature::async_event_config || (f.cdw11 & needed) == needed) return;
  plan.sqe.cdw11 |= needed;
  plan.note = fmt::format(
      "of the events asked for ({:#x}) those stay that the connection needs: "
      "{:#x} is set",
      f.cdw11, plan.sqe.cdw11);
}

/// Its own blocks, or the namespace.
void plan_io_change(PassthroughPlan& plan, const PassthroughCommand& c) {
  const nvme::Sqe& sqe = plan.sqe;
  plan.changes = scope_of(sqe.nsid);
  switch (static_cast<NvmOpcode>(sqe.opcode)) {
    case NvmOpcode::write_zeroes:
      if ((sqe.cdw12 & kZeroAll) != 0) return;
      [[fallthrough]];
    case NvmOpcode::write:
    case NvmOpcode::write_uncorrectable:
      plan.first_lba = sqe.slba();
      plan.end_lba = sqe.slba() + sqe.blocks();
      plan.blocks_known = plan.end_lba > plan.first_lba;
      return;
    case NvmOpcode::dataset_management: {
      const auto ranges = nvme::decode_dsm_ranges(c.data);
      plan.first_lba = ~std::uint64_t{0};
      plan.blocks_known = ranges.size() >= nvme::dsm_ranges(sqe);
      for (const nvme::DsmRange& r : ranges) {
        if (r.lba + r.blocks < r.lba) plan.blocks_known = false;
        if (r.blocks == 0) continue;
        plan.first_lba = std::min(plan.first_lba, r.lba);
        plan.end_lba = std::max(plan.end_lba, r.lba + r.blocks);
      }
      plan.blocks_known = plan.blocks_known && plan.first_lba < plan.end_lba;
      return;
    }
    default:
      return;  // Copy, and whatever else
  }
}

bool harmless_io(std::uint8_t opcode) {
  switch (static_cast<NvmOpcode>(opcode)) {
    case NvmOpcode::flush:
    case NvmOpcode::read:
    case NvmOpcode::compare:
    case NvmOpcode::verify:
      return true;
    default:
      return opcode == kIoReservationReport || opcode == kIoReservationRegister ||
             opcode == kIoReservationAcquire || opcode == kIoReservationRelease ||
             opcode == kIoManagementReceive;
  }
}

void plan_io(PassthroughPlan& plan, const PassthroughCommand& c, const PassthroughRules& rules) {
  const nvme::Sqe& sqe = plan.sqe;
  if (!harmless_io(sqe.opcode)) plan_io_change(plan, c);
  const std::uint32_t says = rules.effects != nullptr ? rules.effects->iocs[sqe.opcode] : 0;
  if ((says & nvme::kEffectSupported) != 0) {
    // That blocks change is what an I/O command is for: it takes its place among the others.
    plan_effects(plan, says & ~nvme::kEffectLbcc, scope_of(sqe.nsid));
  }
  // Otherwise it is admitted by the ranges that one namespace's requests hold.
  if (plan.changes == Scope::all_namespaces) plan.quiesce = Scope::all_namespaces;
}

}  // namespace

Result<PassthroughPlan> plan_passthrough(const PassthroughCommand& command,
                                         const PassthroughRules& rules) {
  if (auto ok = check_shape(command, rules); !ok) return std::unexpected(ok.error());
  auto ok = command.io ? check_io_opcode(command, rules) : check_admin_opcode(command);
  if (!ok) return std::unexpected(ok.error());
  PassthroughPlan plan;
  plan.sqe = command.sqe;
  if (command.io) {
    plan_io(plan, command, rules);
  } else {
    plan_admin(plan, rules);
    if (command.sqe.opcode == static_cast<std::uint8_t>(AdminOpcode::set_features)) {
      keep_events(plan, rules.events_needed);
    }
  }
  const bool changes = plan.changes != Scope::none || plan.identify != Scope::none;
  if (rules.read_only && changes) {
    return fail(fmt::format("{} may change data, and the connection is read-only; connect without "
                            "--read-only",
                            name(command)),
                EROFS);
  }
  return plan;
}

}  // namespace nvmf::host
