// The rest of Identify data as JSON, with the keys and values of nvme-cli 2.3's `-o json`.
//
// Every function returns a whole indented document.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "nvme/identify.h"
#include "nvme/identify_lists.h"

namespace nvmf::nvme {

/// `nvme list-ns -o json`.
std::string namespace_list_to_json(std::span<const std::uint32_t> nsids);
/// `nvme list-ctrl -o json`.
std::string to_json(const ControllerList& list);
/// `nvme list-endgrp -o json`.
std::string to_json(const EnduranceGroupList& list);
/// `nvme ns-descs -o json`, an empty object if there is none. As print(): an identifier of a wrong
/// length is the bytes it has.
std::string to_json(std::span<const NamespaceDescriptor> descriptors);
/// `nvme nvm-id-ctrl -o json`.
std::string to_json(const IdentifyNvmController& id);
/// `nvme nvm-id-ns -o json`. `ns` says which formats there are.
std::string to_json(const IdentifyNvmNamespace& id, const IdentifyNamespace& ns);
/// `nvme cmdset-ind-id-ns -o json`.
std::string to_json(const IdentifyIndependentNamespace& id);
/// nvme-cli 2.3 has no JSON for id-iocs: an object of its lines, "I/O Command Set Combination[0]".
std::string command_sets_to_json(std::span<const std::uint64_t> combinations);
/// `nvme id-nvmset -o json`.
std::string to_json(const NvmSetList& list);
/// `nvme primary-ctrl-caps -o json`.
std::string to_json(const PrimaryControllerCapabilities& caps);
/// `nvme list-secondary -o json`.
std::string to_json(const SecondaryControllerList& list);
/// `nvme id-ns-granularity -o json`.
std::string to_json(const NamespaceGranularityList& list);
/// `nvme id-uuid -o json`, but with the first entry, which 2.3 leaves out.
std::string to_json(const UuidList& list);
/// `nvme id-domain -o json`, without the two lines of text that 2.3 writes before the document.
std::string to_json(const DomainList& list);

}  // namespace nvmf::nvme
