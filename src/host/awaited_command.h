// A command that a coroutine waits for: for queue_link.cpp and the kinds of queue.
#pragma once

#include <coroutine>

#include "transport/qpair.h"

namespace nvmf::host {

/// In flight in the frame that waits; its completion resumes the coroutine.
struct AwaitedCommand : transport::HostCommand {
  std::coroutine_handle<> waiter;

  AwaitedCommand(const nvme::Sqe& command, transport::DataDirection way,
                 std::span<std::byte> bytes) {
    sqe = command;
    direction = bytes.empty() ? transport::DataDirection::none : way;
    if (direction != transport::DataDirection::none) {
      data = bytes.data();
      data_bytes = static_cast<std::uint32_t>(bytes.size());
    }
    complete = [](transport::HostCommand& c) { static_cast<AwaitedCommand&>(c).waiter.resume(); };
  }
};

/// Hands the command over when it is awaited; the queue pair never completes inside submit().
struct SubmitAwaiter {
  transport::HostQpair& qpair;
  AwaitedCommand& command;
  static bool await_ready() noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) const {
    command.waiter = h;
    qpair.submit(command);
  }
  static void await_resume() noexcept {}
};

}  // namespace nvmf::host
