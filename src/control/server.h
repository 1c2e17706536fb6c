// The control socket of a running process: takes requests, gives each to the verb's handler, sends
// the answer when there is one. Sans-IO: on whatever Loop it is given.
//
// A client has one request under way at a time. One that hangs holds a slot of kClientsMax and, if
// it announced a payload, its share of kPayloadsBytesMax; it is cut off after kClientPatience, or
// earlier when the slot is needed. Requests with payloads get their memory in the order in which
// they came. Who follows a stream and does not read misses news, and is told how many.
//
// Only the owner of this process and root get in: beside the modes of the runtime directory, the
// kernel's word about the peer is checked.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "control/protocol.h"
#include "transport/loop.h"

namespace nvmf::control {

class ServerSession;

/// What payloads take in sum. Shares of it may outlive the server.
struct PayloadPool {
  std::size_t used_bytes = 0;
  std::function<void()> on_given_back;  // empty once the server is gone
};
/// What one request takes of it, until nobody has it any more.
class PayloadShare {
 public:
  PayloadShare(std::shared_ptr<PayloadPool> pool, std::size_t bytes)
      : pool_(std::move(pool)), bytes_(bytes) {
    pool_->used_bytes += bytes_;
  }
  PayloadShare(const PayloadShare&) = delete;
  PayloadShare& operator=(const PayloadShare&) = delete;
  ~PayloadShare() {
    pool_->used_bytes -= bytes_;
    if (pool_->on_given_back) pool_->on_given_back();
  }

 private:
  std::shared_ptr<PayloadPool> pool_;
  std::size_t bytes_;
};

/// A client that follows a stream; on the loop's thread. Destroying it ends the stream.
class Follower {
 public:
  explicit Follower(std::weak_ptr<ServerSession> session) : session_(std::move(session)) {}
  Follower(Follower&&) noexcept = default;
  Follower& operator=(Follower&& other) noexcept;
  ~Follower();
  /// An object. False once the client has gone. What it does not read in time is counted instead.
  bool tell(const nlohmann::json& news);
  /// The client has gone, and tell() would find that out.
  [[nodiscard]] bool gone() const { return session_.expired(); }

 private:
  std::weak_ptr<ServerSession> session_;
};

/// The right, and the duty, to answer one request; on the loop's thread. One that is destroyed
/// without having answered answers that the process is ending. A client that is gone gets nothing.
class Responder {
 public:
  Responder(std::weak_ptr<ServerSession> session, std::shared_ptr<PayloadShare> share)
      : session_(std::move(session)), share_(std::move(share)) {}
  Responder(Responder&& other) noexcept
      : session_(std::move(other.session_)),
        share_(std::move(other.share_)),
        live_(std::exchange(other.live_, false)) {}
  Responder& operator=(Responder&&) = delete;
  ~Responder();

  /// `fields` is an object. The payload must have room in what the request gave.
  void succeed(const nlohmann::json& fields, std::vector<std::byte> payload = {});
  void fail(const Error& error);
  /// Answers, and leaves the client following: what comes of news goes to the Follower. EBUSY if
  /// there are kFollowersMax already; it is answered then, too.
  Result<Follower> succeed_and_follow(const nlohmann::json& fields);

 private:
  void answer(std::string line, std::vector<std::byte> payload = {});
  std::weak_ptr<ServerSession> session_;
  std::shared_ptr<PayloadShare> share_;  // while somebody works with the payload
  bool live_ = true;
};

class Server {
 public:
  /// `args` is an object, valid during the call. May answer in the call or any time later.
  using Handler = std::function<void(const nlohmann::json& args, Responder respond)>;
  /// With the request's payload; `room_bytes` is the most that the answer's may have.
  struct Payload {
    std::vector<std::byte> bytes;
    std::size_t room_bytes = 0;
  };
  using PayloadHandler =
      std::function<void(const nlohmann::json& args, Payload payload, Responder respond)>;

  explicit Server(transport::Loop& loop);
  /// Only when no client is connected: after on_stopped, or if listen() was never called.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Before listen().
  void handle(std::string verb, Handler handler);
  void handle_payload(std::string verb, PayloadHandler handler);
  /// Before listen(): beside root, only this user's processes get in; others are hung up on.
  void admit_only(std::uint32_t uid) { uid_ = uid; }
  Result<void> listen(const transport::Endpoint& at);

  /// Stops listening. Clients whose answers are there by now still get them, kStopGrace at most;
  /// then all are closed. `on_stopped` is called once, never inside.
  void stop(std::move_only_function<void()> on_stopped);

  [[nodiscard]] std::size_t clients() const { return sessions_.size(); }
  /// What payloads take, of kPayloadsBytesMax.
  [[nodiscard]] std::size_t payload_bytes() const { return payloads_->used_bytes; }

 private:
  friend class ServerSession;
  void accepted(std::unique_ptr<transport::Incoming> incoming);
  void make_room();
  void dispatch(const std::string& verb, const nlohmann::json& args, Payload payload,
                Responder respond);
  [[nodiscard]] bool takes_payload(std::string_view verb) const;
  void wait_for_memory(ServerSession& session);
  void hand_out_memory();
  void gone(ServerSession& session);
  void check_stopped();

  transport::Loop& loop_;
  struct Verb {
    PayloadHandler handler;
    bool payload = false;  // takes one, or gives one
  };
  std::map<std::string, Verb, std::less<>> verbs_;
  std::optional<std::uint32_t> uid_;
  std::shared_ptr<PayloadPool> payloads_;
  std::deque<ServerSession*> waiting_for_memory_;
  bool handing_out_ = false;
  std::size_t followers_ = 0;
  std::unique_ptr<transport::Listener> listener_;
  std::vector<std::shared_ptr<ServerSession>> sessions_;  // in the order of their coming
  std::unique_ptr<transport::Timer> stop_timer_;
  std::move_only_function<void()> on_stopped_;
  bool stopping_ = false;
};

}  // namespace nvmf::control
