// NBD on the wire, as values: fixed newstyle negotiation and transmission, as the
// NetworkBlockDevice project's doc/proto.md defines them. Everything is big-endian.
//
// encode() writes exactly kBytes; decode() reads exactly kBytes, which the caller has checked to be
// there, and returns nothing when the magic is wrong. Nothing here allocates.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>

#include "nvme/endian.h"

namespace nvmf::nbd {

inline constexpr std::uint64_t kInitMagic = 0x4e42444d41474943;    // "NBDMAGIC"
inline constexpr std::uint64_t kOptionMagic = 0x49484156454f5054;  // "IHAVEOPT"
inline constexpr std::uint64_t kOptionReplyMagic = 0x0003e889045565a9;
inline constexpr std::uint32_t kRequestMagic = 0x25609513;
inline constexpr std::uint32_t kSimpleReplyMagic = 0x67446698;
inline constexpr std::uint32_t kChunkMagic = 0x668e33ef;
inline constexpr std::uint32_t kExtendedRequestMagic = 0x21e41c71;
inline constexpr std::uint32_t kExtendedChunkMagic = 0x6e8a278c;

// Handshake flags; the client's have the same values.
inline constexpr std::uint16_t kFixedNewstyle = 1 << 0;
inline constexpr std::uint16_t kNoZeroes = 1 << 1;

// Transmission flags.
inline constexpr std::uint16_t kHasFlags = 1 << 0;
inline constexpr std::uint16_t kReadOnly = 1 << 1;
inline constexpr std::uint16_t kSendFlush = 1 << 2;
inline constexpr std::uint16_t kSendFua = 1 << 3;
inline constexpr std::uint16_t kSendTrim = 1 << 5;
inline constexpr std::uint16_t kSendWriteZeroes = 1 << 6;
inline constexpr std::uint16_t kSendDf = 1 << 7;
inline constexpr std::uint16_t kCanMultiConn = 1 << 8;
inline constexpr std::uint16_t kSendCache = 1 << 10;
inline constexpr std::uint16_t kSendFastZero = 1 << 11;
inline constexpr std::uint16_t kBlockStatusPayload = 1 << 12;

enum class Option : std::uint32_t {
  export_name = 1,
  abort = 2,
  list = 3,
  starttls = 5,
  info = 6,
  go = 7,
  structured_reply = 8,
  list_meta_context = 9,
  set_meta_context = 10,
  extended_headers = 11,
};

enum class OptionReplyType : std::uint32_t {
  ack = 1,
  server = 2,
  info = 3,
  meta_context = 4,
  err_unsup = 0x80000001,
  err_policy = 0x80000002,
  err_invalid = 0x80000003,
  err_unknown = 0x80000006,
  err_shutdown = 0x80000007,
  err_too_big = 0x80000009,
  err_ext_header_reqd = 0x8000000a,
};

enum class InfoType : std::uint16_t { export_ = 0, name = 1, description = 2, block_size = 3 };

enum class Command : std::uint16_t {
  read = 0,
  write = 1,
  disconnect = 2,
  flush = 3,
  trim = 4,
  cache = 5,
  write_zeroes = 6,
  block_status = 7,
};

// Command flags.
inline constexpr std::uint16_t kFua = 1 << 0;
inline constexpr std::uint16_t kNoHole = 1 << 1;
inline constexpr std::uint16_t kDf = 1 << 2;
inline constexpr std::uint16_t kReqOne = 1 << 3;
inline constexpr std::uint16_t kFastZero = 1 << 4;
inline constexpr std::uint16_t kPayloadLen = 1 << 5;  // with extended headers only

enum class ChunkType : std::uint16_t {
  none = 0,
  offset_data = 1,
  block_status = 5,
  block_status_ext = 6,
  error = 0x8001,
  error_offset = 0x8002,
};
inline constexpr std::uint16_t kChunkDone = 1 << 0;

/// The one metadata context, and the flags of its extents.
inline constexpr std::string_view kAllocationNamespace = "base:";
inline constexpr std::string_view kAllocationContext = "base:allocation";
inline constexpr std::uint32_t kAllocationContextId = 1;
inline constexpr std::uint32_t kStateHole = 1 << 0;
inline constexpr std::uint32_t kStateZero = 1 << 1;

/// The error values that may go over the wire; the numbers are NBD's, not the host's errno.
enum class WireError : std::uint32_t {
  ok = 0,
  eperm = 1,
  eio = 5,
  enomem = 12,
  einval = 22,
  enospc = 28,
  eoverflow = 75,
  enotsup = 95,
  eshutdown = 108,
};

/// What a client may be told of an errno of ours. What NBD has no value for becomes EIO.
[[nodiscard]] WireError wire_error(int error);

/// The server's first words.
struct Greeting {
  static constexpr std::size_t kBytes = 18;
  std::uint16_t flags = kFixedNewstyle | kNoZeroes;

