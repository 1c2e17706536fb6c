#include "nvme/print_identify.h"

#include <algorithm>
#include <array>
#include <utility>

#include "nvme/address.h"
#include "nvme/print_flags.h"
#include "nvme/print_identify_flags.h"

namespace nvmf::nvme {
namespace {

constexpr std::string_view kRule = ".................\n";
constexpr std::string_view kShortRule = "................\n";

std::string print_identifiers(std::string_view heading, std::span<const std::uint16_t> ids) {
  Lines out(0);
  out.raw("{}: {}\n", heading, ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) out.raw("[{:>4}]:{}\n", i, c_hex(ids[i]));
  return out.take();
}

void explain_crt(Lines& out, std::uint8_t crt) {
  Flags flags(out, crt);
  flags.reserved(7, 2);
  flags.choice(1, "VI Resources are not supported", "VI Resources are supported", {.colon = ""});
  flags.choice(0, "VQ Resources are not supported", "VQ Resources are supported", {.colon = ""});
}

}  // namespace

std::string print_namespace_list(std::span<const std::uint32_t> nsids) {
  Lines out(0);
  for (std::size_t i = 0; i < nsids.size(); ++i) out.raw("[{:>4}]:{}\n", i, c_hex(nsids[i]));
  return out.take();
}

std::string print(const ControllerList& list) {
  return print_identifiers("num of ctrls present", list.cntlids);
}

std::string print(const EnduranceGroupList& list) {
  return print_identifiers("num of endurance group ids", list.endgids);
}

std::string print(std::span<const NamespaceDescriptor> descriptors, std::uint32_t nsid) {
  Lines out(8);
  out.raw("NVME Namespace Identification Descriptors NS {}:\n", nsid);
  for (const NamespaceDescriptor& descriptor : descriptors) {
    const std::string_view name = descriptor_name(descriptor.nidt);
    if (!name.empty()) out.text(name, descriptor_text(descriptor));
  }
  return out.take();
}

std::string print(const IdentifyNvmController& id) {
  Lines out(7);
  out.raw("NVMe Identify Controller NVM:\n");
  out.dec("vsl", id.vsl);
  out.dec("wzsl", id.wzsl);
  out.dec("wusl", id.wusl);
  out.dec("dmrl", id.dmrl);
  out.dec("dmrsl", id.dmrsl);
  out.dec("dmsl", id.dmsl);
  return out.take();
}

std::string print(const IdentifyNvmNamespace& id, const IdentifyNamespace& ns, std::uint32_t nsid,
                  Detail detail) {
  constexpr std::array<std::string_view, 4> kGuards = {"16b Guard", "32b Guard", "64b Guard",
                                                       "Reserved"};
  Fields out(6, detail == Detail::human);
  out.raw("NVMe NVM Identify Namespace {}:\n", nsid);
  out.hex("lbstm", id.lbstm);
  out.hex("pic", id.pic, explain_pic);
  const std::size_t formats = std::min<std::size_t>(ns.nlbaf + ns.nulbaf + 1u, kLbaFormats);
  for (std::size_t i = 0; i < formats; ++i) {
    const unsigned pif = id.elbaf[i] >> 7 & 3u;
    const unsigned sts = id.elbaf[i] & 0x7fu;
    const std::string_view mark = i == ns.format_index() ? "(in use)" : "";
    if (out.human()) {
      out.raw(
          "Extended LBA Format {:>2} : Protection Information Format: {}({}) - Storage Tag Size "
          "(MSB): {:<2} {}\n",
          i, kGuards[pif], pif, sts, mark);
    } else {
      out.raw("elbaf {:>2} : pif:{} lbads:{:<2} {}\n", i, pif, sts, mark);
    }
  }
  return out.take();
}

std::string print(const IdentifyIndependentNamespace& id, std::uint32_t nsid, Detail detail) {
  Fields out(8, detail == Detail::human);
  out.raw("NVME Identify Command Set Independent Namespace {}:\n", nsid);
  out.hex("nsfeat", id.nsfeat, explain_independent_nsfeat);
  out.hex("nmic", id.nmic, explain_nmic);
  out.hex("rescap", id.rescap, explain_rescap);
  out.hex("fpi", id.fpi, explain_fpi);
  out.dec("anagrpid", id.anagrpid);
  out.raw("nsattr\t: {}\n", id.nsattr);
  if (out.human()) explain_nsattr(out, id.nsattr);
  out.dec("nvmsetid", id.nvmsetid);
  out.dec("endgid", id.endgid);
  out.hex("nstat", id.nstat, explain_nstat);
  return out.take();
}

std::string print_command_sets(std::span<const std::uint64_t> combinations) {
  Lines out(0);
  out.raw("NVMe Identify I/O Command Set:\n");
  for (std::size_t i = 0; i < combinations.size(); ++i) {
    if (combinations[i] == 0) continue;
    out.raw("I/O Command Set Combination[{}]:{:x}\n", i, combinations[i]);
  }
  return out.take();
}

std::string print(const NvmSetList& list, std::uint16_t nvmsetid) {
  Lines out(24);
  out.raw("NVME Identify NVM Set List {}:\nnid     : {}\n{}", nvmsetid, list.sets.size(), kRule);
  for (std::size_t i = 0; i < list.sets.size(); ++i) {
    const NvmSet& set = list.sets[i];
    out.raw(" NVM Set Attribute Entry[{:>2}]\n{}", i, kRule);
    out.dec("nvmset_id", set.nvmsetid);  // 2.3 shows ENDGID here
    out.dec("endurance_group_id", set.endgid);
    out.dec("random_4k_read_typical", set.r4krt);
    out.dec("optimal_write_size", set.ows);
    out.text("total_nvmset_cap", set.tnvmsetcap.to_string());
    out.text("unalloc_nvmset_cap", set.unvmsetcap.to_string());
    out.raw("{}", kRule);
  }
  return out.take();
}

std::string print(const PrimaryControllerCapabilities& caps, Detail detail) {
  Fields out(10, detail == Detail::human);
  out.raw("NVME Identify Primary Controller Capabilities:\n");
  out.hex("cntlid", caps.cntlid);
  out.hex("portid", caps.portid);
  out.hex("crt", caps.crt, explain_crt);
  out.dec("vqfrt", caps.vqfrt);
  out.dec("vqrfa", caps.vqrfa);
  out.dec("vqrfap", caps.vqrfap);
  out.dec("vqprt", caps.vqprt);
  out.dec("vqfrsm", caps.vqfrsm);
  out.dec("vqgran", caps.vqgran);
  out.dec("vifrt", caps.vifrt);
  out.dec("virfa", caps.virfa);
  out.dec("virfap", caps.virfap);
  out.dec("viprt", caps.viprt);
  out.dec("vifrsm", caps.vifrsm);
  out.dec("vigran", caps.vigran);
  return out.take();
}

std::string print(const SecondaryControllerList& list) {
  Lines out(0);
  out.raw("Identify Secondary Controller List:\n");
  out.raw("   NUMID       : Number of Identifiers           : {}\n", list.controllers.size());
  for (std::size_t i = 0; i < list.controllers.size(); ++i) {
    const SecondaryController& controller = list.controllers[i];
    out.raw("   SCEntry[{:<3}]:\n{}", i, kShortRule);
    out.raw("     SCID      : Secondary Controller Identifier : 0x{:04x}\n", controller.scid);
    out.raw("     PCID      : Primary Controller Identifier   : 0x{:04x}\n", controller.pcid);
    out.raw("     SCS       : Secondary Controller State      : 0x{:04x} ({})\n", controller.scs,
            (controller.scs & 1u) != 0 ? "Online" : "Offline");
    out.raw("     VFN       : Virtual Function Number         : 0x{:04x}\n", controller.vfn);
    out.raw("     NVQ       : Num VQ Flex Resources Assigned  : 0x{:04x}\n", controller.nvq);
    out.raw("     NVI       : Num VI Flex Resources Assigned  : 0x{:04x}\n", controller.nvi);
  }
  return out.take();
}

std::string print(const NamespaceGranularityList& list) {
  Lines out(0);
  out.raw("Identify Namespace Granularity List:\n");
  out.raw("   ATTR        : Namespace Granularity Attributes: 0x{:x}\n", list.attributes);
  out.raw("   NUMD        : Number of Descriptors           : {}\n", list.descriptors.size() - 1);
  for (std::size_t i = 0; i < list.descriptors.size(); ++i) {
    out.raw("\n     Entry[{:>2}] :\n{}", i, kShortRule);
    out.raw("     NSG       : Namespace Size Granularity     : 0x{:x}\n",
            list.descriptors[i].nszegran);
    out.raw("     NCG       : Namespace Capacity Granularity : 0x{:x}\n",
            list.descriptors[i].ncapgran);
  }
  return out.take();
}

std::string print(const UuidList& list, Detail detail) {
  constexpr std::array<std::string_view, 4> kAssociations = {
      "No association reported", "associated with PCI Vendor ID",
      "associated with PCI Subsystem Vendor ID", "Reserved"};
  Uuid invalid;
  invalid.fill(std::byte{0xff});
  Lines out(0);
  out.raw("NVME Identify UUID:\n");
  for (std::size_t i = 0; i < list.entries.size(); ++i) {
    const UuidEntry& entry = list.entries[i];
    out.raw(" Entry[{:>3}]\n{}", i + 1, kRule);
    out.raw("association  : 0x{:x} {}\n", entry.association,
            detail == Detail::human ? kAssociations[entry.association & 3u] : "");
    out.raw("UUID         : {}{}\n{}", format_uuid(entry.uuid),
            entry.uuid == invalid ? " (Invalid UUID)" : "", kRule);
  }
  return out.take();
}

std::string print(const DomainList& list) {
  Lines out(0);
  out.raw("NVMe Identify command for Domain List is successful:\nNVMe Identify Domain List:\n");
  out.raw("Number of Domain Entries: {}\n", list.domains.size());
  for (std::size_t i = 0; i < list.domains.size(); ++i) {
    const Domain& domain = list.domains[i];
    out.raw("Domain Id for Attr Entry[{}]: {}\n", i, domain.domainid);
    out.raw("Domain Capacity for Attr Entry[{}]: {}\n", i, domain.cap.to_string());
    out.raw("Unallocated Domain Capacity for Attr Entry[{}]: {}\n", i,
            domain.unallocated.to_string());
    out.raw("Max Endurance Group Domain Capacity for Attr Entry[{}]: {}\n", i,
            domain.megcap.to_string());
  }
  return out.take();
}

}  // namespace nvmf::nvme
