#include "host/namespace_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "nvme/admin.h"
#include "nvme/check.h"

namespace nvmf::host {

namespace {

// BlockRequest::stage: a deallocate with FUA is Dataset Management, then Flush.
constexpr std::uint8_t kStageFirst = 0;
constexpr std::uint8_t kStageFlush = 1;

/// Only ever read; a HostCommand's data is not const because reads land in it.
alignas(64) std::array<std::byte, kZeroBufferBytes> g_zeroes{};

bool is_flush(const BlockRequest& r) {
  return r.op == BlockOp::flush || r.stage == kStageFlush;
}

bool changes_data(BlockOp op) {
  return op == BlockOp::write || op == BlockOp::write_zeroes || op == BlockOp::deallocate;
}

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

NamespaceDevice::NamespaceDevice(std::shared_ptr<const Namespace> ns, QueueGroup& group)
    : ns_(std::move(ns)), group_(group) {}

NamespaceDevice::~NamespaceDevice() {
  NVMF_CHECK(first_ == nullptr);
}

void NamespaceDevice::submit(BlockRequest& request) {
  request.error = 0;
  request.issued_bytes = 0;
  request.parts = 0;
  request.stage = kStageFirst;
  request.next = nullptr;
  if (group_.shut_error() != 0) return group_.complete_later(request, group_.shut_error());
  if (const int error = check(request)) return group_.complete_later(request, error);
  if (request.op == BlockOp::deallocate) prepare_deallocate(request);
  if (all_issued(request)) return group_.complete_later(request, 0);
  enqueue(request);
  group_.pump();
}

/// The one place where a request is judged. Ranges that are not whole blocks are refused here;
/// reading, changing and writing the blocks around them would begin here as well.
int NamespaceDevice::check(const BlockRequest& r) const {
  const BlockInfo& info = ns_->info;
  if (changes_data(r.op) && info.read_only) return EPERM;
  if (r.op == BlockOp::flush) return 0;
  if (r.op == BlockOp::deallocate && !info.deallocate) return ENOTSUP;
  if (r.op == BlockOp::write_zeroes && r.fast_only && !info.write_zeroes) return ENOTSUP;
  if (r.offset_bytes > info.size_bytes || r.length_bytes > info.size_bytes - r.offset_bytes) {
    return r.op == BlockOp::write || r.op == BlockOp::write_zeroes ? ENOSPC : EINVAL;
  }
  if (r.op == BlockOp::deallocate) return 0;
  if (((r.offset_bytes | r.length_bytes) & (info.block_bytes - 1)) != 0) return EINVAL;
  const bool transfers = r.op == BlockOp::read || r.op == BlockOp::write;
  if (transfers && r.length_bytes > info.transfer_bytes_max) return EINVAL;
  return 0;
}

/// Rounds inward: blocks that the range covers only in part keep their contents. What is left out
/// at the start counts as issued, what is left out at the end is never reached: blocks_left()
/// counts whole blocks.
void NamespaceDevice::prepare_deallocate(BlockRequest& r) {
  const std::uint64_t mask = ns_->info.block_bytes - 1;
  const std::uint64_t end = (r.offset_bytes + r.length_bytes) & ~mask;
  const std::uint64_t start = (r.offset_bytes + mask) & ~mask;
  r.issued_bytes = start - r.offset_bytes;
  // Not a single whole block: of a deallocate with FUA the flush remains.
  if (start >= end && r.fua) {
    r.stage = kStageFlush;
    r.issued_bytes = 0;
  }
}

std::uint64_t NamespaceDevice::blocks_left(const BlockRequest& r) const {
  const std::uint64_t end = (r.offset_bytes + r.length_bytes) >> ns_->block_shift;
  const std::uint64_t next = next_lba(r);
  return end > next ? end - next : 0;
}

std::uint64_t NamespaceDevice::next_lba(const BlockRequest& r) const {
  return (r.offset_bytes + r.issued_bytes) >> ns_->block_shift;
}

bool NamespaceDevice::all_issued(const BlockRequest& r) const {
  // A flush has no length: any number of issued bytes stands for its one command.
  return is_flush(r) ? r.issued_bytes != 0 : blocks_left(r) == 0;
}

void NamespaceDevice::enqueue(BlockRequest& r) {
  r.next = nullptr;
  const bool first = first_ == nullptr;
  (last_ != nullptr ? last_->next : first_) = &r;
  last_ = &r;
  if (first) group_.enlist(*this);
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
  IoCommand* const command = group_.take();
  if (command == nullptr) return false;
  BlockRequest& r = *first_;
  command->device = this;
  command->request = &r;
  r.issued_bytes += build(*command, r);
  ++r.parts;
  if (all_issued(r)) dequeue_front();
  command->queue->submit(*command);
  return true;
}

std::uint64_t NamespaceDevice::build(IoCommand& command, BlockRequest& r) const {
  if (is_flush(r)) {
    command.sqe = nvme::flush_command(ns_->info.nsid);
    return 1;
  }
  switch (r.op) {
    case BlockOp::write_zeroes:
      return build_zeroes(command, r);
    case BlockOp::deallocate:
      return build_deallocate(command, r);
    default:
      return build_transfer(command, r);
  }
}

std::uint64_t NamespaceDevice::build_transfer(IoCommand& command, BlockRequest& r) const {
  const auto blocks = static_cast<std::uint32_t>(
      std::min<std::uint64_t>(blocks_left(r), ns_->limits.transfer_blocks));
  const bool write = r.op == BlockOp::write;
  command.sqe = write ? nvme::write_command(ns_->info.nsid, next_lba(r), blocks, fua_bit(r))
                      : nvme::read_command(ns_->info.nsid, next_lba(r), blocks);
  command.direction =
      write ? transport::DataDirection::to_controller : transport::DataDirection::from_controller;
  command.data = r.data + r.issued_bytes;
  command.data_bytes = blocks << ns_->block_shift;
  return command.data_bytes;
}

std::uint64_t NamespaceDevice::build_zeroes(IoCommand& command, BlockRequest& r) const {
  const std::uint64_t left = blocks_left(r);
  if (!ns_->info.write_zeroes) {
    const auto blocks =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(left, ns_->limits.zero_data_blocks));
    command.sqe = nvme::write_command(ns_->info.nsid, next_lba(r), blocks, fua_bit(r));
    command.direction = transport::DataDirection::to_controller;
    command.data = g_zeroes.data();
    command.data_bytes = blocks << ns_->block_shift;
    return command.data_bytes;
  }
  const bool deallocate = !r.no_hole && ns_->zeroes_may_deallocate;
  const std::uint32_t most =
      deallocate ? ns_->limits.zeroes_deallocate_blocks : ns_->limits.zeroes_blocks;
  const auto blocks = static_cast<std::uint32_t>(std::min<std::uint64_t>(left, most));
  command.sqe = nvme::write_zeroes_command(ns_->info.nsid, next_lba(r), blocks,
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
  command.sqe = nvme::dsm_command(ns_->info.nsid, count);
  command.direction = transport::DataDirection::to_controller;
  command.data = out.data();
  command.data_bytes = static_cast<std::uint32_t>(count * nvme::kDsmRangeBytes);
  return (total_left - left) << ns_->block_shift;
}

int NamespaceDevice::outcome(const IoCommand& command) {
  const bool answered = command.delivery == transport::Delivery::answered;
  if (answered && command.cqe.status.ok()) return 0;
  // The end of a queue is told once, by its owner.
  if (!answered) return EIO;
  std::uint64_t suppressed = 0;
  if (group_.log_limiter().admit(group_.loop().now(), suppressed)) {
    log(LogLevel::warning,
        fmt::format("{}: {} of {} bytes from byte {} failed: the controller answered {} with {}{}",
                    ns_->info.name, op_name(command.request->op), command.request->length_bytes,
                    command.request->offset_bytes, nvme::opcode_name(command.sqe, false),
                    nvme::describe(command.cqe.status, nvme::StatusContext::nvm),
                    suppressed != 0 ? fmt::format(" ({} more like it)", suppressed) : ""));
  }
  return errno_of(command.cqe.status, command.request->op);
}

void NamespaceDevice::part_done(BlockRequest& r, int error) {
  --r.parts;
  if (error != 0 && r.error == 0) {
    r.error = error;
    // The rest is not worth sending. Only the first request can be issued in part.
    if (first_ == &r) dequeue_front();
  }
  if (r.parts != 0 || first_ == &r) return;
  finish(r);
}

void NamespaceDevice::finish(BlockRequest& r) {
  const bool flush_next =
      r.error == 0 && r.op == BlockOp::deallocate && r.fua && r.stage == kStageFirst;
  if (flush_next && group_.shut_error() == 0) {
    r.stage = kStageFlush;
    r.issued_bytes = 0;
    return enqueue(r);  // the caller pumps
  }
  if (flush_next) r.error = group_.shut_error();
  r.complete(r);
}

void NamespaceDevice::fail_front(int error) {
  BlockRequest& r = *first_;
  dequeue_front();
  r.error = error;
  if (r.parts == 0) r.complete(r);
}

}  // namespace nvmf::host
