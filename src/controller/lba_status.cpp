#include "controller/lba_status.h"

#include <algorithm>

#include "controller/controller.h"
#include "controller/limits.h"

namespace nvmf::controller {

using nvme::LbaStatusAction;
using nvme::LbaStatusEnd;
using nvme::StatusCode;

namespace {

std::size_t entries_in(std::uint64_t bytes) {
  if (bytes < nvme::kLbaStatusHeaderBytes) return 0;
  const std::uint64_t entries = (bytes - nvme::kLbaStatusHeaderBytes) / nvme::kLbaStatusEntryBytes;
  return static_cast<std::size_t>(std::min<std::uint64_t>(entries, kLbaStatusEntriesMax));
}

}  // namespace

LbaStatusJob::LbaStatusJob(Controller& controller, Namespace& ns, const nvme::GetLbaStatus& wanted,
                           std::uint64_t end_lba, transport::ControllerCommand& command)
    : controller_(controller),
      ns_(ns),
      block_bytes_(ns.block_bytes),
      room_(entries_in(wanted.length_bytes)),
      next_lba_(wanted.lba),
      end_lba_(end_lba),
      command_(&command) {
  complete = &LbaStatusJob::on_complete;
  found = found_;
  ++ns_.users;
}

void LbaStatusJob::step() {
  // A loop, not a recursion, over disks that answer inside extents().
  do {
    if (command_ == nullptr || full_ || next_lba_ == end_lba_ || error != 0 ||
        queries_ == kLbaStatusQueriesMax) {
      return end();
    }
    ++queries_;
    offset_bytes = next_lba_ * block_bytes_;
    length_bytes = (end_lba_ - next_lba_) * block_bytes_;
    inside_ = true;
    complete_ = false;
    ns_.disk->extents(*this);
    inside_ = false;
  } while (complete_);
}

void LbaStatusJob::on_complete(DiskExtents& query) {
  auto& job = static_cast<LbaStatusJob&>(query);
  job.complete_ = true;
  if (job.error == 0) job.take();
  if (!job.inside_) job.step();
}

/// Blocks that are allocated in part are allocated.
void LbaStatusJob::take() {
  for (const DiskExtent& one : found.first(count)) {
    add(one.offset_bytes / block_bytes_,
        (one.offset_bytes + one.length_bytes + block_bytes_ - 1) / block_bytes_);
  }
  next_lba_ += examined_bytes / block_bytes_;
}

void LbaStatusJob::add(std::uint64_t begin, std::uint64_t end) {
  end = std::min(end, end_lba_);
  while (begin < end && !full_) {
    if (!list_.entries.empty()) {
      nvme::LbaStatusEntry& last = list_.entries.back();
      const std::uint64_t last_end = last.lba + last.blocks;
      if (begin <= last_end && last.blocks < nvme::kLbaStatusBlocksMax) {
        const std::uint64_t most = last.lba + nvme::kLbaStatusBlocksMax;
        last.blocks = std::max(last_end, std::min(end, most)) - last.lba;
      }
      begin = std::max(begin, last.lba + last.blocks);
      if (begin >= end) return;
    }
    if (list_.entries.size() == room_) {
      full_ = true;
      return;
    }
    const std::uint64_t blocks = std::min(end - begin, nvme::kLbaStatusBlocksMax);
    list_.entries.push_back({begin, blocks, nvme::kLbaStatusAllocated});
    begin += blocks;
  }
}

void LbaStatusJob::end() {
  --ns_.users;
  AdminReply reply;
  if (error != 0) {
    reply = AdminReply::refuse(StatusCode::internal_error);
  } else {
    list_.end = full_                   ? LbaStatusEnd::no_room
                : next_lba_ == end_lba_ ? LbaStatusEnd::complete
                                        : LbaStatusEnd::unsaid;
    reply = AdminReply::with(list_.encode());
  }
  controller_.lba_status_ended(*this, std::move(reply));
}

AdminReply execute_get_lba_status(Controller& controller, transport::ControllerCommand& command) {
  const auto wanted = nvme::GetLbaStatus::from_sqe(command.sqe);
  if (command.data_bytes != wanted.length_bytes || command.data_bytes > kTransferBytesMax) {
    return AdminReply::refuse(StatusCode::data_sgl_length_invalid);
  }
  Namespace* const ns = controller.subsystem().find(wanted.nsid);
  if (ns == nullptr) return AdminReply::refuse(StatusCode::invalid_namespace);
  AdminReply reply;
  reply.status = controller.path_status(*ns);
  if (!reply.status.ok()) return reply;
  if (ns->formatting) {
    reply.status = StatusCode::format_in_progress;
    return reply;
  }
  const std::uint64_t blocks = ns->blocks();
  if (wanted.lba >= blocks || wanted.blocks > blocks - wanted.lba) {
    return AdminReply::refuse(StatusCode::lba_out_of_range);
  }
  if (wanted.action != LbaStatusAction::allocated) {
    return AdminReply::refuse(StatusCode::invalid_field);
  }
  const std::uint64_t end_lba = wanted.blocks != 0 ? wanted.lba + wanted.blocks : blocks;
  controller.start_lba_status(*ns, wanted, end_lba, command);
  reply.later = true;
  return reply;
}

}  // namespace nvmf::controller
