// The replies of a session: from a piece that the device has completed to what the client gets.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "frontends/nbd/session.h"
#include "nvme/check.h"

namespace nvmf::nbd {

void Session::on_complete(host::BlockRequest& request) {
  auto& slot = static_cast<Slot&>(request);
  slot.session->completed(slot);
}

void Session::completed(Slot& slot) {
  Request& r = *slot.request;
  NVMF_CHECK(slot.in_device && in_device_ > 0 && r.under_way > 0);
  slot.in_device = false;
  --in_device_;
  --r.under_way;
  if (slot.error == 0 && r.header.command == Command::read) {
    Counters::add(counters_.read_bytes, slot.length_bytes);
  } else if (slot.error == 0 && r.header.command == Command::write) {
    Counters::add(counters_.written_bytes, slot.length_bytes);
  }
  if (closed_) {
    release(slot);
    pass_on();
    maybe_gone();  // may destroy this session
    return;
  }
  if (r.answered) {
    if (!slot.queued) release(slot);  // else when its reply is sent
  } else if (r.header.command == Command::block_status) {
    completed_status(r, slot);
  } else if (r.gathers) {
    completed_gathered(r, slot);
  } else if (slot.op == host::BlockOp::read) {
    completed_chunk(r, slot);
  } else {
    completed_effect(r, slot);
  }
  maybe_finish();
  pass_on();
  resume();
}

/// A READ in structured replies: each piece is a chunk.
void Session::completed_chunk(Request& r, Slot& slot) {
  if (slot.error != 0) stop_cutting(r);
  const bool done = r.whole && r.under_way == 0;
  const auto length = static_cast<std::uint32_t>(slot.length_bytes);
  std::size_t bytes = 0;
  if (slot.error == 0) {
    bytes = encode_read_chunk(slot.reply_head.data(), chunk_of(r), slot.offset_bytes, length, done);
    slot.reply_data_bytes = length;
  } else {
    const WireError error = wire_error(slot.error);
    std::optional<std::uint64_t> offset;
    if (length != r.header.length) offset = slot.offset_bytes;
    bytes = encode_error_chunk(slot.reply_head.data(), chunk_of(r), error, device_message(error),
                               offset, done);
    Counters::add(counters_.errors, 1);
  }
  slot.reply_head_bytes = static_cast<std::uint32_t>(bytes);
  queue_reply(slot);
}

/// A READ whose reply is one message.
void Session::completed_gathered(Request& r, Slot& slot) {
  if (slot.error != 0) {
    const WireError error = wire_error(slot.error);
    if (!r.failed || slot.offset_bytes < r.error_offset) {
      r.failed = true;
      r.verdict = {error, device_message(error)};
      r.error_offset = slot.offset_bytes;
    }
    if (!r.begun) {
      stop_cutting(r);
    } else if (agreed_.structured) {
      // The chunk that was begun is completed all the same (proto.md, NBD_CMD_READ).
      std::memset(slot.data, 0, slot.length_bytes);
    } else {
      dismiss("the namespace reported an error in the middle of a reply that had begun", EIO);
      return;
    }
  }
  if (r.begun) return send_gathered(r);
  if (!r.whole || r.under_way > 0) return;
  if (!r.failed) return send_gathered(r);
  while (r.first != r.last) {
    Slot& piece = *r.first;
    r.first = piece.next_slot;
    release(piece);
  }
  answer(*r.last, r.verdict);
}

/// WRITE and whatever else changes something: one reply when all of it is done.
void Session::completed_effect(Request& r, Slot& slot) {
  if (slot.error != 0 && !r.failed) {
    const WireError error = wire_error(slot.error);
    r.failed = true;
    r.verdict = {error, device_message(error)};
  }
  // A piece that is being received, or its slot, will be the last.
  if (!r.whole || r.under_way > 0) {
    release(slot);
  } else if (r.failed) {
    answer(slot, r.verdict);
  } else {
    answer_success(slot);
  }
}

void Session::on_status(host::ExtentsRequest& query) {
  Slot& slot = *static_cast<StatusQuery&>(query).slot;
  slot.error = query.error;
  slot.session->completed(slot);
}

void Session::completed_status(Request& r, Slot& slot) {
  const StatusQuery& query = slot.status;
  if (query.error != 0) {
    const WireError error = wire_error(query.error);
    return answer(slot, {error, device_message(error)});
  }
  const auto count = static_cast<std::uint32_t>(query.count);
  NVMF_CHECK(count >= 1 && count <= query.extents.size());
  slot.reply_head_bytes = static_cast<std::uint32_t>(
      encode_status_chunk(slot.reply_head.data(), chunk_of(r), kAllocationContextId, count));
  slot.data = slot.buffer.data + kStatusExtentsMax * sizeof(host::Extent);
  const std::size_t each = status_descriptor_bytes(agreed_.extended);
  for (std::uint32_t i = 0; i < count; ++i) {
    const host::Extent& extent = query.extents[i];
    encode_status_descriptor(slot.data + i * each, agreed_.extended, extent.length_bytes,
                             extent.zeroes ? kStateHole | kStateZero : 0);
  }
  slot.reply_data_bytes = static_cast<std::uint32_t>(count * each);
  queue_reply(slot);
}

/// The reply of a gathered READ begins now, although an error may still come.
void Session::begin_reply(Request& r) {
  if (agreed_.structured) {
    if (free_ == nullptr) return;
    r.tail = &take_slot(r);
  }
  r.begun = true;
  send_gathered(r);
}

/// Queues the pieces of a gathered READ that are there, in their order.
void Session::send_gathered(Request& r) {
  const RequestHeader& header = r.header;
  while (r.first != nullptr && !r.first->in_device) {
    Slot& piece = *r.first;
    r.first = piece.next_slot;
    if (piece.offset_bytes == header.offset) {
      std::byte* head = piece.reply_head.data();
      const std::size_t bytes =
          agreed_.structured
              ? encode_read_chunk(head, chunk_of(r), header.offset,
                                  static_cast<std::uint32_t>(header.length), r.tail == nullptr)
              : encode_simple(head, header.cookie, WireError::ok);
      piece.reply_head_bytes = static_cast<std::uint32_t>(bytes);
    }
    piece.reply_data_bytes = static_cast<std::uint32_t>(piece.length_bytes);
    queue_reply(piece);
  }
  if (r.first != nullptr) return;
  r.last = nullptr;
  if (!r.whole || r.tail == nullptr) return;
  Slot& tail = *std::exchange(r.tail, nullptr);
  std::byte* head = tail.reply_head.data();
  tail.reply_head_bytes =
      static_cast<std::uint32_t>(r.failed ? encode_error_chunk(head, chunk_of(r), r.verdict.error,
                                                               r.verdict.message, r.error_offset)
                                          : encode_read_chunk(head, chunk_of(r), 0, 0));
  if (r.failed) Counters::add(counters_.errors, 1);
  queue_reply(tail);
}

/// After an error, what is left of a READ is not worth reading.
void Session::stop_cutting(Request& r) {
  r.whole = true;
  if (current_ == &r) current_ = nullptr;
}

void Session::answer(Slot& slot, const Verdict& verdict) {
  const RequestHeader& header = slot.request->header;
  std::byte* head = slot.reply_head.data();
  std::size_t bytes = 0;
  if (agreed_.structured) {
    // ERROR_OFFSET must lie within the request: its first byte that is not there.
    std::optional<std::uint64_t> offset;
    if (verdict.at_end) offset = std::max(header.offset, device_->info().size_bytes);
    bytes =
        encode_error_chunk(head, chunk_of(*slot.request), verdict.error, verdict.message, offset);
  } else {
    bytes = encode_simple(head, header.cookie, verdict.error);
  }
  slot.reply_head_bytes = static_cast<std::uint32_t>(bytes);
  slot.reply_data_bytes = 0;
  Counters::add(counters_.errors, 1);
  queue_reply(slot);
}

/// The reply of a request without data.
void Session::answer_success(Slot& slot) {
  const RequestHeader& header = slot.request->header;
  // A simple reply may answer everything but READ even where structured ones are agreed on, but
  // nothing where extended headers are.
  const std::size_t bytes =
      agreed_.extended || (agreed_.structured && header.command == Command::read)
          ? encode_read_chunk(slot.reply_head.data(), chunk_of(*slot.request), header.offset, 0)
          : encode_simple(slot.reply_head.data(), header.cookie, WireError::ok);
  slot.reply_head_bytes = static_cast<std::uint32_t>(bytes);
  queue_reply(slot);
}

void Session::queue_reply(Slot& slot) {
  slot.queued = true;
  slot.next_slot = nullptr;
  (last_reply_ != nullptr ? last_reply_->next_slot : first_reply_) = &slot;
  last_reply_ = &slot;
  stream_->wake();
}

}  // namespace nvmf::nbd
