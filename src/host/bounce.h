// Byte ranges that are not whole blocks: how they lie on blocks, and the memory for the block at
// each end. Whole blocks in between travel straight between the caller's memory and the network.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "host/block_device.h"
#include "host/range_holds.h"

namespace nvmf::host {

/// Unaligned reads that a device serves at once; more wait. They have slots of their own, so that
/// none waits for a write that waits for its range.
inline constexpr std::size_t kUnalignedReads = 8;

/// The blocks that a byte range touches. The first and the last one may be covered in part: "head"
/// and "tail". A range within one block has only a head, or only a tail.
struct BlockCover {
  std::uint64_t first = 0;  // LBAs, [first, end)
  std::uint64_t end = 0;
  std::uint64_t whole_first = 0;  // those covered in full, [whole_first, whole_end)
  std::uint64_t whole_end = 0;

  /// `length_bytes` at least 1.
  static BlockCover of(std::uint64_t offset_bytes, std::uint64_t length_bytes, unsigned shift);
  [[nodiscard]] bool head() const { return whole_first != first; }
  [[nodiscard]] bool tail() const { return whole_end != end; }
  [[nodiscard]] std::uint64_t whole() const { return whole_end - whole_first; }
  [[nodiscard]] ByteRange bytes(unsigned shift) const { return {first << shift, end << shift}; }
  friend bool operator==(const BlockCover&, const BlockCover&) = default;
};

/// A fixed number of slots with two blocks of memory each: the head's, then the tail's. All of it
/// is allocated when it is made (and, as nothing touches it, used by nobody until it is needed).
class BounceSlots {
 public:
  BounceSlots(std::size_t slots, unsigned block_shift);

  /// A free slot for the request, or kNoSlot.
  std::uint8_t take(BlockRequest& request);
  void put(std::uint8_t slot);
  /// It belongs to nobody any more and is not given out again before regain().
  void lose(std::uint8_t slot);
  /// False if it was not lost.
  bool regain(std::uint8_t slot);
  [[nodiscard]] std::size_t size() const { return requests_.size(); }
  /// Who has it; nullptr if nobody has.
  [[nodiscard]] BlockRequest* request(std::size_t slot) const { return requests_[slot]; }
  [[nodiscard]] std::byte* head(std::size_t slot) const;
  [[nodiscard]] std::byte* tail(std::size_t slot) const;

  /// Copies the parts of the request's data that lie in head and tail there, or from there.
  void copy_in(const BlockRequest& request, const BlockCover& cover) const;
  void copy_out(const BlockRequest& request, const BlockCover& cover) const;
  void zero(const BlockRequest& request, const BlockCover& cover) const;

  /// Requests for which there was no slot.
  RequestList waiting;

 private:
  template <class Each>
  void for_each_end(const BlockRequest& request, const BlockCover& cover, Each each) const;

  unsigned shift_;
  std::vector<BlockRequest*> requests_;
  std::vector<bool> lost_;
  std::unique_ptr<std::byte[]> memory_;
};

}  // namespace nvmf::host
