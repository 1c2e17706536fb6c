// NamespaceDevice: commands of tools, and the namespace for one alone.
#include "host/namespace_device.h"
#include "host/request_state.h"
#include "nvme/check.h"

namespace nvmf::host {

void NamespaceDevice::submit_passthrough(PassthroughRequest& r) {
  begin(r);
  r.op = r.changes ? BlockOp::write : BlockOp::read;
  r.data = nullptr;
  r.stage = kStagePassthrough;
  r.issued = false;
  r.overdue = false;
  r.delivery = transport::Delivery::not_sent;
  if (const int error = closed_error()) return group_.complete_later(r, error);
  if (r.changes) {
    const bool may_go = holds_.admit(r);
    r.whereabouts = may_go ? kAdmitted : kWaitsForHolds;
    if (!may_go) return begin_wait(r);
  }
  enqueue(r);
  group_.pump();
}

/// What was answered has ended well as far as the device is concerned. A flush of a tool counts for
/// nobody, a change of data counts as any write that was not flushed yet, whatever the answer.
PartOutcome NamespaceDevice::passed(const IoCommand& command) {
  PassthroughRequest& r = static_cast<PassthroughRequest&>(*command.request);
  r.delivery = command.delivery;
  r.overdue = command.overdue;
  r.cqe = command.cqe;
  r.received_bytes = command.received_bytes;
  if (r.delivery == transport::Delivery::answered) {
    if (r.changes) (void)shared_->unflushed.written();
    return {};
  }
  return {.error = EIO,
          .maybe_executed = r.changes && r.delivery == transport::Delivery::unanswered};
}

void NamespaceDevice::submit_barrier(BarrierRequest& r) {
  begin(r);
  r.op = BlockOp::write;
  r.barrier = true;
  r.data = nullptr;
  r.offset_bytes = 0;
  r.length_bytes = kWholeNamespaceBytes;
  if (const int error = closed_error()) return group_.complete_later(r, error);
  submit_unaligned(r);
}

void NamespaceDevice::release_barrier(BarrierRequest& r, bool maybe_executed) {
  NVMF_CHECK(r.stage == kStageBarrier);
  r.maybe_executed = maybe_executed;
  r.error = ECANCELED;  // it wrote nothing
  end(r);
  group_.pump();
}

bool NamespaceDevice::cancel(BlockRequest& r, int error) {
  if (r.parts != 0 || r.stage == kStageBarrier) return false;
  if (first_ == &r) {
    dequeue_front();
  } else {
    BlockRequest* before = first_;
    while (before != nullptr && before->next != &r) before = before->next;
    if (before != nullptr) {
      before->next = r.next;
      if (last_ == &r) last_ = before;
      r.next = nullptr;
    } else if (!take_out(r)) {
      return false;
    }
  }
  r.error = error;
  end(r);
  group_.pump();
  return true;
}

void NamespaceDevice::quiesce(bool on) {
  hold_back(paused_, on ? quiesced_ + 1 : quiesced_ - 1);
}

}  // namespace nvmf::host
