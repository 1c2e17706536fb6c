#include "host/namespace_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "host/request_state.h"
#include "host/retry_rules.h"
#include "nvme/admin.h"
#include "nvme/check.h"
#include "nvme/explain.h"

namespace nvmf::host {

namespace {

/// Only ever read; a HostCommand's data is not const because reads land in it.
alignas(64) std::array<std::byte, kZeroBufferBytes> g_zeroes{};

std::uint32_t fua_bit(const BlockRequest& r) {
  return r.fua ? nvme::kCdw12Fua : 0;
}

std::string_view op_name(BlockOp op) {
  switch (op) {
    case BlockOp::read:
      return "read";
    case BlockOp::write:
      return "write";
    case BlockOp::flush:
      return "flush";
    case BlockOp::write_zeroes:
      return "write zeroes";
    case BlockOp::deallocate:
      return "deallocate";
  }
  return "request";
}

}  // namespace

NamespaceDevice::NamespaceDevice(std::shared_ptr<const Namespace> ns, QueueGroup& group,
                                 std::shared_ptr<RangeHolds> holds, std::size_t reactor,
                                 std::shared_ptr<NamespaceShared> shared)
    : ns_(std::move(ns)),
      info_(ns_->info),
      shared_(shared ? std::move(shared) : std::make_shared<NamespaceShared>(Unflushed::trust)),
      group_(group),
      all_holds_(std::move(holds)),
      holds_(all_holds_->on(reactor)),
      reads_(kUnalignedReads, ns_->block_shift),
      writes_(holds_.slots(), ns_->block_shift),
      lift_timer_(group.loop().timers(), [this] { lift_due(); }),
      retry_timer_(group.loop().timers(), [this] { retry_due(); }),
      patience_timer_(group.loop().timers(), [this] { expire(); }) {
  if (shared_->replay_bytes != 0) replay_log_ = std::make_unique<ReplayLog>(shared_->replay_bytes);
  holds_.attach(*this);
  group_.adopt(*this);
}

NamespaceDevice::~NamespaceDevice() {
  NVMF_CHECK(first_ == nullptr && parked_ == nullptr && in_flight_ == 0);
  group_.forget(*this);
}

void NamespaceDevice::begin(BlockRequest& request) const {
  request.error = 0;
  request.submitted_at_ns = group_.loop().now().time_since_epoch().count();
  request.issued_bytes = 0;
  request.parts = 0;
  request.stage = kStageFirst;
  request.whereabouts = kPlain;
  request.slot = kNoSlot;
  request.fence = kNoSlot;
  request.loss_fence = kNoSlot;
  request.maybe_executed = false;
  request.again = false;
  request.postponed = false;
  request.tries = 0;
  request.next = nullptr;
}

int NamespaceDevice::closed_error() const {
  return group_.shut_error() != 0 ? group_.shut_error() : failing_;
}

void NamespaceDevice::submit(BlockRequest& request) {
  begin(request);
  if (const int error = closed_error()) return group_.complete_later(request, error);
  if (const int error = check(request)) return group_.complete_later(request, error);
  if (request.op == BlockOp::deallocate) prepare_deallocate(request);
  if (request.length_bytes == 0 && !is_flush(request)) return group_.complete_later(request, 0);
  if (all_issued(request)) return group_.complete_later(request, 0);
  if (unaligned(request)) return submit_unaligned(request);
  if (changes_data(request.op) && !is_flush(request)) {
    const bool may_go = holds_.admit(request);
    request.whereabouts = may_go ? kAdmitted : kWaitsForHolds;
    if (!may_go) return begin_wait(request);
  }
  enqueue(request);
  group_.pump();
}

void NamespaceDevice::on_admitted(BlockRequest& request) {
  request.whereabouts = kAdmitted;
  enqueue(request);
  group_.pump();
}

/// What was sent keeps its range until it is answered. With a hold, asked for or granted, it has
/// its place before all that come later; without, it has been nowhere yet and need not go.
void NamespaceDevice::abandon(BlockRequest& request) {
  if (!changes_data(request.op) || !shared_->rules.order_abandoned) return;
  switch (request.whereabouts) {
    case kAdmitted:
      return holds_.abandon(request);
    case kWaitsForHolds:
      request.whereabouts = kPlain;
      group_.complete_later(request, ECANCELED);
      return holds_.withdraw(request);
    case kWaitsForBounce:
      request.whereabouts = kPlain;
      writes_.waiting.erase(request);
      return group_.complete_later(request, ECANCELED);
    default:
      return;
  }
}

/// A query changes nothing and waits for nothing that is held here.
bool NamespaceDevice::extents(ExtentsRequest& request) {
  const std::uint64_t size = info_.size_bytes;
  request.count = 0;
  request.error = group_.shut_error();
  if (request.offset_bytes >= size || request.length_bytes > size - request.offset_bytes ||
      request.length_bytes == 0) {
    request.error = EINVAL;
  }
  if (request.error != 0) return true;
  if (shared_->extents == nullptr || !ns_->tells_allocated || held_back()) {
    request.answer_data();
    return true;
  }
  shared_->extents->look_up(group_.loop(), info_.nsid, request);
  return false;
}

/// The one place where a request is judged.
int NamespaceDevice::check(const BlockRequest& r) const {
  const BlockInfo& info = info_;
  if (changes_data(r.op) && info.read_only) return EPERM;
  if (r.op == BlockOp::flush) return 0;
  if (r.op == BlockOp::deallocate && !info.deallocate) return ENOTSUP;
  if (r.op == BlockOp::write_zeroes && r.fast_only && !info.write_zeroes) return ENOTSUP;
  if (r.offset_bytes > info.size_bytes || r.length_bytes > info.size_bytes - r.offset_bytes) {
    return r.op == BlockOp::write || r.op == BlockOp::write_zeroes ? ENOSPC : EINVAL;
  }
  // Without a whole block among them, zeroes are written as any other data.
  if (r.op == BlockOp::write_zeroes && r.fast_only && unaligned(r) && cover(r).whole() == 0) {
    return ENOTSUP;
  }
  const bool transfers = r.op == BlockOp::read || r.op == BlockOp::write;
  if (transfers && r.length_bytes > info.transfer_bytes_max) return EINVAL;
  return 0;
}

/// Rounds inward: blocks that the range covers only in part keep their contents. What is left out
/// at the start counts as issued, what is left out at the end is never reached: blocks_left()
/// counts whole blocks only.
void NamespaceDevice::prepare_deallocate(BlockRequest& r) {
  const std::uint64_t mask = info_.block_bytes - 1;
  const std::uint64_t end = (r.offset_bytes + r.length_bytes) & ~mask;
  const std::uint64_t start = (r.offset_bytes + mask) & ~mask;
  r.issued_bytes = first_whole_bytes(r);
  // Not a single whole block: of a deallocate with FUA the flush remains.
  if (start >= end && r.fua) {
    r.stage = kStageFlush;
    r.issued_bytes = 0;
  }
}

std::uint64_t NamespaceDevice::first_whole_bytes(const BlockRequest& r) const {
  const std::uint64_t mask = info_.block_bytes - 1;
  return ((r.offset_bytes + mask) & ~mask) - (r.offset_bytes & ~mask);
}

// issued_bytes counts from the start of the block in which the request begins.

std::uint64_t NamespaceDevice::blocks_left(const BlockRequest& r) const {
  const std::uint64_t inward = r.op == BlockOp::deallocate ? 0 : info_.block_bytes - 1;
  const std::uint64_t end = (r.offset_bytes + r.length_bytes + inward) >> ns_->block_shift;
  const std::uint64_t next = next_lba(r);
  return end > next ? end - next : 0;
}

std::uint64_t NamespaceDevice::next_lba(const BlockRequest& r) const {
  return (r.offset_bytes >> ns_->block_shift) + (r.issued_bytes >> ns_->block_shift);
}

bool NamespaceDevice::all_issued(const BlockRequest& r) const {
  // A single one's length says nothing: any number of issued bytes stands for its one command.
  return is_single(r) ? r.issued_bytes != 0 : blocks_left(r) == 0;
}

void NamespaceDevice::enqueue(BlockRequest& r) {
  r.next = nullptr;
  const bool first = first_ == nullptr;
  (last_ != nullptr ? last_->next : first_) = &r;
  last_ = &r;
  if (first && !held_back()) group_.enlist(*this);
}

void NamespaceDevice::dequeue_front() {
  BlockRequest* const r = first_;
  first_ = r->next;
  if (first_ == nullptr) {
    last_ = nullptr;
    group_.delist(*this);
  }
  r->next = nullptr;
}

bool NamespaceDevice::issue_part() {
  if (postponed()) return true;
  IoCommand* const command = group_.take();
  if (command == nullptr) return false;
  BlockRequest& r = *first_;
  command->device = this;
  command->request = &r;
  if (is_flush(r)) r.flush_mark = shared_->unflushed.mark();
  r.issued_bytes += build(*command, r);
  ++r.parts;
  ++in_flight_;
  if (all_issued(r)) dequeue_front();
  command->queue->submit(*command);
  return true;
}

std::uint64_t NamespaceDevice::build(IoCommand& command, BlockRequest& r) const {
  if (is_flush(r)) {
    command.sqe = nvme::flush_command(info_.nsid);
    return std::uint64_t{1} << ns_->block_shift;
  }
  if (r.stage == kStageReadEnds) return build_read_ends(command, r);
  if (r.stage == kStagePassthrough) [[unlikely]] {
    static_cast<PassthroughRequest&>(r).issue(command);
    return info_.block_bytes;
  }
  switch (r.op) {
    case BlockOp::write_zeroes:
      return build_zeroes(command, r);
    case BlockOp::deallocate:
      return build_deallocate(command, r);
    default:
      return build_transfer(command, r, r.op == BlockOp::write);
  }
}

NamespaceDevice::Piece NamespaceDevice::next_piece(const BlockRequest& r) const {
  const auto in_place = [&r](std::uint64_t index) {
    return r.data != nullptr ? r.data + index : nullptr;  // nothing to send of zeroes
  };
  if (r.slot == kNoSlot) return {in_place(r.issued_bytes), blocks_left(r)};
  const BounceSlots& slots = r.op == BlockOp::read ? reads_ : writes_;
  const BlockCover c = cover(r);
  const std::uint64_t lba = next_lba(r);
  // Head and tail follow one another in the slot: without a block in between they are one.
  if (lba < c.whole_first) {
    return {slots.head(r.slot), c.whole() == 0 && c.tail() ? 2u : 1u, true};
  }
  if (lba >= c.whole_end) return {slots.tail(r.slot), 1, true};
  return {in_place((lba << ns_->block_shift) - r.offset_bytes), c.whole_end - lba};
}

std::uint64_t NamespaceDevice::build_transfer(IoCommand& command, BlockRequest& r,
                                              bool write) const {
  const Piece piece = next_piece(r);
  const auto blocks = static_cast<std::uint32_t>(
      std::min<std::uint64_t>(piece.blocks, ns_->limits.transfer_blocks));
  command.sqe = write ? nvme::write_command(info_.nsid, next_lba(r), blocks, fua_bit(r))
                      : nvme::read_command(info_.nsid, next_lba(r), blocks);
  command.direction =
      write ? transport::DataDirection::to_controller : transport::DataDirection::from_controller;
  command.data = piece.data;
  command.data_bytes = blocks << ns_->block_shift;
  return command.data_bytes;
}

/// As a read of everything, but what lies between head and tail is passed over.
std::uint64_t NamespaceDevice::build_read_ends(IoCommand& command, BlockRequest& r) const {
  const std::uint64_t bytes = build_transfer(command, r, false);
  const BlockCover c = cover(r);
  const std::uint64_t next = next_lba(r) + (bytes >> ns_->block_shift);
  const std::uint64_t skip = next == c.whole_first ? c.whole() : 0;
  return bytes + (skip << ns_->block_shift);
}

std::uint64_t NamespaceDevice::build_zeroes(IoCommand& command, BlockRequest& r) const {
  const Piece piece = next_piece(r);
  if (piece.bounced) return build_transfer(command, r, true);
  const std::uint64_t left = piece.blocks;
  if (!info_.write_zeroes) {
    const auto blocks =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(left, ns_->limits.zero_data_blocks));
    command.sqe = nvme::write_command(info_.nsid, next_lba(r), blocks, fua_bit(r));
    command.direction = transport::DataDirection::to_controller;
    command.data = g_zeroes.data();
    command.data_bytes = blocks << ns_->block_shift;
    return command.data_bytes;
  }
  const bool deallocate = !r.no_hole && ns_->zeroes_may_deallocate;
  const std::uint32_t most =
      deallocate ? ns_->limits.zeroes_deallocate_blocks : ns_->limits.zeroes_blocks;
  const auto blocks = static_cast<std::uint32_t>(std::min<std::uint64_t>(left, most));
  command.sqe = nvme::write_zeroes_command(info_.nsid, next_lba(r), blocks,
                                           fua_bit(r) | (deallocate ? nvme::kCdw12Deac : 0));
  return std::uint64_t{blocks} << ns_->block_shift;
}

