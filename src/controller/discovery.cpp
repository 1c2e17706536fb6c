#include "controller/discovery.h"

#include <algorithm>
#include <span>
#include <string_view>

#include "controller/limits.h"
#include "nvme/address.h"
#include "nvme/log_pages.h"

namespace nvmf::controller {

namespace {

/// A host that reached an IPv6 wildcard over IPv4 wants the IPv4 address.
std::string without_mapping(std::string host) {
  constexpr std::string_view kMapped = "::ffff:";
  if (host.starts_with(kMapped) && host.find('.') != std::string::npos) host.erase(0, 7);
  return host;
}

}  // namespace

std::vector<std::byte> DiscoveryService::log_page(const std::string& hostnqn,
                                                  const std::string& local,
                                                  std::uint16_t port_id) const {
  std::vector<std::byte> page(nvme::kDiscoveryHeaderBytes);
  nvme::DiscoveryHeader header;
  header.genctr = generation_;
  // Over a unix socket there is no address that a record could hold.
  if (const auto address = nvme::HostPort::parse(local)) {
    nvme::DiscoveryEntry entry;
    entry.traddr = without_mapping(address->host);
    entry.adrfam = entry.traddr.find(':') == std::string::npos ? nvme::AddressFamily::ipv4
                                                               : nvme::AddressFamily::ipv6;
    entry.trsvcid = std::to_string(address->port);
    entry.treq = nvme::kTreqSecureNotRequired | nvme::kTreqSqFlowControlOff;
    entry.portid = port_id;
    entry.asqsz = kAdminQueueEntriesMax;
    for (const auto& subsystem : subsystems_) {
      if (!subsystem->allows(hostnqn)) continue;
      entry.subnqn = subsystem->nqn();
      page.resize(page.size() + nvme::kDiscoveryEntryBytes);
      entry.encode(std::span(page).last<nvme::kDiscoveryEntryBytes>());
      ++header.numrec;
    }
  }
  header.encode(std::span(page).first<nvme::kDiscoveryHeaderBytes>());
  return page;
}

}  // namespace nvmf::controller
