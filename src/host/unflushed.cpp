#include "host/unflushed.h"

namespace nvmf::host {

void UnflushedWrites::set_cache(bool present) {
  cache_ = present;
}

std::uint64_t UnflushedWrites::written() {
  return counts() ? ++written_ : 0;
}

std::uint64_t UnflushedWrites::mark() const {
  return written_;
}

void UnflushedWrites::flushed(std::uint64_t mark) {
  raise_flushed(mark);
}

std::uint64_t UnflushedWrites::count() const {
  // In this order: flushed_ never passes what written_ was when it was read later.
  const std::uint64_t flushed = flushed_;
  return written_ - flushed;
}

std::uint64_t UnflushedWrites::lost() {
  const std::uint64_t written = written_;
  const std::uint64_t flushed = raise_flushed(written);
  const std::uint64_t gone = written > flushed ? written - flushed : 0;
  if (gone != 0 && mode_ == Unflushed::fail) failure_due_ = true;
  return gone;
}

bool UnflushedWrites::must_fail() {
  // Looked at first: a write of each flush to a line that all reactors read would be for nothing.
  return failure_due_ && failure_due_.exchange(false);
}

std::uint64_t UnflushedWrites::raise_flushed(std::uint64_t mark) {
  std::uint64_t before = flushed_;
  while (before < mark && !flushed_.compare_exchange_weak(before, mark)) {
  }
  return before;
}

}  // namespace nvmf::host
