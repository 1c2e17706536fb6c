#include "controller/io_commands.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "controller/controller.h"
#include "controller/session.h"
#include "nvme/admin.h"
#include "nvme/check.h"
#include "nvme/fabrics.h"

namespace nvmf::controller {

using nvme::Status;
using nvme::StatusCode;

namespace {

/// Command Retry Delay: the number of the CRDT to wait for, to hosts that know of them. Base 2.1
/// §4.2.3, §5.1.25.1.14.
std::uint8_t not_ready_crd(const Controller& controller) {
  return controller.features().host_behavior.acre && controller.config().crdt[0] != 0 ? 1 : 0;
}

/// What a host is told of an errno. Media errors may be tried again; what the disk will never do
/// may not.
Status status_of(const Controller& controller, int error, bool reading) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return StatusCode::capacity_exceeded;
    case EROFS:
    case EPERM:
    case EACCES:
      return {StatusCode::namespace_write_protected, true};
    case ENODATA:  // the file has become shorter than the namespace
      return {StatusCode::lba_out_of_range, true};
    case EAGAIN: {
      Status status = StatusCode::namespace_not_ready;
      status.crd = not_ready_crd(controller);
      return status;
    }
    case EIO:
      return reading ? StatusCode::unrecovered_read_error : StatusCode::write_fault;
    default:
      return StatusCode::internal_error;
  }
}

}  // namespace

IoQueue::IoQueue(Controller& controller, Session& session, BufferPool& pool)
    : controller_(controller),
      session_(session),
      pool_(pool),
      own_buffer_(BufferPool::allocate(kBufferBytes)) {}

IoQueue::~IoQueue() {
  NVMF_CHECK(idle() && shared_buffers_ == 0);
}

IoQueue::Slot& IoQueue::slot_of(const transport::ControllerCommand& command) {
  while (slots_.size() <= command.slot) {
    slots_.emplace_back();
    slots_.back().queue = this;
    slots_.back().complete = &IoQueue::on_disk_complete;
  }
  return slots_[command.slot];
}

void IoQueue::on_command(transport::ControllerCommand& command) {
  if (command.sqe.is_fabrics()) {
    if (command.sqe.fabrics_type() == nvme::FabricsType::disconnect) return disconnect(command);
    // Connect came already; properties belong to the admin queue. Base 2.1 §6.
    session_.respond(command, {command.sqe.fabrics_type() == nvme::FabricsType::connect
                                   ? StatusCode::command_sequence_error
                                   : StatusCode::invalid_opcode,
                               true});
    return;
  }
  Slot& slot = slot_of(command);
  NVMF_CHECK(slot.what == Work::none && slot.buffer == nullptr);
  slot.command = &command;
  slot.cntlid = controller_.cntlid();
  slot.qid = session_.qid();
  slot.opcode = command.sqe.opcode;
  slot.fua = false;
  slot.aborted = false;
  slot.deallocate = false;
  slot.done_bytes = 0;
  slot.total_bytes = 0;
  slot.index = 0;
  slot.count = 0;
  if (const Status status = check(slot); !status.ok()) return respond(slot, status);
  start(slot);
}

void IoQueue::use(Slot& slot, Namespace* ns) {
  if (slot.ns != nullptr) --slot.ns->users;
  slot.ns = ns;
  if (ns != nullptr) ++ns->users;
}

void IoQueue::start(Slot& slot) {
  const transport::ControllerCommand& command = *slot.command;
  bool needs_buffer = moves_data(slot.what);
  if (slot.what == Work::write && !command.in_capsule.empty()) needs_buffer = false;
  if (slot.what == Work::deallocate) {
    // Other attributes are hints about future use, which mean nothing here.
    if ((command.sqe.cdw11 & nvme::kCdw11DsmDeallocate) == 0) return respond(slot, Status{});
    needs_buffer = true;
  }
  // The capsule's own memory lies side by side with its neighbours' and stays in the cache; the
  // pool's buffers are far apart, and others may need them.
  if (slot.what == Work::read && slot.total_bytes <= command.spare.size()) {
    slot.buffer = command.spare.data();
    needs_buffer = false;
  }
  if (needs_buffer && (waiting_first_ != nullptr || !take_buffer(slot))) {
    return wait_for_buffer(slot);
  }
  start_piece(slot);
}

