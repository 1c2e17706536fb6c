// Discovery logs and the subsystems a host knows, as text laid out as nvme-cli 2.3 prints them.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nvme/log_pages.h"

namespace nvmf::nvme {

/// `nvme discover`. The number of records shown is that of `entries`.
std::string print(const DiscoveryHeader& header, std::span<const DiscoveryEntry> entries);

/// TREQ, EFLAGS and the fields of TSAS in words; "unrecognized" for what nvme-cli 2.3 has none for.
std::string_view secure_channel_name(std::uint8_t treq);
std::string_view discovery_flags_name(std::uint16_t eflags);
std::string_view security_type_name(std::uint8_t sectype);
std::string_view rdma_provider_name(std::uint8_t prtype);
std::string_view rdma_queue_name(std::uint8_t qptype);
std::string_view rdma_manager_name(std::uint8_t cms);

/// One controller of a subsystem, a path to it.
struct SubsystemPath {
  std::string name;       // "nvme0"
  std::string transport;  // "tcp"
  std::string address;    // "traddr=192.0.2.1,trsvcid=4420"
  std::string state;      // "live"
};
/// A subsystem and our paths to it, as one host.
struct Subsystem {
  std::string name;  // "nvme-subsys0"
  std::string nqn;
  std::string hostnqn;
  std::string hostid;  // may be empty
  std::vector<SubsystemPath> paths;
};
/// `nvme list-subsys`.
std::string print(std::span<const Subsystem> subsystems);

}  // namespace nvmf::nvme
