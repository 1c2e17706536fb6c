#include "control/line_stream.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "nvme/check.h"

namespace nvmf::control {

void LineStream::on_open(transport::Stream&) {
  open_ = true;
  if (sending()) stream_->wake();
  on_up();
}

std::size_t LineStream::recv_vectors(std::span<iovec> out) {
  if (deaf_ || paused_ || out.empty()) return 0;
  named_payload_ = in_payload_;
  if (in_payload_) {
    // Where it belongs: deliver() has put there what came with the line.
    out[0] = {payload_.data() + payload_got_, payload_.size() - payload_got_};
  } else {
    out[0] = {place_.data(), place_.size()};
  }
  return 1;
}

void LineStream::recv_advance(std::size_t bytes) {
  if (named_payload_) {
    NVMF_CHECK(bytes <= payload_.size() - payload_got_);
    payload_got_ += bytes;
  } else {
    NVMF_CHECK(bytes <= place_.size());
    if (deaf_) return;
    incoming_.append(reinterpret_cast<const char*>(place_.data()), bytes);
  }
  deliver();
}

/// Hands over what is whole while it is wanted. on_line() may pause, resume, send, and expect a
/// payload.
void LineStream::deliver() {
  if (std::exchange(delivering_, true)) return;
  std::size_t start = 0;
  while (!paused_ && !deaf_) {
    const bool in_payload = in_payload_;
    const std::size_t next = in_payload ? deliver_payload(start) : deliver_line(start);
    if (next == start && in_payload == in_payload_) break;
    start = next;
  }
  incoming_.erase(0, start);
  scanned_ = scanned_ > start ? scanned_ - start : 0;
  delivering_ = false;
  if (eof_ && !paused_ && !std::exchange(end_told_, true)) on_end_of_lines();
}

/// The line at `start`, if it is whole; returns where the next thing begins.
std::size_t LineStream::deliver_line(std::size_t start) {
  const std::size_t newline = incoming_.find('\n', std::max(start, scanned_));
  if (newline == std::string::npos) {
    scanned_ = incoming_.size();
    deaf_ = incoming_.size() - start >= line_bytes_max_;
  } else {
    deaf_ = newline - start >= line_bytes_max_;
  }
  if (deaf_) {
    on_line_too_long();
    return start;
  }
  if (newline == std::string::npos) return start;
  on_line(std::string_view(incoming_).substr(start, newline - start));
  return newline + 1;
}

/// What there is of the payload; its end, if it is whole.
std::size_t LineStream::deliver_payload(std::size_t start) {
  const std::size_t taken = std::min(incoming_.size() - start, payload_.size() - payload_got_);
  std::memcpy(payload_.data() + payload_got_, incoming_.data() + start, taken);
  payload_got_ += taken;
  if (payload_got_ == payload_.size()) {
    in_payload_ = false;
    on_payload(std::exchange(payload_, {}));
  }
  return start + taken;
}

std::span<const std::byte> LineStream::bytes_of(const Chunk& chunk) {
  return std::visit([](const auto& c) { return std::as_bytes(std::span(c.data(), c.size())); },
                    chunk);
}

std::size_t LineStream::send_vectors(std::span<iovec> out) {
  std::size_t n = 0;
  std::size_t skip = sent_;
  for (const Chunk& chunk : outgoing_) {
    if (n == out.size()) break;
    const std::span<const std::byte> rest = bytes_of(chunk).subspan(skip);
    out[n++] = {const_cast<std::byte*>(rest.data()), rest.size()};  // NOLINT: only read
    skip = 0;
  }
  return n;
}

void LineStream::send_advance(std::size_t bytes) {
  sent_ += bytes;
  backlog_bytes_ -= bytes;
  while (!outgoing_.empty() && sent_ >= bytes_of(outgoing_.front()).size()) {
    sent_ -= bytes_of(outgoing_.front()).size();
    outgoing_.pop_front();
  }
  if (outgoing_.empty()) on_all_sent();
}

void LineStream::on_eof() {
  eof_ = true;
  deliver();
}

void LineStream::send(Chunk chunk) {
  backlog_bytes_ += bytes_of(chunk).size();
  outgoing_.push_back(std::move(chunk));  // a deque: what was named stays where it is
  if (open_) stream_->wake();
}

void LineStream::send_line(std::string line) {
  send(std::move(line));
}

void LineStream::send_payload(std::vector<std::byte> payload) {
  if (!payload.empty()) send(std::move(payload));
}

void LineStream::expect_payload(std::size_t bytes) {
  NVMF_CHECK(!in_payload_ && bytes != 0 && (delivering_ || paused_));
  payload_.resize(bytes);
  payload_got_ = 0;
  in_payload_ = true;
}

void LineStream::set_paused(bool paused) {
  if (paused_ == paused) return;
  paused_ = paused;
  if (paused_) return;
  deliver();
  if (open_ && !paused_) stream_->wake();
}

}  // namespace nvmf::control