void IoQueue::start_piece(Slot& slot) {
  transport::ControllerCommand& command = *slot.command;
  const std::uint32_t left = slot.total_bytes - slot.done_bytes;
  const auto whole = static_cast<std::uint32_t>(kBufferBytes);
  switch (slot.what) {
    case Work::read:
      slot.piece_bytes = std::min(left, whole);
      return run_disk(slot);
    case Work::write_zeroes:
    case Work::flush:
      slot.piece_bytes = left;
      return run_disk(slot);
    case Work::compare:
      slot.piece_bytes = std::min(left, whole / 2);  // the other half is for the disk's data
      break;
    case Work::write:
      slot.piece_bytes = command.in_capsule.empty() ? std::min(left, whole) : left;
      break;
    case Work::deallocate:
      slot.piece_bytes = left;
      break;
    case Work::none:
      NVMF_CHECK(false);
  }
  if (command.in_capsule.empty()) {
    return session_.qpair().receive_data(command, {slot.buffer, slot.piece_bytes});
  }
  if (slot.what != Work::write) {
    std::memcpy(slot.buffer, command.in_capsule.data() + slot.done_bytes, slot.piece_bytes);
  }
  data_here(slot);
}

void IoQueue::on_data_received(transport::ControllerCommand& command, bool digest_ok) {
  Slot& slot = slot_of(command);
  if (!digest_ok) return respond(slot, StatusCode::transient_transport_error);
  data_here(slot);
}

void IoQueue::data_here(Slot& slot) {
  if (slot.what == Work::deallocate) {
    // All ranges are good, or none is touched.
    if (const Status status = check_dsm_ranges(slot); !status.ok()) return respond(slot, status);
  }
  run_disk(slot);
}

/// Sets up what the disk is to do next for this command; false if nothing is left to do.
bool IoQueue::next_operation(Slot& slot) {
  slot.offset_bytes = slot.start_bytes + slot.done_bytes;
  slot.length_bytes = slot.piece_bytes;
  slot.data = slot.buffer;
  switch (slot.what) {
    case Work::read:
      slot.kind = DiskOp::Kind::read;
      return true;
    case Work::compare:
      slot.kind = DiskOp::Kind::read;
      slot.data = slot.buffer + kBufferBytes / 2;
      return true;
    case Work::write:
      slot.kind = DiskOp::Kind::write;
      // A disk only reads what it is to write; the type is shared with reads.
      if (slot.buffer == nullptr) {
        slot.data = const_cast<std::byte*>(slot.command->in_capsule.data());
      }
      return true;
    case Work::write_zeroes:
      slot.kind = DiskOp::Kind::write_zeroes;
      return true;
    case Work::flush: {
      if (slot.index >= slot.count) return false;
      Namespace* const next = controller_.subsystem().next(slot.index);
      if (next == nullptr || next->nsid > slot.count) return false;
      slot.index = next->nsid;
      use(slot, next);
      slot.kind = DiskOp::Kind::flush;
      slot.offset_bytes = 0;
      slot.length_bytes = 0;
      return true;
    }
    case Work::deallocate:
      while (slot.index < slot.count) {
        const auto range = nvme::DsmRange::decode(std::span<const std::byte, nvme::kDsmRangeBytes>(
            slot.buffer + slot.index++ * nvme::kDsmRangeBytes, nvme::kDsmRangeBytes));
        if (range.blocks == 0) continue;
        slot.kind = DiskOp::Kind::deallocate;
        slot.offset_bytes = range.lba * slot.ns->block_bytes;
        slot.length_bytes = std::uint64_t{range.blocks} * slot.ns->block_bytes;
        return true;
      }
      return false;
    case Work::none:
      break;
  }
  return false;
}

