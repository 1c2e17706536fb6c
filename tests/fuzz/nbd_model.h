// What an NBD client knows: the bytes that it sent and received, read by the book (proto.md), not
// by our own Session. Stops the program where the server's bytes are not NBD, or are no answer.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "frontends/nbd/protocol.h"
#include "fuzz/input.h"

namespace nvmf::fuzz {

class NbdModel {
 public:
  using Bytes = std::vector<std::byte>;

  /// Content of the device at `offset`.
  static std::byte content(std::uint64_t offset) { return pattern(77, offset); }

  void sent(std::span<const std::byte> bytes) {
    out_.insert(out_.end(), bytes.begin(), bytes.end());
    while (take_sent()) {
    }
  }
  void received(std::span<const std::byte> bytes) {
    in_.insert(in_.end(), bytes.begin(), bytes.end());
    while (take_received()) {
    }
  }

  [[nodiscard]] bool transmission() const { return transmission_; }
  [[nodiscard]] bool extended() const { return extended_; }
  /// Requests that wait for their reply.
  [[nodiscard]] std::size_t waiting() const { return waiting_; }
  /// Bytes that are the beginning of something.
  [[nodiscard]] bool half_received() const { return !in_.empty(); }
  /// What we sent ends in the middle of something.
  [[nodiscard]] bool half_sent() const { return skip_ > 0 || !out_.empty(); }
  /// What we send cannot be told any more: our own bytes are not NBD, or a cookie came twice.
  [[nodiscard]] bool lost() const { return lost_; }
  [[nodiscard]] bool saw_disconnect() const { return disconnected_; }

 private:
  struct Request {
    nbd::Command command{};
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::uint64_t covered_bytes = 0;  // by chunks so far
    bool one = false;                 // REQ_ONE
    bool names = false;  // a BLOCK_STATUS with a payload: `length` is that of its payload
    unsigned statuses = 0;
    bool failed = false;
    bool padded = false;  // a chunk was not all the device's bytes
  };
  void take(Bytes& from, std::size_t n) {
    from.erase(from.begin(), from.begin() + static_cast<std::ptrdiff_t>(n));
  }

  bool take_sent() {
    if (lost_) return false;
    if (skip_ > 0) {
      const std::size_t n = std::min(skip_, out_.size());
      take(out_, n);
      skip_ -= n;
      return n != 0;
    }
    if (out_.empty() || disconnected_) return false;
    if (!have_flags_) {
      if (out_.size() < nbd::kClientFlagsBytes) return false;
      no_zeroes_ = (load_be32(out_.data()) & nbd::kNoZeroes) != 0;
      have_flags_ = true;
      take(out_, nbd::kClientFlagsBytes);
      return true;
    }
    // After GO or EXPORT_NAME it depends on the answer what the next bytes are.
    if (!transmission_ && deciding_) return false;
    return transmission_ ? take_request() : take_option();
  }

  bool take_option() {
    if (out_.size() < nbd::OptionHeader::kBytes) return false;
    const auto header = nbd::OptionHeader::decode(out_.data());
    if (!header) return lose();
    options_.push_back(header->option);
    deciding_ = header->option == nbd::Option::go || header->option == nbd::Option::export_name;
    skip_ = header->length;
    take(out_, nbd::OptionHeader::kBytes);
    return true;
  }

  bool take_request() {
    const std::size_t bytes =
        extended_ ? nbd::RequestHeader::kExtendedBytes : nbd::RequestHeader::kBytes;
    if (out_.size() < bytes) return false;
    const auto header = extended_ ? nbd::RequestHeader::decode_extended(out_.data())
                                  : nbd::RequestHeader::decode(out_.data());
    if (!header) return lose();
    const bool payload = extended_ ? (header->flags & nbd::kPayloadLen) != 0
                                   : header->command == nbd::Command::write;
    if (payload && header->length > 0xffffffff) return lose();  // nobody waits for its end
    take(out_, bytes);
    if (header->command == nbd::Command::disconnect) {
      disconnected_ = true;
      return true;
    }
    if (requests_.contains(header->cookie)) return lose();
    Request& r = requests_[header->cookie];
    r = {header->command, header->offset, header->length};
    r.one = (header->flags & nbd::kReqOne) != 0;
    r.names = payload && header->command == nbd::Command::block_status;
    ++waiting_;
    if (payload) skip_ = header->length;
    return true;
  }

  bool lose() {
    lost_ = true;
    return false;
  }

