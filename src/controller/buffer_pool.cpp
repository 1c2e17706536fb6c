#include "controller/buffer_pool.h"

#include <algorithm>

#include "nvme/check.h"

namespace nvmf::controller {

std::unique_ptr<std::byte[]> BufferPool::allocate(std::size_t bytes) {
  // Not make_unique: that would write to every page.
  return std::unique_ptr<std::byte[]>(new std::byte[bytes]);
}

BufferPool::BufferPool(std::size_t count) : count_(count), memory_(allocate(count * kBufferBytes)) {
  free_.reserve(count);
  // The first buffers are used first and again: a small load touches little memory.
  for (std::size_t i = count; i > 0; --i) free_.push_back(memory_.get() + (i - 1) * kBufferBytes);
}

std::byte* BufferPool::take() {
  if (free_.empty()) return nullptr;
  std::byte* const buffer = free_.back();
  free_.pop_back();
  return buffer;
}

void BufferPool::give(std::byte* buffer) {
  NVMF_CHECK(free_.size() < count_);
  free_.push_back(buffer);
  // Whoever is called may need none any more; then it is the next one's turn.
  while (!free_.empty() && !line_.empty()) {
    BufferUser* const next = line_.front();
    line_.pop_front();
    next->on_buffer_free();
  }
}

void BufferPool::wait(BufferUser& user) {
  line_.push_back(&user);
}

void BufferPool::stop_waiting(BufferUser& user) {
  std::erase(line_, &user);
}

}  // namespace nvmf::controller
