#include "nvme/json_identify.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "nvme/address.h"
#include "nvme/json_document.h"

namespace nvmf::nvme {
namespace {

/// {COUNT: number, LIST: [{ENTRY: id}…]}.
std::string identifiers(std::span<const std::uint16_t> ids, const char* count, const char* list,
                        const char* entry) {
  Json entries = Json::array();
  for (const std::uint16_t id : ids) entries.push_back({{entry, id}});
  Json root = Json::object();
  root[count] = ids.size();
  root[list] = std::move(entries);
  return dump(root);
}

}  // namespace

std::string namespace_list_to_json(std::span<const std::uint32_t> nsids) {
  Json list = Json::array();
  for (const std::uint32_t nsid : nsids) list.push_back({{"nsid", as_int(nsid)}});
  return dump({{"nsid_list", std::move(list)}});
}

std::string to_json(const ControllerList& list) {
  return identifiers(list.cntlids, "num_ctrl", "ctrl_list", "ctrl_id");
}

std::string to_json(const EnduranceGroupList& list) {
  return identifiers(list.endgids, "num_endgrp_id", "endgrp_list", "endgrp_id");
}

std::string to_json(std::span<const NamespaceDescriptor> descriptors) {
  Json list = Json::array();
  for (const NamespaceDescriptor& descriptor : descriptors) {
    const std::string name(descriptor_name(descriptor.nidt));
    if (name.empty()) continue;
    list.push_back({{"loc", descriptor.offset},
                    {"nidt", descriptor.nidt},
                    {"nidl", descriptor.nid.size()},
                    {"type", name},
                    {name, descriptor_text(descriptor)}});
  }
  Json root = Json::object();
  if (!list.empty()) root["ns-descs"] = std::move(list);
  return dump(root);
}

std::string to_json(const IdentifyNvmController& id) {
  return dump({{"vsl", id.vsl},
               {"wzsl", id.wzsl},
               {"wusl", id.wusl},
               {"dmrl", id.dmrl},
               {"dmrsl", as_int(id.dmrsl)},
               {"dmsl", id.dmsl}});
}

std::string to_json(const IdentifyNvmNamespace& id, const IdentifyNamespace& ns) {
  Json formats = Json::array();
  const std::size_t count = std::min<std::size_t>(ns.nlbaf + 1u, kLbaFormats);
  for (std::size_t i = 0; i < count; ++i) {
    formats.push_back({{"sts", id.elbaf[i] & 0x7fu}, {"pif", id.elbaf[i] >> 7 & 3u}});
  }
  return dump({{"lbstm", id.lbstm}, {"pic", id.pic}, {"elbafs", std::move(formats)}});
}

std::string to_json(const IdentifyIndependentNamespace& id) {
  return dump({{"nsfeat", id.nsfeat},
               {"nmic", id.nmic},
               {"rescap", id.rescap},
               {"fpi", id.fpi},
               {"anagrpid", as_int(id.anagrpid)},
               {"nsattr", id.nsattr},
               {"nvmsetid", id.nvmsetid},
               {"endgid", id.endgid},
               {"nstat", id.nstat}});
}

std::string command_sets_to_json(std::span<const std::uint64_t> combinations) {
  Json root = Json::object();
  for (std::size_t i = 0; i < combinations.size(); ++i) {
    if (combinations[i] == 0) continue;
    root[fmt::format("I/O Command Set Combination[{}]", i)] = fmt::format("{:x}", combinations[i]);
  }
  return dump(root);
}

std::string to_json(const NvmSetList& list) {
  Json sets = Json::array();
  for (const NvmSet& set : list.sets) {
    sets.push_back({{"nvmset_id", set.nvmsetid},
                    {"endurance_group_id", set.endgid},
                    {"random_4k_read_typical", as_int(set.r4krt)},
                    {"optimal_write_size", as_int(set.ows)},
                    {"total_nvmset_cap", set.tnvmsetcap.to_string()},
                    {"unalloc_nvmset_cap", set.unvmsetcap.to_string()}});
  }
  return dump({{"nid", list.sets.size()}, {"NVMSet", std::move(sets)}});
}

std::string to_json(const PrimaryControllerCapabilities& caps) {
  return dump({{"cntlid", caps.cntlid},
               {"portid", caps.portid},
               {"crt", caps.crt},
               {"vqfrt", as_int(caps.vqfrt)},
               {"vqrfa", as_int(caps.vqrfa)},
               {"vqrfap", caps.vqrfap},
               {"vqprt", caps.vqprt},
               {"vqfrsm", caps.vqfrsm},
               {"vqgran", caps.vqgran},
               {"vifrt", as_int(caps.vifrt)},
               {"virfa", as_int(caps.virfa)},
               {"virfap", caps.virfap},
               {"viprt", caps.viprt},
               {"vifrsm", caps.vifrsm},
               {"vigran", caps.vigran}});
}

std::string to_json(const SecondaryControllerList& list) {
  Json controllers = Json::array();
  for (const SecondaryController& controller : list.controllers) {
    controllers.push_back({{"secondary-controller-identifier", controller.scid},
                           {"primary-controller-identifier", controller.pcid},
                           {"secondary-controller-state", controller.scs},
                           {"virtual-function-number", controller.vfn},
                           {"num-virtual-queues", controller.nvq},
                           {"num-virtual-interrupts", controller.nvi}});
  }
  return dump(
      {{"num", list.controllers.size()}, {"secondary-controllers", std::move(controllers)}});
}

std::string to_json(const NamespaceGranularityList& list) {
  Json descriptors = Json::array();
  for (const NamespaceGranularity& descriptor : list.descriptors) {
    descriptors.push_back({{"namespace-size-granularity", descriptor.nszegran},
                           {"namespace-capacity-granularity", descriptor.ncapgran}});
  }
  return dump({{"attributes", as_int(list.attributes)},
               {"num-descriptors", list.descriptors.size() - 1},
               {"namespace-granularity-list", std::move(descriptors)}});
}

std::string to_json(const UuidList& list) {
  Json entries = Json::array();
  for (const UuidEntry& entry : list.entries) {
    entries.push_back({{"association", entry.association}, {"uuid", format_uuid(entry.uuid)}});
  }
  return dump({{"UUID-list", std::move(entries)}});
}

std::string to_json(const DomainList& list) {
  Json domains = Json::array();
  for (const Domain& domain : list.domains) {
    domains.push_back({{"dom_id", domain.domainid},
                       {"dom_cap", domain.cap.to_string()},
                       {"unalloc_dom_cap", domain.unallocated.to_string()},
                       {"max_egrp_dom_cap", domain.megcap.to_string()}});
  }
  return dump({{"num_dom_entries", list.domains.size()}, {"domain_list", std::move(domains)}});
}

}  // namespace nvmf::nvme
