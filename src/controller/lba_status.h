// The Get LBA Status command: which blocks are allocated. NVM 1.2 §4.2.1.
//
// Of blocks that may be unreadable nothing is told: the other actions are refused, as Identify
// says.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "controller/admin_reply.h"
#include "controller/disk.h"
#include "controller/namespace.h"
#include "nvme/lba_status.h"
#include "transport/qpair.h"

namespace nvmf::controller {

class Controller;

/// Descriptors of one answer. Who wants more asks again from there.
inline constexpr std::size_t kLbaStatusEntriesMax = 1024;
/// How often a disk is asked for one answer: those behind a network tell of a part at a time.
inline constexpr std::uint32_t kLbaStatusQueriesMax = 1024;

/// One under way, owned by its controller, which stays until lba_status_ended().
class LbaStatusJob : private DiskExtents {
 public:
  /// `end_lba`: one past the range, which begins at the command's.
  LbaStatusJob(Controller& controller, Namespace& ns, const nvme::GetLbaStatus& wanted,
               std::uint64_t end_lba, transport::ControllerCommand& command);
  LbaStatusJob(const LbaStatusJob&) = delete;
  LbaStatusJob& operator=(const LbaStatusJob&) = delete;
  ~LbaStatusJob() = default;

  /// May call Controller::lba_status_ended() before it returns, which destroys it.
  void step();
  /// nullptr if nobody waits for the answer any more.
  [[nodiscard]] transport::ControllerCommand* command() const { return command_; }
  void forget_command() { command_ = nullptr; }
  /// Its disk is to let go of it, with whatever it has found out; step() may follow, never inside.
  void abandon() { ns_.disk->abandon_extents(*this); }

 private:
  static void on_complete(DiskExtents& query);
  void take();
  void add(std::uint64_t begin_lba, std::uint64_t end_lba);
  void end();

  Controller& controller_;
  Namespace& ns_;
  std::uint32_t block_bytes_;
  std::size_t room_;  // entries that the host has room for
  std::uint64_t next_lba_;
  std::uint64_t end_lba_;
  transport::ControllerCommand* command_;
  nvme::LbaStatusList list_;
  bool full_ = false;
  std::uint32_t queries_ = 0;
  bool inside_ = false;  // of Disk::extents()
  bool complete_ = false;
  std::array<DiskExtent, 128> found_;
};

/// Checks the command and begins; the answer comes later.
AdminReply execute_get_lba_status(Controller& controller, transport::ControllerCommand& command);

}  // namespace nvmf::controller
