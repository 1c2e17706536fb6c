#include "control/server.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "control/line_stream.h"
#include "nvme/check.h"
#include "nvme/text.h"

namespace nvmf::control {

/// One client.
class ServerSession final : public LineStream, public std::enable_shared_from_this<ServerSession> {
 public:
  ServerSession(Server& server, transport::Loop& loop)
      : LineStream(kRequestBytesMax),
        server_(server),
        loop_(loop),
        patience_(loop.timers(), [this] { cut("it was silent for too long"); }) {
    progress();
  }
  ~ServerSession() override = default;

  void respond(std::string line, std::vector<std::byte> payload) {
    waiting_ = false;
    progress();
    if (finishing_) return;
    send_line(std::move(line));
    send_payload(std::move(payload));
    // The next request is taken when this answer is sent: a client that asks and never reads would
    // otherwise fill our memory.
    if (server_.stopping_ || garbled_) finish();
  }
  /// From now on the client only listens, and may go.
  void follow() {
    following_ = true;
    ++server_.followers_;
    patience_.cancel();
    set_paused(false);
  }
  bool tell(std::string line) {
    if (finishing_) return false;
    if (missed_ != 0 || (sending() && backlog_bytes() + line.size() > kFollowerBacklogBytesMax)) {
      ++missed_;
    } else {
      send_line(std::move(line));
    }
    return true;
  }
  [[nodiscard]] bool full_of_followers() const { return server_.followers_ >= kFollowersMax; }
  /// Payload and room of the request that waits for memory.
  [[nodiscard]] std::size_t wanted_bytes() const {
    return request_.payload_bytes + request_.room_bytes;
  }
  void on_memory(std::shared_ptr<PayloadShare> share) {
    share_ = std::move(share);
    if (request_.payload_bytes == 0) return dispatch({});
    expect_payload(request_.payload_bytes);
    progress();
    set_paused(false);
  }

  /// At the server's end: takes no more requests, and goes when nothing is left to be sent.
  void finish() {
    if (std::exchange(finishing_, true)) return;
    stream().finish(kStopGrace);
  }
  void cut(std::string_view why) {
    finishing_ = true;
    patience_.cancel();
    stream().reset(
        nvmf::fail(fmt::format("the control client was cut off: {}", why), ETIMEDOUT).error());
  }
  /// A handler has its request.
  [[nodiscard]] bool waiting() const { return waiting_; }
  [[nodiscard]] bool following() const { return following_; }
  [[nodiscard]] Instant progressed_at() const { return progressed_at_; }
  [[nodiscard]] bool leaving() const { return finishing_; }

  void on_closed(const Error&) override {
    patience_.cancel();
    server_.gone(*this);  // destroys us, unless a Responder is just using us
  }

 private:
  /// Only whole lines and sent answers count: single bytes do not keep a slot.
  void progress() {
    progressed_at_ = loop_.now();
    patience_.arm(progressed_at_ + kClientPatience);
  }

  void on_line(std::string_view line) override {
    if (finishing_ || server_.stopping_) return;
    if (following_) return cut("it spoke where it was to listen");
    progress();
    patience_.cancel();  // the time that a handler takes is not the client's
    waiting_ = true;
    set_paused(true);
    auto request = parse_request(line, *args_);
    if (!request) {
      // Where the next line begins is not known if there is a payload that was not understood.
      garbled_ = request.error().code == EMSGSIZE;
      return Responder(weak_from_this(), nullptr).fail(request.error());
    }
    request_ = std::move(*request);
    if (wanted_bytes() == 0) return dispatch({});
    if (!server_.takes_payload(request_.verb)) {
      garbled_ = request_.payload_bytes != 0;
      request_.payload_bytes = 0;
      return Responder(weak_from_this(), nullptr)
          .fail({fmt::format("the verb \"{}\" takes no payload", nvme::printable(request_.verb)),
                 EINVAL});
    }
    server_.wait_for_memory(*this);
  }
  void on_payload(std::vector<std::byte> payload) override {
    if (finishing_ || server_.stopping_) return;
    patience_.cancel();
    set_paused(true);
    dispatch(std::move(payload));
  }
  void dispatch(std::vector<std::byte> payload) {
    const auto args = std::exchange(args_, std::make_unique<nlohmann::json>());
    server_.dispatch(request_.verb, *args,
                     {.bytes = std::move(payload), .room_bytes = request_.room_bytes},
                     Responder(weak_from_this(), share_));
  }
  void on_line_too_long() override {
    send_line(failure_line(
        {fmt::format("a request is at most {} bytes long", kRequestBytesMax), EMSGSIZE}));
    finish();
  }
  void on_end_of_lines() override {
    if (following_) return finish();
    if (!waiting_ && !sending()) finish();
  }
  void on_all_sent() override {
    if (following_) {
      if (missed_ != 0 && !finishing_) send_line(missed_line(std::exchange(missed_, 0)));
      return;
    }
    if (!waiting_) share_.reset();
    progress();
    if (waiting_ || finishing_) return;
    set_paused(false);  // may take the next request, or find that there is none
    if (ended() && !waiting_ && !sending()) finish();
  }

