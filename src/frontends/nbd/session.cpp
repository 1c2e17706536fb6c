#include "frontends/nbd/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "nvme/check.h"

namespace nvmf::nbd {
namespace {

bool changes_data(const host::BlockRequest& request) {
  return request.op != host::BlockOp::read && request.op != host::BlockOp::flush;
}

/// For a session that negotiates nothing.
const ExportList& no_exports() {
  static const ExportList none;
  return none;
}

}  // namespace

Session::Session(const ExportList& exports, std::size_t reactor, BufferPool& buffers,
                 Counters& counters, SessionOwner& owner)
    : buffers_(buffers),
      counters_(counters),
      owner_(owner),
      negotiation_(exports, reactor),
      handshake_timer_(buffers.loop().timers(),
                       [this] {
                         if (transmission_ || closed_ || finishing_) return;
                         dismiss(fmt::format("it had not finished the handshake {} seconds after "
                                             "it connected",
                                             std::chrono::duration_cast<std::chrono::seconds>(
                                                 buffers_.loop().now() - opened_at_)
                                                 .count()),
                                 ETIMEDOUT);
                       }),
      staging_(new std::byte[kStagingBytes]) {}

Session::Session(host::BlockDevice& device, std::uint16_t flags, std::size_t begun_bytes,
                 BufferPool& buffers, Counters& counters, SessionOwner& owner)
    : Session(no_exports(), 0, buffers, counters, owner) {
  kernel_ = true;
  reply_sent_ = begun_bytes;
  begin_transmission(device, flags, {});
}

Session::~Session() {
  NVMF_CHECK(in_device_ == 0);
  buffers_.stop_waiting(*this);
}

void Session::on_open(transport::Stream&) {
  open_ = true;
  opened_at_ = buffers_.loop().now();
  if (!kernel_) {
    limit_handshake(kHandshakeMax);
    Negotiation::greet(control_);
    send_control();
  }
  maybe_finish();
}

void Session::limit_handshake(Duration age) {
  if (transmission_ || closed_ || !open_) return;
  const Instant at = opened_at_ + age;
  if (!handshake_timer_.armed() || at < handshake_timer_.deadline()) handshake_timer_.arm(at);
}

// The negotiation answers one message at a time and takes the next once the answer is sent. So the
// answer's memory is bounded by one message's, and never moves while the stream may read it.
void Session::send_control() {
  control_sent_ = 0;
  stalled_ = true;
  stream_->wake();
}

std::size_t Session::recv_vectors(std::span<iovec> out) {
  if (stalled_ && !input_over_) return 0;
  if (!named_ && parsed_ > 0) {
    std::memmove(staging_.get(), staging_.get() + parsed_, fill_ - parsed_);
    fill_ -= parsed_;
    parsed_ = 0;
  }
  std::size_t count = 0;
  if (filling_ != nullptr && filling_->data != nullptr) {
    out[count++] = {filling_->data + (filling_->length_bytes - piece_left_), piece_left_};
    // What follows is payload too, and goes straight into the next piece.
    named_ = true;
    if (payload_left_ > piece_left_) return count;
  }
  if (count < out.size() && fill_ < kStagingBytes) {
    out[count++] = {staging_.get() + fill_, kStagingBytes - fill_};
  }
  named_ = count > 0;
  return count;
}

void Session::recv_advance(std::size_t bytes) {
  named_ = false;
  if (filling_ != nullptr && filling_->data != nullptr) {
    const auto payload = static_cast<std::uint32_t>(std::min<std::size_t>(bytes, piece_left_));
    piece_left_ -= payload;
    payload_left_ -= payload;
    bytes -= payload;
    if (piece_left_ == 0) piece_received();
  }
  fill_ += bytes;
  NVMF_CHECK(fill_ <= kStagingBytes);
  parse();
  pass_on();  // pieces of a WRITE that has failed are let go as they come
}

// Runs when bytes came and when a stall is over: at neither time is a place named to the stream.
void Session::parse() {
  NVMF_CHECK(!named_);
  while (!input_over_ && !stalled_ && step()) {
  }
  if (eof_ && !stalled_) end_input();  // what is left is the beginning of something
  if (input_over_) parsed_ = fill_;
  if (parsed_ == fill_) parsed_ = fill_ = 0;
}

/// One message, or one piece of a payload. False if more bytes are needed first.
bool Session::step() {
  if (!transmission_) return negotiate();
  if (current_ == nullptr) return take_request();
  return current_->receives ? take_payload() : cut_read();
}

bool Session::negotiate() {
  std::size_t consumed = 0;
  const auto outcome = negotiation_.take(staged(), consumed, control_);
  parsed_ += consumed;
  switch (outcome) {
    case Negotiation::Outcome::more:
      break;
    case Negotiation::Outcome::transmission:
      begin_transmission(negotiation_.device(), negotiation_.flags(), negotiation_.agreed());
      break;
    case Negotiation::Outcome::finish:
      reason_ = Error{negotiation_.reason(), ECONNABORTED};
      end_input();
      return false;
    case Negotiation::Outcome::broken:
      dismiss(negotiation_.reason(), EPROTO);
      return false;
  }
  if (!control_.empty()) {
    send_control();
    return false;
  }
  return consumed > 0;
}

void Session::begin_transmission(host::BlockDevice& device, std::uint16_t flags,
                                 const Agreed& agreed) {
  transmission_ = true;
  handshake_timer_.cancel();
  device_ = &device;
  flags_ = flags;
  agreed_ = agreed;
  piece_bytes_max_ = std::min(kPieceBytesMax, device_->info().transfer_bytes_max);
  reserve_.open(buffers_.arena());
  tables_ = std::make_unique<Tables>();
  for (std::size_t i = kRequestsMax; i-- > 0;) {
    Slot& slot = tables_->slots[i];
    slot.session = this;
    slot.complete = &Session::on_complete;
    slot.status.slot = &slot;
    slot.status.complete = &Session::on_status;
    slot.next_slot = std::exchange(free_, &slot);
    Request& request = tables_->requests[i];
    request.next_free = std::exchange(free_requests_, &request);
  }
}

/// The part of a WRITE's payload that came into the staging: copied, or skipped if it was refused.
bool Session::take_payload() {
  if (filling_ == nullptr && !start_piece_of_write(*current_)) return false;
  const auto bytes =
      static_cast<std::uint32_t>(std::min<std::size_t>(staged().size(), piece_left_));
  if (bytes == 0) return false;
  if (filling_->data != nullptr) {
    std::memcpy(filling_->data + (filling_->length_bytes - piece_left_), staged().data(), bytes);
  }
  parsed_ += bytes;
  piece_left_ -= bytes;
  payload_left_ -= bytes;
  if (piece_left_ == 0) piece_received();
  return true;
}

void Session::resume() {
  buffers_.stop_waiting(*this);
  if (!stalled_ || closed_ || input_over_) return;
  stalled_ = false;
  parse();
  stream_->wake();
  maybe_finish();  // the READ that kept the session open may be cut to its end now
}

std::size_t Session::send_vectors(std::span<iovec> out) {
  std::size_t count = 0;
  if (control_sent_ < control_.size() && count < out.size()) {
    out[count++] = {control_.data() + control_sent_, control_.size() - control_sent_};
  }
  std::size_t skip = reply_sent_;
  for (Slot* slot = first_reply_; slot != nullptr && count < out.size(); slot = slot->next_slot) {
    if (skip < slot->reply_head_bytes) {
      out[count++] = {slot->reply_head.data() + skip, slot->reply_head_bytes - skip};
      skip = 0;
    } else {
      skip -= slot->reply_head_bytes;
    }
    if (slot->reply_data_bytes > 0 && count < out.size()) {
      out[count++] = {slot->data + skip, slot->reply_data_bytes - skip};
    }
    skip = 0;
  }
  return count;
}

void Session::send_advance(std::size_t bytes) {
  bool freed = false;
  if (control_sent_ < control_.size()) {
    const std::size_t control = std::min(bytes, control_.size() - control_sent_);
    control_sent_ += control;
    bytes -= control;
    if (control_sent_ == control_.size()) {
      control_.clear();
      control_sent_ = 0;
      freed = true;
    }
  }
  while (bytes > 0) {
    NVMF_CHECK(first_reply_ != nullptr);
    Slot& slot = *first_reply_;
    const std::size_t left = slot.reply_head_bytes + slot.reply_data_bytes - reply_sent_;
    const std::size_t sent = std::min(bytes, left);
    reply_sent_ += sent;
    bytes -= sent;
    if (sent < left) break;
    reply_sent_ = 0;
    first_reply_ = slot.next_slot;
    if (first_reply_ == nullptr) last_reply_ = nullptr;
    slot.queued = false;
    if (!slot.in_device) release(slot);
    freed = true;
  }
  if (!freed) return;
  pass_on();
  resume();
}

void Session::on_eof() {
  eof_ = true;
  if (kernel_ && !finishing_) {
    stream_->reset(Error{"the kernel has closed the connection", ECONNRESET});
  } else if (!stalled_) {
    end_input();
  }
}

void Session::on_closed(const Error& reason) {
  closed_ = true;
  if (reason_.message.empty()) reason_ = reason;
  handshake_timer_.cancel();
  buffers_.stop_waiting(*this);
  forget_requests();
  stream_.reset();
  pass_on();
  maybe_gone();
}

/// Nobody is there any more: what the device still has is its own, everything else is let go.
void Session::forget_requests() {
  current_ = nullptr;
  filling_ = nullptr;
  first_reply_ = last_reply_ = nullptr;
  if (tables_ == nullptr) return;
  for (Slot& slot : tables_->slots) {
    if (slot.request == nullptr) continue;
    slot.queued = false;
    if (!slot.in_device) {
      release(slot);
    } else if (changes_data(slot)) {
      device_->abandon(slot);
    }
  }
}

void Session::stop() {
  stopping_ = true;
  maybe_finish();
}

void Session::cut() {
  if (closed_ || finishing_) return;
  for (std::size_t i = 0; tables_ != nullptr && i < kRequestsMax; ++i) {
    Slot& slot = tables_->slots[i];
    if (!slot.in_device || slot.request->answered) continue;
    slot.request->answered = true;
    if (changes_data(slot)) device_->abandon(slot);
    // A reply that has begun can only be broken off.
    if (slot.request->begun) continue;
    answer(slot, {WireError::eshutdown, "The server is shutting down"});
  }
  finishing_ = true;
  input_over_ = true;
  stream_->finish(kLingerAfterGrace);
}

void Session::answer_older_than(Duration age) {
  if (closed_ || finishing_ || tables_ == nullptr) return;
  const Instant before = buffers_.loop().now() - age;
  for (Slot& slot : tables_->slots) {
    if (!slot.in_device || slot.request->answered) continue;
    Request& r = *slot.request;
    const bool receiving = &r == current_ && r.receives;
    if (r.began_at > before || receiving) continue;
    if (r.begun) {
      dismiss("a request took too long whose reply had begun", ETIMEDOUT);
      return;
    }
    give_up(r);
    answer(slot, {WireError::eio, "The request took too long"});
  }
  pass_on();
  resume();
}

/// Whatever the device still completes of it is of no interest.
void Session::give_up(Request& r) {
  stop_cutting(r);
  r.answered = true;
  for (Slot& slot : tables_->slots) {
    if (slot.request != &r || slot.queued) continue;
    if (!slot.in_device) {
      release(slot);
    } else if (changes_data(slot)) {
      device_->abandon(slot);
    }
  }
  r.first = r.last = nullptr;
}

void Session::end_input() {
  input_over_ = true;
  maybe_finish();
}

/// Closes once no reply is to come any more. What is queued is still sent.
void Session::maybe_finish() {
  if (!open_ || closed_ || finishing_ || serving()) return;
  if (!input_over_ && !stopping_) return;
  finishing_ = true;
  input_over_ = true;
  buffers_.stop_waiting(*this);
  stream_->finish(stopping_ ? kLingerAfterGrace : kLinger);
}

void Session::dismiss(std::string_view what, int code) {
  if (dismissed_) return;
  input_over_ = true;
  finishing_ = true;
  dismissed_ = true;
  reason_ =
      Error{fmt::format("the NBD client at {} was disconnected: {}", stream_->peer(), what), code};
  stream_->reset(reason_);
}

void Session::maybe_gone() {
  if (closed_ && in_device_ == 0) owner_.session_gone(*this, reason_);
}

}  // namespace nvmf::nbd
