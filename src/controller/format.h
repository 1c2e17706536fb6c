// The Format NVM command: all data of a namespace is gone, and its blocks may have another size.
// Base 2.1 §5.1.10.
//
// It waits for the commands that use the namespace; none may begin from the moment it comes. What
// has been done is stable: after a loss of power, too, nothing of the old data is left.
#pragma once

#include <cstdint>

#include "controller/admin_reply.h"
#include "controller/disk.h"
#include "controller/namespace.h"
#include "transport/qpair.h"
#include "transport/timer.h"

namespace nvmf::controller {

class Controller;

/// One Format NVM under way, owned by its controller, which stays until format_ended().
class FormatJob : private DiskOp {
 public:
  FormatJob(Controller& controller, transport::TimerQueue& timers, Namespace& ns,
            std::uint32_t block_bytes, transport::ControllerCommand& command);
  FormatJob(const FormatJob&) = delete;
  FormatJob& operator=(const FormatJob&) = delete;

  /// May call Controller::format_ended() before it returns, which destroys it.
  void step();
  [[nodiscard]] Namespace& ns() const { return ns_; }
  /// nullptr if nobody waits for the answer any more.
  [[nodiscard]] transport::ControllerCommand* command() const { return command_; }
  void forget_command() { command_ = nullptr; }

 private:
  enum class Stage : std::uint8_t { waiting, erasing, flushing };

  static void on_complete(DiskOp& op);
  void end(nvme::Status status);

  Controller& controller_;
  Namespace& ns_;
  std::uint32_t block_bytes_;
  transport::ControllerCommand* command_;
  Stage stage_ = Stage::waiting;
  bool inside_ = false;  // of Disk::submit()
  bool complete_ = false;
  Instant deadline_;
  transport::Timer timer_;
};

/// Checks the command and begins; the answer comes later.
AdminReply execute_format(Controller& controller, transport::ControllerCommand& command);

}  // namespace nvmf::controller
