#include "controller/format.h"

#include <cerrno>

#include "controller/controller.h"
#include "controller/limits.h"
#include "nvme/admin.h"

namespace nvmf::controller {

using nvme::StatusCode;

FormatJob::FormatJob(Controller& controller, transport::TimerQueue& timers, Namespace& ns,
                     std::uint32_t block_bytes, transport::ControllerCommand& command)
    : controller_(controller),
      ns_(ns),
      block_bytes_(block_bytes),
      command_(&command),
      deadline_(controller.now() + kFormatWait),
      timer_(timers, [this] { step(); }) {
  complete = &FormatJob::on_complete;
  ns_.formatting = true;
  ++ns_.users;
}

void FormatJob::step() {
  // A loop, not a recursion, over disks that complete inside submit().
  do {
    if (DiskOp::error == EAGAIN) return end(StatusCode::namespace_not_ready);
    if (DiskOp::error != 0) return end(StatusCode::internal_error);
    switch (stage_) {
      case Stage::waiting:
        if (controller_.ended() || !controller_.ready()) {
          return end(StatusCode::aborted_sq_deletion);
        }
        if (ns_.users > 1) {  // others than this one
          if (controller_.now() >= deadline_) return end(StatusCode::command_interrupted);
          return timer_.arm(controller_.now() + kFormatPoll);
        }
        stage_ = Stage::erasing;
        kind = Kind::write_zeroes;
        deallocate = true;  // which alone would be a hint
        fua = true;
        offset_bytes = 0;
        length_bytes = ns_.disk->size_bytes();
        break;
      case Stage::erasing:
        stage_ = Stage::flushing;
        kind = Kind::flush;
        length_bytes = 0;
        break;
      case Stage::flushing:
        ns_.block_bytes = block_bytes_;
        ns_.disk->formatted(block_bytes_);
        return end(nvme::Status{});
    }
    inside_ = true;
    complete_ = false;
    ns_.disk->submit(*this);
    inside_ = false;
  } while (complete_);
}

void FormatJob::on_complete(DiskOp& op) {
  auto& job = static_cast<FormatJob&>(op);
  job.complete_ = true;
  if (!job.inside_) job.step();
}

void FormatJob::end(nvme::Status status) {
  ns_.formatting = false;
  --ns_.users;
  controller_.format_ended(*this, status);
}

AdminReply execute_format(Controller& controller, transport::ControllerCommand& command) {
  const auto format = nvme::FormatCommand::from_sqe(command.sqe);
  // FNA bit 3: one namespace, not all of them.
  if (format.nsid == nvme::kNsidAll) return AdminReply::refuse(StatusCode::invalid_field);
  Namespace* const ns = controller.subsystem().find(format.nsid);
  if (ns == nullptr) return AdminReply::refuse(StatusCode::invalid_namespace);
  AdminReply reply;
  reply.status = controller.path_status(*ns);
  if (!reply.status.ok()) return reply;
  if (ns->read_only()) return AdminReply::refuse(StatusCode::namespace_write_protected);
  if (format.erase > nvme::kEraseUserData) return AdminReply::refuse(StatusCode::invalid_field);
  const std::vector<std::uint32_t> sizes = block_sizes(*ns);
  if (format.protection != 0 || format.format >= sizes.size()) {
    return AdminReply::refuse(StatusCode::invalid_format);
  }
  if (ns->formatting) {
    reply.status = StatusCode::format_in_progress;
    return reply;
  }
  controller.start_format(*ns, sizes[format.format], command);
  reply.later = true;
  return reply;
}

}  // namespace nvmf::controller