  bool take_received() {
    if (!greeted_) {
      if (in_.size() < nbd::Greeting::kBytes) return false;
      NVMF_CHECK(nbd::Greeting::decode(in_.data()).has_value());
      take(in_, nbd::Greeting::kBytes);
      greeted_ = true;
      return true;
    }
    if (lost_ && !transmission_) {
      in_.clear();  // whose answer this is, nobody knows
      return false;
    }
    if (in_.empty()) return false;
    return transmission_ ? take_reply() : take_option_reply();
  }

  bool take_option_reply() {
    NVMF_CHECK(!options_.empty());
    const nbd::Option option = options_.front();
    if (option == nbd::Option::export_name) {
      const std::size_t bytes =
          nbd::ExportReply::kBytes + (no_zeroes_ ? 0 : nbd::kExportReplyZeroes);
      if (in_.size() < bytes) return false;
      for (std::size_t i = nbd::ExportReply::kBytes; i < bytes; ++i) {
        NVMF_CHECK(in_[i] == std::byte{0});
      }
      take(in_, bytes);
      begin_transmission();
      return true;
    }
    if (in_.size() < nbd::OptionReplyHeader::kBytes) return false;
    const auto header = nbd::OptionReplyHeader::decode(in_.data());
    NVMF_CHECK(header && header->option == option && header->length <= 8192);
    if (in_.size() < nbd::OptionReplyHeader::kBytes + header->length) return false;
    take(in_, nbd::OptionReplyHeader::kBytes + header->length);
    const auto type = header->type;
    if (type == nbd::OptionReplyType::server || type == nbd::OptionReplyType::info) return true;
    if (static_cast<std::uint32_t>(type) == 4) return true;  // META_CONTEXT, before its ACK
    options_.erase(options_.begin());
    const bool ack = type == nbd::OptionReplyType::ack;
    NVMF_CHECK(ack || (static_cast<std::uint32_t>(type) & 0x80000000) != 0);
    if (ack && option == nbd::Option::structured_reply) structured_ = true;
    if (ack && option == nbd::Option::extended_headers) structured_ = extended_ = true;
    if (ack && option == nbd::Option::go) {
      begin_transmission();
    } else if (option == nbd::Option::go) {
      deciding_ = false;
      while (take_sent()) {
      }
    }
    return true;
  }

  void begin_transmission() {
    NVMF_CHECK(options_.size() <= 1);
    transmission_ = true;
    while (take_sent()) {
    }
  }

  bool take_reply() {
    if (in_.size() < nbd::SimpleReply::kBytes) return false;
    if (load_be32(in_.data()) == nbd::kSimpleReplyMagic) {
      NVMF_CHECK(!extended_);
      const auto reply = nbd::SimpleReply::decode(in_.data());
      const bool failed = reply->error != nbd::WireError::ok;
      const auto found = requests_.find(reply->cookie);
      if (found == requests_.end()) return no_request();
      const Request& r = found->second;
      const bool data = r.command == nbd::Command::read && !failed;
      NVMF_CHECK(!structured_ || !data);
      const std::size_t bytes = nbd::SimpleReply::kBytes + (data ? r.length : 0);
      if (in_.size() < bytes) return false;
      if (data) {
        check_content(r.offset, nbd::SimpleReply::kBytes, static_cast<std::uint32_t>(r.length));
      }
      take(in_, bytes);
      finish(found);
      return true;
    }
    const std::size_t head =
        extended_ ? nbd::ExtendedChunkHeader::kBytes : nbd::ChunkHeader::kBytes;
    if (in_.size() < head) return false;
    const auto chunk = chunk_header();
    NVMF_CHECK(chunk.has_value() && structured_);
    if (in_.size() < head + chunk->length) return false;
    const auto found = requests_.find(chunk->cookie);
    if (found == requests_.end()) return no_request();
    NVMF_CHECK(!extended_ || load_be64(in_.data() + 16) == found->second.offset);
    take_chunk(*chunk, head, found->second);
    take(in_, head + chunk->length);
    if ((chunk->flags & nbd::kChunkDone) != 0) {
      const Request& r = found->second;
      if (r.command == nbd::Command::block_status && !r.failed) {
        NVMF_CHECK(r.statuses == 1 || (r.names && r.statuses == 0));
      }
      if (r.command == nbd::Command::read && !r.failed) {
        NVMF_CHECK(r.covered_bytes == r.length && !r.padded);
      }
      finish(found);
    }
    return true;
  }

  /// Of either kind: lengths of what is sent have 32 bits.
  [[nodiscard]] std::optional<nbd::ChunkHeader> chunk_header() const {
    if (!extended_) return nbd::ChunkHeader::decode(in_.data());
    const auto chunk = nbd::ExtendedChunkHeader::decode(in_.data());
    if (!chunk || chunk->length > 0xffffffff) return std::nullopt;
    return nbd::ChunkHeader{chunk->flags, chunk->type, chunk->cookie,
                            static_cast<std::uint32_t>(chunk->length)};
  }

