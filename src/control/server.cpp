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

  void respond(std::string line) {
    waiting_ = false;
    progress();
    if (finishing_) return;
    send_line(std::move(line));
    // The next request is taken when this answer is sent: a client that asks and never reads would
    // otherwise fill our memory.
    if (server_.stopping_) finish();
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
    progress();
    patience_.cancel();  // the time that a handler takes is not the client's
    waiting_ = true;
    set_paused(true);
    server_.dispatch(line, Responder(weak_from_this()));
  }
  void on_line_too_long() override {
    send_line(failure_line(
        {fmt::format("a request is at most {} bytes long", kRequestBytesMax), EMSGSIZE}));
    finish();
  }
  void on_end_of_lines() override {
    if (!waiting_ && !sending()) finish();
  }
  void on_all_sent() override {
    progress();
    if (waiting_ || finishing_) return;
    set_paused(false);  // may take the next request, or find that there is none
    if (ended() && !waiting_ && !sending()) finish();
  }

  Server& server_;
  transport::Loop& loop_;
  transport::Timer patience_;
  Instant progressed_at_{};
  bool waiting_ = false;
  bool finishing_ = false;
};

Responder::~Responder() {
  if (live_) fail({"the process is ending", ESHUTDOWN});
}

void Responder::succeed(const nlohmann::json& fields) {
  answer(success_line(fields));
}

void Responder::fail(const Error& error) {
  answer(failure_line(error));
}

void Responder::answer(std::string line) {
  NVMF_CHECK(live_);
  live_ = false;
  if (line.size() > kLineBytesMax) {
    line = failure_line({"the answer is too long for the control socket", EMSGSIZE});
  }
  if (const std::shared_ptr<ServerSession> session = session_.lock()) {
    session->respond(std::move(line));
  }
}

Server::~Server() {
  NVMF_CHECK(sessions_.empty());
}

void Server::handle(std::string verb, Handler handler) {
  handlers_.insert_or_assign(std::move(verb), std::move(handler));
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
  if (sessions_.size() >= kClientsMax) make_room();
  // Those that were told to go may still be there; twice the number is where patience ends.
  if (sessions_.size() >= 2 * kClientsMax) return;
  auto session = std::make_shared<ServerSession>(*this, loop_);
  session->attach(loop_.adopt(std::move(incoming), *session));
  sessions_.push_back(std::move(session));
}

/// Cuts off the client that has been silent longest; one whose request is in a handler only if
/// there is no other.
void Server::make_room() {
  ServerSession* victim = nullptr;
  for (const std::shared_ptr<ServerSession>& session : sessions_) {
    if (session->leaving()) continue;
    const auto rank = [](const ServerSession& s) {
      return std::pair(s.waiting(), s.progressed_at());
    };
    if (victim == nullptr || rank(*session) < rank(*victim)) victim = session.get();
  }
  if (victim != nullptr) victim->cut("others needed its place");
}

void Server::dispatch(std::string_view line, Responder respond) {
  nlohmann::json args;
  const Result<std::string> verb = parse_request(line, args);
  if (!verb) {
    respond.fail(verb.error());
    return;
  }
  const auto handler = handlers_.find(*verb);
  if (handler == handlers_.end()) {
    respond.fail({fmt::format("this process does not know the verb \"{}\"", nvme::printable(*verb)),
                  ENOTSUP});
    return;
  }
  handler->second(args, std::move(respond));
}

void Server::gone(ServerSession& session) {
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
