#include "controller/system.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

namespace nvmf::controller {

namespace {

std::uint64_t page_bytes() {
  static const auto bytes = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  return bytes;
}

}  // namespace

Result<SparseMemory> SparseMemory::reserve(std::uint64_t bytes) {
  void* const place = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (place == MAP_FAILED) {
    const int code = errno;
    return fail(fmt::format("No address space for a memory namespace of {} bytes: {}; try a "
                            "smaller size or raise the limit on virtual memory (ulimit -v)",
                            bytes, std::strerror(code)),
                code);
  }
  // Huge pages would make a 4 KiB write cost 2 MiB of memory. Kernels without them refuse.
  (void)::madvise(place, bytes, MADV_NOHUGEPAGE);
  // What is in a namespace does not belong in a core dump.
  (void)::madvise(place, bytes, MADV_DONTDUMP);
  return SparseMemory(static_cast<std::byte*>(place), bytes);
}

SparseMemory::~SparseMemory() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

SparseMemory::SparseMemory(SparseMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

SparseMemory& SparseMemory::operator=(SparseMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

int SparseMemory::discard(std::uint64_t offset, std::uint64_t length) {
  const std::uint64_t page = page_bytes();
  const std::uint64_t end = offset + length;
  const std::uint64_t first_page = std::min(end, (offset + page - 1) / page * page);
  const std::uint64_t last_page = std::max(first_page, end / page * page);
  std::memset(data_ + offset, 0, first_page - offset);
  if (last_page > first_page &&
      ::madvise(data_ + first_page, last_page - first_page, MADV_DONTNEED) != 0) {
    return errno;
  }
  std::memset(data_ + last_page, 0, end - last_page);
  return 0;
}

Result<void> SparseMemory::resize(std::uint64_t bytes) {
  void* const place = ::mremap(data_, bytes_, bytes, MREMAP_MAYMOVE);
  if (place == MAP_FAILED) {
    const int code = errno;
    return fail(fmt::format("No address space to make a memory namespace {} bytes large: {}", bytes,
                            std::strerror(code)),
                code);
  }
  const std::uint64_t before = bytes_;
  data_ = static_cast<std::byte*>(place);
  bytes_ = bytes;
  // The last page of before stayed whole: what lies in it beyond the size must not come back.
  if (bytes < before) {
    const std::uint64_t page_end = (bytes + page_bytes() - 1) / page_bytes() * page_bytes();
    std::memset(data_ + bytes, 0, page_end - bytes);
  }
  return {};
}

std::uint64_t SparseMemory::resident_bytes() const {
  const std::uint64_t page = page_bytes();
  const std::uint64_t window = page * 65536;
  std::vector<unsigned char> map(65536);
  std::uint64_t pages = 0;
  for (std::uint64_t at = 0; at < bytes_; at += window) {
    const std::uint64_t length = std::min(window, bytes_ - at);
    if (::mincore(data_ + at, length, map.data()) != 0) continue;
    const std::uint64_t count = (length + page - 1) / page;
    for (std::uint64_t i = 0; i < count; ++i) pages += map[i] & 1u;
  }
  return pages * page;
}

std::string file_identity(const std::string& path) {
  std::error_code ignored;
  const auto canonical = std::filesystem::canonical(path, ignored);
  if (ignored) return path;
  struct stat status{};
  if (::stat(canonical.c_str(), &status) != 0) return canonical.string();
  return fmt::format("{}#{}", canonical.string(), status.st_ino);
}

}  // namespace nvmf::controller
