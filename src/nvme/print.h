// Identify data as text for people, laid out as nvme-cli 2.3 prints them.
#pragma once

#include <cstdint>
#include <string>

#include "nvme/identify.h"

namespace nvmf::nvme {

/// `nvme id-ctrl`.
std::string print(const IdentifyController& id);
/// `nvme id-ns`.
std::string print(const IdentifyNamespace& id, std::uint32_t nsid);

}  // namespace nvmf::nvme
