// What happens in a run: a hash over all of it, so that two runs can be compared, and words for
// those who want to read it.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>

#include "sim/virtual_loop.h"

namespace nvmf::simulator {

class Trace {
 public:
  Trace(const sim::VirtualLoop& loop, bool verbose) : loop_(loop), verbose_(verbose) {}

  /// Something happened: `kind` says what, the numbers which.
  void event(char kind, std::uint64_t a = 0, std::uint64_t b = 0) {
    add(static_cast<std::uint64_t>(loop_.now().time_since_epoch().count()));
    add(static_cast<std::uint64_t>(kind) << 56 ^ a);
    add(b);
  }
  /// A line of the history, if anybody reads it.
  template <class... Args>
  void say(fmt::format_string<Args...> format, Args&&... args) {
    if (!verbose_) return;
    const double ms = static_cast<double>(loop_.now().time_since_epoch().count()) / 1e6 - 1000;
    fmt::print("{:12.6f} ms  {}\n", ms, fmt::format(format, std::forward<Args>(args)...));
  }
  [[nodiscard]] bool verbose() const { return verbose_; }
  [[nodiscard]] std::uint64_t hash() const { return hash_; }

 private:
  void add(std::uint64_t x) {
    hash_ = (hash_ ^ x) * 0x100000001b3U;
    hash_ ^= hash_ >> 29;
  }

  const sim::VirtualLoop& loop_;
  bool verbose_;
  std::uint64_t hash_ = 0xcbf29ce484222325U;
};

}  // namespace nvmf::simulator