std::uint64_t NamespaceDevice::build_deallocate(IoCommand& command, BlockRequest& r) const {
  const CommandLimits& limits = ns_->limits;
  std::uint64_t lba = next_lba(r);
  std::uint64_t left = std::min(blocks_left(r), limits.dsm_blocks);
  const std::uint64_t total_left = left;
  std::span<std::byte> out(command.range);
  std::size_t ranges_max = 1;
  if (left > limits.dsm_range_blocks && limits.dsm_ranges > 1) {
    command.ranges = command.queue->take_ranges();
    if (command.ranges != nullptr) {
      out = command.ranges->bytes;
      ranges_max = limits.dsm_ranges;
    }
  }
  std::size_t count = 0;
  for (; count < ranges_max && left > 0; ++count) {
    const auto blocks =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(left, limits.dsm_range_blocks));
    nvme::DsmRange{.attributes = 0, .blocks = blocks, .lba = lba}.encode(
        out.subspan(count * nvme::kDsmRangeBytes).first<nvme::kDsmRangeBytes>());
    lba += blocks;
    left -= blocks;
  }
  command.sqe = nvme::dsm_command(info_.nsid, count);
  command.direction = transport::DataDirection::to_controller;
  command.data = out.data();
  command.data_bytes = static_cast<std::uint32_t>(count * nvme::kDsmRangeBytes);
  return (total_left - left) << ns_->block_shift;
}

