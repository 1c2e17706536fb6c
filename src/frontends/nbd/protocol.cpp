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
  for (std::uint32_t i = 0; i < queries; ++i) {
    if (data.size() < 4) return std::nullopt;
    const std::size_t bytes = load_be32(take(4).data());
    if (bytes > data.size()) return std::nullopt;
    take(bytes);
  }
  if (!data.empty()) return std::nullopt;
  return ContextQuery{{reinterpret_cast<const char*>(name.data()), name_bytes}, queries};
}

std::size_t encode_simple(std::byte* p, std::uint64_t cookie, WireError error) {
  SimpleReply{error, cookie}.encode(p);
  return SimpleReply::kBytes;
}

std::size_t encode_read_chunk(std::byte* p, std::uint64_t cookie, std::uint64_t offset,
                              std::uint32_t length, bool done) {
  if (length == 0) {
    ChunkHeader{kChunkDone, ChunkType::none, cookie, 0}.encode(p);
    return ChunkHeader::kBytes;
  }
  const auto payload = static_cast<std::uint32_t>(kChunkOffsetBytes + length);
  ChunkHeader{done ? kChunkDone : std::uint16_t{0}, ChunkType::offset_data, cookie, payload}.encode(
      p);
  store_be64(p + ChunkHeader::kBytes, offset);
  return ChunkHeader::kBytes + kChunkOffsetBytes;
}

std::size_t encode_error_chunk(std::byte* p, std::uint64_t cookie, WireError error,
                               std::string_view message, std::optional<std::uint64_t> offset,
                               bool done) {
  message = message.substr(0, kErrorMessageBytesMax);
  const std::size_t payload = kChunkErrorBytes + message.size() + (offset ? kChunkOffsetBytes : 0);
  ChunkHeader{done ? kChunkDone : std::uint16_t{0},
              offset ? ChunkType::error_offset : ChunkType::error, cookie,
              static_cast<std::uint32_t>(payload)}
      .encode(p);
  p += ChunkHeader::kBytes;
  store_be32(p, static_cast<std::uint32_t>(error));
  store_be16(p + 4, static_cast<std::uint16_t>(message.size()));
  std::memcpy(p + kChunkErrorBytes, message.data(), message.size());
  if (offset) store_be64(p + kChunkErrorBytes + message.size(), *offset);
  return ChunkHeader::kBytes + payload;
}

}  // namespace nvmf::nbd