void IoQueue::run_disk(Slot& slot) {
  // Whatever was on its way here when the association ended, or the controller was stopped, is not
  // executed any more. Base 2.1 §3.3.2.4, §3.6.
  if (controller_.ended()) return;
  if (controller_.fatal()) return free_slot(slot);
  if (!controller_.ready()) return respond(slot, StatusCode::aborted_sq_deletion);
  // A loop, not a recursion, over disks that complete inside submit().
  for (;;) {
    if (!next_operation(slot)) return respond(slot, Status{});
    slot.on_disk = true;
    slot.submitting = true;
    ++disk_ops_;
    slot.ns->disk->submit(slot);
    slot.submitting = false;
    if (slot.on_disk) return;
    bool again = false;
    operation_done(slot, again);
    if (!again) return;
  }
}

void IoQueue::on_disk_complete(DiskOp& op) {
  Slot& slot = static_cast<Slot&>(op);
  IoQueue& self = *slot.queue;
  slot.on_disk = false;
  --self.disk_ops_;
  if (slot.submitting) return;
  if (self.ended_) {
    self.free_slot(slot);
    if (self.idle()) self.session_.io_idle();
    return;
  }
  bool again = false;
  self.operation_done(slot, again);
  if (again) self.run_disk(slot);
  if (self.idle()) self.controller_.io_idle();
}

/// `again` is set if the command has another operation for the disk at once.
void IoQueue::operation_done(Slot& slot, bool& again) {
  if (controller_.fatal()) return free_slot(slot);  // and never answers
  if (slot.error == ECANCELED) {
    return respond(slot,
                   slot.aborted ? StatusCode::abort_requested : StatusCode::aborted_sq_deletion);
  }
  if (slot.error != 0) {
    if (slot.error != EAGAIN) ++controller_.subsystem().counters.media_errors;
    return respond(slot, status_of(controller_, slot.error, slot.kind == DiskOp::Kind::read));
  }
  switch (slot.what) {
    case Work::read: {
      const bool last = slot.done_bytes + slot.piece_bytes == slot.total_bytes;
      // With `last`, this is the response too (SUCCESS, or one that the queue pair sends).
      return session_.qpair().send_data(*slot.command, {slot.buffer, slot.piece_bytes}, last, last);
    }
    case Work::write:
      return piece_written(slot);
    case Work::compare:
      return compare_piece(slot);
    case Work::write_zeroes:
      return respond(slot, Status{});
    case Work::flush:
    case Work::deallocate:
      again = true;
      return;
    case Work::none:
      break;
  }
}

void IoQueue::piece_written(Slot& slot) {
  slot.done_bytes += slot.piece_bytes;
  if (slot.done_bytes == slot.total_bytes) return respond(slot, Status{});
  start_piece(slot);
}

void IoQueue::compare_piece(Slot& slot) {
  if (std::memcmp(slot.buffer, slot.buffer + kBufferBytes / 2, slot.piece_bytes) != 0) {
    return respond(slot, {StatusCode::compare_failure, true});
  }
  piece_written(slot);
}

void IoQueue::on_data_sent(transport::ControllerCommand& command) {
  Slot& slot = slot_of(command);
  slot.done_bytes += slot.piece_bytes;
  if (slot.done_bytes < slot.total_bytes) return start_piece(slot);
  count(slot);
  free_slot(slot);
}

void IoQueue::respond(Slot& slot, Status status) {
  if (status.ok()) count(slot);
  session_.respond(*slot.command, status, 0,
                   moves_data(slot.what) || slot.what == Work::write_zeroes);
  free_slot(slot);
}

