#include "host/queue_group.h"

#include <algorithm>
#include <utility>

#include "host/namespace_device.h"
#include "host/request_state.h"
#include "nvme/check.h"

namespace nvmf::host {

QueueGroup::QueueGroup(transport::Loop& loop)
    : loop_(loop), deliver_(loop.timers(), [this] { deliver(); }) {}

QueueGroup::~QueueGroup() {
  NVMF_CHECK(queues_.empty() && first_ == nullptr && due_first_ == nullptr);
}

void QueueGroup::add(CommandQueue& queue) {
  if (!queue.live()) return;
  queues_.push_back(&queue);
  queue.group = this;
  pump();
}

void QueueGroup::remove(CommandQueue& queue) {
  std::erase(queues_, &queue);
  queue.group = nullptr;
}

void QueueGroup::shut(int waiting_error, int later_error) {
  if (shut_error_ != 0) return;
  shut_error_ = later_error;
  waiting_error_ = waiting_error;
  for (NamespaceDevice* device : devices_) device->shut(waiting_error);
}

void QueueGroup::set_patience(std::optional<Duration> patience) {
  patience_ = patience;
  for (NamespaceDevice* device : devices_) device->check_patience();
}

IoCommand* QueueGroup::take() {
  CommandQueue* best = nullptr;
  std::uint32_t room = 0;
  for (CommandQueue* queue : queues_) {
    const std::uint32_t free = queue->free_commands();
    if (free > room) {
      room = free;
      best = queue;
    }
  }
  return best != nullptr ? best->take() : nullptr;
}

void QueueGroup::enlist(NamespaceDevice& device) {
  device.next_waiting = nullptr;
  (last_ != nullptr ? last_->next_waiting : first_) = &device;
  last_ = &device;
}

void QueueGroup::delist(NamespaceDevice& device) {
  NamespaceDevice* previous = nullptr;
  for (NamespaceDevice* d = first_; d != nullptr; previous = d, d = d->next_waiting) {
    if (d != &device) continue;
    (previous != nullptr ? previous->next_waiting : first_) = d->next_waiting;
    if (last_ == d) last_ = previous;
    return;
  }
}

void QueueGroup::pump() {
  while (first_ != nullptr) {
    NamespaceDevice& device = *first_;
    if (!device.issue_part()) return;
    // The device left the list if that was its last part; otherwise it is the next one's turn.
    if (first_ == &device && last_ != &device) {
      first_ = device.next_waiting;
      enlist(device);
    }
  }
}

void QueueGroup::complete_later(BlockRequest& request, int error) {
  request.error = error;
  request.next = nullptr;
  (due_last_ != nullptr ? due_last_->next : due_first_) = &request;
  due_last_ = &request;
  if (!deliver_.armed()) deliver_.arm(loop_.now());
}

void QueueGroup::deliver() {
  // What a callback adds is delivered in the turn after.
  BlockRequest* request = std::exchange(due_first_, nullptr);
  due_last_ = nullptr;
  while (request != nullptr) {
    BlockRequest* const next = request->next;
    count_request(*request);
    request->complete(*request);
    request = next;
  }
}

void QueueGroup::count_request(const BlockRequest& request) {
  if (request.barrier) return;                     // it moves nothing
  if (request.stage == kStagePassthrough) return;  // no frontend's; its queue counts the command
  LatencyKind kind = LatencyKind::other;
  if (request.op == BlockOp::read) kind = LatencyKind::read;
  if (request.op == BlockOp::write) kind = LatencyKind::write;
  if (request.op == BlockOp::flush) kind = LatencyKind::flush;
  counters_.latencies.record(kind,
                             loop_.now().time_since_epoch() - Duration(request.submitted_at_ns));
  if (request.error != 0) {
    count(counters_.errors);
  } else if (kind == LatencyKind::read) {
    count(counters_.read_bytes, request.length_bytes);
  } else if (kind == LatencyKind::write) {
    count(counters_.written_bytes, request.length_bytes);
  }
}

std::uint32_t QueueGroup::in_flight() const {
  std::uint32_t sum = 0;
  for (const CommandQueue* queue : queues_) sum += queue->in_flight();
  return sum;
}

}  // namespace nvmf::host