PartOutcome NamespaceDevice::outcome(const IoCommand& command) {
  if (command.request->stage == kStagePassthrough) [[unlikely]]
    return passed(command);
  if (command.delivery != transport::Delivery::answered) return lost(command);
  if (command.cqe.status.ok()) return {};
  BlockRequest& r = *command.request;
  // A controller that is being disabled refuses whatever comes.
  if (command.answered_late && stop_error() == 0) return {.again = true};
  const std::int64_t now_ns = group_.loop().now().time_since_epoch().count();
  if (r.tries == 0) r.refused_since_ns = now_ns;
  refusal_ = command.cqe.status;
  const RetryDecision retry = decide_retry(
      command.cqe.status, r.tries, Duration(now_ns - r.refused_since_ns), group_.retry_delays());
  std::uint64_t suppressed = 0;
  if (group_.log_limiter().admit(group_.loop().now(), suppressed)) {
    log(LogLevel::warning,
        fmt::format("{}: {} of {} bytes from byte {} {}: the controller answered {} with {}{}",
                    info_.name, op_name(r.op), r.length_bytes, r.offset_bytes,
                    retry.again ? "will be tried again" : "failed",
                    nvme::opcode_name(command.sqe, false),
                    // What is tried again by itself needs no advice.
                    retry.again ? nvme::describe(command.cqe.status, nvme::StatusContext::nvm)
                                : nvme::explain(command.cqe.status, nvme::StatusContext::nvm),
                    suppressed != 0 ? fmt::format(" ({} more like it)", suppressed) : ""));
  }
  if (retry.again && stop_error() == 0) return {.again = true, .pause = retry.pause};
  return {.error = errno_of(command.cqe.status, r.op)};
}

