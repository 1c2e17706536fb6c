#include "frontends/nbd/server.h"

#include <algorithm>
#include <unordered_map>

#include "frontends/nbd/session.h"
#include "nvme/check.h"

namespace nvmf::nbd {

/// The sessions of one loop. Everything but the constructor and the counters is that thread's.
class Server::Worker final : public SessionOwner {
 public:
  Worker(Server& server, transport::Loop& loop, std::size_t index)
      : server_(server),
        loop_(loop),
        index_(index),
        buffers_(server.arena_, loop),
        grace_(loop.timers(), [this] { grace_over(); }) {}

  ~Worker() { NVMF_CHECK(sessions_.empty()); }

  [[nodiscard]] transport::Loop& loop() const { return loop_; }
  [[nodiscard]] const Counters& counters() const { return counters_; }

  void add(std::unique_ptr<transport::Incoming> incoming) {
    if (stopping_) {
      server_.clients_.fetch_sub(1, std::memory_order_relaxed);
      return;  // destroying `incoming` closes it
    }
    auto session = std::make_unique<Session>(server_.exports_, index_, buffers_, counters_, *this);
    Session& s = *session;
    sessions_.emplace(&s, std::move(session));
    s.attach(loop_.adopt(std::move(incoming), s));
  }

  void stop() {
    stopping_ = true;
    if (sessions_.empty()) return report();
    grace_.arm(loop_.now() + server_.options_.grace);
    for (const auto& [session, owned] : sessions_) session->stop();
  }

  void session_gone(Session& session, const Error& reason) override {
    if (session.dismissed() && server_.options_.on_misbehaviour) {
      server_.options_.on_misbehaviour(reason.message);
    }
    sessions_.erase(&session);
    server_.clients_.fetch_sub(1, std::memory_order_relaxed);
    if (stopping_ && sessions_.empty()) report();
  }

 private:
  void grace_over() {
    for (const auto& [session, owned] : sessions_) session->cut();
  }

  void report() {
    grace_.cancel();
    // Posted even on the same thread: the caller may be a session's last call.
    server_.loops_.front()->post([&server = server_] { server.worker_stopped(); });
  }

  Server& server_;
  transport::Loop& loop_;
  std::size_t index_;
  Counters counters_;
  BufferPool buffers_;
  transport::Timer grace_;
  std::unordered_map<Session*, std::unique_ptr<Session>> sessions_;
  bool stopping_ = false;
};

Server::Server(std::vector<transport::Loop*> loops, ExportList exports, ServerOptions options)
    : loops_(std::move(loops)),
      exports_(std::move(exports)),
      options_(std::move(options)),
      arena_(options_.buffer_bytes, options_.clients_max, options_.discard) {
  NVMF_CHECK(!loops_.empty());
  for (const Export& e : exports_.all()) {
    NVMF_CHECK(!e.names.empty() && e.devices.size() >= loops_.size());
  }
  for (std::size_t i = 0; i < loops_.size(); ++i) {
    workers_.push_back(std::make_unique<Worker>(*this, *loops_[i], i));
  }
}

Server::~Server() = default;

Result<transport::Endpoint> Server::listen(const transport::Endpoint& at) {
  NVMF_CHECK(!stopping_);
  auto listener = loops_.front()->listen(
      at, [this](std::unique_ptr<transport::Incoming> incoming) { accepted(std::move(incoming)); });
  if (!listener) return std::unexpected(std::move(listener.error()));
  transport::Endpoint local = (*listener)->local();
  listeners_.push_back(std::move(*listener));
  return local;
}

void Server::accepted(std::unique_ptr<transport::Incoming> incoming) {
  if (stopping_) return;
  if (clients_.load(std::memory_order_relaxed) >= options_.clients_max) {
    // Closed at once: a client that waits without a greeting would look like a hanging server.
    refused_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  clients_.fetch_add(1, std::memory_order_relaxed);
  accepted_.fetch_add(1, std::memory_order_relaxed);
  Worker& worker = *workers_[next_worker_];
  next_worker_ = (next_worker_ + 1) % workers_.size();
  if (&worker.loop() == loops_.front()) return worker.add(std::move(incoming));
  worker.loop().post(
      [&worker, incoming = std::move(incoming)]() mutable { worker.add(std::move(incoming)); });
}

void Server::stop(std::move_only_function<void()> on_stopped) {
  NVMF_CHECK(!stopping_);
  stopping_ = true;
  on_stopped_ = std::move(on_stopped);
  listeners_.clear();
  workers_left_ = workers_.size();
  for (const auto& worker : workers_) {
    worker->loop().post([&w = *worker] { w.stop(); });
  }
}

void Server::worker_stopped() {
  if (--workers_left_ > 0) return;
  auto done = std::move(on_stopped_);
  if (done) done();  // may destroy the server
}

ServerTotals Server::totals() const {
  const auto load = [](const auto& counter) { return counter.load(std::memory_order_relaxed); };
  ServerTotals t;
  t.clients = load(clients_);
  t.accepted = load(accepted_);
  t.refused = load(refused_);
  for (const auto& worker : workers_) {
    const Counters& c = worker->counters();
    t.requests += load(c.requests);
    t.read_bytes += load(c.read_bytes);
    t.written_bytes += load(c.written_bytes);
    t.errors += load(c.errors);
  }
  return t;
}

}  // namespace nvmf::nbd
