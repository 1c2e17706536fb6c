// Looking for data and for holes: lseek() with SEEK_DATA and SEEK_HOLE, answered from what the
// device knows. Where that is nothing, where it takes too many questions, or too many look at once,
// all is data: that is never wrong.
//
// Threads: as its worker's; interrupted() is called by libfuse on any reactor.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>

#include "frontends/fuse/limits.h"
#include "host/block_device.h"
#include "transport/loop.h"

struct fuse_req;

namespace nvmf::fuse {

class Seeks {
 public:
  /// `on_change`: one has been answered, or a device is done with one.
  Seeks(transport::Loop& loop, std::function<void()> on_change);
  Seeks(const Seeks&) = delete;
  Seeks& operator=(const Seeks&) = delete;

  /// Answers, now or when the device has; `whence` is one of the two.
  void seek(fuse_req* request, host::BlockDevice& device, int whence, std::uint64_t offset_bytes);
  /// Whoever waits is answered with `error`.
  void give_up_all(int error);

  [[nodiscard]] std::size_t waiting() const { return waiting_; }  // for answers of ours
  [[nodiscard]] std::size_t busy() const { return busy_; }        // that a device has

 private:
  struct Seek : host::ExtentsRequest {
    Seeks* owner = nullptr;
    host::BlockDevice* device = nullptr;
    fuse_req* waiting = nullptr;  // null: it has been answered
    std::uint32_t generation = 0;
    std::uint32_t asked = 0;
    int whence = 0;
    bool free = true;
    std::array<host::Extent, kExtentsAtOnce> found{};
  };

  void go_on(Seek& seek);
  [[nodiscard]] bool look(Seek& seek);
  void answer(Seek& seek, int error, std::uint64_t offset_bytes);
  void answer_as_data(Seek& seek);
  void done(Seek& seek);
  static void completed(host::ExtentsRequest& request);
  static void interrupted(fuse_req* request, void* seek);

  transport::Loop& loop_;
  std::function<void()> on_change_;
  std::array<Seek, kSeeksMax> seeks_;
  std::size_t waiting_ = 0;
  std::size_t busy_ = 0;
};

}  // namespace nvmf::fuse
