// Bytes as nvme-cli shows them where it has no better idea.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace nvmf::nvme {

/// A line of column numbers, then sixteen bytes a line: offset, hexadecimal, printable ASCII. As
/// nvme-cli 2.3 prints `get-log`, `get-feature` and `set-feature` data, except that the text of a
/// short last line ends with its last byte: nvme-cli shows one more, left over from before.
std::string hex_dump(std::span<const std::byte> bytes);

}  // namespace nvmf::nvme