void NamespaceDevice::part_done(BlockRequest& r, const PartOutcome& o) {
  --r.parts;
  --in_flight_;
  if (o.error != 0 && r.error == 0) r.error = o.error;
  if (o.maybe_executed) r.maybe_executed = true;
  if (o.again) {
    const Instant at = o.pause > Duration::zero() ? group_.loop().now() + o.pause : Instant{};
    const std::int64_t at_ns = at.time_since_epoch().count();
    r.retry_at_ns = r.again ? std::max(r.retry_at_ns, at_ns) : at_ns;
    r.again = true;
  }
  // The rest is not worth sending. Only the first request can be issued in part.
  if ((r.error != 0 || r.again) && first_ == &r) dequeue_front();
  if (r.parts != 0 || first_ == &r) return;
  if (r.error == 0 && r.again) r.error = stop_error();
  if (r.error != 0) return end(r);
  if (r.again) return park(r);
  finish(r);
}

void NamespaceDevice::finish(BlockRequest& r) {
  const bool flush_next = r.stage == kStageFirst &&
                          ((r.op == BlockOp::deallocate && r.fua) || flush_instead_of_copy(r));
  const bool ends_read = r.stage == kStageReadEnds;
  if (flush_next || ends_read) r.error = stop_error();
  if (r.error != 0) return end(r);
  if (flush_next) r.stage = kStageFlush;
  if (ends_read) merge(r);
  if (!flush_next && !ends_read) return end(r);
  r.issued_bytes = 0;
  enqueue(r);  // the caller pumps
}

