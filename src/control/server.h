// The control socket of a running process: takes requests, gives each to the verb's handler, sends
// the answer when there is one. Sans-IO: on whatever Loop it is given.
//
// A client has one request under way at a time. One that hangs holds a slot of kClientsMax and
// nothing else; it is cut off after kClientPatience, or earlier when the slot is needed.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "control/protocol.h"
#include "transport/loop.h"

namespace nvmf::control {

class ServerSession;

/// The right, and the duty, to answer one request; on the loop's thread. One that is destroyed
/// without having answered answers that the process is ending. A client that is gone gets nothing.
class Responder {
 public:
  explicit Responder(std::weak_ptr<ServerSession> session) : session_(std::move(session)) {}
  Responder(Responder&& other) noexcept
      : session_(std::move(other.session_)), live_(std::exchange(other.live_, false)) {}
  Responder& operator=(Responder&&) = delete;
  ~Responder();

  /// `fields` is an object.
  void succeed(const nlohmann::json& fields);
  void fail(const Error& error);

 private:
  void answer(std::string line);
  std::weak_ptr<ServerSession> session_;
  bool live_ = true;
};

class Server {
 public:
  /// `args` is an object, valid during the call. May answer in the call or any time later.
  using Handler = std::function<void(const nlohmann::json& args, Responder respond)>;

  explicit Server(transport::Loop& loop) : loop_(loop) {}
  /// Only when no client is connected: after on_stopped, or if listen() was never called.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Before listen().
  void handle(std::string verb, Handler handler);
  Result<void> listen(const transport::Endpoint& at);

  /// Stops listening. Clients whose answers are there by now still get them, kStopGrace at most;
  /// then all are closed. `on_stopped` is called once, never inside.
  void stop(std::move_only_function<void()> on_stopped);

  [[nodiscard]] std::size_t clients() const { return sessions_.size(); }

 private:
  friend class ServerSession;
  void accepted(std::unique_ptr<transport::Incoming> incoming);
  void make_room();
  void dispatch(std::string_view line, Responder respond);
  void gone(ServerSession& session);
  void check_stopped();

  transport::Loop& loop_;
  std::map<std::string, Handler, std::less<>> handlers_;
  std::unique_ptr<transport::Listener> listener_;
  std::vector<std::shared_ptr<ServerSession>> sessions_;  // in the order of their coming
  std::unique_ptr<transport::Timer> stop_timer_;
  std::move_only_function<void()> on_stopped_;
  bool stopping_ = false;
};

}  // namespace nvmf::control
