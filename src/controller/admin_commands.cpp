#include "controller/admin_commands.h"

#include "controller/controller.h"
#include "controller/format.h"
#include "controller/lba_status.h"
#include "controller/session.h"
#include "nvme/admin.h"
#include "nvme/fabrics.h"

namespace nvmf::controller {

using nvme::AdminOpcode;
using nvme::FabricsType;
using nvme::Status;
using nvme::StatusCode;

namespace {

constexpr std::uint8_t kFuseMask = 3;

AdminReply property_get(const Controller& controller, const nvme::Sqe& sqe) {
  const auto get = nvme::PropertyCommand::from_sqe(sqe);
  if (!get) return AdminReply::refuse(StatusCode::invalid_field);
  const auto value = controller.property_get(*get);
  if (!value) return AdminReply::refuse(StatusCode::invalid_field);
  return AdminReply::ok(*value);
}

AdminReply property_set(Controller& controller, const nvme::Sqe& sqe) {
  const auto set = nvme::PropertyCommand::from_sqe(sqe);
  if (!set) return AdminReply::refuse(StatusCode::invalid_field);
  AdminReply reply;
  reply.status = controller.property_set(*set);
  return reply;
}

/// Base 2.1 §5.1.1. Only Asynchronous Event Requests, and what a disk holds back, wait long enough
/// to be worth it; for the rest the answer "not aborted" is always allowed.
AdminReply abort(Controller& controller, const nvme::Sqe& sqe) {
  const auto request = nvme::AbortCommand::from_sqe(sqe);
  const bool aborted = request.sqid == 0 ? controller.abort_async_event_request(request.cid)
                                         : controller.abort_io(request.sqid, request.cid);
  return AdminReply::ok(aborted ? 0 : nvme::kAbortNotAborted);
}

}  // namespace

Status check_admin(const Controller& controller, const nvme::Sqe& sqe) {
  if ((sqe.flags & kFuseMask) != 0) return {StatusCode::invalid_field, true};
  if (sqe.is_fabrics()) {
    switch (sqe.fabrics_type()) {
      case FabricsType::property_get:
      case FabricsType::property_set:
        return {};
      case FabricsType::connect:  // this queue is connected
        return {StatusCode::command_sequence_error, true};
      default:  // Disconnect is for I/O queues; authentication is not asked for
        return {StatusCode::invalid_opcode, true};
    }
  }
  // Before CC.EN and CSTS.RDY there are fabrics commands only. Base 2.1 §3.5.2.
  if (!controller.ready()) return {StatusCode::command_sequence_error, true};
  const auto effects = supported_commands(controller);
  if ((effects.acs[sqe.opcode] & nvme::kEffectSupported) == 0) {
    return {StatusCode::invalid_opcode, true};
  }
  return {};
}

std::size_t admin_data_in_bytes(const nvme::Sqe& sqe) {
  if (sqe.is_fabrics()) {
    return sqe.fabrics_type() == FabricsType::connect ? nvme::kConnectDataBytes : 0;
  }
  if (static_cast<AdminOpcode>(sqe.opcode) == AdminOpcode::set_features) {
    return set_features_data_bytes(sqe);
  }
  return 0;
}

AdminReply execute_admin(Controller& controller, Session& session,
                         transport::ControllerCommand& command, std::span<const std::byte> data) {
  const nvme::Sqe& sqe = command.sqe;
  if (sqe.is_fabrics()) {
    return sqe.fabrics_type() == FabricsType::property_get ? property_get(controller, sqe)
                                                           : property_set(controller, sqe);
  }
  switch (static_cast<AdminOpcode>(sqe.opcode)) {
    case AdminOpcode::identify:
      return execute_identify(controller, sqe, command.data_bytes);
    case AdminOpcode::get_log_page:
      return execute_get_log_page(controller, session, sqe, command.data_bytes);
    case AdminOpcode::set_features:
      return set_features(controller, sqe, data);
    case AdminOpcode::get_features:
      return get_features(controller, sqe);
    case AdminOpcode::async_event_request:
      return controller.take_async_event_request(command);
    case AdminOpcode::abort:
      return abort(controller, sqe);
    case AdminOpcode::format_nvm:
      return execute_format(controller, command);
    case AdminOpcode::get_lba_status:
      return execute_get_lba_status(controller, command);
    case AdminOpcode::keep_alive:
      controller.keep_alive();
      return AdminReply::ok();
    default:
      return AdminReply::refuse(StatusCode::invalid_opcode);
  }
}

nvme::EffectsLog supported_commands(const Controller& controller) {
  nvme::EffectsLog log;
  const auto admin = [&log](AdminOpcode opcode, std::uint32_t effects = 0) {
    log.acs[static_cast<std::uint8_t>(opcode)] = nvme::kEffectSupported | effects;
  };
  const auto io = [&log](nvme::NvmOpcode opcode, std::uint32_t effects = 0) {
    log.iocs[static_cast<std::uint8_t>(opcode)] = nvme::kEffectSupported | effects;
  };
  for (const AdminOpcode opcode :
       {AdminOpcode::identify, AdminOpcode::get_log_page, AdminOpcode::set_features,
        AdminOpcode::get_features, AdminOpcode::async_event_request, AdminOpcode::keep_alive}) {
    admin(opcode);
  }
  if (controller.subsystem().discovery()) return log;
  admin(AdminOpcode::abort);
  admin(AdminOpcode::get_lba_status);
  admin(AdminOpcode::format_nvm, nvme::kEffectLbcc | nvme::kEffectNcc | nvme::kEffectCseNamespace);
  io(nvme::NvmOpcode::read);
  io(nvme::NvmOpcode::compare);
  io(nvme::NvmOpcode::flush);
  io(nvme::NvmOpcode::write, nvme::kEffectLbcc);
  io(nvme::NvmOpcode::write_zeroes, nvme::kEffectLbcc);
  io(nvme::NvmOpcode::dataset_management, nvme::kEffectLbcc);
  return log;
}

}  // namespace nvmf::controller
