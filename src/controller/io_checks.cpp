// What an I/O command must satisfy before anything is done for it.
#include <limits>

#include "controller/controller.h"
#include "controller/io_commands.h"
#include "nvme/admin.h"

namespace nvmf::controller {

using nvme::NvmOpcode;
using nvme::Status;
using nvme::StatusCode;

namespace {

constexpr std::uint8_t kFuseMask = 3;
/// DTYPE of Write, CDW12 bits 23:20: directives are not supported.
constexpr std::uint32_t kDirectiveMask = 0xfu << 20;

Status refuse(StatusCode code) {
  return {code, true};
}

}  // namespace

Status IoQueue::check(Slot& slot) const {
  const nvme::Sqe& sqe = slot.command->sqe;
  // FUSES says that there are no fused operations. Base 2.1 §3.4.2.
  if ((sqe.flags & kFuseMask) != 0) return refuse(StatusCode::invalid_field);
  if (!controller_.ready()) return refuse(StatusCode::command_sequence_error);
  switch (static_cast<NvmOpcode>(sqe.opcode)) {
    case NvmOpcode::read:
      slot.what = Work::read;
      break;
    case NvmOpcode::write:
      slot.what = Work::write;
      break;
    case NvmOpcode::compare:
      slot.what = Work::compare;
      break;
    case NvmOpcode::write_zeroes:
      slot.what = Work::write_zeroes;
      break;
    case NvmOpcode::flush:
      return check_flush(slot);
    case NvmOpcode::dataset_management:
      slot.what = Work::deallocate;
      break;
    default:
      return refuse(StatusCode::invalid_opcode);
  }
  use(slot, controller_.subsystem().find(sqe.nsid));
  if (slot.ns == nullptr) return refuse(StatusCode::invalid_namespace);
  if (const Status path = controller_.path_status(*slot.ns); !path.ok()) return path;
  if (slot.ns->formatting) return StatusCode::format_in_progress;
  const bool changes =
      slot.what == Work::write || slot.what == Work::write_zeroes || slot.what == Work::deallocate;
  if (changes && slot.ns->read_only()) return refuse(StatusCode::namespace_write_protected);
  if (slot.what == Work::deallocate) return check_deallocate(slot);
  if (const Status status = check_range(slot, sqe.slba(), sqe.blocks()); !status.ok()) {
    return status;
  }
  slot.start_bytes = sqe.slba() * slot.ns->block_bytes;
  slot.fua = (sqe.cdw12 & nvme::kCdw12Fua) != 0 ||
             (changes && !controller_.features().write_cache && slot.ns->disk->volatile_cache());
  if (slot.what == Work::write_zeroes) return check_write_zeroes(slot);
  return check_transfer(slot);
}

Status IoQueue::check_range(const Slot& slot, std::uint64_t lba, std::uint64_t blocks) const {
  const std::uint64_t capacity = slot.ns->blocks();
  const bool inside = lba <= capacity && blocks <= capacity - lba;
  return inside ? Status{} : refuse(StatusCode::lba_out_of_range);
}

/// Read, Write, Compare: NVM 1.1 §3.3.4, §3.3.6, §3.3.1.
Status IoQueue::check_transfer(Slot& slot) const {
  const transport::ControllerCommand& command = *slot.command;
  const std::uint64_t bytes = std::uint64_t{command.sqe.blocks()} * slot.ns->block_bytes;
  if (bytes > kTransferBytesMax) return refuse(StatusCode::invalid_field);  // MDTS
  if (slot.what == Work::write && (command.sqe.cdw12 & kDirectiveMask) != 0) {
    return refuse(StatusCode::invalid_field);
  }
  // SGLS bit 18 is clear: neither shorter nor longer than the command says. Base 2.1 §4.3.2.
  if (command.data_bytes != bytes) return refuse(StatusCode::data_sgl_length_invalid);
  // Only data for the controller may be in the capsule.
  if (slot.what == Work::read && command.sqe.sgl.type != nvme::kSglTransportDataBlock) {
    return refuse(StatusCode::sgl_type_invalid);
  }
  slot.total_bytes = static_cast<std::uint32_t>(bytes);
  return {};
}

/// NVM 1.1 §3.3.8: no data, but a limit of its own, WZSL.
Status IoQueue::check_write_zeroes(Slot& slot) const {
  const nvme::Sqe& sqe = slot.command->sqe;
  const std::uint64_t bytes = std::uint64_t{sqe.blocks()} * slot.ns->block_bytes;
  if (bytes > kWriteZeroesBytesMax) return refuse(StatusCode::invalid_field);
  slot.deallocate = (sqe.cdw12 & nvme::kCdw12Deac) != 0;
  slot.total_bytes = static_cast<std::uint32_t>(bytes);
  return {};
}

/// Base 2.1 §7.2: a namespace, or FFFFFFFFh for all of them (VWC bits 2:1 are 11b).
Status IoQueue::check_flush(Slot& slot) const {
  slot.what = Work::flush;
  const std::uint32_t nsid = slot.command->sqe.nsid;
  // From the one above `index` to `count`, whatever is there when it is their turn.
  if (nsid == nvme::kNsidAll) {
    slot.index = 0;
    slot.count = controller_.subsystem().highest_nsid();
    return {};
  }
  const Namespace* const ns = controller_.subsystem().find(nsid);
  if (ns == nullptr) return refuse(StatusCode::invalid_namespace);
  if (const Status path = controller_.path_status(*ns); !path.ok()) return path;
  if (ns->formatting) return StatusCode::format_in_progress;
  slot.index = nsid - 1;
  slot.count = nsid;
  return {};
}

/// NVM 1.1 §3.3.3.
Status IoQueue::check_deallocate(Slot& slot) const {
  const transport::ControllerCommand& command = *slot.command;
  slot.count = static_cast<std::uint32_t>(nvme::dsm_ranges(command.sqe));
  slot.total_bytes = slot.count * static_cast<std::uint32_t>(nvme::kDsmRangeBytes);
  // Hosts may send a longer list than the command uses: Linux always sends a whole page.
  if (command.data_bytes < slot.total_bytes || command.data_bytes > kBufferBytes) {
    return refuse(StatusCode::data_sgl_length_invalid);
  }
  slot.total_bytes = command.data_bytes;
  return {};
}

Status IoQueue::check_dsm_ranges(const Slot& slot) const {
  for (std::uint32_t i = 0; i < slot.count; ++i) {
    const auto range = nvme::DsmRange::decode(std::span<const std::byte, nvme::kDsmRangeBytes>(
        slot.buffer + i * nvme::kDsmRangeBytes, nvme::kDsmRangeBytes));
    if (const Status status = check_range(slot, range.lba, range.blocks); !status.ok()) {
      return status;
    }
  }
  return {};
}

}  // namespace nvmf::controller
