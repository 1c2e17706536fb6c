// Checks of our own assumptions, in release builds too.
//
// NVMF_CHECK is for what only a mistake of ours can break. Bytes that a peer or a client sent never
// reach one: they are validated at the door and answered with an error.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace nvmf {

[[noreturn]] inline void check_failed(const char* what, const char* file, int line) {
  std::fprintf(stderr, "nvmf: internal check failed: %s (%s:%d)\n", what, file, line);
  std::abort();
}

}  // namespace nvmf

#define NVMF_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::nvmf::check_failed(#condition, __FILE_NAME__, __LINE__))
