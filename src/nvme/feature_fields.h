// The values of features in words: the second half of features.h, for its .cpp alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace nvmf::nvme {

/// The lines below `get-feature -H`'s first; nothing for features that nvme-cli does not explain.
std::string feature_fields_text(std::uint8_t feature, std::uint32_t result,
                                std::span<const std::byte> data);
/// The first `count` LBA ranges, at most those that the data hold.
std::string lba_ranges_text(std::span<const std::byte> data, std::size_t count);

}  // namespace nvmf::nvme
