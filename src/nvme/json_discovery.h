// Discovery logs and the subsystems a host knows, with the keys and values of nvme-cli 2.3's
// `-o json`. Every function returns a whole indented document.
#pragma once

#include <span>
#include <string>

#include "nvme/print_discovery.h"

namespace nvmf::nvme {

/// `nvme discover -o json`.
std::string to_json(const DiscoveryHeader& header, std::span<const DiscoveryEntry> entries);
/// `nvme list-subsys -o json`: an array of hosts, each with its subsystems, in the order in which
/// they first appear.
std::string to_json(std::span<const Subsystem> subsystems);

}  // namespace nvmf::nvme
