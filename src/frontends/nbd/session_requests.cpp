// The requests of a session: from their header, cut into pieces, to the device.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "frontends/nbd/session.h"
#include "nvme/check.h"

namespace nvmf::nbd {
namespace {

/// What a WRITE_ZEROES becomes at most: a head, whole blocks, a tail.
constexpr std::size_t kZeroesPartsMax = 3;

}  // namespace

/// One request header. False if it is not there yet, or nothing is there to serve it with: then the
/// header stays in the staging, and the session is stalled.
bool Session::take_request() {
  Incoming in;
  if (!read_header(in)) return false;
  if (in.header.command == Command::disconnect) {
    parsed_ += in.bytes;
    said_goodbye_ = true;
    end_input();
    return false;
  }
  const std::size_t slots = in.header.command == Command::write_zeroes ? kZeroesPartsMax : 1;
  if (free_requests_ == nullptr || !has_slots(slots)) {
    stalled_ = true;
    return false;
  }
  if (in.verdict.error == WireError::ok) {
    in.verdict = check_request(in.header, flags_, device_->info(), kPayloadBytesMax, agreed_);
  }
  if (in.verdict.error == WireError::ok && stopping_) {
    in.verdict = {WireError::eshutdown, "The server is shutting down"};
  }
  return start_request(in);
}

/// False if more bytes are needed, or the session has ended: the stream cannot be understood any
/// more, and only a hard disconnect is left.
bool Session::read_header(Incoming& in) {
  in.bytes = agreed_.extended ? RequestHeader::kExtendedBytes : RequestHeader::kBytes;
  if (staged().size() < in.bytes) return false;
  const auto header = agreed_.extended ? RequestHeader::decode_extended(staged().data())
                                       : RequestHeader::decode(staged().data());
  if (!header) {
    dismiss("it sent no request where one must be (bad magic)", EPROTO);
    return false;
  }
  in.header = *header;
  if (!header->has_payload(agreed_.extended)) return true;
  if (header->length > kSkipBytesMax) {
    dismiss(fmt::format("it announced a payload of {} bytes", header->length), EPROTO);
    return false;
  }
  in.payload_bytes = static_cast<std::uint32_t>(header->length);
  if (header->command != Command::block_status || !agreed_.allocation) return true;
  if (in.payload_bytes <= kStatusPayloadBytesMax) return read_status_payload(in);
  in.verdict = {WireError::einval, "The payload names more contexts than there are"};
  return true;
}

/// From here on its length is that of the range.
bool Session::read_status_payload(Incoming& in) {
  if (staged().size() < in.bytes + in.payload_bytes) return false;
  const auto payload = StatusPayload::decode(staged().subspan(in.bytes, in.payload_bytes));
  in.bytes += std::exchange(in.payload_bytes, 0);
  if (!payload || !payload->known) {
    in.verdict = {WireError::einval, "The payload names no contexts that were agreed on"};
    return true;
  }
  in.header.length = payload->length;
  in.of_nothing = payload->contexts == 0;
  return true;
}

bool Session::start_request(const Incoming& in) {
  const RequestHeader& header = in.header;
  const bool good = in.verdict.error == WireError::ok;
  const bool reads = header.command == Command::read && header.length > 0;
  const bool gathers = reads && (!agreed_.structured || (header.flags & kDf) != 0);
  const bool begins = good && gathers && header.length > kGatherBytesMax;
  // CACHE is a hint; nothing is cached here, so a range that exists is as near as it can be. What
  // is to happen to no byte has happened.
  const bool nothing_to_do = header.command == Command::cache || in.of_nothing ||
                             (header.length == 0 && header.command != Command::flush);
  // A reply that begins before all of it is there keeps all others waiting. So that none of those
  // holds what it needs, it begins alone.
  stalled_ = begins && requests_in_use_ > 0;
  Buffer page;
  if (good && header.command == Command::block_status && !nothing_to_do) {
    page = get_buffer(kStatusBufferBytes);
    stalled_ = !page;
  }
  if (stalled_) return false;
  parsed_ += in.bytes;
  Request& r = *free_requests_;
  free_requests_ = r.next_free;
  r = Request{};
  r.header = header;
  r.began_at = buffers_.loop().now();
  r.in_use = true;
  r.failed = !good;
  r.verdict = in.verdict;
  ++requests_in_use_;
  if (in.payload_bytes > 0) {
    NVMF_CHECK(!good || header.command == Command::write);
    r.receives = true;
    current_ = &r;
    payload_left_ = in.payload_bytes;
    return true;
  }
  if (reads && good) {
    r.gathers = gathers;
    current_ = &r;
    if (begins) begin_reply(r);
    return true;
  }
  r.whole = true;
  if (!good) {
    answer(take_slot(r), in.verdict);
  } else if (nothing_to_do) {
    answer_success(take_slot(r));
  } else if (page) {
    submit_status(r, page);
  } else {
    submit_effect(r);
  }
  return true;
}

/// The page has the extents, and behind them room for their descriptors.
void Session::submit_status(Request& r, Buffer page) {
  static_assert(kStatusExtentsMax * (sizeof(host::Extent) + status_descriptor_bytes(true)) <=
                kStatusBufferBytes);
  Slot& slot = take_slot(r);
  slot.buffer = page;
  slot.data = page.data;
  slot.op = host::BlockOp::read;  // it changes nothing
  slot.offset_bytes = r.header.offset;
  StatusQuery& query = slot.status;
  query.offset_bytes = r.header.offset;
  query.length_bytes = r.header.length;
  const bool one = (r.header.flags & kReqOne) != 0;
  auto* const extents = reinterpret_cast<host::Extent*>(page.data);
  std::uninitialized_value_construct_n(extents, kStatusExtentsMax);
  query.extents = {extents, one ? 1 : kStatusExtentsMax};
  Counters::add(counters_.requests, 1);
  if (device_->extents(query)) return completed_status(r, slot);
  slot.in_device = true;
  ++r.under_way;
  ++in_device_;
}

/// A request without payload. Zeroes that begin or end within a block go in parts: so only the
/// blocks at the ends are held against everybody else, not up to 4 GiB between them.
void Session::submit_effect(Request& r) {
  const host::BlockInfo& info = device_->info();
  const std::uint64_t begin = r.header.offset;
  const std::uint64_t end = begin + r.header.length;
  const std::uint64_t block = info.block_bytes;
  const std::uint64_t first = (begin + block - 1) / block * block;
  const std::uint64_t last = end / block * block;
  const bool zeroes = r.header.command == Command::write_zeroes;
  const bool refused = (r.header.flags & kFastZero) != 0 && !info.write_zeroes;
  const auto part = [&](std::uint64_t from, std::uint64_t to, bool within_a_block) {
    if (from == to && zeroes) return;
    Slot& slot = take_slot(r);
    slot.offset_bytes = from;
    slot.length_bytes = to - from;
    submit(slot, within_a_block);
  };
  if (!zeroes || refused || first >= last) return part(begin, end, false);
  part(begin, first, true);
  part(first, last, false);
  part(last, end, true);
}

/// Gives the device pieces of the current READ until all are cut. False if the session is stalled.
bool Session::cut_read() {
  Request& r = *current_;
  while (!r.whole) {
    Slot* const piece = cut_piece(r);
    if (piece == nullptr) {
      stalled_ = true;
      // Nothing of ours will complete and make room: what is there must leave.
      const bool alone = requests_in_use_ == 1 && r.under_way == 0;
      if (r.gathers && !r.begun && alone) begin_reply(r);
      return false;
    }
    r.whole = r.cut_bytes == r.header.length;
    if (r.gathers) {
      piece->next_slot = nullptr;
      (r.last != nullptr ? r.last->next_slot : r.first) = piece;
      r.last = piece;
    }
    submit(*piece);
  }
  if (r.begun && r.first != nullptr) {
    stalled_ = true;  // until its last piece is among the replies, which are in order then
    return false;
  }
  current_ = nullptr;
  return true;
}

/// The next piece of a READ or WRITE with its buffer; nullptr if there is no slot or no memory.
Session::Slot* Session::cut_piece(Request& r) {
  if (free_ == nullptr) return nullptr;
  const auto left = static_cast<std::uint32_t>(r.header.length - r.cut_bytes);
  const Buffer buffer = get_buffer(std::min(left, piece_bytes_max_));
  if (!buffer) return nullptr;
  Slot& slot = take_slot(r);
  slot.buffer = buffer;
  slot.data = buffer.data;
  slot.offset_bytes = r.header.offset + r.cut_bytes;
  slot.length_bytes = piece_length(r, std::min(buffer.bytes, piece_bytes_max_));
  r.cut_bytes += static_cast<std::uint32_t>(slot.length_bytes);
  return &slot;
}

/// Pieces end at the device's borders: an unaligned request is so in its first and last block only.
std::uint32_t Session::piece_length(const Request& r, std::uint32_t room) const {
  const auto left = static_cast<std::uint32_t>(r.header.length - r.cut_bytes);
  if (left <= room) return left;
  const host::BlockInfo& info = device_->info();
  const std::uint64_t border =
      info.preferred_bytes <= room / 2 ? info.preferred_bytes : info.block_bytes;
  const std::uint64_t begin = r.header.offset + r.cut_bytes;
  const std::uint64_t end = begin + room - (begin + room) % std::max<std::uint64_t>(border, 1);
  return end > begin ? static_cast<std::uint32_t>(end - begin) : room;
}

/// Memory for `want` bytes, or for some of them when it is short. None: the session is told when to
/// try again, by its own progress or by the pool.
Buffer Session::get_buffer(std::uint32_t want) {
  // Of its own share, the session gets room when one of its own replies is sent.
  if (held_bytes_ > 0 && held_bytes_ + want > kSessionBufferBytesMax) return {};
  const std::size_t least = std::min<std::size_t>(want, kReserveBytes);
  const std::size_t share = buffers_.free_bytes() / kSharePart;
  Buffer buffer;
  if (held_bytes_ < share) {
    const std::size_t room = std::max(share - held_bytes_, least);
    buffer = buffers_.take(std::min<std::size_t>(want, room), least);
  }
  if (!buffer) buffer = reserve_.take(least);
  if (!buffer) {
    buffers_.wait(*this);
    return {};
  }
  held_bytes_ += buffer.bytes;
  return buffer;
}

/// A place for the current WRITE's payload: its next piece or, after an error, none for the rest of
/// it. False if the session is stalled.
bool Session::start_piece_of_write(Request& r) {
  if (r.failed && free_ != nullptr) {
    filling_ = &take_slot(r);
    piece_left_ = payload_left_;
    return true;
  }
  filling_ = cut_piece(r);
  stalled_ = filling_ == nullptr;
  if (filling_ != nullptr) piece_left_ = static_cast<std::uint32_t>(filling_->length_bytes);
  return !stalled_;
}

/// All of a piece of a WRITE's payload has come. A refused WRITE is answered only after the last: a
/// client need not expect the reply before it has sent the request.
void Session::piece_received() {
  Slot& slot = *std::exchange(filling_, nullptr);
  Request& r = *current_;
  r.whole = payload_left_ == 0;
  if (r.whole) current_ = nullptr;
  if (stopping_ && !r.failed) {
    r.failed = true;
    r.verdict = {WireError::eshutdown, "The server is shutting down"};
  }
  if (!r.failed && !input_over_) {
    submit(slot);
  } else if (r.whole && r.under_way == 0 && !input_over_) {
    answer(slot, r.verdict);
  } else {
    release(slot);
  }
}

/// `within_a_block`: an end of zeroes whose middle is fast; FAST_ZERO asks no more.
void Session::submit(Slot& slot, bool within_a_block) {
  Request& r = *slot.request;
  slot.op = block_op(r.header.command);
  slot.fua = (r.header.flags & kFua) != 0 && slot.op != host::BlockOp::read &&
             slot.op != host::BlockOp::flush;
  slot.no_hole = (r.header.flags & kNoHole) != 0;
  slot.fast_only = (r.header.flags & kFastZero) != 0 && !within_a_block;
  slot.error = 0;
  slot.next = nullptr;
  slot.issued_bytes = 0;
  slot.parts = 0;
  slot.stage = 0;
  slot.in_device = true;
  ++r.under_way;
  ++in_device_;
  if (slot.offset_bytes == r.header.offset) Counters::add(counters_.requests, 1);
  device_->submit(slot);
}

bool Session::has_slots(std::size_t count) const {
  const Slot* slot = free_;
  for (; count > 0 && slot != nullptr; --count) slot = slot->next_slot;
  return count == 0;
}

Session::Slot& Session::take_slot(Request& r) {
  Slot& slot = *free_;
  free_ = slot.next_slot;
  slot.next_slot = nullptr;
  slot.request = &r;
  slot.reply_head_bytes = 0;
  slot.reply_data_bytes = 0;
  slot.length_bytes = 0;
  ++r.pieces;
  return slot;
}

/// Those who wait for buffers come first: else a busy session would take back what it frees.
void Session::pass_on() {
  if (std::exchange(freed_, false)) buffers_.notify();
}

void Session::release(Slot& slot) {
  if (slot.buffer) {
    held_bytes_ -= slot.buffer.bytes;
    if (reserve_.owns(slot.buffer.data)) {
      reserve_.put(slot.buffer);
    } else {
      buffers_.put(slot.buffer);
      freed_ = true;
    }
    slot.buffer = {};
    slot.data = nullptr;
  }
  Request& r = *std::exchange(slot.request, nullptr);
  slot.next_slot = free_;
  free_ = &slot;
  if (--r.pieces > 0 || !r.whole) return;
  r.in_use = false;
  r.next_free = free_requests_;
  free_requests_ = &r;
  --requests_in_use_;
}

}  // namespace nvmf::nbd