  void encode(std::byte* p) const {
    store_be64(p, kInitMagic);
    store_be64(p + 8, kOptionMagic);
    store_be16(p + 16, flags);
  }
  static std::optional<Greeting> decode(const std::byte* p) {
    if (load_be64(p) != kInitMagic || load_be64(p + 8) != kOptionMagic) return std::nullopt;
    return Greeting{load_be16(p + 16)};
  }
};

/// The client's answer to it: 32 bits of flags, without a magic.
inline constexpr std::size_t kClientFlagsBytes = 4;

/// `length` bytes of data follow.
struct OptionHeader {
  static constexpr std::size_t kBytes = 16;
  Option option{};
  std::uint32_t length = 0;

  void encode(std::byte* p) const {
    store_be64(p, kOptionMagic);
    store_be32(p + 8, static_cast<std::uint32_t>(option));
    store_be32(p + 12, length);
  }
  static std::optional<OptionHeader> decode(const std::byte* p) {
    if (load_be64(p) != kOptionMagic) return std::nullopt;
    return OptionHeader{static_cast<Option>(load_be32(p + 8)), load_be32(p + 12)};
  }
};

/// `length` bytes of data follow; for an error they are a message for people.
struct OptionReplyHeader {
  static constexpr std::size_t kBytes = 20;
  Option option{};
  OptionReplyType type{};
  std::uint32_t length = 0;

  void encode(std::byte* p) const {
    store_be64(p, kOptionReplyMagic);
    store_be32(p + 8, static_cast<std::uint32_t>(option));
    store_be32(p + 12, static_cast<std::uint32_t>(type));
    store_be32(p + 16, length);
  }
  static std::optional<OptionReplyHeader> decode(const std::byte* p) {
    if (load_be64(p) != kOptionReplyMagic) return std::nullopt;
    return OptionReplyHeader{static_cast<Option>(load_be32(p + 8)),
                             static_cast<OptionReplyType>(load_be32(p + 12)), load_be32(p + 16)};
  }
};

/// The data of INFO and GO. `name` and the requests point into what was decoded.
struct InfoQuery {
  std::string_view name;
  std::span<const std::byte> requests;  // 16 bits each

  [[nodiscard]] bool wants(InfoType type) const {
    for (std::size_t i = 0; i + 2 <= requests.size(); i += 2) {
      if (load_be16(requests.data() + i) == static_cast<std::uint16_t>(type)) return true;
    }
    return false;
  }
  /// Nothing if the lengths inside do not add up to `data` exactly.
  static std::optional<InfoQuery> decode(std::span<const std::byte> data);
};

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT. `name` points into what was decoded.
struct ContextQuery {
  std::string_view name;
  std::uint32_t queries = 0;
  bool all_of_namespace = false;  // one of them is kAllocationNamespace
  bool allocation = false;        // one of them is kAllocationContext

  /// Nothing if the lengths inside do not add up to `data` exactly.
  static std::optional<ContextQuery> decode(std::span<const std::byte> data);
};

/// Information items of INFO and GO, each the data of an OptionReplyType::info.
struct InfoExport {
  static constexpr std::size_t kBytes = 12;
  std::uint64_t size_bytes = 0;
  std::uint16_t flags = 0;

