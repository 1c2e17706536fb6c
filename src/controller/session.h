// One connection of a host: a queue pair, first waiting for Connect, then the admin queue or an I/O
// queue of a controller.
//
// It moves the data of fabrics and admin commands, hands I/O commands to its IoQueue, and keeps
// itself until nothing of it is under way: the connection ends first (on_ended), then, possibly
// later, the last operation on a disk; then Target::session_gone().
//
// One thread, the target's loop. Owned by the target.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "controller/admin_reply.h"
#include "controller/io_commands.h"
#include "transport/loop.h"
#include "transport/qpair.h"

namespace nvmf::controller {

class Controller;
class HoleStream;
class Target;

class Session final : public transport::ControllerQpairEvents {
 public:
  /// `number` counts a target's sessions.
  Session(Target& target, std::uint16_t port_id, std::uint64_t number);
  ~Session();

  /// Takes the queue pair, whose events come here. `hole` is good until on_ended().
  void start(std::unique_ptr<transport::ControllerQpair> qpair, HoleStream* hole);

  [[nodiscard]] std::uint64_t number() const { return number_; }
  [[nodiscard]] transport::ControllerQpair& qpair() const { return *qpair_; }
  [[nodiscard]] Controller* controller() const { return controller_; }
  [[nodiscard]] std::uint16_t qid() const { return qid_; }
  [[nodiscard]] std::uint16_t port_id() const { return port_id_; }
  [[nodiscard]] bool connected() const { return controller_ != nullptr; }
  /// Of an I/O queue; nullptr otherwise.
  [[nodiscard]] IoQueue* io() const { return io_.get(); }
  [[nodiscard]] bool ended() const { return ended_; }

  /// Ends the command. Errors go to the controller's error log.
  void respond(transport::ControllerCommand& command, nvme::Status status, std::uint64_t result = 0,
               bool has_lba = false);
  /// The same with an admin command's data. Nothing happens if the reply is to come later.
  void finish(transport::ControllerCommand& command, AdminReply reply);
  /// Ends the connection at once.
  void end(const Error& reason);
  /// The same out of a black hole: the host sees it at once.
  void end_visibly(const Error& reason);
  /// Ends this connection, with RST or FIN, in a way that its controller survives.
  void close_alone(bool reset);
  /// Turns its black hole on or off. Not inside an event of the queue pair.
  void set_hole(bool on);
  [[nodiscard]] bool in_hole() const;
  /// After the response to a Disconnect command: the host closes, and that is no loss. If it does
  /// not, we do, kDisconnectLinger later.
  void disconnect();
  /// A good Connect: this is queue `qid` of `controller` now. Called before the response.
  void become(Controller& controller, std::uint16_t qid, std::uint32_t queue_entries,
              std::uint32_t in_capsule_bytes, bool sq_flow_control);

  /// From the IoQueue: idle after its end.
  void io_idle();

  // transport::ControllerQpairEvents
  void on_command(transport::ControllerCommand& command) override;
  void on_data_received(transport::ControllerCommand& command, bool digest_ok) override;
  void on_data_sent(transport::ControllerCommand& command) override;
  void on_ended(const Error& reason) override;

 private:
  /// The data of one admin or fabrics command.
  struct Transfer {
    std::vector<std::byte> data;
    std::size_t sent_bytes = 0;
  };

  void begin(transport::ControllerCommand& command);
  [[nodiscard]] nvme::Status check_data_in(const transport::ControllerCommand& command,
                                           std::size_t wanted) const;
  void execute(transport::ControllerCommand& command, std::span<const std::byte> data);
  void send_piece(transport::ControllerCommand& command, Transfer& transfer);

  Target& target_;
  std::uint16_t port_id_;
  std::uint64_t number_;
  std::unique_ptr<transport::ControllerQpair> qpair_;
  HoleStream* hole_ = nullptr;
  Controller* controller_ = nullptr;
  std::uint16_t qid_ = 0;
  std::unique_ptr<IoQueue> io_;
  std::map<std::uint32_t, Transfer> transfers_;  // by slot
  transport::Timer timer_;  // for Connect; after Disconnect, for the host to close
  bool disconnecting_ = false;
  bool closed_alone_ = false;
  bool ended_ = false;
};

}  // namespace nvmf::controller
