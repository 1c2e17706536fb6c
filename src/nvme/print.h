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
std::string print(const IdentifyController& id, Detail detail = Detail::brief);
/// `nvme id-ns`.
std::string print(const IdentifyNamespace& id, std::uint32_t nsid, Detail detail = Detail::brief);
/// What `--vendor-specific` puts behind either: a heading and a hex dump of the vendor's bytes. Of
/// a namespace 2.3 leaves out the first eight (an older place of LBSTM), and so does this.
std::string print_vendor_specific(const IdentifyController& id);
std::string print_vendor_specific(const IdentifyNamespace& id);

}  // namespace nvmf::nvme
