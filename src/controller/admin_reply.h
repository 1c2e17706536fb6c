// The outcome of an admin or fabrics command.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "nvme/status.h"

namespace nvmf::controller {

struct AdminReply {
  nvme::Status status;
  std::uint64_t result = 0;
  /// Data for the host, if the command succeeded; zeroes follow up to the length it asked for.
  std::vector<std::byte> data;
  /// The response comes later (Asynchronous Event Request); nothing else here counts.
  bool later = false;

  static AdminReply ok(std::uint64_t result = 0) { return {{}, result, {}, false}; }
  static AdminReply with(std::vector<std::byte> data) { return {{}, 0, std::move(data), false}; }
  /// What the same command would meet again: Do Not Retry is set.
  static AdminReply refuse(nvme::StatusCode code, std::uint64_t result = 0) {
    return {nvme::Status(code, true), result, {}, false};
  }
};

}  // namespace nvmf::controller
