// What passthrough asks of a NamespaceDevice: a tool's command among the requests, and the whole
// namespace for one of the admin queue's. Both are BlockRequests so that they wait, hold and fence
// as those do.
#pragma once

#include <cstdint>
#include <span>

#include "host/block_device.h"
#include "host/command_queue.h"
#include "nvme/command.h"
#include "transport/qpair.h"

namespace nvmf::host {

/// A range beyond every namespace's end.
inline constexpr std::uint64_t kWholeNamespaceBytes = std::uint64_t{1} << 62;

struct PassthroughRequest : BlockRequest {
  nvme::Sqe sqe;
  transport::DataDirection direction = transport::DataDirection::none;
  std::span<std::byte> bytes;
  Duration timeout{};    // its command's own, not 0
  bool changes = false;  // data, in the request's range

  // The outcome, if it was issued.
  bool issued = false;
  bool overdue = false;  // its timeout had passed
  transport::Delivery delivery = transport::Delivery::not_sent;
  nvme::Cqe cqe;
  std::uint32_t received_bytes = 0;

  void issue(IoCommand& command) {
    issued = true;
    command.sqe = sqe;
    command.direction = bytes.empty() ? transport::DataDirection::none : direction;
    command.data = bytes.data();
    command.data_bytes = static_cast<std::uint32_t>(bytes.size());
    command.timeout = timeout;
  }
};

struct BarrierRequest : BlockRequest {
  void (*granted)(BarrierRequest&) = nullptr;
};

}  // namespace nvmf::host
