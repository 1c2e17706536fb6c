// The medium behind a namespace: it outlives targets, has a volatile write cache or not, takes its
// time, and may execute what it was given after everybody has forgotten it.
//
// An operation is executed at one point between its submission and its answer. When its association
// ends first, it may still be executed, `linger` later at the latest: a ghost. Losing power takes
// away what was not begun, and of each block any of the values that were written since the last
// flush, or the flushed one, stays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "controller/disk.h"
#include "simulator/random.h"
#include "simulator/trace.h"
#include "transport/timer.h"

namespace nvmf::simulator {

struct DiskShape {
  std::size_t blocks = 0;
  std::uint32_t block_bytes = 512;
  bool volatile_cache = false;
  Duration lag{};             // of an ordinary operation, at most
  Duration linger{};          // how long a ghost may take
  unsigned hang_percent = 0;  // operations that are executed only when their association has ended
};

class DiskModel {
 public:
  /// `number` for the history.
  DiskModel(sim::VirtualLoop& loop, Trace& trace, Random random, std::size_t number,
            DiskShape shape);
  ~DiskModel();
  DiskModel(const DiskModel&) = delete;
  DiskModel& operator=(const DiskModel&) = delete;

  /// The disk as a target has it. Older ones may still exist: of a dead target, or of a namespace
  /// that was removed.
  std::unique_ptr<controller::Disk> open();
  /// The target is dead: nothing is answered any more, what hangs becomes a ghost or nothing.
  void crash();
  /// The operations that a dead target still waits for end.
  void let_go();
  void power_loss();
  /// From now on everything takes an ordinary time, also what hangs.
  void heal();
  void hang(unsigned percent) { hang_percent_ = percent; }
  /// An operation takes so long, at most.
  void slow(Duration lag) { shape_.lag = lag; }

  /// Block `lba` as a read would find it.
  [[nodiscard]] std::span<const std::byte> block(std::size_t lba) const;
  /// Puts it there, flushed.
  void preset(std::size_t lba, std::span<const std::byte> bytes);
  /// Something is still to be executed.
  [[nodiscard]] bool busy() const { return !pending_.empty(); }
  /// Changes of data executed.
  [[nodiscard]] std::uint64_t changes() const { return changes_; }
  [[nodiscard]] std::uint64_t ghosts() const { return ghosts_; }
  [[nodiscard]] const DiskShape& shape() const { return shape_; }

 private:
  class Handle;
  struct Pending {
    controller::DiskOp* op = nullptr;  // nullptr: its target is dead, nobody is answered
    Handle* handle = nullptr;
    controller::DiskOp::Kind kind{};
    bool fua = false;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::vector<std::byte> data;
    Instant execute_at{};
    Instant answer_at{};
    int error = 0;
    bool executed = false;
    bool dropped = false;
    bool ghost = false;  // its association has ended
  };
  struct Block {
    std::vector<std::byte> stable;
    std::vector<std::vector<std::byte>> cached;  // since, the newest last
  };

  void submit(Handle& handle, controller::DiskOp& op);
  void abandon(controller::DiskOp& op, controller::Disk::Abandoned why);
  void make_ghost(Pending& pending);
  void execute(Pending& pending);
  void change(Pending& pending);
  void run();
  void rearm();
  Duration ordinary() { return random_.between(Duration(1000), shape_.lag); }

  sim::VirtualLoop& loop_;
  Trace& trace_;
  Random random_;
  std::size_t number_;
  DiskShape shape_;
  unsigned hang_percent_;
  std::vector<Block> blocks_;
  std::vector<std::unique_ptr<Pending>> pending_;
  std::vector<Handle*> handles_;
  transport::Timer timer_;
  std::uint64_t changes_ = 0;
  std::uint64_t ghosts_ = 0;
};

}  // namespace nvmf::simulator
