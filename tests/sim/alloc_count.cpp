#include "sim/alloc_count.h"

#include <atomic>
#include <cerrno>
#include <cstdlib>

#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define NVMF_SANITIZER_ALLOCATES 1
#include <sanitizer/allocator_interface.h>
#endif

namespace {

constinit thread_local std::size_t of_thread = 0;
constinit std::atomic<std::size_t> of_all{0};

void count() {
  ++of_thread;
  of_all.fetch_add(1, std::memory_order_relaxed);
}

#ifdef NVMF_SANITIZER_ALLOCATES
void install() {
  static const int installed = __sanitizer_install_malloc_and_free_hooks(
      [](const volatile void*, std::size_t) { count(); }, [](const volatile void*) {});
  if (installed == 0) std::abort();  // no place for another hook: the count would be a lie
}
#else
void install() {}
#endif

}  // namespace

#ifndef NVMF_SANITIZER_ALLOCATES
// glibc lets a program define these itself and keeps its own under other names. operator new comes
// here as well. free() stays glibc's.
// NOLINTBEGIN(bugprone-reserved-identifier)
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t bytes) {
  count();
  return __libc_malloc(bytes);
}
void* calloc(std::size_t n, std::size_t bytes) {
  count();
  return __libc_calloc(n, bytes);
}
void* realloc(void* p, std::size_t bytes) {
  count();
  return __libc_realloc(p, bytes);
}
void* memalign(std::size_t alignment, std::size_t bytes) {
  count();
  return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  count();
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void** out, std::size_t alignment, std::size_t bytes) {
  count();
  void* const p = __libc_memalign(alignment, bytes);
  if (p == nullptr) return ENOMEM;
  *out = p;
  return 0;
}
}
// NOLINTEND(bugprone-reserved-identifier)
#endif

namespace nvmf::sim {

std::size_t allocations() {
  install();
  return of_thread;
}

std::size_t all_allocations() {
  install();
  return of_all.load(std::memory_order_relaxed);
}

}  // namespace nvmf::sim
