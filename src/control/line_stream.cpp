#include "control/line_stream.h"

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
  out[0] = {place_.data(), place_.size()};
  return 1;
}

void LineStream::recv_advance(std::size_t bytes) {
  NVMF_CHECK(bytes <= place_.size());
  if (deaf_) return;
  incoming_.append(reinterpret_cast<const char*>(place_.data()), bytes);
  deliver();
}

/// Hands over whole lines while they are wanted. on_line() may pause, resume and send.
void LineStream::deliver() {
  if (std::exchange(delivering_, true)) return;
  std::size_t start = 0;
  while (!paused_ && !deaf_) {
    const std::size_t newline = incoming_.find('\n', std::max(start, scanned_));
    if (newline == std::string::npos) {
      scanned_ = incoming_.size();
      deaf_ = incoming_.size() - start >= line_bytes_max_;
    } else {
      deaf_ = newline - start >= line_bytes_max_;
    }
    if (deaf_) {
      on_line_too_long();
      break;
    }
    if (newline == std::string::npos) break;
    on_line(std::string_view(incoming_).substr(start, newline - start));
    start = newline + 1;
  }
  incoming_.erase(0, start);
  scanned_ = scanned_ > start ? scanned_ - start : 0;
  delivering_ = false;
  if (eof_ && !paused_ && !std::exchange(end_told_, true)) on_end_of_lines();
}

std::size_t LineStream::send_vectors(std::span<iovec> out) {
  std::size_t n = 0;
  std::size_t skip = sent_;
  for (std::string& line : outgoing_) {
    if (n == out.size()) break;
    out[n++] = {line.data() + skip, line.size() - skip};
    skip = 0;
  }
  return n;
}

void LineStream::send_advance(std::size_t bytes) {
  sent_ += bytes;
  while (!outgoing_.empty() && sent_ >= outgoing_.front().size()) {
    sent_ -= outgoing_.front().size();
    outgoing_.pop_front();
  }
  if (outgoing_.empty()) on_all_sent();
}

void LineStream::on_eof() {
  eof_ = true;
  deliver();
}

void LineStream::send_line(std::string line) {
  outgoing_.push_back(std::move(line));  // a deque: what was named stays where it is
  if (open_) stream_->wake();
}

void LineStream::set_paused(bool paused) {
  if (paused_ == paused) return;
  paused_ = paused;
  if (paused_) return;
  deliver();
  if (open_ && !paused_) stream_->wake();
}

}  // namespace nvmf::control
