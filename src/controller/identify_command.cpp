// The Identify command. Base 2.1 §5.1.13, NVM Command Set 1.1 §4.1.5.
#include <algorithm>
#include <array>
#include <bit>
#include <span>

#include "controller/admin_commands.h"
#include "controller/controller.h"
#include "controller/limits.h"
#include "nvme/admin.h"
#include "nvme/identify.h"

namespace nvmf::controller {

using nvme::Cns;
using nvme::StatusCode;

namespace {

constexpr std::uint32_t kSqeUnits = 64 / 16;  // IOCCSZ and IORCSZ count 16 bytes
constexpr std::uint32_t kCqeUnits = 1;
/// ANACAP: optimized, non-optimized, inaccessible, persistent loss and change are all reported.
constexpr std::uint8_t kAnacapStates = 0x1f;

nvme::IdentifyController identify_common(const Controller& controller) {
  const TargetConfig& config = controller.config();
  nvme::IdentifyController id;
  id.sn = controller.subsystem().serial();
  id.mn = "nvmf-target";
  id.fr = NVMF_VERSION;
  id.mdts = kMdts;
  id.cntlid = controller.cntlid();
  id.ver = nvme::kVersion20;
  id.ctratt = nvme::kCtrattHostId128 | nvme::kCtrattTbkas;
  id.acl = 3;
  id.aerl = kAsyncEventsMax - 1;
  id.elpe = kErrorEntriesMax - 1;
  id.oaes = supported_events(controller.subsystem());
  id.lpa = nvme::kLpaExtendedData | nvme::kLpaSupportedPages;
  id.kas = kKas;
  id.cqt = config.cqt_ms;
  id.crdt1 = config.crdt[0];
  id.crdt2 = config.crdt[1];
  id.crdt3 = config.crdt[2];
  id.maxcmd = static_cast<std::uint16_t>(config.queue_entries);
  // SGLs without alignment, offsets in the capsule, transport data blocks: NVMe/TCP 1.0 §3.3.2.
  id.sgls = nvme::kSglsSupported | nvme::kSglsOffset | nvme::kSglsTransportDataBlock;
  id.subnqn = controller.subsystem().nqn();
  id.ioccsz = kSqeUnits + config.in_capsule_bytes / 16;
  id.iorcsz = kCqeUnits;
  id.msdbd = 1;
  return id;
}

nvme::IdentifyController identify_discovery(const Controller& controller) {
  nvme::IdentifyController id = identify_common(controller);
  id.cntrltype = nvme::ControllerType::discovery;
  id.ioccsz = kSqeUnits;
  return id;
}

nvme::IdentifyController identify_io(const Controller& controller) {
  const Subsystem& subsystem = controller.subsystem();
  nvme::IdentifyController id = identify_common(controller);
  id.cntrltype = nvme::ControllerType::io;
  id.cmic = nvme::kCmicMultiPort | nvme::kCmicMultiController;
  id.lpa |= nvme::kLpaEffects;
  id.oacs = nvme::kOacsFormat;
  id.fna = nvme::kFnaNoBroadcast;
  id.frmw = 1u << 1 | 1;  // one firmware slot, read only
  id.sqes = 6u << 4 | 6;
  id.cqes = 4u << 4 | 4;
  id.nn = subsystem.highest_nsid();
  for (const auto& ns : subsystem.namespaces()) {
    const std::uint64_t before = id.tnvmcap.low;
    id.tnvmcap.low += ns->disk->size_bytes();
    if (id.tnvmcap.low < before) ++id.tnvmcap.high;
  }
  id.oncs = nvme::kOncsCompare | nvme::kOncsDsm | nvme::kOncsWriteZeroes | nvme::kOncsSaveSelect |
            nvme::kOncsTimestamp;
  id.vwc = static_cast<std::uint8_t>(nvme::kVwcFlushAllSupported |
                                     (subsystem.volatile_cache() ? nvme::kVwcPresent : 0));
  id.ofcs = nvme::kOfcsDisconnect;
  if (const auto groups = static_cast<std::uint32_t>(subsystem.ana_groups().size()); groups != 0) {
    id.cmic |= nvme::kCmicAna;
    id.anatt = kAnaTransitionSeconds;
    id.anacap = kAnacapStates;
    id.anagrpmax = groups;
    id.nanagrpid = groups;
    // Hosts make room for the ANA log once: for all namespaces that there may be.
    id.nn = kNsidMax;
    id.mnan = kNamespacesMax;
  }
  return id;
}

/// ANAGRPID, 0 where there are no groups.
std::uint32_t ana_group(const Subsystem& subsystem, const Namespace& ns) {
  return subsystem.ana_groups().empty() ? 0 : ns.ana_group;
}

nvme::IdentifyNamespace identify_namespace(const Subsystem& subsystem, const Namespace& ns) {
  nvme::IdentifyNamespace id;
  id.nsze = ns.blocks();
  id.ncap = ns.blocks();
  id.nuse = ns.blocks();  // what is allocated is not known
  id.nsfeat = nvme::kNsfeatUidReuse;
  id.nmic = nvme::kNmicShared;
  id.dlfeat = nvme::kDlfeatReadsZero | nvme::kDlfeatWriteZeroesDeac;
  id.anagrpid = ana_group(subsystem, ns);
  id.nvmcap.low = ns.disk->size_bytes();
  id.nsattr = ns.read_only() ? nvme::kNsattrWriteProtected : 0;
  id.nguid = ns.nguid;
  const std::vector<std::uint32_t> sizes = block_sizes(ns);
  id.nlbaf = static_cast<std::uint8_t>(sizes.size() - 1);
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    id.lbaf[i].lbads = static_cast<std::uint8_t>(std::countr_zero(sizes[i]));
    if (sizes[i] == ns.block_bytes) id.flbas = static_cast<std::uint8_t>(i);
  }
  return id;
}

nvme::IdentifyIndependentNamespace identify_independent(const Subsystem& subsystem,
                                                        const Namespace& ns) {
  nvme::IdentifyIndependentNamespace id;
  id.nsfeat = nvme::kNsfeatUidReuse;
  id.nmic = nvme::kNmicShared;
  id.nsattr = ns.read_only() ? nvme::kNsattrWriteProtected : 0;
  id.anagrpid = ana_group(subsystem, ns);
  id.nstat = 1;  // NRDY
  return id;
}

using Page = std::array<std::byte, nvme::kIdentifyBytes>;

AdminReply reply_with(const Page& page) {
  return AdminReply::with({page.begin(), page.end()});
}

template <class T>
AdminReply encoded(const T& value) {
  Page page;
  value.encode(page);
  return reply_with(page);
}

AdminReply active_namespaces(const Controller& controller, std::uint32_t above) {
  // FFFFFFFEh and FFFFFFFFh cannot be exceeded by any NSID.
  if (above >= 0xfffffffeu) return AdminReply::refuse(StatusCode::invalid_namespace);
  std::vector<std::uint32_t> nsids;
  for (const auto& ns : controller.subsystem().namespaces()) {
    if (ns->nsid > above && nsids.size() < nvme::kNamespaceListEntries) nsids.push_back(ns->nsid);
  }
  Page page;
  nvme::encode_namespace_list(nsids, page);
  return reply_with(page);
}

AdminReply of_namespace(const Controller& controller, const nvme::IdentifyCommand& command) {
  const Namespace* const ns = controller.subsystem().find(command.nsid);
  if (ns == nullptr) return AdminReply::refuse(StatusCode::invalid_namespace);
  switch (command.cns) {
    case Cns::identify_namespace:
      return encoded(identify_namespace(controller.subsystem(), *ns));
    case Cns::csi_namespace:
      return encoded(nvme::IdentifyNvmNamespace{});
    case Cns::independent_namespace:
      return encoded(identify_independent(controller.subsystem(), *ns));
    default: {
      nvme::NamespaceDescriptors names;
      names.nguid = ns->nguid;
      names.uuid = ns->uuid;
      names.csi = nvme::Csi::nvm;
      return encoded(names);
    }
  }
}

nvme::IdentifyNvmController nvm_limits() {
  nvme::IdentifyNvmController limits;
  limits.wzsl = kWzsl;
  limits.aocs = nvme::kAocsReportsAllocated;
  limits.dmrl = 0;  // none of its own: 256 ranges of any size
  return limits;
}

}  // namespace

