#include "frontends/nbd/request.h"

#include <algorithm>

#include "frontends/nbd/limits.h"
#include "nvme/check.h"

namespace nvmf::nbd {
namespace {

// proto.md, "Command flags": which may stand on which command, given what was advertised.
std::uint16_t allowed_flags(Command command, std::uint16_t flags, const Agreed& agreed) {
  // FUA must be accepted on every command once it is advertised.
  std::uint16_t allowed = (flags & kSendFua) != 0 ? kFua : 0;
  if (command == Command::read && (flags & kSendDf) != 0) allowed |= kDf;
  if (command == Command::write_zeroes) {
    allowed |= kNoHole;
    if ((flags & kSendFastZero) != 0) allowed |= kFastZero;
  }
  if (command == Command::write && agreed.extended) allowed |= kPayloadLen;
  if (command == Command::block_status && agreed.allocation) {
    allowed |= kReqOne;
    if ((flags & kBlockStatusPayload) != 0) allowed |= kPayloadLen;
  }
  return allowed;
}

bool writes(Command command) {
  return command == Command::write || command == Command::trim || command == Command::write_zeroes;
}

bool advertised(Command command, std::uint16_t flags, const Agreed& agreed) {
  switch (command) {
    case Command::read:
    case Command::write:
      return true;
    case Command::flush:
      return (flags & kSendFlush) != 0;
    case Command::trim:
      return (flags & kSendTrim) != 0;
    case Command::cache:
      return (flags & kSendCache) != 0;
    case Command::write_zeroes:
      return (flags & kSendWriteZeroes) != 0;
    case Command::block_status:
      return agreed.allocation;
    default:
      return false;
  }
}

Verdict check_range(const RequestHeader& r, std::uint64_t size_bytes) {
  if (r.offset <= size_bytes && r.length <= size_bytes - r.offset) return {};
  const bool fills = r.command == Command::write || r.command == Command::write_zeroes;
  return {fills ? WireError::enospc : WireError::einval,
          "The request reaches past the end of the export",
          r.command == Command::read && r.length > 0};
}

}  // namespace

std::uint16_t transmission_flags(const host::BlockInfo& info, bool structured) {
  // Every session of the process reaches the same namespace and nothing is cached here: a flush on
  // one connection covers the writes of all.
  std::uint16_t flags = kHasFlags | kSendFua | kCanMultiConn | kSendCache;
  if (info.flush) flags |= kSendFlush;
  if (structured) flags |= kSendDf;
  if (info.read_only) return flags | kReadOnly;
  if (info.deallocate) flags |= kSendTrim;
  // Without a command for it the device writes zeroes itself, or says ENOTSUP to those who want
  // it fast: in both cases they need not come through this socket.
  return flags | kSendWriteZeroes | kSendFastZero;
}

InfoBlockSize block_size(const host::BlockInfo& info) {
  // Any range of bytes is served; the device takes care of blocks. The preferred size is a power of
  // two and at least 512, the maximum at least the preferred size, whatever a device says it
  // prefers.
  return {1, std::clamp(std::max(info.preferred_bytes, info.block_bytes), 512u, kPayloadBytesMax),
          kPayloadBytesMax};
}

Verdict check_request(const RequestHeader& r, std::uint16_t flags, const host::BlockInfo& info,
                      std::uint32_t payload_bytes_max, const Agreed& agreed) {
  if (writes(r.command) && info.read_only) {
    return {WireError::eperm, "The export is read-only"};
  }
  if ((r.flags & ~allowed_flags(r.command, flags, agreed)) != 0) {
    return {WireError::einval, "A flag of the request is unknown, or was not negotiated for it"};
  }
  if (!advertised(r.command, flags, agreed)) {
    return {WireError::einval, "The export does not support this command"};
  }
  if (agreed.extended && r.command == Command::write && (r.flags & kPayloadLen) == 0) {
    return {WireError::einval, "With extended headers a write must say that it has a payload"};
  }
  if (r.command == Command::block_status && r.length == 0) {
    return {WireError::einval, "A block status of nothing was asked for"};
  }
  if (r.command == Command::flush) {
    if (r.offset == 0 && r.length == 0) return {};
    return {WireError::einval, "Offset and length of a flush must be zero"};
  }
  const bool payload = r.command == Command::read || r.command == Command::write;
  if (payload && r.length > payload_bytes_max) {
    const bool whole = r.command == Command::read && (r.flags & kDf) != 0;
    return {whole ? WireError::eoverflow : WireError::einval,
            "The request is larger than the maximum block size"};
  }
  return check_range(r, info.size_bytes);
}

host::BlockOp block_op(Command command) {
  switch (command) {
    case Command::read:
      return host::BlockOp::read;
    case Command::write:
      return host::BlockOp::write;
    case Command::flush:
      return host::BlockOp::flush;
    case Command::trim:
      return host::BlockOp::deallocate;
    default:
      NVMF_CHECK(command == Command::write_zeroes);
      return host::BlockOp::write_zeroes;
  }
}

std::string_view device_message(WireError error) {
  switch (error) {
    case WireError::eperm:
      return "The namespace is write-protected";
    case WireError::einval:
      return "The namespace refused the range";
    case WireError::enospc:
      return "The namespace has no room for the range";
    case WireError::enotsup:
      return "The namespace cannot do this faster than writing zeroes";
    case WireError::eshutdown:
      return "The connection to the namespace is closed";
    default:
      return "The namespace reported an error";
  }
}

}  // namespace nvmf::nbd
