#include "controller/hole_stream.h"

#include <algorithm>
#include <utility>

namespace nvmf::controller {

HoleStream::HoleStream(transport::Loop& loop, transport::StreamUser& user)
    : user_(user), closer_(loop.timers(), [this] {
        // What was asked for meanwhile is the reason that the user expects.
        const Error reason = reset_ ? *reset_ : *ended_;
        user_.on_closed(reason);  // destroys us
      }) {}

std::unique_ptr<HoleStream> HoleStream::adopt(transport::Loop& loop,
                                              std::unique_ptr<transport::Incoming> incoming,
                                              transport::StreamUser& user) {
  std::unique_ptr<HoleStream> made(new HoleStream(loop, user));
  made->below_ = loop.adopt(std::move(incoming), *made);
  return made;
}

void HoleStream::set(bool on) {
  if (std::exchange(on_, on) == on || on) return;
  if (ended_) return closer_.arm({});
  if (reset_) return below_->reset(std::move(*reset_));
  if (received_ != 0) user_.recv_advance(std::exchange(received_, 0));
  if (std::exchange(eof_, false)) user_.on_eof();
  if (finish_) return below_->finish(*finish_);
  below_->wake();
}

void HoleStream::reset(Error reason) {
  if (ended_ || on_) {
    if (!reset_) reset_ = std::move(reason);
    return;
  }
  below_->reset(std::move(reason));
}

void HoleStream::finish(std::chrono::nanoseconds linger) {
  if (on_) {
    finish_ = linger;
  } else if (!ended_) {
    below_->finish(linger);
  }
}

void HoleStream::on_open(transport::Stream& stream) {
  peer_ = stream.peer();
  local_ = stream.local();
  user_.on_open(*this);
}

std::size_t HoleStream::recv_vectors(std::span<iovec> out) {
  // Places that were named before the hole came on stay named until bytes have filled them.
  if (on_ && !receiving_) return 0;
  const std::size_t count = user_.recv_vectors(out);
  receiving_ = count != 0;
  return count;
}

void HoleStream::recv_advance(std::size_t bytes) {
  receiving_ = false;
  if (on_) {
    received_ += bytes;
  } else {
    user_.recv_advance(bytes);
  }
}

std::size_t HoleStream::send_vectors(std::span<iovec> out) {
  if (on_ && sending_ == 0) return 0;
  std::size_t count = user_.send_vectors(out);
  if (on_) {
    // No more than what is in the kernel's hands already.
    std::size_t left = sending_;
    std::size_t kept = 0;
    while (kept < count && left != 0) {
      out[kept].iov_len = std::min(out[kept].iov_len, left);
      left -= out[kept++].iov_len;
    }
    return kept;
  }
  sending_ = 0;
  for (std::size_t i = 0; i < count; ++i) sending_ += out[i].iov_len;
  return count;
}

void HoleStream::send_advance(std::size_t bytes) {
  sending_ -= std::min(sending_, bytes);
  user_.send_advance(bytes);
}

void HoleStream::on_eof() {
  if (on_) {
    eof_ = true;
  } else {
    user_.on_eof();
  }
}

void HoleStream::on_closed(const Error& reason) {
  if (!on_) return user_.on_closed(reason);  // destroys us
  ended_ = reason;
}

}  // namespace nvmf::controller
