#include "nvme/json_discovery.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "nvme/json_document.h"

namespace nvmf::nvme {
namespace {

Json record(const DiscoveryEntry& entry) {
  Json json = {{"trtype", transport_name(entry.trtype)},
               {"adrfam", address_family_name(entry.adrfam)},
               {"subtype", subsystem_type_name(entry.subtype)},
               {"treq", secure_channel_name(entry.treq)},
               {"portid", entry.portid},
               {"trsvcid", entry.trsvcid},
               {"subnqn", entry.subnqn},
               {"traddr", entry.traddr},
               {"eflags", discovery_flags_name(entry.eflags)}};
  if (entry.trtype == TransportType::tcp) {
    json["sectype"] = security_type_name(entry.sectype);
  } else if (entry.trtype == TransportType::rdma) {
    json["rdma_prtype"] = rdma_provider_name(entry.rdma_prtype);
    json["rdma_qptype"] = rdma_queue_name(entry.sectype);
    json["rdma_cms"] = rdma_manager_name(entry.rdma_cms);
    json["rdma_pkey"] = entry.rdma_pkey;
  }
  return json;
}

Json subsystem_entry(const Subsystem& subsystem) {
  Json paths = Json::array();
  for (const SubsystemPath& path : subsystem.paths) {
    paths.push_back({{"Name", path.name},
                     {"Transport", path.transport},
                     {"Address", path.address},
                     {"State", path.state}});
  }
  return {{"Name", subsystem.name}, {"NQN", subsystem.nqn}, {"Paths", std::move(paths)}};
}

}  // namespace

std::string to_json(const DiscoveryHeader& header, std::span<const DiscoveryEntry> entries) {
  Json records = Json::array();
  for (const DiscoveryEntry& entry : entries) records.push_back(record(entry));
  return dump({{"genctr", header.genctr}, {"records", std::move(records)}});
}

std::string to_json(std::span<const Subsystem> subsystems) {
  Json hosts = Json::array();
  std::vector<std::pair<std::string_view, std::string_view>> known;  // one for each of hosts
  for (const Subsystem& subsystem : subsystems) {
    const std::pair<std::string_view, std::string_view> host(subsystem.hostnqn, subsystem.hostid);
    const auto at = static_cast<std::size_t>(std::ranges::find(known, host) - known.begin());
    if (at == known.size()) {
      known.push_back(host);
      Json entry = {{"HostNQN", subsystem.hostnqn}};
      if (!subsystem.hostid.empty()) entry["HostID"] = subsystem.hostid;
      entry["Subsystems"] = Json::array();
      hosts.push_back(std::move(entry));
    }
    hosts[at]["Subsystems"].push_back(subsystem_entry(subsystem));
  }
  return dump(hosts);
}

}  // namespace nvmf::nvme
