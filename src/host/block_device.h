// A namespace as its local faces see it: bytes in, bytes out.
//
// There is one BlockDevice per namespace and reactor; a frontend uses the one of the reactor its
// connection lives on. Everything happens on that reactor's thread. This is all that frontends/
// knows of host/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace nvmf::host {

enum class BlockOp : std::uint8_t { read, write, flush, write_zeroes, deallocate };

/// One request. The caller owns it, and `data`, and leaves both alone from submit() until
/// `complete` is called; then it may reuse both, also inside the callback.
struct BlockRequest {
  BlockOp op = BlockOp::read;
  bool fua = false;        // write, write_zeroes, deallocate: on stable storage when complete
  bool no_hole = false;    // write_zeroes: keep the blocks allocated (no DEAC)
  bool fast_only = false;  // write_zeroes: ENOTSUP rather than slower than writing
  std::uint64_t offset_bytes = 0;
  std::uint64_t length_bytes = 0;  // read and write: at most BlockInfo::transfer_bytes_max
  std::byte* data = nullptr;       // read and write
  void (*complete)(BlockRequest&) = nullptr;

  /// The outcome: 0 or an errno. EINVAL for what is out of range or too long, ENOSPC for a write
  /// past the end, EPERM for a write to a read-only device, ENOTSUP, EIO for everything that went
  /// wrong further away, ECANCELED after abandon(), ESHUTDOWN when the device is gone for good. A
  /// change of data that failed may have been made in part, or in full.
  int error = 0;

  // For the device's own use while the request is under way.
  BlockRequest* next = nullptr;
  BlockRequest* older = nullptr;
  BlockRequest* newer = nullptr;
  std::uint64_t issued_bytes = 0;
  std::uint64_t arrival = 0;
  std::uint32_t parts = 0;
  std::uint8_t stage = 0;
  std::uint8_t whereabouts = 0;
  std::uint8_t slot = 0;
  std::uint8_t fence = 0;
  std::uint8_t loss_fence = 0;
  std::uint8_t tries = 0;
  bool maybe_executed = false;
  bool again = false;
  bool postponed = false;
  bool barrier = false;
  std::int64_t submitted_at_ns = 0;
  std::int64_t waiting_since_ns = 0;
  std::int64_t refused_since_ns = 0;
  std::int64_t retry_at_ns = 0;
  std::uint64_t flush_mark = 0;
};

/// A run of bytes that is all of one kind.
struct Extent {
  std::uint64_t length_bytes = 0;  // not 0
  /// It takes no room and reads as zero. Otherwise nothing is known of it: it is data.
  bool zeroes = false;
  friend bool operator==(const Extent&, const Extent&) = default;
};

/// Asks where there is data. The caller owns it, and `extents`, and leaves both alone from
/// BlockDevice::extents() until there is the answer; then it may reuse both, also inside
/// `complete`.
struct ExtentsRequest {
  std::uint64_t offset_bytes = 0;
  std::uint64_t length_bytes = 0;  // at least 1
  /// Room for the answer: at least one.
  std::span<Extent> extents;
  void (*complete)(ExtentsRequest&) = nullptr;

  /// The answer: so many extents, one after the other from `offset_bytes` on; at least one, and at
  /// most `length_bytes` together. Less than that where it was too much for one answer: ask again
  /// for the rest. Two in a row may be of the same kind.
  std::size_t count = 0;
  /// 0, EINVAL for what is out of range, ESHUTDOWN when the device is gone for good. What cannot be
  /// found out is no error but data.
  int error = 0;

  ExtentsRequest* next = nullptr;  // for the device's own use

  /// All of it is data.
  void answer_data() {
    extents[0] = {length_bytes, false};
    count = 1;
    error = 0;
  }
};

struct BlockInfo {
  std::string name;         // "nvmf0n1"
  std::string description;  // for people: subsystem NQN, NSID, model
  std::uint32_t nsid = 0;
  std::uint64_t size_bytes = 0;
  /// The logical block. Any byte range can be read, written and zeroed; at both ends of one that
  /// is not whole blocks the device reads, changes and writes the block, alone with its range.
  /// A deallocate is rounded inward.
  std::uint32_t block_bytes = 512;
  std::uint32_t preferred_bytes = 4096;  // what is fast: at least block_bytes, a power of two
  std::uint32_t transfer_bytes_max = 32u * 1024 * 1024;  // largest read or write we take (we split)
  bool read_only = false;
  bool flush = true;          // there is a volatile cache, or we cannot know: flush is meaningful
  bool write_zeroes = false;  // the controller has Write Zeroes: it is fast
  bool deallocate = false;    // the controller has Dataset Management
};

class BlockDevice {
 public:
  virtual ~BlockDevice() = default;
  [[nodiscard]] virtual const BlockInfo& info() const = 0;
  /// Takes the request; `complete` follows exactly once, never inside this call. Requests are not
  /// ordered among each other; a flush covers every write completed before it was submitted.
  virtual void submit(BlockRequest& request) = 0;
  /// Whoever wanted this request has gone and will not hear how it ends. To be called between
  /// submit() and `complete`, which still follows, not inside this call; until then the request
  /// and its data stay as they are. From here on, later requests that change data in its range
  /// wait until it has completed, whoever submits them and on whichever reactor (others hear of it
  /// within a turn of theirs): it cannot overwrite what is written next. If nothing of it was sent
  /// yet, it may end with ECANCELED instead. For reads and flushes nothing happens; nor for the
  /// second call.
  virtual void abandon(BlockRequest& /*request*/) {}
  /// Where there is data in a range. True: the answer is there, and `complete` is not called.
  /// False: `complete` follows exactly once, never inside this call; that takes no longer than an
  /// admin command may, whatever the target does. What was written, and completed, before this call
  /// is never said to be zeroes; what is under way meanwhile may be or not.
  virtual bool extents(ExtentsRequest& request) {
    request.answer_data();
    return true;
  }
};

}  // namespace nvmf::host