void IoQueue::count(const Slot& slot) {
  Counters& counters = controller_.subsystem().counters;
  if (slot.what == Work::read || slot.what == Work::compare) counters.count_read(slot.total_bytes);
  if (slot.what == Work::write) counters.count_written(slot.total_bytes);
}

void IoQueue::disconnect(transport::ControllerCommand& command) {
  if ((command.sqe.cdw10 & 0xffff) != 0) {
    return session_.respond(command, {StatusCode::connect_incompatible_format, true});
  }
  session_.respond(command, Status{});
  session_.disconnect();
}

// ---- buffers

bool IoQueue::take_buffer(Slot& slot) {
  if (own_buffer_free_) {
    own_buffer_free_ = false;
    slot.buffer = own_buffer_.get();
    slot.buffer_kind = Buffer::own;
    return true;
  }
  if (shared_buffers_ == kSharedBuffersPerQueue) return false;
  slot.buffer = pool_.take();
  if (slot.buffer == nullptr) return false;
  slot.buffer_kind = Buffer::shared;
  ++shared_buffers_;
  return true;
}

void IoQueue::wait_for_buffer(Slot& slot) {
  slot.next_waiting = nullptr;
  (waiting_last_ != nullptr ? waiting_last_->next_waiting : waiting_first_) = &slot;
  waiting_last_ = &slot;
  // In line for a shared one, unless this queue has its share: then its own come back first.
  if (!in_line_ && shared_buffers_ < kSharedBuffersPerQueue) {
    in_line_ = true;
    pool_.wait(*this);
  }
}

void IoQueue::on_buffer_free() {
  in_line_ = false;
  serve_waiting();
}

void IoQueue::serve_waiting() {
  if (serving_ || ended_ || controller_.ended()) return;
  serving_ = true;
  while (waiting_first_ != nullptr) {
    Slot& slot = *waiting_first_;
    if (!take_buffer(slot)) {
      if (!in_line_ && shared_buffers_ < kSharedBuffersPerQueue) {
        in_line_ = true;
        pool_.wait(*this);
      }
      break;
    }
    waiting_first_ = slot.next_waiting;
    if (waiting_first_ == nullptr) waiting_last_ = nullptr;
    start_piece(slot);
  }
  serving_ = false;
}

void IoQueue::give_buffer(Slot& slot) {
  std::byte* const buffer = std::exchange(slot.buffer, nullptr);
  switch (std::exchange(slot.buffer_kind, Buffer::none)) {
    case Buffer::none:
      return;
    case Buffer::own:
      own_buffer_free_ = true;
      break;
    case Buffer::shared:
      --shared_buffers_;
      pool_.give(buffer);
      break;
  }
  serve_waiting();
}

void IoQueue::free_slot(Slot& slot) {
  slot.what = Work::none;
  slot.command = nullptr;
  use(slot, nullptr);
  give_buffer(slot);
}

void IoQueue::on_ended() {
  ended_ = true;
  if (in_line_) pool_.stop_waiting(*this);
  in_line_ = false;
  waiting_first_ = nullptr;
  waiting_last_ = nullptr;
  for (Slot& slot : slots_) {
    if (slot.what != Work::none && !slot.on_disk) free_slot(slot);
  }
  abandon(controller_.stopping() ? Disk::Abandoned::stopped : Disk::Abandoned::lost);
}

bool IoQueue::abort(std::uint16_t cid) {
  for (Slot& slot : slots_) {
    if (!slot.on_disk || slot.command->sqe.cid != cid) continue;
    slot.aborted = true;
    if (slot.ns->disk->take_back(slot)) return true;
    slot.aborted = false;
    return false;
  }
  return false;
}

void IoQueue::quiesce() {
  abandon(Disk::Abandoned::stopped);
}

void IoQueue::abandon(Disk::Abandoned why) {
  for (Slot& slot : slots_) {
    if (slot.on_disk) slot.ns->disk->abandon(slot, why);
  }
}

}  // namespace nvmf::controller
