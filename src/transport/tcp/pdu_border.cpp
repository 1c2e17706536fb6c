#include "transport/tcp/pdu_border.h"

#include "transport/limits.h"
#include "transport/tcp/pdu.h"

namespace nvmf::tcp {

namespace {

struct Shape {
  PduType type;
  std::uint8_t flags;
  std::size_t hlen;
  bool data;
};
/// NVMe/TCP 1.0 §3.6.2; what opens a connection or ends it is not looked for.
constexpr Shape kShapes[] = {
    {PduType::capsule_cmd, kFlagHdgst | kFlagDdgst, kCapsuleCmdBytes, true},
    {PduType::capsule_resp, kFlagHdgst, kCapsuleRespBytes, false},
    {PduType::h2c_data, kFlagHdgst | kFlagDdgst | kFlagLast, kDataHeaderBytes, true},
    {PduType::c2h_data, kFlagHdgst | kFlagDdgst | kFlagLast | kFlagSuccess, kDataHeaderBytes, true},
    {PduType::r2t, kFlagHdgst, kR2tBytes, false}};

bool plausible(const CommonHeader& h) {
  for (const Shape& shape : kShapes) {
    if (h.type != shape.type) continue;
    const std::size_t digest = (h.flags & kFlagHdgst) != 0 ? kDigestBytes : 0;
    const std::size_t least = shape.hlen + digest;
    if ((h.flags & ~shape.flags) != 0 || h.hlen != shape.hlen) return false;
    if (h.plen == least) return h.pdo == 0;
    return shape.data && h.plen > least && h.pdo >= least && h.pdo < h.plen &&
           h.plen - h.pdo <= transport::kCommandBytesMax + kDigestBytes;
  }
  return false;
}

}  // namespace

bool begins_with_pdu(std::span<const std::byte> bytes) {
  if (bytes.size() < kCommonHeaderBytes) return false;
  const CommonHeader first = CommonHeader::decode(bytes.data());
  if (!plausible(first)) return false;
  if (bytes.size() < first.plen + kCommonHeaderBytes) return true;
  return plausible(CommonHeader::decode(bytes.data() + first.plen));
}

std::size_t first_pdus_bytes(std::span<const std::byte> bytes) {
  std::size_t done = 0;
  for (int i = 0; i < 2 && bytes.size() - done >= kCommonHeaderBytes; ++i) {
    const CommonHeader h = CommonHeader::decode(bytes.data() + done);
    if (h.plen < kCommonHeaderBytes || h.plen > bytes.size() - done) break;
    done += h.plen;
  }
  return done;
}

}  // namespace nvmf::tcp
