// The requests of a session: from their header to the device and back to a reply.
#include <cerrno>

#include "frontends/nbd/session.h"
#include "nvme/check.h"

namespace nvmf::nbd {

/// One request header. False if it is not there yet, or nothing is there to serve it with: then the
/// header stays in the staging, and the session is stalled.
bool Session::take_request() {
  if (staged().size() < RequestHeader::kBytes) return false;
  const auto header = RequestHeader::decode(staged().data());
  if (!header) {
    // The stream cannot be understood any more: only a hard disconnect is left.
    violation("it sent no request where one must be (bad magic)");
    return false;
  }
  if (header->command == Command::disconnect) {
    parsed_ += RequestHeader::kBytes;
    end_input();
    return false;
  }
  if (free_ == nullptr) {
    stalled_ = true;
    return false;
  }
  Verdict verdict = check_request(*header, flags_, device_->info(), payload_bytes_max_);
  if (verdict.error == WireError::ok && stopping_) {
    verdict = {WireError::eshutdown, "The server is shutting down"};
  }
  const bool good = verdict.error == WireError::ok;
  // CACHE is a hint; nothing is cached here, so a range that exists is as near as it can be.
  const bool nothing_to_do = header->command == Command::cache ||
                             (header->length == 0 && header->command != Command::flush);
  const bool is_write = header->command == Command::write;
  const bool has_data = is_write || header->command == Command::read;
  if (good && has_data && header->length > 0 && !get_buffer(*free_, header->length)) {
    stalled_ = true;
    return false;
  }
  Slot& slot = *free_;
  free_ = slot.next_slot;
  parsed_ += RequestHeader::kBytes;
  slot.header = *header;
  slot.refused = verdict;
  slot.answered = false;
  if (is_write && header->length > 0) {
    receiving_ = &slot;
    payload_left_ = header->length;
  } else if (!good) {
    answer(slot, verdict.error, verdict.message, verdict.at_end);
  } else if (nothing_to_do) {
    answer_success(slot);  // proto.md leaves it open; nothing is to be done, so it is done
  } else {
    submit(slot);
  }
  return true;
}

bool Session::get_buffer(Slot& slot, std::uint32_t bytes) {
  // Of its own share, the session gets room when one of its own replies is sent.
  if (held_bytes_ > 0 && held_bytes_ + bytes > kSessionBufferBytesMax) return false;
  slot.data = buffers_.take(bytes);
  if (slot.data == nullptr) {
    buffers_.wait(*this);
    return false;
  }
  slot.buffer_bytes = bytes;
  held_bytes_ += bytes;
  return true;
}

/// All of a WRITE's payload has come. A refused WRITE is answered only now: a client need not
/// expect the reply before it has sent the request.
void Session::payload_complete() {
  Slot& slot = *receiving_;
  receiving_ = nullptr;
  if (slot.refused.error != WireError::ok) {
    answer(slot, slot.refused.error, slot.refused.message);
  } else if (input_over_) {
    release(slot);
  } else if (stopping_) {
    answer(slot, WireError::eshutdown, "The server is shutting down");
  } else {
    submit(slot);
  }
}

void Session::submit(Slot& slot) {
  const RequestHeader& header = slot.header;
  slot.op = block_op(header.command);
  slot.fua = (header.flags & kFua) != 0 && slot.op != host::BlockOp::read &&
             slot.op != host::BlockOp::flush;
  slot.no_hole = (header.flags & kNoHole) != 0;
  slot.fast_only = (header.flags & kFastZero) != 0;
  slot.offset_bytes = header.offset;
  slot.length_bytes = header.length;
  slot.error = 0;
  slot.next = nullptr;
  slot.issued_bytes = 0;
  slot.parts = 0;
  slot.stage = 0;
  slot.in_device = true;
  ++in_device_;
  Counters::add(counters_.requests, 1);
  device_->submit(slot);
}

void Session::on_complete(host::BlockRequest& request) {
  auto& slot = static_cast<Slot&>(request);
  slot.session->completed(slot);
}

void Session::completed(Slot& slot) {
  NVMF_CHECK(slot.in_device && in_device_ > 0);
  slot.in_device = false;
  --in_device_;
  if (slot.error == 0 && slot.op == host::BlockOp::read) {
    Counters::add(counters_.read_bytes, slot.length_bytes);
  } else if (slot.error == 0 && slot.op == host::BlockOp::write) {
    Counters::add(counters_.written_bytes, slot.length_bytes);
  }
  if (closed_ || (slot.answered && !slot.queued)) {
    release(slot);
    buffers_.notify();
    maybe_gone();  // may destroy this session
    return;
  }
  if (slot.answered) return;  // release() follows when its reply is sent
  const WireError error = wire_error(slot.error);
  if (error == WireError::ok) {
    answer_success(slot);
  } else {
    answer(slot, error, device_message(error));
  }
  maybe_finish();
}

void Session::answer(Slot& slot, WireError error, std::string_view message, bool at_end) {
  const std::uint64_t cookie = slot.header.cookie;
  std::byte* head = slot.reply_head.data();
  std::size_t bytes = 0;
  if (structured_) {
    // ERROR_OFFSET must lie within the request: its first byte that is not there.
    std::optional<std::uint64_t> offset;
    if (at_end) offset = std::max(slot.header.offset, device_->info().size_bytes);
    bytes = encode_error_chunk(head, cookie, error, message, offset);
  } else {
    bytes = encode_simple(head, cookie, error);
  }
  slot.reply_head_bytes = static_cast<std::uint32_t>(bytes);
  slot.reply_data_bytes = 0;
  Counters::add(counters_.errors, 1);
  queue_reply(slot);
}

void Session::answer_success(Slot& slot) {
  const RequestHeader& header = slot.header;
  const bool is_read = header.command == Command::read;
  // A simple reply may answer everything without payload even where structured ones are agreed on.
  const std::size_t bytes =
      structured_ && is_read
          ? encode_read_chunk(slot.reply_head.data(), header.cookie, header.offset, header.length)
          : encode_simple(slot.reply_head.data(), header.cookie, WireError::ok);
  slot.reply_head_bytes = static_cast<std::uint32_t>(bytes);
  slot.reply_data_bytes = is_read ? header.length : 0;
  queue_reply(slot);
}

void Session::queue_reply(Slot& slot) {
  slot.queued = true;
  slot.next_slot = nullptr;
  (last_reply_ != nullptr ? last_reply_->next_slot : first_reply_) = &slot;
  last_reply_ = &slot;
  stream_->wake();
}

void Session::release(Slot& slot) {
  if (slot.data != nullptr) {
    buffers_.put(slot.data, slot.buffer_bytes);
    held_bytes_ -= slot.buffer_bytes;
    slot.data = nullptr;
    slot.buffer_bytes = 0;
  }
  slot.next_slot = free_;
  free_ = &slot;
}

}  // namespace nvmf::nbd
