// Puts PDUs into the order of the stream and names their bytes for sending.
//
// Headers, padding and digests are built in a ring of ours; payload is sent from its owner's
// buffer. Neighbouring header bytes become one iovec, so that a batch of small capsules is one
// range. All memory is allocated at construction; room() says whether another PDU fits.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "nvme/check.h"
#include "transport/tcp/pdu.h"

namespace nvmf::tcp {

/// Whose send is done: given with push(), handed back when the PDU's last byte has been released.
using SendTag = std::uint32_t;
inline constexpr SendTag kNoSendTag = ~SendTag{0};

struct PduFormat {
  bool hdgst = false;
  bool ddgst = false;
  std::uint8_t pda = 0;      // the peer's: alignment of the data that we send
  bool wrong_ddgst = false;  // the data digest does not fit the data: for tests of the peer
};

class PduSender {
 public:
  PduSender();

  /// Whether push() may be called.
  [[nodiscard]] bool room() const;
  [[nodiscard]] bool empty() const { return count_ == 0; }

  /// Queues one PDU. `header` is its HLEN bytes with type, flags other than the digests', and the
  /// PSH filled in; HLEN, PDO, PLEN and the digest flags are set here. `payload` stays valid and
  /// unchanged until the tag comes back.
  void push(std::span<const std::byte> header, std::span<const std::byte> payload,
            const PduFormat& format, SendTag tag);
  /// Queues bytes as they are (ICReq, ICResp, TermReq).
  void push_raw(std::span<const std::byte> pdu, SendTag tag = kNoSendTag);

  std::size_t send_vectors(std::span<iovec> out) const;

  /// The first `bytes` have been released. `released(tag)` is called for each PDU that is thereby
  /// done; it must not push.
  template <class Released>
  void send_advance(std::size_t bytes, Released&& released) {
    sent_ += bytes;
    while (count_ != 0 && segments_[first_].length <= sent_) {
      const Segment s = segments_[first_];
      sent_ -= s.length;
      first_ = (first_ + 1) & (kSegments - 1);
      --count_;
      ring_used_ -= s.ring_bytes;
      if (s.tag != kNoSendTag) released(s.tag);
    }
    NVMF_CHECK(count_ != 0 || sent_ == 0);
  }

 private:
  // 128 PDUs with payload in the queue are two batches of kStreamVectors iovecs and more than a
  // socket takes at once. A PDU needs at most 3 segments and 128 + 4 + 128 + 4 bytes of the ring.
  static constexpr std::uint32_t kSegments = 512;
  static constexpr std::uint32_t kRingBytes = 64 * 1024;
  static constexpr std::uint32_t kPduSegments = 3;
  static constexpr std::uint32_t kPduRingBytes = 2 * (128 + 4 + 128 + 4);

  struct Segment {
    const std::byte* data = nullptr;
    std::uint32_t length = 0;
    std::uint32_t ring_bytes = 0;  // given back to the ring with this segment
    SendTag tag = kNoSendTag;
  };

  std::byte* ring_take(std::uint32_t bytes, std::uint32_t& taken);
  void add(const std::byte* data, std::uint32_t length, std::uint32_t ring_bytes, SendTag tag);

  std::unique_ptr<Segment[]> segments_;
  std::unique_ptr<std::byte[]> ring_;
  std::uint32_t first_ = 0;
  std::uint32_t count_ = 0;
  std::uint32_t ring_next_ = 0;
  std::uint32_t ring_used_ = 0;
  std::size_t sent_ = 0;  // of the first segment
};

}  // namespace nvmf::tcp