  Server& server_;
  transport::Loop& loop_;
  transport::Timer patience_;
  Instant progressed_at_{};
  Request request_;
  std::unique_ptr<nlohmann::json> args_ = std::make_unique<nlohmann::json>();
  std::shared_ptr<PayloadShare> share_;  // until the answer is sent
  std::uint64_t missed_ = 0;             // news that did not fit
  bool following_ = false;
  bool garbled_ = false;  // where the next line begins is not known
  bool waiting_ = false;
  bool finishing_ = false;
};

Responder::~Responder() {
  if (live_) fail({"the process is ending", ESHUTDOWN});
}

void Responder::succeed(const nlohmann::json& fields, std::vector<std::byte> payload) {
  std::string line = success_line(fields, payload.size());
  answer(std::move(line), std::move(payload));
}

void Responder::fail(const Error& error) {
  answer(failure_line(error));
}

Result<Follower> Responder::succeed_and_follow(const nlohmann::json& fields) {
  const std::shared_ptr<ServerSession> session = session_.lock();
  if (session && session->full_of_followers()) {
    Error error{fmt::format("{} clients follow already, which is the most", kFollowersMax), EBUSY};
    fail(error);
    return std::unexpected(std::move(error));
  }
  succeed(fields);
  if (session) session->follow();
  return Follower(session_);
}

void Responder::answer(std::string line, std::vector<std::byte> payload) {
  NVMF_CHECK(live_);
  live_ = false;
  if (line.size() > kLineBytesMax) {
    line = failure_line({"the answer is too long for the control socket", EMSGSIZE});
    payload.clear();
  }
  if (const std::shared_ptr<ServerSession> session = session_.lock()) {
    session->respond(std::move(line), std::move(payload));
  }
  share_.reset();  // the session has it until the answer is sent
}

Follower& Follower::operator=(Follower&& other) noexcept {
  std::swap(session_, other.session_);
  return *this;
}

Follower::~Follower() {
  if (const std::shared_ptr<ServerSession> session = session_.lock()) session->finish();
}

bool Follower::tell(const nlohmann::json& news) {
  const std::shared_ptr<ServerSession> session = session_.lock();
  return session && session->tell(news_line(news));
}

Server::Server(transport::Loop& loop) : loop_(loop), payloads_(std::make_shared<PayloadPool>()) {
  payloads_->on_given_back = [this] { hand_out_memory(); };
}

Server::~Server() {
  NVMF_CHECK(sessions_.empty());
  payloads_->on_given_back = nullptr;
}

void Server::handle(std::string verb, Handler handler) {
  verbs_.insert_or_assign(
      std::move(verb), Verb{.handler = [handler = std::move(handler)](const nlohmann::json& args,
                                                                      Payload, Responder respond) {
        handler(args, std::move(respond));
      }});
}

void Server::handle_payload(std::string verb, PayloadHandler handler) {
  verbs_.insert_or_assign(std::move(verb), Verb{.handler = std::move(handler), .payload = true});
}

Result<void> Server::listen(const transport::Endpoint& at) {
  auto listener = loop_.listen(
      at, [this](std::unique_ptr<transport::Incoming> incoming) { accepted(std::move(incoming)); });
  if (!listener) return std::unexpected(listener.error());
  listener_ = std::move(*listener);
  return {};
}

void Server::accepted(std::unique_ptr<transport::Incoming> incoming) {
  if (stopping_) return;
  if (const auto uid = incoming->peer_uid(); uid_ && uid && *uid != *uid_ && *uid != 0) return;
  if (sessions_.size() >= kClientsMax) make_room();
  // Those that were told to go may still be there; twice the number is where patience ends.
  if (sessions_.size() >= 2 * kClientsMax) return;
  auto session = std::make_shared<ServerSession>(*this, loop_);
  session->attach(loop_.adopt(std::move(incoming), *session));
  sessions_.push_back(std::move(session));
}

/// Cuts off the client that has been silent longest; one whose request is in a handler, or that
/// follows, only if there is no other.
void Server::make_room() {
  ServerSession* victim = nullptr;
  for (const std::shared_ptr<ServerSession>& session : sessions_) {
    if (session->leaving()) continue;
    const auto rank = [](const ServerSession& s) {
      return std::pair(s.waiting() || s.following(), s.progressed_at());
    };
    if (victim == nullptr || rank(*session) < rank(*victim)) victim = session.get();
  }
  if (victim != nullptr) victim->cut("others needed its place");
}

bool Server::takes_payload(std::string_view verb) const {
  const auto found = verbs_.find(verb);
  return found == verbs_.end() || found->second.payload;
}

void Server::dispatch(const std::string& verb, const nlohmann::json& args, Payload payload,
                      Responder respond) {
  const auto found = verbs_.find(verb);
  if (found == verbs_.end()) {
    respond.fail({fmt::format("this process does not know the verb \"{}\"", nvme::printable(verb)),
                  ENOTSUP});
    return;
  }
  found->second.handler(args, std::move(payload), std::move(respond));
}

void Server::wait_for_memory(ServerSession& session) {
  waiting_for_memory_.push_back(&session);
  hand_out_memory();
}

/// In the order in which they came, so that large ones have their turn, too.
void Server::hand_out_memory() {
  if (std::exchange(handing_out_, true)) return;
  while (!waiting_for_memory_.empty()) {
    ServerSession& next = *waiting_for_memory_.front();
    if (payloads_->used_bytes + next.wanted_bytes() > kPayloadsBytesMax) break;
    waiting_for_memory_.pop_front();
    next.on_memory(std::make_shared<PayloadShare>(payloads_, next.wanted_bytes()));
  }
  handing_out_ = false;
}

void Server::gone(ServerSession& session) {
  std::erase(waiting_for_memory_, &session);
  if (session.following()) --followers_;
  std::erase_if(sessions_, [&](const auto& s) { return s.get() == &session; });
  check_stopped();
}

void Server::stop(std::move_only_function<void()> on_stopped) {
  NVMF_CHECK(!stopping_);
  stopping_ = true;
  on_stopped_ = std::move(on_stopped);
  listener_.reset();
  for (const std::shared_ptr<ServerSession>& session : sessions_) {
    if (!session->waiting()) session->finish();
  }
  stop_timer_ = std::make_unique<transport::Timer>(loop_.timers(), [this] {
    for (const std::shared_ptr<ServerSession>& session : sessions_) {
      session->cut("the process is ending");
    }
  });
  stop_timer_->arm(loop_.now() + kStopGrace);
  if (sessions_.empty()) loop_.post([this] { check_stopped(); });
}

void Server::check_stopped() {
  if (!stopping_ || !sessions_.empty() || !on_stopped_) return;
  stop_timer_.reset();
  // Posted: the caller may destroy the server in it, and we are inside a session's last call.
  loop_.post([done = std::move(on_stopped_)]() mutable { done(); });
  on_stopped_ = nullptr;
}

}  // namespace nvmf::control
