#include "frontends/fuse/worker.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "frontends/fuse/fuse_api.h"
#include "frontends/fuse/limits.h"
#include "frontends/fuse/rules.h"
#include "nvme/check.h"

namespace nvmf::fuse {

using host::BlockOp;

namespace {

// libfuse's handlers are told of the session, not of who read the message.
thread_local Worker* on_this_thread = nullptr;

}  // namespace

Worker::Worker(transport::Loop& loop, std::size_t index, const SlotCounts& slots, Events events,
               DiscardPages discard)
    : loop_(loop),
      index_(index),
      events_(std::move(events)),
      tree_(std::make_shared<const Tree>()),
      slots_(*this, slots),
      seeks_(loop, [this] { report(); }),
      patience_(loop.timers(), [this] { end_patience(); }),
      grace_(loop.timers(), [this] { give_up_all(); }),
      retry_(loop.timers(),
             [this] {
               if (reading_ && !watch_) watch();
             }),
      idle_(loop.timers(), [this] { look_idle(); }),
      discard_(discard) {}

Worker::~Worker() {
  NVMF_CHECK(waiting_ == 0 && busy_ == 0 && seeks_.waiting() == 0 && seeks_.busy() == 0);
}

Worker* Worker::current() {
  return on_this_thread;
}

void Worker::set_tree(std::shared_ptr<const Tree> tree) {
  tree_ = std::move(tree);
  end_patience();  // of whoever waits for a namespace that is not live any more
}

// Reading.

void Worker::begin(Session& session) {
  session_ = &session;
  if (stopping_) return;
  reading_ = true;
  watch();
}

void Worker::watch() {
  auto watch = loop_.watch(session_->fd(), true, false, [this] { readable(); });
  if (watch) {
    watch_ = std::move(*watch);
  } else {
    // Out of descriptors or memory: the others read meanwhile.
    retry_.arm(loop_.now() + kWatchRetry);
  }
}

void Worker::readable() {
  for (std::uint32_t n = 0; n < kMessagesPerTurn && reading_; ++n) {
    if (receiving_ == nullptr) receiving_ = slots_.take(SlotSize::large);
    if (receiving_ == nullptr || !slots_.available(SlotSize::small)) {
      watch_.reset();  // release() sets it up again
      return;
    }
    on_this_thread = this;
    const Received received = session_->receive(receiving_->buffer);
    on_this_thread = nullptr;
    if (received == Received::nothing) return;
    if (received == Received::end) return session_ended();
  }
}

void Worker::session_ended() {
  reading_ = false;
  watch_.reset();
  give_up_all();
  events_.unmounted();
}

Slot& Worker::take_received() {
  return *std::exchange(receiving_, nullptr);
}

Slot& Worker::take_without_data() {
  return *slots_.take(SlotSize::small);
}

Slot& Worker::take_for_read(std::size_t bytes) {
  Slot* slot = slots_.take_for(bytes);
  // The message has been taken in: its memory serves.
  if (slot == nullptr) slot = &take_received();
  slot->data = slot->buffer;
  return *slot;
}

Slot& Worker::take_for_write(const std::byte* data, std::size_t bytes) {
  // Small writes are copied, large ones stay where they were read into if there is something to
  // read the next message into.
  const bool keep = bytes > kSmallBytes && slots_.available(SlotSize::large);
  Slot* slot = keep ? nullptr : slots_.take_for(bytes);
  if (slot == nullptr) {
    slot = &take_received();
    slot->data = slot->buffer + (data - slot->buffer);
  } else {
    std::memcpy(slot->buffer, data, bytes);
    slot->data = slot->buffer;
  }
  return *slot;
}

// Requests.

void Worker::read(fuse_req* request, const DiskFile& disk, std::size_t size_bytes,
                  std::uint64_t offset_bytes) {
  const Part part = read_part(device(disk).info().size_bytes, offset_bytes,
                              std::min<std::size_t>(size_bytes, kTransferBytesMax));
  if (part.length_bytes == 0) {
    ::fuse_reply_buf(request, nullptr, 0);
    return;
  }
  Slot& slot = take_for_read(part.length_bytes);
  slot.op = BlockOp::read;
  slot.fua = slot.no_hole = slot.short_already = false;
  slot.offset_bytes = offset_bytes;
  slot.length_bytes = part.length_bytes;
  submit(slot, request, disk);
}

void Worker::write(fuse_req* request, const DiskFile& disk, const std::byte* data,
                   std::size_t size_bytes, std::uint64_t offset_bytes, bool durable) {
  const Part part = write_part(device(disk).info().size_bytes, offset_bytes, size_bytes);
  if (part.error != 0) {
    ::fuse_reply_err(request, part.error);
    return;
  }
  if (part.length_bytes == 0) {
    ::fuse_reply_write(request, 0);
    return;
  }
  Slot& slot = take_for_write(data, part.length_bytes);
  slot.op = BlockOp::write;
  slot.fua = durable;
  slot.no_hole = false;
  slot.offset_bytes = offset_bytes;
  slot.length_bytes = part.length_bytes;
  submit(slot, request, disk);
}

void Worker::flush(fuse_req* request, const DiskFile& disk) {
  Slot& slot = take_without_data();
  slot.op = BlockOp::flush;
  slot.fua = slot.no_hole = false;
  slot.offset_bytes = slot.length_bytes = 0;
  slot.data = nullptr;
  submit(slot, request, disk);
}

void Worker::write_zeroes(fuse_req* request, const DiskFile& disk, std::uint64_t offset_bytes,
                          std::uint64_t length_bytes, bool no_hole) {
  Slot& slot = take_without_data();
  slot.op = BlockOp::write_zeroes;
  slot.fua = false;
  slot.no_hole = no_hole;
  slot.offset_bytes = offset_bytes;
  slot.length_bytes = length_bytes;
  slot.data = nullptr;
  submit(slot, request, disk);
}

void Worker::seek(fuse_req* request, const DiskFile& disk, int whence, std::uint64_t offset_bytes) {
  seeks_.seek(request, device(disk), whence, offset_bytes);
  if (hurried_) seeks_.give_up_all(EIO);
}

void Worker::submit(Slot& slot, fuse_req* request, const DiskFile& disk) {
  slot.nsid = disk.nsid;
  slot.device = &device(disk);
  slot.times = disk.times.get();
  slot.complete = &Worker::completed;
  slot.error = 0;
  slot.waiting = request;
  ++waiting_;
  ++busy_;
  slot.device->submit(slot);
  // May call interrupted() at once.
  ::fuse_req_interrupt_func(request, &Worker::interrupted, &slot);
  if (hurried_) give_up(slot, EIO);
}

void Worker::completed(host::BlockRequest& request) {
  auto& slot = static_cast<Slot&>(request);
  slot.worker->complete(slot);
}

void Worker::complete(Slot& slot) {
  if (slot.error == EINVAL && read_again(slot)) return;
  --busy_;
  if (slot.error == 0 && slot.op != BlockOp::read && slot.op != BlockOp::flush) {
    slot.times->changed_ns.store(wall_clock_ns(), std::memory_order_relaxed);
  }
  if (fuse_req* request = std::exchange(slot.waiting, nullptr)) {
    --waiting_;
    // Waits for an interrupted() that is running: it finds the slot as it was.
    ::fuse_req_interrupt_func(request, nullptr, nullptr);
    if (slot.error != 0) {
      ::fuse_reply_err(request, file_error(slot.error));
    } else if (slot.op == BlockOp::read) {
      ::fuse_reply_buf(request, reinterpret_cast<const char*>(slot.data), slot.length_bytes);
    } else if (slot.op == BlockOp::write) {
      ::fuse_reply_write(request, slot.length_bytes);
    } else {
      ::fuse_reply_err(request, 0);
    }
  }
  release(slot);
}

/// The namespace may have become smaller since the request was cut to its size.
bool Worker::read_again(Slot& slot) {
  if (slot.op != BlockOp::read || slot.waiting == nullptr || slot.short_already) return false;
  const Part part = read_part(slot.device->info().size_bytes, slot.offset_bytes, slot.length_bytes);
  if (part.length_bytes == slot.length_bytes) return false;
  slot.length_bytes = part.length_bytes;
  slot.error = 0;
  if (part.length_bytes == 0) return false;  // nothing of it is left: that is the answer
  slot.short_already = true;
  slot.device->submit(slot);
  return true;
}

void Worker::release(Slot& slot) {
  slots_.give_back(slot);
  if (++released_ != 0 && discard_ != nullptr && reading_ && !idle_.armed()) {
    released_before_ = released_;
    idle_.arm(loop_.now() + kDiscardAfter);
  }
  if (reading_ && !watch_) watch();
  report();
}

/// What the next message is read into is memory of ours as well, and nothing is in it.
void Worker::look_idle() {
  if (busy_ == 0 && released_ == released_before_) return slots_.discard(discard_);
  released_before_ = released_;
  idle_.arm(loop_.now() + kDiscardAfter);
}

// Answers before the end.

void Worker::give_up(Slot& slot, int error) {
  fuse_req* request = std::exchange(slot.waiting, nullptr);
  if (request == nullptr) return;
  --waiting_;
  // First: who hears that it failed may write there again at once, by way of another reactor.
  slot.device->abandon(slot);
  ::fuse_req_interrupt_func(request, nullptr, nullptr);
  ::fuse_reply_err(request, error);
}

void Worker::give_up_all() {
  for (Slot& slot : slots_.all()) give_up(slot, EIO);
  seeks_.give_up_all(EIO);
  report();
}

/// libfuse holds a lock of the request's: `slot` stays this request's until this returns.
void Worker::interrupted(fuse_req* /*request*/, void* data) {
  auto& slot = *static_cast<Slot*>(data);
  slot.worker->loop_.post(
      [&slot, generation = slot.generation] { slot.worker->interrupt(slot, generation); });
}

void Worker::interrupt(Slot& slot, std::uint32_t generation) {
  if (slot.generation != generation || slot.waiting == nullptr) return;
  interrupted_.push_back({&slot, generation, loop_.now() + kInterruptPatience});
  end_patience();
}

void Worker::end_patience() {
  std::erase_if(interrupted_, [this](const Interrupted& one) {
    Slot& slot = *one.slot;
    if (slot.generation != one.generation || slot.waiting == nullptr) return true;
    const DiskFile* disk = tree_->by_nsid(slot.nsid);
    const bool live = disk != nullptr && disk->state == frontends::DiskState::live;
    if (live && loop_.now() < one.until) return false;
    give_up(slot, EINTR);
    return true;
  });
  if (interrupted_.empty()) {
    patience_.cancel();
  } else {
    patience_.arm(std::ranges::min_element(interrupted_, {}, &Interrupted::until)->until);
  }
  report();
}

// The end.

void Worker::hurry() {
  hurried_ = true;
  give_up_all();
}

void Worker::stop(Duration grace) {
  NVMF_CHECK(!stopping_);
  stopping_ = true;
  reading_ = false;
  watch_.reset();
  if (waiting_ + seeks_.waiting() != 0) grace_.arm(loop_.now() + grace);
  report();
}

void Worker::report() {
  if (!stopping_ || waiting_ + seeks_.waiting() != 0) return;
  if (!std::exchange(quiet_told_, true)) {
    grace_.cancel();
    patience_.cancel();
    retry_.cancel();
    idle_.cancel();
    interrupted_.clear();
    events_.quiet();
  }
  if (busy_ + seeks_.busy() != 0 || std::exchange(idle_told_, true)) return;
  events_.idle();
}

}  // namespace nvmf::fuse
