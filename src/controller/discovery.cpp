#include "controller/discovery.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
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

nvme::AddressFamily family_of(const std::string& address) {
  return address.find(':') == std::string::npos ? nvme::AddressFamily::ipv4
                                                : nvme::AddressFamily::ipv6;
}

void append(std::vector<std::byte>& page, const nvme::DiscoveryEntry& entry) {
  page.resize(page.size() + nvme::kDiscoveryEntryBytes);
  entry.encode(std::span(page).last<nvme::kDiscoveryEntryBytes>());
}

}  // namespace

Result<void> DiscoveryService::add_referral(const nvme::HostPort& at) {
  if (std::ranges::find(referrals_, at, &Referral::at) != referrals_.end()) {
    return fail(fmt::format("There is a referral to {} already", at.to_string()), EEXIST);
  }
  if (referrals_.size() >= kReferralsMax) {
    return fail(fmt::format("There are {} referrals; no more are possible", referrals_.size()),
                ENOSPC);
  }
  std::uint16_t number = 1;
  while (std::ranges::find(referrals_, number, &Referral::number) != referrals_.end()) ++number;
  referrals_.push_back({at, number});
  return {};
}

Result<void> DiscoveryService::remove_referral(const nvme::HostPort& at) {
  if (std::erase_if(referrals_, [&at](const Referral& one) { return one.at == at; }) == 0) {
    return fail(fmt::format("There is no referral to {}", at.to_string()), ENOENT);
  }
  return {};
}

std::vector<nvme::HostPort> DiscoveryService::referrals() const {
  std::vector<nvme::HostPort> all;
  for (const Referral& one : referrals_) all.push_back(one.at);
  return all;
}

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
    entry.adrfam = family_of(entry.traddr);
    entry.trsvcid = std::to_string(address->port);
    entry.treq = nvme::kTreqSecureNotRequired | nvme::kTreqSqFlowControlOff;
    entry.portid = port_id;
    entry.asqsz = kAdminQueueEntriesMax;
    for (const auto& subsystem : subsystems_) {
      if (!subsystem->allows(hostnqn)) continue;
      entry.subnqn = subsystem->nqn();
      append(page, entry);
    }
  }
  for (const Referral& referral : referrals_) {
    nvme::DiscoveryEntry entry;
    entry.subtype = nvme::SubsystemType::referral;
    entry.traddr = referral.at.host;
    entry.adrfam = family_of(entry.traddr);
    entry.trsvcid = std::to_string(referral.at.port);
    entry.treq = nvme::kTreqSecureNotSpecified;  // it is not ours: nor is what it can do known
    entry.portid = referral.number;
    entry.subnqn = nvme::kDiscoveryNqn;
    append(page, entry);
  }
  header.numrec = page.size() / nvme::kDiscoveryEntryBytes - 1;
  header.encode(std::span(page).first<nvme::kDiscoveryHeaderBytes>());
  return page;
}

}  // namespace nvmf::controller