  void encode(std::byte* p) const {
    store_be16(p, static_cast<std::uint16_t>(InfoType::export_));
    store_be64(p + 2, size_bytes);
    store_be16(p + 10, flags);
  }
};

struct InfoBlockSize {
  static constexpr std::size_t kBytes = 14;
  std::uint32_t minimum = 1;
  std::uint32_t preferred = 4096;
  std::uint32_t maximum = 0;

  void encode(std::byte* p) const {
    store_be16(p, static_cast<std::uint16_t>(InfoType::block_size));
    store_be32(p + 2, minimum);
    store_be32(p + 6, preferred);
    store_be32(p + 10, maximum);
  }
};

/// The answer to EXPORT_NAME, followed by kExportReplyZeroes bytes unless both sides said
/// NO_ZEROES.
struct ExportReply {
  static constexpr std::size_t kBytes = 10;
  std::uint64_t size_bytes = 0;
  std::uint16_t flags = 0;

  void encode(std::byte* p) const {
    store_be64(p, size_bytes);
    store_be16(p + 8, flags);
  }
};
inline constexpr std::size_t kExportReplyZeroes = 124;

/// A request; `length` bytes of data follow a WRITE and, with extended headers, whatever has
/// kPayloadLen.
struct RequestHeader {
  static constexpr std::size_t kBytes = 28;
  static constexpr std::size_t kExtendedBytes = 32;  // where extended headers were agreed on
  std::uint16_t flags = 0;
  Command command{};
  std::uint64_t cookie = 0;  // the client's own, repeated in the reply
  std::uint64_t offset = 0;
  std::uint64_t length = 0;  // 32 bits unless extended

  void encode(std::byte* p) const {
    store_be32(p, kRequestMagic);
    store_be16(p + 4, flags);
    store_be16(p + 6, static_cast<std::uint16_t>(command));
    store_be64(p + 8, cookie);
    store_be64(p + 16, offset);
    store_be32(p + 24, static_cast<std::uint32_t>(length));
  }
  void encode_extended(std::byte* p) const {
    encode(p);
    store_be32(p, kExtendedRequestMagic);
    store_be64(p + 24, length);
  }
  static std::optional<RequestHeader> decode(const std::byte* p) {
    if (load_be32(p) != kRequestMagic) return std::nullopt;
    return RequestHeader{load_be16(p + 4), static_cast<Command>(load_be16(p + 6)), load_be64(p + 8),
                         load_be64(p + 16), load_be32(p + 24)};
  }
  static std::optional<RequestHeader> decode_extended(const std::byte* p) {
    if (load_be32(p) != kExtendedRequestMagic) return std::nullopt;
    return RequestHeader{load_be16(p + 4), static_cast<Command>(load_be16(p + 6)), load_be64(p + 8),
                         load_be64(p + 16), load_be64(p + 24)};
  }
  [[nodiscard]] bool has_payload(bool extended) const {
    return extended ? (flags & kPayloadLen) != 0 && length != 0 : command == Command::write;
  }
};

/// The reply to a READ without error is followed by its data, when replies are not structured.
struct SimpleReply {
  static constexpr std::size_t kBytes = 16;
  WireError error{};
  std::uint64_t cookie = 0;

  void encode(std::byte* p) const {
    store_be32(p, kSimpleReplyMagic);
    store_be32(p + 4, static_cast<std::uint32_t>(error));
    store_be64(p + 8, cookie);
  }
  static std::optional<SimpleReply> decode(const std::byte* p) {
    if (load_be32(p) != kSimpleReplyMagic) return std::nullopt;
    return SimpleReply{static_cast<WireError>(load_be32(p + 4)), load_be64(p + 8)};
  }
};

/// One chunk of a structured reply; `length` bytes of payload follow. The last has kChunkDone.
struct ChunkHeader {
  static constexpr std::size_t kBytes = 20;
  std::uint16_t flags = kChunkDone;
  ChunkType type{};
  std::uint64_t cookie = 0;
  std::uint32_t length = 0;

