// The rest of Identify data as text for people, laid out as nvme-cli 2.3 prints it.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "nvme/identify.h"
#include "nvme/identify_lists.h"
#include "nvme/print.h"

namespace nvmf::nvme {

/// `nvme list-ns`.
std::string print_namespace_list(std::span<const std::uint32_t> nsids);
/// `nvme list-ctrl`.
std::string print(const ControllerList& list);
/// `nvme list-endgrp`.
std::string print(const EnduranceGroupList& list);
/// `nvme ns-descs`. An identifier whose length is not that of its type is shown as the bytes it has
/// (nvme-cli reads on into the next descriptor); unknown types are left out, as there. What follows
/// a CSI is shown too: 2.3 loses its place there.
std::string print(std::span<const NamespaceDescriptor> descriptors, std::uint32_t nsid);
/// `nvme nvm-id-ctrl`.
std::string print(const IdentifyNvmController& id);
/// `nvme nvm-id-ns` (of PIC bit 2 it always shows 0, of FLBAS it heeds bits 3:0 only); in detail
/// its `--verbose`. `ns` says which formats there are.
std::string print(const IdentifyNvmNamespace& id, const IdentifyNamespace& ns, std::uint32_t nsid,
                  Detail detail = Detail::brief);
/// `nvme cmdset-ind-id-ns`.
std::string print(const IdentifyIndependentNamespace& id, std::uint32_t nsid,
                  Detail detail = Detail::brief);
/// `nvme id-iocs`: the combinations that are not empty.
std::string print_command_sets(std::span<const std::uint64_t> combinations);
/// `nvme id-nvmset`; `nvmsetid` is the first one asked for.
std::string print(const NvmSetList& list, std::uint16_t nvmsetid);
/// `nvme primary-ctrl-caps`.
std::string print(const PrimaryControllerCapabilities& caps, Detail detail = Detail::brief);
/// `nvme list-secondary`.
std::string print(const SecondaryControllerList& list);
/// `nvme id-ns-granularity`.
std::string print(const NamespaceGranularityList& list);
/// `nvme id-uuid`.
std::string print(const UuidList& list, Detail detail = Detail::brief);
/// `nvme id-domain`.
std::string print(const DomainList& list);

}  // namespace nvmf::nvme
