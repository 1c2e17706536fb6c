#include "io/pages.h"

#include <sys/mman.h>

namespace nvmf::io {

void discard_pages(std::byte* pages, std::size_t bytes) {
  // Not MADV_FREE: that memory is counted as ours until somebody else runs short of it.
  ::madvise(pages, bytes, MADV_DONTNEED);
}

}  // namespace nvmf::io
