// The I/O commands of one queue: Read, Write, Compare, Write Zeroes, Flush, Dataset Management.
// NVM Command Set 1.1 §3; Base 2.1 §7 (Flush), §6.4 (Disconnect).
//
// A command is checked whole (opcode, namespace, range, length, SGL) before it takes a buffer. Data
// then moves in pieces of kBufferBytes; one piece of a command is on its way at a time, the
// commands of a queue overlap. A command that finds no buffer waits in line.
//
// When the connection ends, operations that a disk has begun go on: they cannot be called back, but
// the disk is told (Disk::abandon), and none is begun any more. idle() says when the last has
// ended; until then the queue, its buffers and the queue pair (whose in-capsule data a write may be
// using) stay.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>

#include "controller/buffer_pool.h"
#include "controller/disk.h"
#include "controller/subsystem.h"
#include "nvme/command.h"
#include "transport/qpair.h"

namespace nvmf::controller {

class Controller;
class Session;

class IoQueue final : private BufferUser {
 public:
  IoQueue(Controller& controller, Session& session, BufferPool& pool);
  ~IoQueue();

  void on_command(transport::ControllerCommand& command);
  void on_data_received(transport::ControllerCommand& command, bool digest_ok);
  void on_data_sent(transport::ControllerCommand& command);
  /// The connection is gone. Buffers that no disk uses are given back.
  void on_ended();
  /// Ends a command as aborted, if its disk has not begun it; false if that is not so.
  bool abort(std::uint16_t cid);
  /// The controller stops: Controller::io_idle() is called when idle() becomes true.
  void quiesce();
  /// No operation of this queue is under way on a disk. Session::io_idle() is called when this
  /// becomes true after on_ended().
  [[nodiscard]] bool idle() const { return disk_ops_ == 0; }
  [[nodiscard]] std::size_t shared_buffers() const { return shared_buffers_; }

 private:
  enum class Work : std::uint8_t { none, read, write, compare, write_zeroes, flush, deallocate };
  enum class Buffer : std::uint8_t { none, own, shared };

  struct Slot : DiskOp {
    IoQueue* queue = nullptr;
    transport::ControllerCommand* command = nullptr;
    Work what = Work::none;   // none: the slot is free
    Namespace* ns = nullptr;  // see use()
    std::byte* buffer = nullptr;
    Buffer buffer_kind = Buffer::none;
    bool aborted = false;           // by the host
    bool on_disk = false;           // the disk has the operation
    bool submitting = false;        // inside Disk::submit()
    std::uint64_t start_bytes = 0;  // of the command, on the disk
    std::uint32_t total_bytes = 0;  // of the command
    std::uint32_t done_bytes = 0;   // pieces that are through
    std::uint32_t piece_bytes = 0;  // of the piece on its way
    std::uint32_t index = 0;        // next range (deallocate) or namespace (flush)
    std::uint32_t count = 0;        // ranges
    Slot* next_waiting = nullptr;
  };

  static bool moves_data(Work work) {
    return work == Work::read || work == Work::write || work == Work::compare;
  }

  // Checks, in io_checks.cpp. Each sets up the slot or says what is wrong.
  [[nodiscard]] nvme::Status check(Slot& slot) const;
  [[nodiscard]] nvme::Status check_transfer(Slot& slot) const;
  [[nodiscard]] nvme::Status check_write_zeroes(Slot& slot) const;
  [[nodiscard]] nvme::Status check_flush(Slot& slot) const;
  [[nodiscard]] nvme::Status check_deallocate(Slot& slot) const;
  [[nodiscard]] nvme::Status check_range(const Slot& slot, std::uint64_t lba,
                                         std::uint64_t blocks) const;
  [[nodiscard]] nvme::Status check_dsm_ranges(const Slot& slot) const;

  /// Makes it the slot's namespace: it stays until the slot has another or none.
  static void use(Slot& slot, Namespace* ns);
  void abandon(Disk::Abandoned why);
  void start(Slot& slot);
  void start_piece(Slot& slot);
  void data_here(Slot& slot);
  void run_disk(Slot& slot);
  [[nodiscard]] bool next_operation(Slot& slot);
  void operation_done(Slot& slot, bool& again);
  void piece_written(Slot& slot);
  [[nodiscard]] Slot& slot_of(const transport::ControllerCommand& command);
  void compare_piece(Slot& slot);
  static void on_disk_complete(DiskOp& op);

  void respond(Slot& slot, nvme::Status status);
  void count(const Slot& slot);
  void free_slot(Slot& slot);
  void disconnect(transport::ControllerCommand& command);

  [[nodiscard]] bool take_buffer(Slot& slot);
  void wait_for_buffer(Slot& slot);
  void give_buffer(Slot& slot);
  void on_buffer_free() override;
  void serve_waiting();

  Controller& controller_;
  Session& session_;
  BufferPool& pool_;
  std::deque<Slot> slots_;  // as many as the queue has ever used at once; they do not move
  std::size_t disk_ops_ = 0;
  bool ended_ = false;

  std::unique_ptr<std::byte[]> own_buffer_;
  bool own_buffer_free_ = true;
  std::size_t shared_buffers_ = 0;
  bool in_line_ = false;
  bool serving_ = false;
  Slot* waiting_first_ = nullptr;
  Slot* waiting_last_ = nullptr;
};

}  // namespace nvmf::controller
