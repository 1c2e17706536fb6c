// Memory and the system.
#pragma once

#include <cstddef>

namespace nvmf::io {

/// Gives the contents of whole pages back to the system: they cost no memory until they are used
/// again, and then read as zero. `pages` and `bytes` are multiples of the page size, of private
/// anonymous memory. From any thread. Should the system refuse, the contents stay as they are.
void discard_pages(std::byte* pages, std::size_t bytes);

}  // namespace nvmf::io
