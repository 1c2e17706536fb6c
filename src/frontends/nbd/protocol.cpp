#include "frontends/nbd/protocol.h"

#include <algorithm>
#include <cerrno>

#include "frontends/nbd/limits.h"

namespace nvmf::nbd {

WireError wire_error(int error) {
  switch (error) {
    case 0:
      return WireError::ok;
    case EPERM:
    case EACCES:
    case EROFS:
      return WireError::eperm;
    case ENOMEM:
      return WireError::enomem;
    case EINVAL:
      return WireError::einval;
    case ENOSPC:
    case EFBIG:
    case EDQUOT:
      return WireError::enospc;
    case EOVERFLOW:
      return WireError::eoverflow;
    case EOPNOTSUPP:
      return WireError::enotsup;
    case ESHUTDOWN:
      return WireError::eshutdown;
    default:
      return WireError::eio;
  }
}

std::optional<InfoQuery> InfoQuery::decode(std::span<const std::byte> data) {
  if (data.size() < 6) return std::nullopt;
  const std::size_t name_bytes = load_be32(data.data());
  if (name_bytes > data.size() - 6) return std::nullopt;
  const std::byte* after = data.data() + 4 + name_bytes;
  const std::size_t request_bytes = std::size_t{load_be16(after)} * 2;
  if (data.size() != 6 + name_bytes + request_bytes) return std::nullopt;
  return InfoQuery{{reinterpret_cast<const char*>(data.data() + 4), name_bytes},
                   {after + 2, request_bytes}};
}

std::optional<ContextQuery> ContextQuery::decode(std::span<const std::byte> data) {
  const auto take = [&data](std::size_t bytes) {
    const std::span<const std::byte> front = data.subspan(0, bytes);
    data = data.subspan(bytes);
    return front;
  };
  if (data.size() < 4) return std::nullopt;
  const std::size_t name_bytes = load_be32(take(4).data());
  if (name_bytes > data.size()) return std::nullopt;
  const std::span<const std::byte> name = take(name_bytes);
  if (data.size() < 4) return std::nullopt;
  const std::uint32_t queries = load_be32(take(4).data());
  // Each has a length of four bytes at least: the loop is bounded by the data, not by the number.
  ContextQuery query{{reinterpret_cast<const char*>(name.data()), name_bytes}, queries};
  for (std::uint32_t i = 0; i < queries; ++i) {
    if (data.size() < 4) return std::nullopt;
    const std::size_t bytes = load_be32(take(4).data());
    if (bytes > data.size()) return std::nullopt;
    const std::string_view one(reinterpret_cast<const char*>(take(bytes).data()), bytes);
    query.all_of_namespace = query.all_of_namespace || one == kAllocationNamespace;
    query.allocation = query.allocation || one == kAllocationContext;
  }
  if (!data.empty()) return std::nullopt;
  return query;
}

std::optional<StatusPayload> StatusPayload::decode(std::span<const std::byte> data) {
  if (data.size() < kLeastBytes || data.size() % kContextBytes != 0) return std::nullopt;
  StatusPayload payload{.length = load_be64(data.data())};
  for (std::size_t at = kLeastBytes; at < data.size(); at += kContextBytes) {
    ++payload.contexts;
    if (load_be32(data.data() + at) != kAllocationContextId) payload.known = false;
  }
  payload.known = payload.known && payload.contexts <= 1;
  return payload;
}

std::size_t encode_chunk_header(std::byte* p, const ChunkOf& of, ChunkType type,
                                std::uint64_t payload_bytes, bool done) {
  const std::uint16_t flags = done ? kChunkDone : std::uint16_t{0};
  if (of.extended) {
    ExtendedChunkHeader{flags, type, of.cookie, of.offset, payload_bytes}.encode(p);
    return ExtendedChunkHeader::kBytes;
  }
  ChunkHeader{flags, type, of.cookie, static_cast<std::uint32_t>(payload_bytes)}.encode(p);
  return ChunkHeader::kBytes;
}

std::size_t encode_simple(std::byte* p, std::uint64_t cookie, WireError error) {
  SimpleReply{error, cookie}.encode(p);
  return SimpleReply::kBytes;
}

std::size_t encode_read_chunk(std::byte* p, const ChunkOf& of, std::uint64_t offset,
                              std::uint32_t length, bool done) {
  if (length == 0) return encode_chunk_header(p, of, ChunkType::none, 0, true);
  const std::size_t head = encode_chunk_header(p, of, ChunkType::offset_data,
                                               std::uint64_t{kChunkOffsetBytes} + length, done);
  store_be64(p + head, offset);
  return head + kChunkOffsetBytes;
}

std::size_t encode_error_chunk(std::byte* p, const ChunkOf& of, WireError error,
                               std::string_view message, std::optional<std::uint64_t> offset,
                               bool done) {
  message = message.substr(0, kErrorMessageBytesMax);
  const std::size_t payload = kChunkErrorBytes + message.size() + (offset ? kChunkOffsetBytes : 0);
  const std::size_t head = encode_chunk_header(
      p, of, offset ? ChunkType::error_offset : ChunkType::error, payload, done);
  p += head;
  store_be32(p, static_cast<std::uint32_t>(error));
  store_be16(p + 4, static_cast<std::uint16_t>(message.size()));
  std::memcpy(p + kChunkErrorBytes, message.data(), message.size());
  if (offset) store_be64(p + kChunkErrorBytes + message.size(), *offset);
  return head + payload;
}

std::size_t encode_status_chunk(std::byte* p, const ChunkOf& of, std::uint32_t context,
                                std::uint32_t descriptors) {
  const std::size_t fields = of.extended ? 8 : 4;
  const std::size_t payload = fields + descriptors * status_descriptor_bytes(of.extended);
  const std::size_t head = encode_chunk_header(
      p, of, of.extended ? ChunkType::block_status_ext : ChunkType::block_status, payload, true);
  store_be32(p + head, context);
  if (of.extended) store_be32(p + head + 4, descriptors);
  return head + fields;
}

void encode_status_descriptor(std::byte* p, bool extended, std::uint64_t length,
                              std::uint32_t flags) {
  if (extended) {
    store_be64(p, length);
    store_be64(p + 8, flags);
  } else {
    store_be32(p, static_cast<std::uint32_t>(length));
    store_be32(p + 4, flags);
  }
}

}  // namespace nvmf::nbd
