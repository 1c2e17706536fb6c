#include "frontends/nbd/buffer_pool.h"

#include <algorithm>
#include <bit>
#include <new>

#include "nvme/check.h"

namespace nvmf::nbd {
namespace {

constexpr std::align_val_t kAlignment{4096};

std::uint64_t low_bits(std::size_t count) {
  return count >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1;
}

}  // namespace

void BufferArena::Delete::operator()(std::byte* p) const {
  ::operator delete(p, kAlignment);
}

BufferArena::BufferArena(std::size_t bytes)
    : chunks_(bytes / kChunkBytes), large_chunks_(chunks_ - chunks_ / 4), free_(low_bits(chunks_)) {
  NVMF_CHECK(chunks_ >= 1 && chunks_ <= 64);
  memory_.reset(static_cast<std::byte*>(::operator new(chunks_ * kChunkBytes, kAlignment)));
}

std::size_t BufferArena::claim(std::size_t count) noexcept {
  std::uint64_t free = free_.load(std::memory_order_relaxed);
  for (;;) {
    std::size_t first = kNone;
    if (count == 1) {
      if (free == 0) return kNone;
      first = 63 - static_cast<std::size_t>(std::countl_zero(free));
    } else {
      // Bit i survives when `count` free chunks begin at i.
      std::uint64_t runs = free & low_bits(large_chunks_);
      for (std::size_t i = 1; i < count && runs != 0; ++i) runs &= runs >> 1;
      if (runs == 0) return kNone;
      first = static_cast<std::size_t>(std::countr_zero(runs));
    }
    const std::uint64_t taken = low_bits(count) << first;
    if (free_.compare_exchange_weak(free, free & ~taken, std::memory_order_acq_rel,
                                    std::memory_order_relaxed)) {
      return first;
    }
  }
}

void BufferArena::give_back(std::size_t first, std::size_t count) noexcept {
  const std::uint64_t bits = low_bits(count) << first;
  const std::uint64_t before = free_.fetch_or(bits, std::memory_order_acq_rel);
  NVMF_CHECK((before & bits) == 0);
}

std::size_t BufferArena::used_chunks() const noexcept {
  return chunks_ - static_cast<std::size_t>(std::popcount(free_.load(std::memory_order_relaxed)));
}

BufferPool::BufferPool(BufferArena& arena, transport::Loop& loop)
    : arena_(arena), loop_(loop), retry_(loop.timers(), [this] { notify(); }) {}

BufferPool::~BufferPool() {
  NVMF_CHECK(used_bytes_ == 0 && first_ == nullptr);
}

std::byte* BufferPool::take(std::size_t bytes) noexcept {
  NVMF_CHECK(bytes > 0 && bytes <= arena_.largest_bytes());
  if (bytes > BufferArena::kChunkBytes) {
    const std::size_t count = (bytes + BufferArena::kChunkBytes - 1) / BufferArena::kChunkBytes;
    const std::size_t first = arena_.claim(count);
    if (first == BufferArena::kNone) return nullptr;
    used_bytes_ += bytes;
    return arena_.chunk(first);
  }
  const std::size_t pages = (bytes + kPageBytes - 1) / kPageBytes;
  for (std::uint64_t left = held_; left != 0; left &= left - 1) {
    const auto chunk = static_cast<std::size_t>(std::countr_zero(left));
    const std::size_t page = find_run(pages_[chunk], pages);
    if (page == kPages) continue;
    mark(pages_[chunk], page, pages, true);
    used_bytes_ += bytes;
    return arena_.chunk(chunk) + page * kPageBytes;
  }
  const std::size_t chunk = arena_.claim(1);
  if (chunk == BufferArena::kNone) return nullptr;
  held_ |= std::uint64_t{1} << chunk;
  mark(pages_[chunk], 0, pages, true);
  used_bytes_ += bytes;
  return arena_.chunk(chunk);
}

void BufferPool::put(std::byte* p, std::size_t bytes) noexcept {
  NVMF_CHECK(used_bytes_ >= bytes);
  used_bytes_ -= bytes;
  const std::size_t chunk = arena_.index_of(p);
  if (bytes > BufferArena::kChunkBytes) {
    arena_.give_back(chunk, (bytes + BufferArena::kChunkBytes - 1) / BufferArena::kChunkBytes);
    return;
  }
  PageMap& used = pages_[chunk];
  const auto page = static_cast<std::size_t>(p - arena_.chunk(chunk)) / kPageBytes;
  mark(used, page, (bytes + kPageBytes - 1) / kPageBytes, false);
  // An idle pool holds nothing: what it kept would be missing for a large request elsewhere.
  if (std::ranges::all_of(used, [](std::uint64_t word) { return word == 0; })) {
    held_ &= ~(std::uint64_t{1} << chunk);
    arena_.give_back(chunk, 1);
  }
}

std::size_t BufferPool::find_run(const PageMap& used, std::size_t pages) {
  std::size_t run = 0;
  std::size_t page = 0;
  while (page < kPages) {
    const std::size_t bits_left = 64 - page % 64;
    const std::uint64_t word = used[page / 64] >> (page % 64);
    const std::size_t zeroes =
        std::min(static_cast<std::size_t>(std::countr_zero(word)), bits_left);
    run += zeroes;
    page += zeroes;
    if (run >= pages) return page - run;
    if (zeroes < bits_left) {
      page += static_cast<std::size_t>(std::countr_one(word >> zeroes));
      run = 0;
    }
  }
  return kPages;
}

void BufferPool::mark(PageMap& used, std::size_t first, std::size_t pages, bool in_use) {
  while (pages > 0) {
    const std::size_t here = std::min(pages, 64 - first % 64);
    const std::uint64_t bits = low_bits(here) << (first % 64);
    std::uint64_t& word = used[first / 64];
    NVMF_CHECK((word & bits) == (in_use ? 0 : bits));
    word ^= bits;
    first += here;
    pages -= here;
  }
}

void BufferPool::wait(BufferWaiter& waiter) {
  if (waiter.waiting_) return;
  waiter.waiting_ = true;
  ++waiters_;
  waiter.previous_ = last_;
  waiter.next_ = nullptr;
  (last_ != nullptr ? last_->next_ : first_) = &waiter;
  last_ = &waiter;
  if (!retry_.armed()) retry_.arm(loop_.now() + kBufferRetry);
}

void BufferPool::stop_waiting(BufferWaiter& waiter) {
  if (!waiter.waiting_) return;
  waiter.waiting_ = false;
  --waiters_;
  (waiter.previous_ != nullptr ? waiter.previous_->next_ : first_) = waiter.next_;
  (waiter.next_ != nullptr ? waiter.next_->previous_ : last_) = waiter.previous_;
  waiter.next_ = waiter.previous_ = nullptr;
  if (first_ == nullptr) retry_.cancel();
}

void BufferPool::notify() {
  // Each once: whoever is told and still finds nothing waits again, at the end of the line.
  for (std::size_t left = waiters_; left > 0 && first_ != nullptr; --left) {
    BufferWaiter* const waiter = first_;
    stop_waiting(*waiter);
    waiter->on_buffers();
  }
}

}  // namespace nvmf::nbd
