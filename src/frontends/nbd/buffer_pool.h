// Memory for the data of requests under way: one arena for the process, a pool for each reactor.
//
// The arena is a fixed run of 1 MiB chunks, given out and taken back with one atomic word, so that
// the process-wide limit holds without a lock. A pool belongs to one thread: it divides the chunks
// that it holds into 4 KiB pages for the requests that are smaller than a chunk, and passes larger
// requests on as runs of whole chunks. Nothing here allocates after construction, and nothing
// grows: take() returns nullptr when there is no room.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "frontends/nbd/limits.h"
#include "transport/loop.h"
#include "transport/timer.h"

namespace nvmf::nbd {

/// Shared by all threads.
class BufferArena {
 public:
  static constexpr std::size_t kChunkBytes = std::size_t{1} << 20;
  static constexpr std::size_t kNone = ~std::size_t{0};

  /// `bytes` is rounded down to chunks: 1 to 64 of them. The memory is not touched here.
  explicit BufferArena(std::size_t bytes = kBufferBytesMax);

  /// Claims `count` neighbouring chunks and returns the first one's index, or kNone. Runs of
  /// several come from the bottom and leave the top quarter to small requests, so that a client
  /// that sits on huge ones cannot keep out all the others.
  std::size_t claim(std::size_t count) noexcept;
  void give_back(std::size_t first, std::size_t count) noexcept;

  [[nodiscard]] std::byte* chunk(std::size_t index) const {
    return memory_.get() + index * kChunkBytes;
  }
  [[nodiscard]] std::size_t index_of(const std::byte* p) const {
    return static_cast<std::size_t>(p - memory_.get()) / kChunkBytes;
  }
  /// The most that a single take() can ever get: larger requests would wait for ever.
  [[nodiscard]] std::size_t largest_bytes() const { return large_chunks_ * kChunkBytes; }
  [[nodiscard]] std::size_t used_chunks() const noexcept;

 private:
  struct Delete {
    void operator()(std::byte* p) const;
  };
  std::unique_ptr<std::byte, Delete> memory_;
  std::size_t chunks_;
  std::size_t large_chunks_;
  std::atomic<std::uint64_t> free_;  // bit i: chunk i is free
};

/// Somebody who wants a buffer and was told that there is none.
class BufferWaiter {
 public:
  /// Buffers may be free again. Takes them, or waits again.
  virtual void on_buffers() = 0;

 protected:
  ~BufferWaiter() = default;

 private:
  friend class BufferPool;
  BufferWaiter* next_ = nullptr;
  BufferWaiter* previous_ = nullptr;
  bool waiting_ = false;
};

/// One thread's share. Must be empty (everything put back) when destroyed.
class BufferPool {
 public:
  BufferPool(BufferArena& arena, transport::Loop& loop);
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  /// At least `bytes` (1 up to arena.largest_bytes()) of memory, aligned to a page; nullptr if
  /// full.
  std::byte* take(std::size_t bytes) noexcept;
  /// Takes back what take(bytes) returned, with the same `bytes`. Calls nobody: see notify().
  void put(std::byte* p, std::size_t bytes) noexcept;

  /// on_buffers() is called by each notify(), and by a timer for what other threads give back.
  void wait(BufferWaiter& waiter);
  void stop_waiting(BufferWaiter& waiter);
  /// Lets those who wait try again, in their order. Called after put(), when the caller's own state
  /// is whole, because it runs other sessions.
  void notify();

  [[nodiscard]] std::size_t largest_bytes() const { return arena_.largest_bytes(); }
  [[nodiscard]] std::size_t used_bytes() const { return used_bytes_; }

 private:
  static constexpr std::size_t kPageBytes = 4096;
  static constexpr std::size_t kPages = BufferArena::kChunkBytes / kPageBytes;
  using PageMap = std::array<std::uint64_t, kPages / 64>;  // bit set: the page is in use

  static std::size_t find_run(const PageMap& used, std::size_t pages);
  static void mark(PageMap& used, std::size_t first, std::size_t pages, bool in_use);

  BufferArena& arena_;
  transport::Loop& loop_;
  transport::Timer retry_;
  std::uint64_t held_ = 0;  // chunks that this pool divides into pages
  std::array<PageMap, 64> pages_{};
  std::size_t used_bytes_ = 0;
  BufferWaiter* first_ = nullptr;
  BufferWaiter* last_ = nullptr;
  std::size_t waiters_ = 0;
};

}  // namespace nvmf::nbd
