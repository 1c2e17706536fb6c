#include "controller/connect.h"

#include <fmt/format.h>

#include <algorithm>

#include "controller/controller.h"
#include "controller/faults.h"
#include "controller/session.h"
#include "controller/target.h"
#include "nvme/address.h"
#include "nvme/fabrics.h"
#include "nvme/text.h"

namespace nvmf::controller {

using nvme::ConnectCommand;
using nvme::ConnectData;
using nvme::StatusCode;

namespace {

constexpr std::uint8_t kCattrIndividualDeletion = 1u << 3;
constexpr std::size_t kNqnFieldBytes = 256;

AdminReply invalid(bool in_data, std::uint16_t offset) {
  const nvme::ConnectInvalidParameter where{.in_data = in_data, .offset = offset};
  return AdminReply::refuse(StatusCode::connect_invalid_parameters, where.encode());
}

AdminReply invalid_sqe(std::uint16_t offset) {
  return invalid(false, offset);
}

AdminReply invalid_data(std::uint16_t offset) {
  return invalid(true, offset);
}

bool ended_by_nul(std::span<const std::byte> data, std::uint16_t offset) {
  const auto field = data.subspan(offset, kNqnFieldBytes);
  return std::ranges::find(field, std::byte{0}) != field.end();
}

bool is_zero(const nvme::HostId& id) {
  return std::ranges::all_of(id, [](std::byte b) { return b == std::byte{0}; });
}

AdminReply connected(std::uint16_t cntlid) {
  return AdminReply::ok(nvme::ConnectResponse{.cntlid = cntlid}.encode());
}

AdminReply connect_admin(Target& target, Session& session, const ConnectCommand& connect,
                         const ConnectData& data) {
  if (connect.queue_entries > kAdminQueueEntriesMax) return invalid_sqe(nvme::kConnectSqeSqsize);
  if (is_zero(data.hostid)) return invalid_data(nvme::kConnectDataHostid);
  // The dynamic controller model: hosts take what they are given. §3.1.2
  if (data.cntlid != nvme::kCntlidDynamic) return invalid_data(nvme::kConnectDataCntlid);
  Subsystem* const subsystem = target.find(data.subnqn);
  if (subsystem == nullptr) return invalid_data(nvme::kConnectDataSubnqn);
  if (!subsystem->allows(data.hostnqn)) return AdminReply::refuse(StatusCode::connect_invalid_host);
  Controller* const controller = target.make_controller(
      *subsystem, {.cntlid = 0,
                   .hostnqn = data.hostnqn,
                   .hostid = data.hostid,
                   .keep_alive_ms = connect.kato_ms,
                   .port_id = session.port_id(),
                   .individual_deletion = (connect.cattr & kCattrIndividualDeletion) != 0});
  if (controller == nullptr) {
    AdminReply busy;
    busy.status = StatusCode::connect_controller_busy;
    return busy;
  }
  session.become(*controller, 0, connect.queue_entries, transport::kAdminInCapsuleBytes,
                 (connect.cattr & nvme::kCattrDisableSqFlowControl) == 0);
  target.log(fmt::format("{} connected to {} as controller {} from {}",
                         nvme::printable(data.hostnqn), data.subnqn, controller->cntlid(),
                         session.qpair().peer()));
  return connected(controller->cntlid());
}

AdminReply connect_io(Target& target, Session& session, const ConnectCommand& connect,
                      const ConnectData& data) {
  Subsystem* const subsystem = target.find(data.subnqn);
  if (subsystem == nullptr) return invalid_data(nvme::kConnectDataSubnqn);
  Controller* const controller = subsystem->controller(data.cntlid);
  if (controller == nullptr || controller->ended()) return invalid_data(nvme::kConnectDataCntlid);
  // Whose it is: the admin queue's Connect decided.
  if (controller->identity().hostnqn != data.hostnqn) {
    return invalid_data(nvme::kConnectDataHostnqn);
  }
  if (!is_zero(data.hostid) && controller->identity().hostid != data.hostid) {
    return invalid_data(nvme::kConnectDataHostid);
  }
  if (!controller->ready()) return AdminReply::refuse(StatusCode::command_sequence_error);
  if (connect.qid > controller->io_queue_limit()) return invalid_sqe(nvme::kConnectSqeQid);
  if (connect.queue_entries > target.config().queue_entries) {
    return invalid_sqe(nvme::kConnectSqeSqsize);
  }
  if (controller->has_queue(connect.qid)) {
    // No Do Not Retry: the old queue of that number may be on its way out.
    AdminReply taken;
    taken.status = StatusCode::command_sequence_error;
    return taken;
  }
  session.become(*controller, connect.qid, connect.queue_entries, target.config().in_capsule_bytes,
                 (connect.cattr & nvme::kCattrDisableSqFlowControl) == 0);
  return connected(controller->cntlid());
}

AdminReply check_and_connect(Target& target, Session& session, const ConnectCommand& connect,
                             std::span<const std::byte> data) {
  if (connect.recfmt != 0) return AdminReply::refuse(StatusCode::connect_incompatible_format);
  if (connect.queue_entries < transport::kQueueEntriesMin) {
    return invalid_sqe(nvme::kConnectSqeSqsize);
  }
  for (const std::uint16_t offset : {nvme::kConnectDataSubnqn, nvme::kConnectDataHostnqn}) {
    if (!ended_by_nul(data, offset)) return invalid_data(offset);
  }
  const auto decoded = ConnectData::decode(data);
  if (!decoded) return invalid_data(nvme::kConnectDataSubnqn);
  if (!nvme::usable_nqn(decoded->subnqn)) return invalid_data(nvme::kConnectDataSubnqn);
  if (!nvme::usable_nqn(decoded->hostnqn)) return invalid_data(nvme::kConnectDataHostnqn);
  if (const auto status = target.faults().refuses_connect(decoded->subnqn, connect.qid)) {
    AdminReply refused;
    refused.status = *status;
    return refused;
  }
  return connect.qid == 0 ? connect_admin(target, session, connect, *decoded)
                          : connect_io(target, session, connect, *decoded);
}

}  // namespace

AdminReply execute_connect(Target& target, Session& session, const nvme::Sqe& sqe,
                           std::span<const std::byte> data) {
  const ConnectCommand connect = ConnectCommand::from_sqe(sqe);
  AdminReply reply = check_and_connect(target, session, connect, data);
  if (!reply.status.ok()) {
    target.log(fmt::format("Refused Connect of queue {} from {}: {}", connect.qid,
                           session.qpair().peer(),
                           nvme::describe(reply.status, nvme::StatusContext::fabrics)));
  }
  return reply;
}

}  // namespace nvmf::controller
