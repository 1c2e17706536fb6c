#include "controller/session.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "controller/admin_commands.h"
#include "controller/connect.h"
#include "controller/controller.h"
#include "controller/faults.h"
#include "controller/hole_stream.h"
#include "controller/target.h"
#include "nvme/check.h"
#include "nvme/fabrics.h"

namespace nvmf::controller {

using nvme::Status;
using nvme::StatusCode;

namespace {

/// What follows a log page's own bytes up to the length that the host asked for.
constexpr std::array<std::byte, 4096> kZeroes{};

}  // namespace

Session::Session(Target& target, std::uint16_t port_id, std::uint64_t number)
    : target_(target), port_id_(port_id), number_(number), timer_(target.loop().timers(), [this] {
        if (disconnecting_) return qpair_->finish();
        end(Error{"No good Connect command came in time", ETIMEDOUT});
      }) {
  timer_.arm(target.loop().now() + kHandshakeTimeout);
}

Session::~Session() = default;

void Session::start(std::unique_ptr<transport::ControllerQpair> qpair, HoleStream* hole) {
  qpair_ = std::move(qpair);
  hole_ = hole;
}

void Session::respond(transport::ControllerCommand& command, Status status, std::uint64_t result,
                      bool has_lba) {
  // Not the failures of Connect: Base 2.1 §6.3.
  const bool connect =
      command.sqe.is_fabrics() && command.sqe.fabrics_type() == nvme::FabricsType::connect;
  if (!status.ok() && controller_ != nullptr && !connect) {
    controller_->record_error(qid_, command.sqe, status, has_lba);
    status.more = true;  // the Error Information log knows more
  }
  transfers_.erase(command.slot);
  qpair_->respond(command, status, result);
}

void Session::end(const Error& reason) {
  if (!ended_) qpair_->end(reason);
}

void Session::end_visibly(const Error& reason) {
  end(reason);  // first: what the hole has swallowed must not be executed
  set_hole(false);
}

void Session::close_alone(bool reset) {
  if (ended_) return;
  closed_alone_ = true;
  if (reset) {
    end(Error{"The queue was closed on demand", ECONNRESET});
  } else {
    qpair_->finish();
  }
  set_hole(false);
}

void Session::set_hole(bool on) {
  if (hole_ != nullptr) hole_->set(on);
}

bool Session::in_hole() const {
  return hole_ != nullptr && hole_->on();
}

void Session::disconnect() {
  disconnecting_ = true;
  timer_.arm(target_.loop().now() + kDisconnectLinger);
}

void Session::become(Controller& controller, std::uint16_t qid, std::uint32_t queue_entries,
                     std::uint32_t in_capsule_bytes, bool sq_flow_control) {
  NVMF_CHECK(controller_ == nullptr);
  timer_.cancel();
  controller_ = &controller;
  qid_ = qid;
  qpair_->open_queue(queue_entries, in_capsule_bytes, sq_flow_control);
  if (qid == 0) {
    controller.attach_admin(*this);
  } else {
    io_ = std::make_unique<IoQueue>(controller, *this, target_.buffers());
    controller.attach_io(qid, *this);
  }
  target_.faults().connected(*this);
}

void Session::io_idle() {
  target_.session_gone(*this);
}

// ---- events of the queue pair

void Session::on_command(transport::ControllerCommand& command) {
  if (controller_ != nullptr) {
    if (controller_->mute(command.sqe)) return;
    Faults& faults = target_.faults();
    if (faults.ignores(*this, command.sqe)) return;
    controller_->command_fetched();
    if (const auto status = faults.fail_status(*this, command.sqe)) {
      return respond(command, *status);
    }
  }
  // Disconnect is the last command of its queue. Base 2.1 §6.4.
  if (disconnecting_) return respond(command, StatusCode::aborted_sq_deletion);
  if (io_ != nullptr) {
    io_->on_command(command);
  } else {
    begin(command);
  }
}

void Session::on_data_received(transport::ControllerCommand& command, bool digest_ok) {
  const auto transfer = transfers_.find(command.slot);
  if (transfer == transfers_.end()) {
    io_->on_data_received(command, digest_ok);
    return;
  }
  if (!digest_ok) return respond(command, StatusCode::transient_transport_error);
  const std::vector<std::byte> data = std::move(transfer->second.data);
  transfers_.erase(transfer);
  execute(command, data);
}

void Session::on_data_sent(transport::ControllerCommand& command) {
  const auto transfer = transfers_.find(command.slot);
  if (transfer == transfers_.end()) {
    io_->on_data_sent(command);
  } else if (transfer->second.sent_bytes == command.data_bytes) {
    transfers_.erase(transfer);
  } else {
    send_piece(command, transfer->second);
  }
}

void Session::on_ended(const Error& reason) {
  ended_ = true;
  hole_ = nullptr;
  timer_.cancel();
  transfers_.clear();
  if (io_ != nullptr) io_->on_ended();
  if (controller_ != nullptr && !disconnecting_ && !closed_alone_) {
    controller_->connection_lost(*this, reason);
  }
  if (io_ == nullptr || io_->idle()) target_.session_gone(*this);
}

// ---- fabrics and admin commands

void Session::begin(transport::ControllerCommand& command) {
  const nvme::Sqe& sqe = command.sqe;
  if (controller_ == nullptr) {
    // Nothing but Connect may be the first command of a queue. Base 2.1 §3.3.2.2.
    if (!sqe.is_fabrics() || sqe.fabrics_type() != nvme::FabricsType::connect) {
      return respond(command, {StatusCode::command_sequence_error, true});
    }
  } else if (const Status status = check_admin(*controller_, sqe); !status.ok()) {
    return respond(command, status);
  }
  const std::size_t wanted = admin_data_in_bytes(sqe);
  if (wanted == 0) return execute(command, {});
  if (const Status status = check_data_in(command, wanted); !status.ok()) {
    return respond(command, status);
  }
  if (!command.in_capsule.empty()) return execute(command, command.in_capsule);
  Transfer& transfer = transfers_[command.slot];
  transfer.data.resize(wanted);
  qpair_->receive_data(command, transfer.data);
}

Status Session::check_data_in(const transport::ControllerCommand& command,
                              std::size_t wanted) const {
  if (command.data_bytes != wanted) return {StatusCode::data_sgl_length_invalid, true};
  return {};
}

void Session::execute(transport::ControllerCommand& command, std::span<const std::byte> data) {
  const nvme::Sqe& sqe = command.sqe;
  if (sqe.is_fabrics() && sqe.fabrics_type() == nvme::FabricsType::connect) {
    finish(command, execute_connect(target_, *this, sqe, data));
  } else {
    finish(command, execute_admin(*controller_, *this, command, data));
  }
}

void Session::finish(transport::ControllerCommand& command, AdminReply reply) {
  if (reply.later) return;
  if (!reply.status.ok() || reply.data.empty() || command.data_bytes == 0) {
    return respond(command, reply.status, reply.result);
  }
  // Data for the host cannot be in the capsule.
  if (command.sqe.sgl.type != nvme::kSglTransportDataBlock) {
    return respond(command, {StatusCode::sgl_type_invalid, true});
  }
  Transfer& transfer = transfers_[command.slot];
  transfer.data = std::move(reply.data);
  transfer.sent_bytes = 0;
  send_piece(command, transfer);
}

void Session::send_piece(transport::ControllerCommand& command, Transfer& transfer) {
  // The data itself, cut at what the host has room for, then zeroes.
  const std::size_t left = command.data_bytes - transfer.sent_bytes;
  std::span<const std::byte> piece;
  if (transfer.sent_bytes < transfer.data.size()) {
    piece = std::span<const std::byte>(transfer.data).subspan(transfer.sent_bytes);
    piece = piece.first(std::min(piece.size(), left));
  } else {
    piece = std::span<const std::byte>(kZeroes).first(std::min(kZeroes.size(), left));
  }
  transfer.sent_bytes += piece.size();
  const bool last = transfer.sent_bytes == command.data_bytes;
  qpair_->send_data(command, piece, last, last);
}

}  // namespace nvmf::controller
