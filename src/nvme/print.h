// Identify data as text for people, laid out as nvme-cli 2.3 prints them.
#pragma once

#include <cstdint>
#include <string>

#include "nvme/identify.h"

namespace nvmf::nvme {

/// How much of a structure is put into words: `human` is nvme-cli's `-H/--human-readable`, which
/// explains each field of flags bit by bit below it.
enum class Detail : std::uint8_t { brief, human };

/// `nvme id-ctrl`.
std::string print(const IdentifyController& id);
/// `nvme id-ns`.
std::string print(const IdentifyNamespace& id, std::uint32_t nsid);

}  // namespace nvmf::nvme
