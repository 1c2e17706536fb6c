#include "nvme/print_discovery.h"

#include <array>

#include "nvme/print_lines.h"

namespace nvmf::nvme {
namespace {

constexpr std::string_view kUnrecognized = "unrecognized";

template <std::size_t N>
std::string_view word(const std::array<std::string_view, N>& words, std::size_t value) {
  return value < N ? words[value] : kUnrecognized;
}

// Lines are "trtype:  tcp": the name with its colon is padded, unlike in Identify data.
void print_entry(Lines& out, std::size_t number, const DiscoveryEntry& entry) {
  out.raw("=====Discovery Log Entry {}======\n", number);
  out.raw("trtype:  {}\n", transport_name(entry.trtype));
  // Without an address there is no family of it to speak of.
  out.raw("adrfam:  {}\n", entry.traddr.empty() ? "" : address_family_name(entry.adrfam));
  out.raw("subtype: {}\n", subsystem_type_name(entry.subtype));
  out.raw("treq:    {}\n", secure_channel_name(entry.treq));
  out.raw("portid:  {}\n", entry.portid);
  out.raw("trsvcid: {}\n", printable(entry.trsvcid));
  out.raw("subnqn:  {}\n", printable(entry.subnqn));
  out.raw("traddr:  {}\n", printable(entry.traddr));
  out.raw("eflags:  {}\n", discovery_flags_name(entry.eflags));
  if (entry.trtype == TransportType::tcp) {
    out.raw("sectype: {}\n", security_type_name(entry.sectype));
  } else if (entry.trtype == TransportType::rdma) {
    out.raw("rdma_prtype: {}\n", rdma_provider_name(entry.rdma_prtype));
    out.raw("rdma_qptype: {}\n", rdma_queue_name(entry.sectype));
    out.raw("rdma_cms:    {}\n", rdma_manager_name(entry.rdma_cms));
    out.raw("rdma_pkey: 0x{:04x}\n", entry.rdma_pkey);
  }
}

}  // namespace

std::string_view secure_channel_name(std::uint8_t treq) {
  return word(
      std::array<std::string_view, 5>{"not specified", "required", "not required", kUnrecognized,
                                      "not specified, sq flow control disable supported"},
      treq);
}

std::string_view discovery_flags_name(std::uint16_t eflags) {
  return word(
      std::array<std::string_view, 8>{
          "none", "duplicate discovery information", "explicit discovery connections",
          "explicit discovery connections, duplicate discovery information", "no cdc connectivity",
          "duplicate discovery information, no cdc connectivity",
          "explicit discovery connections, no cdc connectivity",
          "explicit discovery connections, duplicate discovery information, no cdc connectivity"},
      eflags);
}

std::string_view security_type_name(std::uint8_t sectype) {
  return word(std::array<std::string_view, 3>{"none", "tls", "tls13"}, sectype);
}

std::string_view rdma_provider_name(std::uint8_t prtype) {
  return word(std::array<std::string_view, 6>{kUnrecognized, "not specified", "infiniband", "roce",
                                              "roce-v2", "iwarp"},
              prtype);
}

std::string_view rdma_queue_name(std::uint8_t qptype) {
  return word(std::array<std::string_view, 3>{kUnrecognized, "connected", "datagram"}, qptype);
}

std::string_view rdma_manager_name(std::uint8_t cms) {
  return word(std::array<std::string_view, 2>{kUnrecognized, "rdma-cm"}, cms);
}

std::string print(const DiscoveryHeader& header, std::span<const DiscoveryEntry> entries) {
  Lines out(0);
  out.raw("\nDiscovery Log Number of Records {}, Generation counter {}\n", entries.size(),
          header.genctr);
  for (std::size_t i = 0; i < entries.size(); ++i) print_entry(out, i, entries[i]);
  return out.take();
}

std::string print(std::span<const Subsystem> subsystems) {
  Lines out(0);
  for (const Subsystem& subsystem : subsystems) {
    out.raw("{} - NQN={}\n\\\n", printable(subsystem.name), printable(subsystem.nqn));
    for (const SubsystemPath& path : subsystem.paths) {
      out.raw(" +- {} {} {} {}\n", printable(path.name), printable(path.transport),
              printable(path.address), printable(path.state));
    }
  }
  return out.take();
}

}  // namespace nvmf::nvme
