// The buffers that data of I/O commands moves through: a fixed number, shared by a target's queues.
//
// A queue that finds none waits in line and is called when one comes back, one queue for each
// buffer, so that all get their turn. Loop's thread only.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <vector>

#include "controller/limits.h"

namespace nvmf::controller {

class BufferUser {
 public:
  /// A buffer is free. The user is no longer in line.
  virtual void on_buffer_free() = 0;

 protected:
  ~BufferUser() = default;
};

class BufferPool {
 public:
  explicit BufferPool(std::size_t count = kSharedBuffers);

  /// kBufferBytes, or nothing if all are in use.
  std::byte* take();
  /// Gives one back. May call the next in line.
  void give(std::byte* buffer);

  void wait(BufferUser& user);  // not twice
  void stop_waiting(BufferUser& user);

  [[nodiscard]] std::size_t free_count() const { return free_.size(); }
  [[nodiscard]] std::size_t count() const { return count_; }

  /// Memory for one buffer; not touched, so that it costs nothing until it is used.
  static std::unique_ptr<std::byte[]> allocate(std::size_t bytes);

 private:
  std::size_t count_;
  std::unique_ptr<std::byte[]> memory_;
  std::vector<std::byte*> free_;
  std::deque<BufferUser*> line_;
};

}  // namespace nvmf::controller
