#include "transport/tcp/pdu_sender.h"

#include <algorithm>
#include <cstring>

#include "nvme/endian.h"
#include "transport/tcp/pdu_validate.h"

namespace nvmf::tcp {

PduSender::PduSender()
    : segments_(std::make_unique<Segment[]>(kSegments)),
      ring_(std::make_unique_for_overwrite<std::byte[]>(kRingBytes)) {}

bool PduSender::room() const {
  return kSegments - count_ >= kPduSegments && kRingBytes - ring_used_ >= kPduRingBytes;
}

/// Takes contiguous bytes; what is left at the ring's end is skipped and counted as taken.
std::byte* PduSender::ring_take(std::uint32_t bytes, std::uint32_t& taken) {
  taken = bytes;
  if (kRingBytes - ring_next_ < bytes) {
    taken += kRingBytes - ring_next_;
    ring_next_ = 0;
  }
  std::byte* p = ring_.get() + ring_next_;
  ring_next_ = (ring_next_ + bytes) % kRingBytes;
  ring_used_ += taken;
  NVMF_CHECK(ring_used_ <= kRingBytes);
  return p;
}

void PduSender::add(const std::byte* data, std::uint32_t length, std::uint32_t ring_bytes,
                    SendTag tag) {
  NVMF_CHECK(count_ < kSegments && length != 0);
  segments_[(first_ + count_) & (kSegments - 1)] = {data, length, ring_bytes, tag};
  ++count_;
}

void PduSender::push(std::span<const std::byte> header, std::span<const std::byte> payload,
                     const PduFormat& format, SendTag tag) {
  NVMF_CHECK(room() && header.size() <= kHeaderBytesMax);
  const bool data = !payload.empty();
  const bool ddgst = data && format.ddgst;
  const std::size_t head = header.size() + (format.hdgst ? kDigestBytes : 0);
  const std::size_t pdo = data ? pdu_data_offset(header.size(), format.hdgst, format.pda) : head;

  std::uint32_t taken = 0;
  std::byte* p = ring_take(static_cast<std::uint32_t>(pdo), taken);
  std::memcpy(p, header.data(), header.size());
  std::fill(p + header.size(), p + pdo, std::byte{0});
  const auto flags = static_cast<std::uint8_t>(load_u8(p + 1) | (format.hdgst ? kFlagHdgst : 0) |
                                               (ddgst ? kFlagDdgst : 0));
  store_u8(p + 1, flags);
  store_u8(p + 2, static_cast<std::uint8_t>(header.size()));
  store_u8(p + 3, data ? static_cast<std::uint8_t>(pdo) : std::uint8_t{0});
  store_le32(p + 4, static_cast<std::uint32_t>(pdo + payload.size() + (ddgst ? kDigestBytes : 0)));
  if (format.hdgst) store_le32(p + header.size(), crc32c({p, header.size()}));

  add(p, static_cast<std::uint32_t>(pdo), taken, data ? kNoSendTag : tag);
  if (!data) return;
  add(payload.data(), static_cast<std::uint32_t>(payload.size()), 0, ddgst ? kNoSendTag : tag);
  if (!ddgst) return;
  std::byte* d = ring_take(kDigestBytes, taken);
  store_le32(d, crc32c(payload) ^ (format.wrong_ddgst ? 1u : 0u));
  add(d, kDigestBytes, taken, tag);
}

void PduSender::push_raw(std::span<const std::byte> pdu, SendTag tag) {
  NVMF_CHECK(room());
  std::uint32_t taken = 0;
  std::byte* p = ring_take(static_cast<std::uint32_t>(pdu.size()), taken);
  std::memcpy(p, pdu.data(), pdu.size());
  add(p, static_cast<std::uint32_t>(pdu.size()), taken, tag);
}

std::size_t PduSender::send_vectors(std::span<iovec> out) const {
  std::size_t n = 0;
  std::size_t skip = sent_;
  for (std::uint32_t i = 0; i < count_; ++i) {
    const Segment& s = segments_[(first_ + i) & (kSegments - 1)];
    const std::byte* data = s.data + skip;
    const std::size_t length = s.length - skip;
    skip = 0;
    if (n != 0 && static_cast<std::byte*>(out[n - 1].iov_base) + out[n - 1].iov_len == data) {
      out[n - 1].iov_len += length;
      continue;
    }
    if (n == out.size()) break;
    out[n++] = {const_cast<std::byte*>(data), length};
  }
  return n;
}

}  // namespace nvmf::tcp
