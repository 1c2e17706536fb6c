#include "frontends/nbd/buffer_pool.h"

#include <algorithm>
#include <bit>
#include <new>

#include "nvme/check.h"

namespace nvmf::nbd {
namespace {

constexpr std::align_val_t kAlignment{BufferArena::kPageBytes};
constexpr std::size_t kReservePages = kReserveBytes / BufferArena::kPageBytes;
static_assert(kReservePages <= 31);
static_assert(kPieceBytesMax <= BufferArena::kChunkBytes);

std::uint64_t low_bits(std::size_t count) {
  return count >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1;
}

std::size_t pages_of(std::size_t bytes) {
  return (bytes + BufferArena::kPageBytes - 1) / BufferArena::kPageBytes;
}

}  // namespace

void BufferArena::Delete::operator()(std::byte* p) const {
  ::operator delete(p, kAlignment);
}

BufferArena::BufferArena(std::size_t bytes, std::size_t clients, DiscardPages discard)
    : chunks_((bytes - std::min(bytes, clients * kReserveBytes)) / kChunkBytes),
      discard_(discard),
      free_(low_bits(chunks_)) {
  NVMF_CHECK(clients >= 1 && clients <= kClientsMax);
  NVMF_CHECK(chunks_ >= 1 && chunks_ <= 64);
  const std::size_t reserves = clients * kReserveBytes;
  memory_.reset(
      static_cast<std::byte*>(::operator new(reserves + chunks_ * kChunkBytes, kAlignment)));
  chunks_at_ = memory_.get() + reserves;
  for (std::size_t i = 0; i < clients; ++i) free_reserves_[i / 64] |= std::uint64_t{1} << (i % 64);
}

std::size_t BufferArena::claim() noexcept {
  std::uint64_t free = free_.load(std::memory_order_relaxed);
  while (free != 0) {
    // A chunk that has been used costs no more memory than it has cost already.
    const std::uint64_t warm = free & used_.load(std::memory_order_relaxed);
    const auto index = static_cast<std::size_t>(std::countr_zero(warm != 0 ? warm : free));
    const std::uint64_t bit = std::uint64_t{1} << index;
    if (free_.compare_exchange_weak(free, free & ~bit, std::memory_order_acq_rel,
                                    std::memory_order_relaxed)) {
      used_.fetch_or(bit, std::memory_order_relaxed);
      return index;
    }
  }
  return kNone;
}

void BufferArena::give_back(std::size_t index, Instant now) noexcept {
  freed_at_[index].store(now.time_since_epoch().count(), std::memory_order_relaxed);
  const std::uint64_t bit = std::uint64_t{1} << index;
  const std::uint64_t before = free_.fetch_or(bit, std::memory_order_acq_rel);
  NVMF_CHECK((before & bit) == 0);
}

bool BufferArena::discard_idle(Instant now) noexcept {
  if (discard_ == nullptr) return false;
  bool later = false;
  std::uint64_t left =
      free_.load(std::memory_order_acquire) & used_.load(std::memory_order_relaxed);
  for (; left != 0; left &= left - 1) {
    const auto index = static_cast<std::size_t>(std::countr_zero(left));
    const Duration::rep freed_at = freed_at_[index].load(std::memory_order_relaxed);
    if (now.time_since_epoch().count() - freed_at < kDiscardAfter.count()) {
      later = true;
      continue;
    }
    // It is ours while its contents go.
    const std::uint64_t bit = std::uint64_t{1} << index;
    if ((free_.fetch_and(~bit, std::memory_order_acq_rel) & bit) == 0) continue;
    discard_(chunk(index), kChunkBytes);
    used_.fetch_and(~bit, std::memory_order_relaxed);
    free_.fetch_or(bit, std::memory_order_acq_rel);
  }
  return later;
}

std::byte* BufferArena::claim_reserve() noexcept {
  for (std::size_t word = 0; word < free_reserves_.size(); ++word) {
    std::uint64_t free = free_reserves_[word].load(std::memory_order_relaxed);
    while (free != 0) {
      const auto index = static_cast<std::size_t>(std::countr_zero(free));
      if (free_reserves_[word].compare_exchange_weak(
              free, free & (free - 1), std::memory_order_acq_rel, std::memory_order_relaxed)) {
        return memory_.get() + (word * 64 + index) * kReserveBytes;
      }
    }
  }
  return nullptr;
}

void BufferArena::give_back_reserve(std::byte* reserve, bool was_used) noexcept {
  if (was_used && discard_ != nullptr) discard_(reserve, kReserveBytes);
  const auto index = static_cast<std::size_t>(reserve - memory_.get()) / kReserveBytes;
  free_reserves_[index / 64].fetch_or(std::uint64_t{1} << (index % 64), std::memory_order_acq_rel);
}

std::size_t BufferArena::free_chunks() const noexcept {
  return static_cast<std::size_t>(std::popcount(free_.load(std::memory_order_relaxed)));
}

BufferPool::BufferPool(BufferArena& arena, transport::Loop& loop)
    : arena_(arena),
      loop_(loop),
      retry_(loop.timers(), [this] { retry(); }),
      discard_(loop.timers(), [this] { discard_idle(); }) {}

BufferPool::~BufferPool() {
  NVMF_CHECK(used_pages_ == 0 && first_ == nullptr);
}

void BufferPool::stop() {
  NVMF_CHECK(used_pages_ == 0 && first_ == nullptr);
  retry_.cancel();
  discard_.cancel();
}

std::size_t BufferPool::free_bytes() const {
  const auto held = static_cast<std::size_t>(std::popcount(held_));
  return arena_.free_chunks() * BufferArena::kChunkBytes +
         (held * kPages - used_pages_) * kPageBytes;
}

Buffer BufferPool::take(std::size_t want, std::size_t least) noexcept {
  NVMF_CHECK(least > 0 && least <= want && want <= BufferArena::kChunkBytes);
  const std::size_t pages = pages_of(want);
  std::size_t longest_chunk = 0;
  Run longest;
  for (std::uint64_t left = held_; left != 0; left &= left - 1) {
    const auto chunk = static_cast<std::size_t>(std::countr_zero(left));
    const Run run = find_run(pages_[chunk], pages);
    if (run.pages >= pages) return take_pages(chunk, {run.first, pages});
    if (run.pages > longest.pages) {
      longest = run;
      longest_chunk = chunk;
    }
  }
  const std::size_t chunk = arena_.claim();
  if (chunk != BufferArena::kNone) {
    held_ |= std::uint64_t{1} << chunk;
    return take_pages(chunk, {0, pages});
  }
  if (longest.pages < pages_of(least)) return {};
  return take_pages(longest_chunk, longest);
}

Buffer BufferPool::take_pages(std::size_t chunk, Run run) noexcept {
  mark(pages_[chunk], run.first, run.pages, true);
  used_pages_ += run.pages;
  return {arena_.chunk(chunk) + run.first * kPageBytes,
          static_cast<std::uint32_t>(run.pages * kPageBytes)};
}

void BufferPool::put(Buffer buffer) noexcept {
  const std::size_t pages = pages_of(buffer.bytes);
  NVMF_CHECK(used_pages_ >= pages);
  used_pages_ -= pages;
  const std::size_t chunk = arena_.index_of(buffer.data);
  PageMap& used = pages_[chunk];
  mark(used, static_cast<std::size_t>(buffer.data - arena_.chunk(chunk)) / kPageBytes, pages,
       false);
  // An idle pool holds nothing: what it kept would be missing elsewhere.
  if (!std::ranges::all_of(used, [](std::uint64_t word) { return word == 0; })) return;
  held_ &= ~(std::uint64_t{1} << chunk);
  arena_.give_back(chunk, loop_.now());
  if (arena_.discards() && !discard_.armed()) discard_.arm(loop_.now() + kDiscardAfter);
}

BufferPool::Run BufferPool::find_run(const PageMap& used, std::size_t enough) {
  Run longest;
  std::size_t run = 0;
  std::size_t page = 0;
  while (page < kPages) {
    const std::size_t bits_left = 64 - page % 64;
    const std::uint64_t word = used[page / 64] >> (page % 64);
    const std::size_t zeroes =
        std::min(static_cast<std::size_t>(std::countr_zero(word)), bits_left);
    run += zeroes;
    page += zeroes;
    if (run > longest.pages) longest = {page - run, run};
    if (run >= enough) return longest;
    if (zeroes < bits_left) {
      page += static_cast<std::size_t>(std::countr_one(word >> zeroes));
      run = 0;
    }
  }
  return longest;
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
  if (!retry_.armed()) retry_.arm(loop_.now() + retry_after_);
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
  retry_after_ = kBufferRetry;
  tell_waiters();
}

void BufferPool::retry() {
  retry_after_ = std::min(2 * retry_after_, kBufferRetryMax);
  tell_waiters();
}

void BufferPool::tell_waiters() {
  // Each once: whoever is told and still finds nothing waits again, at the end of the line.
  for (std::size_t left = waiters_; left > 0 && first_ != nullptr; --left) {
    BufferWaiter* const waiter = first_;
    stop_waiting(*waiter);
    waiter->on_buffers();
  }
}

void BufferPool::discard_idle() {
  if (arena_.discard_idle(loop_.now())) discard_.arm(loop_.now() + kDiscardAfter);
}

BufferReserve::~BufferReserve() {
  if (memory_ == nullptr) return;
  NVMF_CHECK(pages_ == 0);
  arena_->give_back_reserve(memory_, was_used_);
}

void BufferReserve::open(BufferArena& arena) {
  arena_ = &arena;
  memory_ = arena.claim_reserve();
}

Buffer BufferReserve::take(std::size_t bytes) noexcept {
  const std::size_t pages = pages_of(bytes);
  if (memory_ == nullptr || pages > kReservePages) return {};
  for (std::size_t first = 0; first + pages <= kReservePages; ++first) {
    const std::uint32_t bits = ((1u << pages) - 1) << first;
    if ((pages_ & bits) != 0) continue;
    pages_ |= bits;
    was_used_ = true;
    return {memory_ + first * BufferArena::kPageBytes,
            static_cast<std::uint32_t>(pages * BufferArena::kPageBytes)};
  }
  return {};
}

void BufferReserve::put(Buffer buffer) noexcept {
  const std::size_t first =
      static_cast<std::size_t>(buffer.data - memory_) / BufferArena::kPageBytes;
  const std::uint32_t bits = ((1u << pages_of(buffer.bytes)) - 1) << first;
  NVMF_CHECK((pages_ & bits) == bits);
  pages_ &= ~bits;
}

std::size_t BufferReserve::used_bytes() const {
  return static_cast<std::size_t>(std::popcount(pages_)) * BufferArena::kPageBytes;
}

}  // namespace nvmf::nbd
