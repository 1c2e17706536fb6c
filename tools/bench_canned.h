// A responder that knows its answers beforehand, so that the host alone is measured.
//
// In a child process. Everything up to an I/O queue's Connect is relayed to a real target of ours
// in the same process, whose namespace nobody ever reads; from then on reads are answered with the
// same bytes again and again, straight from one buffer, and writes are counted and forgotten.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "nvme/result.h"

namespace nvmf::tools {

class CannedResponder {
 public:
  CannedResponder(CannedResponder&& other) noexcept;
  CannedResponder& operator=(CannedResponder&&) = delete;
  ~CannedResponder();

  /// Before this process has started a thread.
  static Result<CannedResponder> start();
  [[nodiscard]] std::uint16_t port() const { return port_; }
  static const char* subnqn();
  /// Ends the process. What it has used of the CPU in all its life, in seconds.
  double end();

 private:
  CannedResponder() = default;

  pid_t pid_ = -1;
  std::uint16_t port_ = 0;
};

}  // namespace nvmf::tools
