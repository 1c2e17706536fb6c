#include "frontends/nbd/server.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "frontends/nbd/session.h"
#include "nvme/check.h"

namespace nvmf::nbd {

/// The sessions of one loop. Everything but the constructor and the counters is that thread's.
class Server::Worker final : public SessionOwner {
 public:
  Worker(Server& server, transport::Loop& loop, std::size_t index, ExportList exports)
      : server_(server),
        loop_(loop),
        index_(index),
        exports_(std::move(exports)),
        buffers_(server.arena_, loop),
        grace_(loop.timers(), [this] { grace_over(); }) {}

  ~Worker() { NVMF_CHECK(sessions_.empty()); }

  [[nodiscard]] transport::Loop& loop() const { return loop_; }
  [[nodiscard]] const Counters& counters() const { return counters_; }
  [[nodiscard]] ExportList& exports() { return exports_; }

  void add(std::unique_ptr<transport::Incoming> incoming) {
    if (stopping_) {
      server_.place_freed();
      return;  // destroying `incoming` closes it
    }
    auto session = std::make_unique<Session>(exports_, index_, buffers_, counters_, *this);
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
    if (session.dismissed()) tell(reason.message);
    sessions_.erase(&session);
    server_.place_freed();
    if (stopping_ && sessions_.empty()) report();
  }

  /// Somebody waits for a place.
  void hurry() {
    for (const auto& [session, owned] : sessions_) session->limit_handshake(kHandshakeMaxWhenFull);
  }

 private:
  void tell(const std::string& sentence) {
    if (!server_.options_.on_misbehaviour) return;
    if (loop_.now() - told_since_ >= kSentencesPeriod) {
      told_since_ = loop_.now();
      told_ = 0;
    }
    if (told_ == kSentencesMax) {
      ++untold_;
      return;
    }
    ++told_;
    const std::uint64_t untold = std::exchange(untold_, 0);
    server_.options_.on_misbehaviour(
        untold == 0 ? sentence
                    : fmt::format("{} ({} more clients were disconnected)", sentence, untold));
  }

  void grace_over() {
    for (const auto& [session, owned] : sessions_) session->cut();
  }

  void report() {
    grace_.cancel();
    buffers_.stop();  // the server may be destroyed on another thread once all have reported
    // Posted even on the same thread: the caller may be a session's last call.
    server_.loops_.front()->post([&server = server_] { server.worker_stopped(); });
  }

  Server& server_;
  transport::Loop& loop_;
  std::size_t index_;
  ExportList exports_;
  Counters counters_;
  BufferPool buffers_;
  transport::Timer grace_;
  std::unordered_map<Session*, std::unique_ptr<Session>> sessions_;
  bool stopping_ = false;
  Instant told_since_{};
  std::uint32_t told_ = 0;
  std::uint64_t untold_ = 0;
};

Server::Server(std::vector<transport::Loop*> loops, ExportList exports, ServerOptions options)
    : loops_(std::move(loops)),
      options_(std::move(options)),
      arena_(options_.buffer_bytes, options_.clients_max, options_.discard),
      place_timer_(loops_.front()->timers(), [this] { admit_waiting(); }) {
  for (const Export& e : exports.all()) {
    NVMF_CHECK(!e.names.empty() && e.devices.size() >= loops_.size());
  }
  for (std::size_t i = 0; i < loops_.size(); ++i) {
    workers_.push_back(std::make_unique<Worker>(*this, *loops_[i], i, exports));
  }
}

Server::~Server() = default;

/// Before anybody who is accepted from now on gets to see the list: clients are handed on by the
/// same way.
template <class Change>
void Server::change_exports(const Change& change) {
  if (stopping_) return;
  for (const auto& worker : workers_) {
    if (&worker->loop() == loops_.front()) {
      change(worker->exports());
    } else {
      worker->loop().post([&w = *worker, change] { change(w.exports()); });
    }
  }
}

void Server::attached(const frontends::Disk& disk) {
  NVMF_CHECK(disk.devices.size() >= loops_.size());
  // Its name from here: the devices' own info() is their reactors'.
  const host::BlockInfo& info = disk.info;
  const Export e = {{info.name, std::to_string(info.nsid)}, disk.devices, info.nsid};
  change_exports([e](ExportList& exports) { exports.offer(e); });
}

void Server::detached(std::uint32_t nsid) {
  change_exports([nsid](ExportList& exports) { exports.withdraw(nsid); });
}

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
  if (clients_.load(std::memory_order_relaxed) < options_.clients_max && waiting_.empty()) {
    return admit(std::move(incoming));
  }
  if (waiting_.size() >= kWaitingMax) {
    refused_.fetch_add(1, std::memory_order_relaxed);
    return;  // destroying `incoming` closes it
  }
  waiting_.push_back({std::move(incoming), loops_.front()->now() + kPlaceWait});
  waiting_count_.store(waiting_.size(), std::memory_order_seq_cst);
  admit_waiting();
}

/// Gives out places that have become free, sends away who has waited long enough, and sees to it
/// that handshakes do not keep those who still wait.
void Server::admit_waiting() {
  if (stopping_) return;
  const Instant now = loops_.front()->now();
  while (!waiting_.empty()) {
    if (clients_.load(std::memory_order_seq_cst) < options_.clients_max) {
      admit(std::move(waiting_.front().incoming));
    } else if (waiting_.front().until <= now) {
      refused_.fetch_add(1, std::memory_order_relaxed);
    } else {
      break;
    }
    waiting_.pop_front();
  }
  waiting_count_.store(waiting_.size(), std::memory_order_seq_cst);
  if (waiting_.empty()) return place_timer_.cancel();
  if (place_timer_.armed()) return;
  place_timer_.arm(now + kPlaceRetry);
  for (const auto& worker : workers_) {
    worker->loop().post([&w = *worker] { w.hurry(); });
  }
}

/// From any of the threads.
void Server::place_freed() {
  clients_.fetch_sub(1, std::memory_order_seq_cst);
  if (waiting_count_.load(std::memory_order_seq_cst) == 0) return;
  // It comes before the same thread's report of its end, and so finds the server there.
  loops_.front()->post([this] { admit_waiting(); });
}

void Server::admit(std::unique_ptr<transport::Incoming> incoming) {
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
  place_timer_.cancel();
  waiting_.clear();
  waiting_count_.store(0, std::memory_order_seq_cst);
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