/// Who is told of the end may begin something else at once: so the request's owner is the last.
///
/// What was sent and never answered may still be executed: its range is fenced, or keeps the hold
/// that it has, until that cannot be any more.
void NamespaceDevice::end(BlockRequest& r) {
  if (r.error == 0 && r.stage != kStagePassthrough) settle_flush(r);
  if (r.maybe_executed && r.loss_fence == kNoSlot) fence_lost(r);
  const std::uint8_t whereabouts = std::exchange(r.whereabouts, kPlain);
  const bool fenced = r.loss_fence != kNoSlot;
  if (whereabouts == kHasBounce && fenced) writes_.lose(std::exchange(r.slot, kNoSlot));
  if (whereabouts == kHasBounce && !fenced) release_slot(r);
  if (whereabouts == kAdmitted) holds_.finished(r);
  if (fenced && !shared_->rules.fence_after_error) {
    losses_.remove_one(r.loss_fence);
    lifted(r.loss_fence, 1);
  }
  group_.count_request(r);
  r.complete(r);
}

void NamespaceDevice::settle_flush(BlockRequest& r) {
  UnflushedWrites& unflushed = shared_->unflushed;
  const bool flushed = is_flush(r);
  if (flushed) unflushed.flushed(r.flush_mark);
  const bool changed = changes_data(r.op) && !flushed;
  // What is on stable storage must not be overwritten by older copies.
  const bool shadows = changed && r.fua && replay_log_ != nullptr && unflushed.count() != 0;
  const std::uint64_t mark = shadows || (changed && !r.fua) ? unflushed.written() : 0;
  if (mark != 0 && replay_log_ != nullptr) {
    // Without room only if the first copy, anywhere, or the cache, came in this very moment.
    if (replay_log_->has_room(r.fua ? 0 : r.length_bytes)) {
      replay_log_->append(mark, r);
    } else {
      unflushed.replay_failed();
    }
  }
  if ((flushed || (changed && r.fua)) && unflushed.must_fail()) {
    log(LogLevel::error, fmt::format("{}: a flush fails, as asked for (--unflushed=fail): writes "
                                     "answered before the target was lost may be lost with it",
                                     info_.name));
    r.error = EIO;
  }
}

