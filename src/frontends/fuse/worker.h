// One reactor's part of the file system: reads messages, has them handled, hands requests to the
// devices of this reactor, and answers when they are complete.
//
// Threads. Everything happens on the worker's loop, except interrupted(), which libfuse calls on
// whichever reactor read the interrupt. What a worker has to tell goes to its owner by a post to
// the control loop.
//
// Who is answered. A request is answered once: when the device has completed it, or before that,
// when its owner was killed, when the time is up or the file system has gone. Its slot, with the
// memory, stays until the device is done with it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "frontends/fuse/seeks.h"
#include "frontends/fuse/session.h"
#include "frontends/fuse/slots.h"
#include "frontends/fuse/tree.h"
#include "transport/loop.h"
#include "transport/timer.h"

struct fuse_req;

namespace nvmf::fuse {

class Worker {
 public:
  /// Called on the worker's loop.
  struct Events {
    std::function<void()> unmounted;  // the session has ended by itself
    std::function<void()> quiet;      // after stop(): all are answered, the session is not used
    std::function<void()> idle;       // after quiet: the devices are not used any more
  };

  /// `index` is the place of this loop's devices. Everything outlives the worker. Without
  /// `discard`, memory that was used once stays ours.
  Worker(transport::Loop& loop, std::size_t index, const SlotCounts& slots, Events events,
         DiscardPages discard = nullptr);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  [[nodiscard]] transport::Loop& loop() const { return loop_; }
  void set_tree(std::shared_ptr<const Tree> tree);
  /// Begins to read.
  void begin(Session& session);
  /// Reads no more; what is under way has `grace` to become complete, and is then answered with
  /// EIO. Also where begin() was not called.
  void stop(Duration grace);
  /// Whatever waits is answered with EIO at once, and whatever comes.
  void hurry();

  // For the handlers, inside readable().

  /// The one whose reactor this is; null outside.
  [[nodiscard]] static Worker* current();
  [[nodiscard]] const Tree& tree() const { return *tree_; }
  [[nodiscard]] std::size_t index() const { return index_; }
  [[nodiscard]] host::BlockDevice& device(const DiskFile& disk) const {
    return *disk.devices[index_];
  }
  // Each answers `request`, now or when it is done.
  void read(fuse_req* request, const DiskFile& disk, std::size_t size_bytes,
            std::uint64_t offset_bytes);
  /// `data` is in the memory that the message was read into. `durable`: on stable storage when
  /// answered.
  void write(fuse_req* request, const DiskFile& disk, const std::byte* data, std::size_t size_bytes,
             std::uint64_t offset_bytes, bool durable);
  void flush(fuse_req* request, const DiskFile& disk);
  void seek(fuse_req* request, const DiskFile& disk, int whence, std::uint64_t offset_bytes);
  void write_zeroes(fuse_req* request, const DiskFile& disk, std::uint64_t offset_bytes,
                    std::uint64_t length_bytes, bool no_hole);

 private:
  struct Interrupted {
    Slot* slot;
    std::uint32_t generation;
    Instant until;
  };

  void readable();
  void watch();
  void session_ended();
  [[nodiscard]] Slot& take_for_read(std::size_t bytes);
  [[nodiscard]] Slot& take_for_write(const std::byte* data, std::size_t bytes);
  [[nodiscard]] Slot& take_without_data();
  [[nodiscard]] Slot& take_received();
  void submit(Slot& slot, fuse_req* request, const DiskFile& disk);
  static void completed(host::BlockRequest& request);
  void complete(Slot& slot);
  [[nodiscard]] bool read_again(Slot& slot);
  void release(Slot& slot);
  /// Answers with `error` before the device is done.
  void give_up(Slot& slot, int error);
  void give_up_all();
  static void interrupted(fuse_req* request, void* slot);
  void interrupt(Slot& slot, std::uint32_t generation);
  void end_patience();
  void report();
  void look_idle();

  transport::Loop& loop_;
  const std::size_t index_;
  Events events_;
  std::shared_ptr<const Tree> tree_;
  Slots slots_;
  Seeks seeks_;
  Slot* receiving_ = nullptr;  // what the next message is read into
  Session* session_ = nullptr;
  std::unique_ptr<transport::FdWatch> watch_;
  std::vector<Interrupted> interrupted_;
  transport::Timer patience_;
  transport::Timer grace_;
  transport::Timer retry_;  // to watch the descriptor
  transport::Timer idle_;
  DiscardPages discard_;
  std::uint64_t released_ = 0;         // requests, ever
  std::uint64_t released_before_ = 0;  // when idle_ was armed
  std::size_t waiting_ = 0;            // slots that somebody waits for
  std::size_t busy_ = 0;               // slots that a device has
  bool reading_ = false;
  bool hurried_ = false;
  bool stopping_ = false;
  bool quiet_told_ = false;
  bool idle_told_ = false;
};

}  // namespace nvmf::fuse
