// Text that others chose, made fit to be shown.
#pragma once

#include <string>
#include <string_view>

namespace nvmf::nvme {

/// Whether text is well-formed UTF-8 (no overlong forms, surrogates or values above U+10FFFF).
bool valid_utf8(std::string_view text);

/// The text with control characters, and all bytes outside ASCII if it is not UTF-8, written as
/// \xNN: a peer's model name must not be able to steer a terminal.
std::string printable(std::string_view text);

}  // namespace nvmf::nvme