AdminReply execute_identify(const Controller& controller, const nvme::Sqe& sqe,
                            std::uint32_t data_bytes) {
  const auto command = nvme::IdentifyCommand::from_sqe(sqe);
  if (data_bytes != nvme::kIdentifyBytes) {
    return AdminReply::refuse(StatusCode::data_sgl_length_invalid);
  }
  const bool discovery = controller.subsystem().discovery();
  if (command.cns == Cns::controller) {
    return encoded(discovery ? identify_discovery(controller) : identify_io(controller));
  }
  if (discovery) return AdminReply::refuse(StatusCode::invalid_field);
  switch (command.cns) {
    case Cns::csi_namespace:
    case Cns::csi_controller:
    case Cns::csi_active_namespaces:
      if (command.csi != nvme::Csi::nvm) return AdminReply::refuse(StatusCode::invalid_field);
      if (command.cns == Cns::csi_controller) return encoded(nvm_limits());
      if (command.cns == Cns::csi_namespace) return of_namespace(controller, command);
      return active_namespaces(controller, command.nsid);
    case Cns::active_namespaces:
      return active_namespaces(controller, command.nsid);
    case Cns::identify_namespace:
    case Cns::namespace_descriptors:
    case Cns::independent_namespace:
      return of_namespace(controller, command);
    case Cns::command_sets: {
      constexpr std::array<std::uint64_t, 1> kNvmOnly{1};
      Page page;
      nvme::encode_command_sets(kNvmOnly, page);
      return reply_with(page);
    }
    default:
      return AdminReply::refuse(StatusCode::invalid_field);
  }
}

}  // namespace nvmf::controller
