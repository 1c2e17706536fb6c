// Writes that were answered and may still be in the controller's volatile write cache: counted per
// namespace since the last good flush.
//
// One object per namespace, shared by its devices. Threads: any, without a lock; a flush covers the
// writes that ended before it was submitted (NVM 1.1 §3.2.2), and that is what mark() remembers.
#pragma once

#include <atomic>
#include <cstdint>

#include "host/policy.h"

namespace nvmf::host {

class UnflushedWrites {
 public:
  explicit UnflushedWrites(Unflushed mode) : mode_(mode) {}

  /// The namespace's controller has a volatile write cache and it is enabled. Without one nothing
  /// more counts; what was counted before stays until it is flushed or lost.
  void set_cache(bool present);
  /// A write, write zeroes or deallocate without FUA ended well. Before its request is completed.
  /// Its mark, from 1 on: the flush that was given this one or a later one covers it; 0 if it does
  /// not count.
  std::uint64_t written();
  [[nodiscard]] bool counts() const { return cache_.load(std::memory_order_relaxed); }
  [[nodiscard]] Unflushed mode() const { return mode_; }
  /// Up to which mark writes are flushed, or given up.
  [[nodiscard]] std::uint64_t flushed_mark() const { return flushed_; }
  /// Writes that were lost could not be written again: the next must_fail() is true.
  void replay_failed() { failure_due_ = true; }
  /// A flush is submitted now; to be given to flushed() if it ends well.
  [[nodiscard]] std::uint64_t mark() const;
  /// Marks may come back in any order, also after lost().
  void flushed(std::uint64_t mark);
  /// Writes since the last good flush.
  [[nodiscard]] std::uint64_t count() const;

  /// The association was lost, and every answer that came from it has been dealt with: a written()
  /// that comes later counts for the next one. How many writes may have gone with it; from then on
  /// they are no longer counted. With Unflushed::fail, and if there were any, the next must_fail()
  /// is true.
  std::uint64_t lost();
  /// Asked at the end of a flush or FUA write that went well: true once after such a loss.
  [[nodiscard]] bool must_fail();

 private:
  /// Raises flushed_ to `mark`; what it was before.
  std::uint64_t raise_flushed(std::uint64_t mark);

  const Unflushed mode_;
  std::atomic<bool> cache_{false};
  std::atomic<std::uint64_t> written_{0};  // since the start
  std::atomic<std::uint64_t> flushed_{0};  // of these: covered by a good flush, or given up
  std::atomic<bool> failure_due_{false};
};

}  // namespace nvmf::host
