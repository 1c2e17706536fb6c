// Identify data as JSON, with the keys and values of nvme-cli 2.3's `-o json`.
//
// The JSON library stays behind this header; every function returns a whole indented document.
#pragma once

#include <string>

#include "nvme/identify.h"

namespace nvmf::nvme {

/// `nvme id-ctrl -o json`.
std::string to_json(const IdentifyController& id);
/// `nvme id-ns -o json`.
std::string to_json(const IdentifyNamespace& id);

}  // namespace nvmf::nvme
