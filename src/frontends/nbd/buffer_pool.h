// Memory for the data of requests under way: one arena for the process, a pool for each reactor, a
// reserve for each client.
//
// The arena is a fixed run of memory. A part of it is cut into reserves, one for each client that
// there may be: 64 KiB that nobody else can take. The rest are 1 MiB chunks, given out and taken
// back with one atomic word, so that the process-wide limit holds without a lock. A pool belongs to
// one thread and divides the chunks that it holds into 4 KiB pages. Nothing here allocates after
// construction, and nothing grows: take() returns nothing when there is no room.
//
// Memory goes back: a chunk that nobody has used for kDiscardAfter is handed to `discard`, which
// tells the system that its contents are no longer needed.
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

/// Tells the system that the contents of whole pages are not needed; they read as zero afterwards.
/// From any thread.
using DiscardPages = void (*)(std::byte* pages, std::size_t bytes);

/// A piece of memory, aligned to a page; `bytes` is a multiple of 4096. Empty if there was none.
struct Buffer {
  std::byte* data = nullptr;
  std::uint32_t bytes = 0;
  explicit operator bool() const { return data != nullptr; }
};

/// Shared by all threads.
class BufferArena {
 public:
  static constexpr std::size_t kPageBytes = 4096;
  static constexpr std::size_t kChunkBytes = std::size_t{1} << 20;
  static constexpr std::size_t kNone = ~std::size_t{0};

  /// Room for reserves of `clients` (1 to kClientsMax), and for 1 to 64 chunks in the rest of
  /// `bytes`. The memory is not touched here. Without `discard`, none is ever given back.
  explicit BufferArena(std::size_t bytes = kBufferBytesMax, std::size_t clients = kClientsMax,
                       DiscardPages discard = nullptr);

  /// Claims a chunk and returns its index, or kNone. Rather one that was in use lately.
  std::size_t claim() noexcept;
  void give_back(std::size_t index, Instant now) noexcept;
  /// Discards free chunks that have not been used since kDiscardAfter. False if none is left that
  /// was used more lately and is free now.
  bool discard_idle(Instant now) noexcept;
  [[nodiscard]] bool discards() const { return discard_ != nullptr; }

  /// A reserve of kReserveBytes. There is one for each of `clients`; nullptr: all are taken, and
  /// whoever comes has to do with chunks.
  std::byte* claim_reserve() noexcept;
  void give_back_reserve(std::byte* reserve, bool was_used) noexcept;

  [[nodiscard]] std::byte* chunk(std::size_t index) const {
    return chunks_at_ + index * kChunkBytes;
  }
  [[nodiscard]] std::size_t index_of(const std::byte* p) const {
    return static_cast<std::size_t>(p - chunks_at_) / kChunkBytes;
  }
  [[nodiscard]] std::size_t free_chunks() const noexcept;
  [[nodiscard]] std::size_t used_chunks() const noexcept { return chunks_ - free_chunks(); }

 private:
  struct Delete {
    void operator()(std::byte* p) const;
  };
  std::unique_ptr<std::byte, Delete> memory_;  // the reserves, then the chunks
  std::size_t chunks_;
  std::byte* chunks_at_;
  DiscardPages discard_;
  std::atomic<std::uint64_t> free_;     // bit i: chunk i is free
  std::atomic<std::uint64_t> used_{0};  // bit i: chunk i has been used since it was discarded
  std::array<std::atomic<Instant::rep>, 64> freed_at_{};
  std::array<std::atomic<std::uint64_t>, (kClientsMax + 63) / 64> free_reserves_{};
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

  /// `want` bytes, rounded up to pages; if there is no such run, the longest that has `least`.
  /// 1 <= least <= want <= kChunkBytes.
  Buffer take(std::size_t want, std::size_t least) noexcept;
  /// Takes back what take() returned. Calls nobody: see notify().
  void put(Buffer buffer) noexcept;

  /// on_buffers() is called by each notify(), and by a timer for what other threads give back.
  void wait(BufferWaiter& waiter);
  void stop_waiting(BufferWaiter& waiter);
  /// Lets those who wait try again, in their order. Called after put(), when the caller's own state
  /// is whole, because it runs other sessions.
  void notify();

  [[nodiscard]] BufferArena& arena() const { return arena_; }
  [[nodiscard]] transport::Loop& loop() const { return loop_; }
  /// No more timers, on this thread: the pool may then be destroyed on another. Empty, and nobody
  /// waits.
  void stop();
  [[nodiscard]] std::size_t used_bytes() const { return used_pages_ * kPageBytes; }
  /// What this thread could still get, if it were in one run.
  [[nodiscard]] std::size_t free_bytes() const;

 private:
  static constexpr std::size_t kPageBytes = BufferArena::kPageBytes;
  static constexpr std::size_t kPages = BufferArena::kChunkBytes / kPageBytes;
  using PageMap = std::array<std::uint64_t, kPages / 64>;  // bit set: the page is in use

  struct Run {
    std::size_t first = 0;
    std::size_t pages = 0;
  };
  /// The first run of `enough` free pages, or else the longest.
  static Run find_run(const PageMap& used, std::size_t enough);
  static void mark(PageMap& used, std::size_t first, std::size_t pages, bool in_use);
  Buffer take_pages(std::size_t chunk, Run run) noexcept;
  void tell_waiters();
  void retry();
  void discard_idle();

  BufferArena& arena_;
  transport::Loop& loop_;
  transport::Timer retry_;
  transport::Timer discard_;
  Duration retry_after_ = kBufferRetry;
  std::uint64_t held_ = 0;  // chunks that this pool divides into pages
  std::array<PageMap, 64> pages_{};
  std::size_t used_pages_ = 0;
  BufferWaiter* first_ = nullptr;
  BufferWaiter* last_ = nullptr;
  std::size_t waiters_ = 0;
};

/// What one client can always have. Empty until open(). One thread's.
class BufferReserve {
 public:
  BufferReserve() = default;
  ~BufferReserve();
  BufferReserve(const BufferReserve&) = delete;
  BufferReserve& operator=(const BufferReserve&) = delete;

  /// Stays empty if the arena has no more.
  void open(BufferArena& arena);
  /// `bytes` rounded up to pages, at most kReserveBytes. All of it can be had when nothing is out.
  Buffer take(std::size_t bytes) noexcept;
  void put(Buffer buffer) noexcept;
  [[nodiscard]] bool owns(const std::byte* p) const {
    return memory_ != nullptr && p >= memory_ && p < memory_ + kReserveBytes;
  }
  [[nodiscard]] std::size_t used_bytes() const;

 private:
  BufferArena* arena_ = nullptr;
  std::byte* memory_ = nullptr;
  std::uint32_t pages_ = 0;  // bit set: the page is in use
  bool was_used_ = false;
};

}  // namespace nvmf::nbd