  void take_status(const nbd::ChunkHeader& chunk, const std::byte* p, Request& r) {
    NVMF_CHECK(r.command == nbd::Command::block_status && ++r.statuses == 1);
    NVMF_CHECK(extended_ == (chunk.type == nbd::ChunkType::block_status_ext));
    const std::uint32_t fields = extended_ ? 8 : 4;
    const std::uint32_t each = extended_ ? 16 : 8;
    NVMF_CHECK(chunk.length >= fields + each && (chunk.length - fields) % each == 0);
    const std::uint32_t count = (chunk.length - fields) / each;
    NVMF_CHECK(load_be32(p) == nbd::kAllocationContextId);
    NVMF_CHECK(!extended_ || load_be32(p + 4) == count);
    NVMF_CHECK(!r.one || count == 1);
    std::uint64_t sum = 0;
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::byte* d = p + fields + std::size_t{i} * each;
      const std::uint64_t length = extended_ ? load_be64(d) : load_be32(d);
      const std::uint64_t flags = extended_ ? load_be64(d + 8) : load_be32(d + 4);
      NVMF_CHECK(length != 0 && (flags == 0 || flags == 3));
      sum += length;
    }
    NVMF_CHECK(r.names || sum <= r.length);
  }

  void take_chunk(const nbd::ChunkHeader& chunk, std::size_t head, Request& r) {
    const std::byte* p = in_.data() + head;
    switch (chunk.type) {
      case nbd::ChunkType::none:
        NVMF_CHECK(chunk.length == 0 && (chunk.flags & nbd::kChunkDone) != 0);
        return;
      case nbd::ChunkType::offset_data: {
        NVMF_CHECK(chunk.length > 8 && r.command == nbd::Command::read);
        const std::uint64_t offset = load_be64(p);
        const std::uint32_t length = chunk.length - 8;
        NVMF_CHECK(offset >= r.offset && offset + length <= r.offset + r.length);
        // The rest of a chunk that was begun before an error is padded with zeroes; the error is
        // said behind it.
        if ((chunk.flags & nbd::kChunkDone) == 0) {
          r.padded |= is_padded(offset, head + 8, length);
        } else {
          check_content(offset, head + 8, length);
        }
        r.covered_bytes += length;
        return;
      }
      case nbd::ChunkType::block_status:
      case nbd::ChunkType::block_status_ext:
        return take_status(chunk, p, r);
      case nbd::ChunkType::error:
      case nbd::ChunkType::error_offset: {
        const std::size_t tail = chunk.type == nbd::ChunkType::error ? 0 : 8;
        NVMF_CHECK(chunk.length >= 6 && load_be32(p) != 0);
        const std::uint16_t message = load_be16(p + 4);
        NVMF_CHECK(chunk.length == 6u + message + tail);
        r.failed = true;
        if (tail != 0) {
          const std::uint64_t at = load_be64(p + 6 + message);
          NVMF_CHECK(at >= r.offset && at - r.offset < std::max<std::uint64_t>(r.length, 1));
        }
        return;
      }
      default:
        NVMF_CHECK(false);
    }
  }

  /// Whether there is a byte that is not the device's; then it is zero.
  bool is_padded(std::uint64_t offset, std::size_t at, std::uint32_t length) const {
    bool padded = false;
    for (std::uint32_t i = 0; i < length; ++i) {
      if (in_[at + i] == content(offset + i)) continue;
      NVMF_CHECK(in_[at + i] == std::byte{0});
      padded = true;
    }
    return padded;
  }

  void check_content(std::uint64_t offset, std::size_t at, std::uint32_t length) const {
    for (std::uint32_t i = 0; i < length; ++i) {
      NVMF_CHECK(in_[at + i] == content(offset + i));
    }
  }

  bool no_request() {
    NVMF_CHECK(lost_);
    in_.clear();
    return false;
  }
  void finish(std::map<std::uint64_t, Request>::iterator found) {
    requests_.erase(found);
    --waiting_;
  }

  Bytes out_;
  Bytes in_;
  std::size_t skip_ = 0;
  bool have_flags_ = false;
  bool no_zeroes_ = false;
  bool deciding_ = false;
  bool greeted_ = false;
  bool transmission_ = false;
  bool structured_ = false;
  bool extended_ = false;
  bool disconnected_ = false;
  bool lost_ = false;
  std::vector<nbd::Option> options_;  // not answered yet
  std::map<std::uint64_t, Request> requests_;
  std::size_t waiting_ = 0;
};

}  // namespace nvmf::fuzz