  void encode(std::byte* p) const {
    store_be32(p, kChunkMagic);
    store_be16(p + 4, flags);
    store_be16(p + 6, static_cast<std::uint16_t>(type));
    store_be64(p + 8, cookie);
    store_be32(p + 16, length);
  }
  static std::optional<ChunkHeader> decode(const std::byte* p) {
    if (load_be32(p) != kChunkMagic) return std::nullopt;
    return ChunkHeader{load_be16(p + 4), static_cast<ChunkType>(load_be16(p + 6)), load_be64(p + 8),
                       load_be32(p + 16)};
  }
};

/// The same with extended headers. `offset` is the request's.
struct ExtendedChunkHeader {
  static constexpr std::size_t kBytes = 32;
  std::uint16_t flags = kChunkDone;
  ChunkType type{};
  std::uint64_t cookie = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;

  void encode(std::byte* p) const {
    store_be32(p, kExtendedChunkMagic);
    store_be16(p + 4, flags);
    store_be16(p + 6, static_cast<std::uint16_t>(type));
    store_be64(p + 8, cookie);
    store_be64(p + 16, offset);
    store_be64(p + 24, length);
  }
  static std::optional<ExtendedChunkHeader> decode(const std::byte* p) {
    if (load_be32(p) != kExtendedChunkMagic) return std::nullopt;
    return ExtendedChunkHeader{load_be16(p + 4), static_cast<ChunkType>(load_be16(p + 6)),
                               load_be64(p + 8), load_be64(p + 16), load_be64(p + 24)};
  }
};

/// The payload of a BLOCK_STATUS with kPayloadLen: the contexts that it is about.
struct StatusPayload {
  static constexpr std::size_t kContextBytes = 4;
  static constexpr std::size_t kLeastBytes = 8;
  std::uint64_t length = 0;  // of the range
  std::uint32_t contexts = 0;
  bool known = true;  // each of them is kAllocationContextId, and none is there twice

  /// Nothing if its own length cannot be.
  static std::optional<StatusPayload> decode(std::span<const std::byte> data);
};

/// The longest reply without data: a chunk header, an error, its message and its offset.
inline constexpr std::size_t kChunkOffsetBytes = 8;
inline constexpr std::size_t kChunkErrorBytes = 6;

/// Which request a chunk answers, and with which header.
struct ChunkOf {
  // Also from a cookie alone: most replies are compact.
  ChunkOf(std::uint64_t cookie_) : cookie(cookie_) {}  // NOLINT(google-explicit-constructor)
  ChunkOf(const RequestHeader& request, bool extended_)
      : cookie(request.cookie), offset(request.offset), extended(extended_) {}
  std::uint64_t cookie;
  std::uint64_t offset = 0;
  bool extended = false;
};
/// Either header; returns its length.
std::size_t encode_chunk_header(std::byte* p, const ChunkOf& of, ChunkType type,
                                std::uint64_t payload_bytes, bool done);

/// Each writes one whole reply without its data to `p` and returns its length in bytes.
std::size_t encode_simple(std::byte* p, std::uint64_t cookie, WireError error);
/// The head of an OFFSET_DATA chunk; `length` bytes of data are to follow it. With length 0, which
/// that chunk may not have, the NONE chunk. `done`: it is the reply's last (NONE always is).
std::size_t encode_read_chunk(std::byte* p, const ChunkOf& of, std::uint64_t offset,
                              std::uint32_t length, bool done = true);
/// ERROR, or ERROR_OFFSET when `offset` is given. The message is cut at kErrorMessageBytesMax.
std::size_t encode_error_chunk(std::byte* p, const ChunkOf& of, WireError error,
                               std::string_view message, std::optional<std::uint64_t> offset,
                               bool done = true);
/// The head of BLOCK_STATUS, or BLOCK_STATUS_EXT with extended headers: so many descriptors of
/// status_descriptor_bytes() are to follow it, at least one.
std::size_t encode_status_chunk(std::byte* p, const ChunkOf& of, std::uint32_t context,
                                std::uint32_t descriptors);
[[nodiscard]] constexpr std::size_t status_descriptor_bytes(bool extended) {
  return extended ? 16 : 8;
}
/// `length` has 32 bits unless extended.
void encode_status_descriptor(std::byte* p, bool extended, std::uint64_t length,
                              std::uint32_t flags);

}  // namespace nvmf::nbd
