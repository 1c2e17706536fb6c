// Where a namespace can be found, by what kind of place it is: the keys that `nvmf-connect -o json`
// and the verb "status" have for each namespace, an array of texts each.
#pragma once

#include <array>
#include <string_view>

namespace nvmf::tools {

inline constexpr std::string_view kDevices = "devices";  // "/dev/nbd0": the kernel's own
inline constexpr std::string_view kFiles = "files";      // "/mnt/nvmf0n1": files in a mounted FUSE
inline constexpr std::string_view kUris = "uris";        // "nbd+unix:///nvmf0n1?socket=…"

/// The handiest first: the first place of them is what stands for the namespace where there is room
/// for one.
inline constexpr std::array kPlaceKinds = {kDevices, kFiles, kUris};

}  // namespace nvmf::tools
