#include "frontends/fuse/seeks.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "frontends/fuse/fuse_api.h"
#include "frontends/fuse/rules.h"

namespace nvmf::fuse {

namespace {

void reply(fuse_req* request, int error, std::uint64_t offset_bytes) {
  if (error != 0) {
    ::fuse_reply_err(request, error);
  } else {
    ::fuse_reply_lseek(request, static_cast<off_t>(offset_bytes));
  }
}

}  // namespace

Seeks::Seeks(transport::Loop& loop, std::function<void()> on_change)
    : loop_(loop), on_change_(std::move(on_change)) {
  for (Seek& seek : seeks_) seek.owner = this;
}

void Seeks::seek(fuse_req* request, host::BlockDevice& device, int whence,
                 std::uint64_t offset_bytes) {
  const std::uint64_t size = device.info().size_bytes;
  const auto as_data = seek_in(whence, size, offset_bytes);
  const auto free = std::ranges::find_if(seeks_, &Seek::free);
  if (as_data.error != 0 || free == seeks_.end()) {
    reply(request, as_data.error, as_data.offset_bytes);
    return;
  }
  Seek& seek = *free;
  seek.free = false;
  seek.device = &device;
  seek.waiting = request;
  seek.asked = 0;
  seek.whence = whence;
  seek.extents = seek.found;
  seek.complete = &Seeks::completed;
  seek.offset_bytes = offset_bytes;
  seek.length_bytes = size - offset_bytes;
  ++waiting_;
  ++busy_;
  ::fuse_req_interrupt_func(request, &Seeks::interrupted, &seek);
  go_on(seek);
}

/// Asks for as long as the answers come at once.
void Seeks::go_on(Seek& seek) {
  while (seek.device->extents(seek)) {
    if (look(seek)) return;
  }
}

void Seeks::completed(host::ExtentsRequest& request) {
  auto& seek = static_cast<Seek&>(request);
  if (!seek.owner->look(seek)) seek.owner->go_on(seek);
}

/// Into an answer of the device's. True: there is nothing more to ask.
bool Seeks::look(Seek& seek) {
  if (seek.waiting == nullptr) {
    done(seek);
    return true;
  }
  const bool wants_zeroes = seek.whence == SEEK_HOLE;
  const std::size_t count = seek.error == 0 ? seek.count : 0;
  for (std::size_t i = 0; i < count; ++i) {
    const host::Extent& extent = seek.found[i];
    if (extent.zeroes == wants_zeroes) {
      answer(seek, 0, seek.offset_bytes);
      done(seek);
      return true;
    }
    seek.offset_bytes += extent.length_bytes;
    seek.length_bytes -= std::min(seek.length_bytes, extent.length_bytes);
  }
  if (count != 0 && seek.length_bytes == 0) {
    // The end is a hole, and there is no data behind it.
    answer(seek, wants_zeroes ? 0 : ENXIO, seek.offset_bytes);
  } else if (count == 0 || ++seek.asked == kSeekQuestionsMax) {
    answer_as_data(seek);
  } else {
    return false;
  }
  done(seek);
  return true;
}

/// From where it has come to.
void Seeks::answer_as_data(Seek& seek) {
  const auto as_data = seek_in(seek.whence, seek.device->info().size_bytes, seek.offset_bytes);
  answer(seek, as_data.error, as_data.offset_bytes);
}

void Seeks::answer(Seek& seek, int error, std::uint64_t offset_bytes) {
  fuse_req* request = std::exchange(seek.waiting, nullptr);
  if (request == nullptr) return;
  --waiting_;
  // Waits for an interrupted() that is running: it finds the seek as it was.
  ::fuse_req_interrupt_func(request, nullptr, nullptr);
  reply(request, error, offset_bytes);
}

void Seeks::done(Seek& seek) {
  ++seek.generation;
  seek.free = true;
  --busy_;
  on_change_();
}

void Seeks::give_up_all(int error) {
  for (Seek& seek : seeks_) answer(seek, error, 0);
  on_change_();
}

/// libfuse holds a lock of the request's: `data` stays this request's until this returns.
void Seeks::interrupted(fuse_req* /*request*/, void* data) {
  auto& seek = *static_cast<Seek*>(data);
  seek.owner->loop_.post([&seek, generation = seek.generation] {
    if (seek.generation != generation) return;
    seek.owner->answer(seek, EINTR, 0);
    seek.owner->on_change_();
  });
}

}  // namespace nvmf::fuse
