// The discovery log as text and JSON, as nvme-cli 2.3's `nvme discover` has them.
#pragma once

#include <span>
#include <string>

#include "nvme/log_pages.h"

namespace nvmf::tools {

/// For people. `entries` may be fewer than the header announces: each has its own heading.
std::string to_text(const nvme::DiscoveryHeader& header,
                    std::span<const nvme::DiscoveryEntry> entries);
/// `-o json`: a whole indented document.
std::string to_json(const nvme::DiscoveryHeader& header,
                    std::span<const nvme::DiscoveryEntry> entries);

}  // namespace nvmf::tools