bool NamespaceDevice::flush_instead_of_copy(const BlockRequest& r) {
  if (replay_log_ == nullptr || r.error != 0 || !changes_data(r.op)) return false;
  const UnflushedWrites& unflushed = shared_->unflushed;
  if (!unflushed.counts() || (r.fua && unflushed.count() == 0)) return false;
  replay_log_->drop(unflushed.flushed_mark());
  return !replay_log_->has_room(r.op == BlockOp::write && !r.fua ? r.length_bytes : 0);
}

void NamespaceDevice::fail_front(int error) {
  BlockRequest& r = *first_;
  dequeue_front();
  r.error = error;
  if (r.parts == 0) end(r);
}

// ---- what is not whole blocks ----

bool NamespaceDevice::unaligned(const BlockRequest& r) const {
  const std::uint64_t rest = (r.offset_bytes | r.length_bytes) & (info_.block_bytes - 1);
  return rest != 0 && r.op != BlockOp::flush && r.op != BlockOp::deallocate;
}

BlockCover NamespaceDevice::cover(const BlockRequest& r) const {
  return BlockCover::of(r.offset_bytes, r.length_bytes, ns_->block_shift);
}

BounceSlots& NamespaceDevice::slots_for(const BlockRequest& r) {
  return r.op == BlockOp::read ? reads_ : writes_;
}

void NamespaceDevice::submit_unaligned(BlockRequest& r) {
  BounceSlots& slots = slots_for(r);
  r.slot = slots.take(r);
  if (r.slot != kNoSlot) return begin_unaligned(r);
  r.whereabouts = kWaitsForBounce;
  slots.waiting.push_back(r);
  begin_wait(r);
}

void NamespaceDevice::begin_unaligned(BlockRequest& r) {
  r.whereabouts = kHasBounce;
  if (changes_data(r.op)) {
    r.stage = kStageHold;
    begin_wait(r);
    return holds_.ask(r.slot, cover(r).bytes(ns_->block_shift));
  }
  enqueue(r);
  group_.pump();
}

void NamespaceDevice::on_granted(std::size_t slot) {
  BlockRequest& r = *writes_.request(slot);
  if (r.barrier) {
    r.stage = kStageBarrier;
    BarrierRequest& barrier = static_cast<BarrierRequest&>(r);
    return barrier.granted(barrier);
  }
  const BlockCover c = cover(r);
  r.stage = kStageReadEnds;
  r.issued_bytes = c.head() ? 0 : c.whole() << ns_->block_shift;
  enqueue(r);
  group_.pump();
}

void NamespaceDevice::merge(BlockRequest& r) {
  if (r.op == BlockOp::write) {
    writes_.copy_in(r, cover(r));
  } else {
    writes_.zero(r, cover(r));
  }
  r.stage = kStageFirst;
}

void NamespaceDevice::release_slot(BlockRequest& r) {
  BounceSlots& slots = slots_for(r);
  if (r.op == BlockOp::read && r.error == 0) slots.copy_out(r, cover(r));
  const std::uint8_t slot = std::exchange(r.slot, kNoSlot);
  slots.put(slot);
  if (changes_data(r.op)) holds_.release(slot);
  if (stop_error() != 0) return;
  if (BlockRequest* const next = slots.waiting.pop_front()) submit_unaligned(*next);
}

}  // namespace nvmf::host
