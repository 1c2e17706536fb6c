#include "sim/virtual_loop.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "nvme/check.h"
#include "sim/virtual_end.h"

namespace nvmf::sim {

using transport::ConnectOptions;
using transport::Endpoint;
using transport::StreamUser;

namespace {

/// A run that makes this many turns without ending has a loop in it.
constexpr std::uint64_t kTurnsMax = 200'000'000;

std::size_t total(std::span<const iovec> v) {
  std::size_t n = 0;
  for (const iovec& one : v) n += one.iov_len;
  return n;
}

/// Whether `now` names, in order, at least every byte that `before` named.
bool continues(std::span<const iovec> before, std::span<const iovec> now) {
  std::size_t at = 0;
  std::size_t used = 0;
  for (const iovec& one : before) {
    std::size_t done = 0;
    while (done < one.iov_len) {
      if (at == now.size()) return false;
      if (used == now[at].iov_len) {
        ++at;
        used = 0;
        continue;
      }
      const auto* old_place = static_cast<const std::byte*>(one.iov_base) + done;
      if (static_cast<const std::byte*>(now[at].iov_base) + used != old_place) return false;
      const std::size_t n = std::min(one.iov_len - done, now[at].iov_len - used);
      done += n;
      used += n;
    }
  }
  return true;
}

}  // namespace

// --- Link ---------------------------------------------------------------------------------------

void Link::cut() {
  for (Flow& flow : flows_) {
    flow.segments.clear();
    flow.waiting_bytes = 0;
  }
  for (const auto& end : ends_) {
    if (end->state == End::State::closed) continue;
    end->failure = Error{"the connection to " + end->peer + " was reset (ECONNRESET)", ECONNRESET};
    loop_->mark(end);
  }
}

void Link::block(Side from, bool blocked) {
  flows_[index(from)].blocked = blocked;
  flows_[index(from)].released = 0;
  if (!blocked) loop_->mark(ends_[index(other(from))]);
}

void Link::blackhole(bool on) {
  block(Side::client, on);
  block(Side::server, on);
}

bool Link::release(Side from) {
  Flow& flow = flows_[index(from)];
  if (!flow.blocked || flow.released >= flow.segments.size()) return false;
  ++flow.released;
  loop_->mark(ends_[index(other(from))]);
  return true;
}

void Link::lose(Side from) {
  flows_[index(from)].lost = true;
}

void Link::vanish(Side side, int error) {
  silent_[index(side)] = true;
  if (Flow& flow = flows_[index(side)]; flow.blocked) flow.segments.clear();
  End& end = *ends_[index(side)];
  if (end.state == End::State::closed) return;
  const char* const name = error == ETIMEDOUT ? "ETIMEDOUT" : "ECONNRESET";
  end.failure = Error{"the connection to " + end.peer + " was lost (" + name + ")", error};
  loop_->mark(ends_[index(side)]);
}

void Link::die(Side side, Farewell farewell) {
  End& end = *ends_[index(side)];
  if (end.state == End::State::closed) return;
  end.failure = Error{"the process of " + end.local + " has died (ECONNRESET)", ECONNRESET};
  end.farewell = farewell;
  loop_->mark(ends_[index(side)]);
}

bool Link::open(Side side) const {
  return ends_[index(side)]->state == End::State::open;
}

// --- VirtualLoop: the parts that callers see ----------------------------------------------------

VirtualLoop::VirtualLoop(std::uint64_t seed) : random_(seed) {}

VirtualLoop::~VirtualLoop() {
  shutdown();
}

void VirtualLoop::post(std::move_only_function<void()> task) {
  const std::scoped_lock lock(tasks_mutex_);
  tasks_.push_back(std::move(task));
}

std::unique_ptr<transport::Stream> VirtualLoop::connect(const Endpoint& to,
                                                        const ConnectOptions& options,
                                                        StreamUser& user) {
  auto end = std::make_shared<End>();
  end->loop = this;
  end->user = &user;
  end->peer = to.to_string();
  end->local = to.is_unix() ? "" : "127.0.0.1:" + std::to_string(next_port_++);
  auto stream = std::make_unique<VirtualStream>(end);
  attempts_.push_back(end);
  if (options.connect_timeout > Duration::zero()) {
    end->expire_with(options.connect_timeout,
                     Error{"connecting to " + end->peer + " timed out (ETIMEDOUT)", ETIMEDOUT});
  }
  const ConnectFate fate = on_connect ? on_connect(to) : ConnectFate{};
  if (fate.kind == ConnectFate::Kind::ignore) return stream;
  at(now_ + pipe.latency + fate.delay, [this, end, to, refuse = fate.kind] {
    if (end->state != End::State::connecting || end->reset) return;
    if (refuse == ConnectFate::Kind::normal) return answer(end, to);
    end->failure = Error{end->peer + " refused the connection (ECONNREFUSED)", ECONNREFUSED};
    mark(end);
  });
  return stream;
}

Result<std::unique_ptr<transport::Listener>> VirtualLoop::listen(
    const Endpoint& where,
    std::move_only_function<void(std::unique_ptr<transport::Incoming>)> on_accept) {
  Endpoint real = where;
  if (!real.is_unix()) {
    while (real.port == 0 || (where.port == 0 && listeners_.contains(real.to_string()))) {
      real.port = next_port_++;
    }
  }
  if (listeners_.contains(real.to_string())) {
    return fail("cannot listen on " + real.to_string() + ": the address is in use (EADDRINUSE)",
                EADDRINUSE);
  }
  return std::make_unique<VirtualListener>(*this, real, std::move(on_accept));
}

std::unique_ptr<transport::Stream> VirtualLoop::adopt(std::unique_ptr<transport::Incoming> incoming,
                                                      StreamUser& user) {
  auto* mine = dynamic_cast<VirtualIncoming*>(incoming.get());
  NVMF_CHECK(mine != nullptr);
  std::shared_ptr<End> end = mine->take();
  NVMF_CHECK(end != nullptr && end->loop == this);
  end->user = &user;
  if (end->state == End::State::closed) {  // the loop ended in between
    end->state = End::State::opening;
    end->failure = Error{"the loop has ended", ECANCELED};
  }
  auto stream = std::make_unique<VirtualStream>(end);
  mark(end);
  return stream;
}

void VirtualLoop::resolve(const std::string& host,
                          std::move_only_function<void(Result<std::vector<std::string>>)> done) {
  Result<std::vector<std::string>> answer = fail("the name " + host + " is not known", ENOENT);
  const bool numeric = host.find(':') != std::string::npos ||
                       (!host.empty() && host.find_first_not_of("0123456789.") == host.npos);
  if (const auto known = hosts.find(host); known != hosts.end()) {
    answer = known->second;
  } else if (host == "localhost") {
    answer = std::vector<std::string>{"127.0.0.1"};
  } else if (numeric) {
    answer = std::vector<std::string>{host};
  }
  post([done = std::move(done), answer = std::move(answer)]() mutable { done(std::move(answer)); });
}

Result<std::unique_ptr<transport::FdWatch>> VirtualLoop::watch(int, bool, bool,
                                                               std::move_only_function<void()>) {
  return fail("virtual time has no file descriptors to watch", ENOTSUP);
}

std::vector<std::shared_ptr<Link>> VirtualLoop::links() const {
  return links_;
}

// --- turns --------------------------------------------------------------------------------------

void VirtualLoop::at(Instant when, std::move_only_function<void()> run) {
  events_.push_back(Event{when, next_order_++, std::move(run)});
  std::push_heap(events_.begin(), events_.end(), Later{});
}

void VirtualLoop::mark(const std::shared_ptr<End>& end) {
  if (end->marked) return;
  end->marked = true;
  dirty_.push_back(end);
}

bool VirtualLoop::run_tasks() {
  std::deque<std::move_only_function<void()>> batch;
  {
    const std::scoped_lock lock(tasks_mutex_);
    batch.swap(tasks_);
  }
  for (auto& task : batch) task();
  return !batch.empty();
}

bool VirtualLoop::run_events() {
  const std::uint64_t first_new = next_order_;
  bool any = false;
  while (!events_.empty() && events_.front().at <= now_ && events_.front().order < first_new) {
    std::pop_heap(events_.begin(), events_.end(), Later{});
    Event event = std::move(events_.back());
    events_.pop_back();
    event.run();
    any = true;
  }
  return any;
}

bool VirtualLoop::run_streams() {
  // Marked from here on: the next turn's work.
  std::deque<std::shared_ptr<End>> batch;
  batch.swap(dirty_);
  for (const auto& end : batch) {
    end->marked = false;
    service(end);
  }
  return !batch.empty();
}

bool VirtualLoop::turn() {
  bool any = run_tasks();
  any = timers_.run(now_) > 0 || any;
  any = run_events() || any;
  any = run_streams() || any;
  if (any) ++turns_;
  NVMF_CHECK(turns_ < kTurnsMax);
  return any;
}

bool VirtualLoop::busy() {
  const std::scoped_lock lock(tasks_mutex_);
  return !tasks_.empty() || !dirty_.empty();
}

void VirtualLoop::run_until_idle() {
  for (;;) {
    while (turn()) {
    }
    if (events_.empty()) return;
    Instant next = events_.front().at;
    if (const auto timer = timers_.next()) next = std::min(next, *timer);
    now_ = std::max(now_, next);
  }
}

void VirtualLoop::run_for(Duration d) {
  run_until([] { return false; }, d);
}

bool VirtualLoop::run_until(const std::function<bool()>& done, Duration most) {
  const Instant end = now_ + most;
  for (;;) {
    if (done()) return true;
    if (turn() || busy()) continue;
    auto next = timers_.next();
    if (!events_.empty() && (!next || events_.front().at < *next)) next = events_.front().at;
    if (!next || *next > end) {
      now_ = end;
      return done();
    }
    now_ = std::max(now_, *next);
  }
}

void VirtualLoop::shutdown() {
  const Error reason{"the loop has ended", ECANCELED};
  for (bool again = true; again;) {
    std::vector<std::shared_ptr<End>> open = attempts_;
    for (const auto& link : links_) open.insert(open.end(), link->ends_.begin(), link->ends_.end());
    again = false;
    for (const auto& end : open) {
      if (end->state == End::State::closed) continue;
      again = true;
      close(*end, reason);
    }
  }
  for (const auto& [name, listener] : listeners_) listener->orphan();
  listeners_.clear();
  dirty_.clear();
  std::exchange(events_, {}).clear();
  const std::scoped_lock lock(tasks_mutex_);
  tasks_.clear();
}

// --- connections --------------------------------------------------------------------------------

VirtualListener* VirtualLoop::listener_for(const Endpoint& to) {
  const std::string port = ":" + std::to_string(to.port);
  for (const std::string& name : {to.to_string(), "0.0.0.0" + port, "[::]" + port}) {
    if (const auto it = listeners_.find(name); it != listeners_.end()) return it->second;
    if (to.is_unix()) break;
  }
  return nullptr;
}

void VirtualLoop::answer(const std::shared_ptr<End>& client, const Endpoint& to) {
  VirtualListener* listener = listener_for(to);
  if (listener != nullptr) return establish(client, to, *listener);
  client->failure = Error{client->peer +
                              " refused the connection (ECONNREFUSED): "
                              "is a target listening there?",
                          ECONNREFUSED};
  mark(client);
}

void VirtualLoop::establish(const std::shared_ptr<End>& client, const Endpoint& to,
                            VirtualListener& listener) {
  auto link = std::make_shared<Link>();
  link->id = next_link_++;
  link->target = to;
  link->options = pipe;
  link->client_ = client->local;
  link->loop_ = this;
  auto server = std::make_shared<End>();
  server->loop = this;
  server->link = link;
  server->side = Side::server;
  server->state = End::State::opening;
  server->peer = to.is_unix() ? to.unix_path : client->local;
  server->local = client->peer;
  client->link = link;
  link->ends_ = {client, server};
  links_.push_back(link);
  std::erase(attempts_, client);
  client->state = End::State::opening;
  client->deadline.reset();
  client->open_at = now_ + pipe.latency;
  at(client->open_at, [this, client] { mark(client); });
  if (on_link) on_link(link);
  listener.accept(std::make_unique<VirtualIncoming>(server));
}

std::size_t VirtualLoop::chunk(const PipeOptions& options) {
  const std::size_t most = std::max<std::size_t>(options.max_chunk, 1);
  if (!options.random_split) return most;
  // Lengths of every magnitude: a uniform draw would hardly ever give the short ones.
  const std::uint64_t bound = std::uint64_t{1} << (random_() % 18);
  return static_cast<std::size_t>(1 + random_() % std::min<std::uint64_t>(most, bound));
}

void VirtualLoop::send_segment(Link& link, Side from, Link::What what,
                               std::vector<std::byte> bytes) {
  Link::Flow& flow = link.flows_[Link::index(from)];
  if (what == Link::What::rst && flow.blocked) {
    flow.segments.clear();  // never left the machine; and nobody sends an RST twice
    return;
  }
  flow.waiting_bytes += bytes.size();
  flow.sent_bytes += bytes.size();
  if (flow.lost) return;
  if (link.tamper && !bytes.empty()) link.tamper(from, bytes);
  Instant arrival = now_ + link.options.latency;
  // Never before what was sent earlier, also when the latency has been lowered since.
  if (!flow.segments.empty()) arrival = std::max(arrival, flow.segments.back().at);
  flow.segments.push_back({arrival, what, std::move(bytes)});
  const auto& receiver = link.ends_[Link::index(Link::other(from))];
  if (arrival <= now_) return mark(receiver);
  at(arrival, [this, receiver] { mark(receiver); });
}

void VirtualLoop::service(const std::shared_ptr<End>& keep) {
  End& end = *keep;
  if (end.state == End::State::closed) {
    if (end.link) arrived_at_closed(*end.link, end.side);
    return;
  }
  if (end.user == nullptr) return;
  if (end.failure) {
    if (end.farewell && end.link) {
      const bool fin = *end.farewell == Farewell::fin;
      send_segment(*end.link, end.side, fin ? Link::What::fin : Link::What::rst, {});
    }
    return close(end, *std::exchange(end.failure, std::nullopt));
  }
  if (!end.reset && end.state == End::State::opening && end.open_at <= now_) {
    end.state = End::State::open;
    end.user->on_open(*end.stream);
  }
  if (!end.reset && end.state == End::State::open) {
    if (!receive(end)) return;
    if (!end.reset) send(end);
    if (!end.reset && end.finishing && end.fin_sent && end.eof_seen) {
      return close(end, Error{"the connection to " + end.peer + " was closed in order", 0});
    }
  }
  if (end.reset) {
    if (end.link) {
      const bool closes = end.link->options.reset_is_close && end.side == Side::client;
      send_segment(*end.link, end.side, closes ? Link::What::fin : Link::What::rst, {});
    }
    close(end, *std::exchange(end.reset, std::nullopt));
  }
}

/// What comes for an end that is gone: answered with RST, unless it vanished.
void VirtualLoop::arrived_at_closed(Link& link, Side side) {
  Link::Flow& flow = link.flows_[1 - Link::index(side)];
  bool data = false;
  while (flow.delivers(now_)) {
    data = data || flow.segments.front().what == Link::What::data;
    if (!link.silent_[Link::index(side)]) {
      flow.waiting_bytes -= flow.segments.front().bytes.size() - flow.segments.front().taken;
    }
    flow.pop();
  }
  if (data && !link.silent_[Link::index(side)]) send_segment(link, side, Link::What::rst, {});
}

/// False if the end has been closed.
bool VirtualLoop::receive(End& end) {
  Link& link = *end.link;
  Link::Flow& flow = end.incoming();
  const auto name_places = [&] {
    std::array<iovec, transport::kStreamVectors> v;
    const std::size_t n = end.user->recv_vectors(v);
    NVMF_CHECK(n <= v.size());
    const std::span<const iovec> places(v.data(), n);
    NVMF_CHECK(continues(end.posted, places));
    end.posted.assign(places.begin(), places.end());
  };
  if (link.options.post_receives && !end.eof_seen) name_places();
  if (!flow.delivers(now_)) return true;
  switch (flow.segments.front().what) {
    case Link::What::rst:
      flow.pop();
      close(end, Error{end.peer + " reset the connection (ECONNRESET)", ECONNRESET});
      return false;
    case Link::What::fin:
      flow.pop();
      end.eof_seen = true;
      end.posted.clear();
      mark(end.shared_from_this());
      end.user->on_eof();
      break;
    case Link::What::data:
      if (end.posted.empty()) name_places();
      if (!take_segment(end, flow, chunk(link.options))) return false;
      break;
  }
  return true;
}

bool VirtualLoop::take_segment(End& end, Link::Flow& flow, std::size_t most) {
  const bool discard = end.posted.empty() && end.finishing && end.fin_sent;
  if (end.posted.empty() && !discard) {
    // The user waits; the end of the connection does not wait for the user.
    const auto rst = std::ranges::find_if(flow.segments, [&](const Link::Segment& s) {
      return s.what == Link::What::rst && s.at <= now_;
    });
    if (rst == flow.segments.end()) return true;
    close(end, Error{end.peer + " reset the connection (ECONNRESET)", ECONNRESET});
    return false;
  }
  std::size_t room = discard ? most : std::min(most, total(end.posted));
  std::size_t taken = 0;
  std::size_t place = 0;
  std::size_t used = 0;
  while (room > 0 && flow.delivers(now_) && flow.segments.front().what == Link::What::data) {
    Link::Segment& segment = flow.segments.front();
    std::size_t n = std::min(room, segment.bytes.size() - segment.taken);
    if (!discard) {
      while (used == end.posted[place].iov_len) {
        ++place;
        used = 0;
      }
      n = std::min(n, end.posted[place].iov_len - used);
      std::memcpy(static_cast<std::byte*>(end.posted[place].iov_base) + used,
                  segment.bytes.data() + segment.taken, n);
      used += n;
    }
    segment.taken += n;
    taken += n;
    room -= n;
    if (segment.taken == segment.bytes.size()) flow.pop();
  }
  flow.waiting_bytes -= taken;
  flow.taken_bytes += taken;
  end.posted.clear();
  mark(end.link->ends_[1 - Link::index(end.side)]);  // it may have waited for the window
  mark(end.shared_from_this());
  if (!discard) end.user->recv_advance(taken);
  return true;
}

void VirtualLoop::send(End& end) {
  if (end.fin_sent) return;
  Link& link = *end.link;
  Link::Flow& flow = end.outgoing();
  std::array<iovec, transport::kStreamVectors> v;
  const std::size_t count = end.user->send_vectors(v);
  NVMF_CHECK(count <= v.size());
  const std::span<const iovec> ranges(v.data(), count);
  NVMF_CHECK(continues(end.named, ranges));
  if (count == 0) {
    if (!end.finishing) return;
    end.fin_sent = true;
    send_segment(link, end.side, Link::What::fin, {});
    return;
  }
  NVMF_CHECK(total(ranges) > 0);
  if (link.options.send_hold > Duration::zero()) {
    if (!end.hold_until) {
      end.named.assign(ranges.begin(), ranges.end());
      end.hold_until = now_ + link.options.send_hold;
      at(*end.hold_until, [this, self = end.shared_from_this()] { mark(self); });
    }
    if (now_ < *end.hold_until) return;
  } else {
    end.named.assign(ranges.begin(), ranges.end());
  }
  const std::size_t space = link.options.window_bytes > flow.waiting_bytes
                                ? link.options.window_bytes - flow.waiting_bytes
                                : 0;
  const std::size_t n = std::min({space, chunk(link.options), total(end.named)});
  if (n == 0) return;
  std::vector<std::byte> bytes;
  bytes.reserve(n);
  for (const iovec& one : end.named) {
    const auto* from = static_cast<const std::byte*>(one.iov_base);
    bytes.insert(bytes.end(), from, from + std::min(n - bytes.size(), one.iov_len));
  }
  end.named.clear();
  end.hold_until.reset();
  send_segment(link, end.side, Link::What::data, std::move(bytes));
  mark(end.shared_from_this());
  end.user->send_advance(n);
}

void VirtualLoop::close(End& end, Error reason) {
  const auto keep = end.shared_from_this();
  end.state = End::State::closed;
  end.deadline.reset();
  end.posted.clear();
  end.named.clear();
  std::erase(attempts_, keep);
  if (end.link) {
    const auto link = end.link;
    if (link->on_closed) link->on_closed(end.side);
    if (!link->silent_[Link::index(end.side)]) {
      // Unread bytes are gone, and their sender need not wait for the window.
      Link::Flow& flow = end.incoming();
      flow.waiting_bytes = 0;
      for (Link::Segment& s : flow.segments) {
        s.taken = s.bytes.size();
      }
      mark(link->ends_[1 - Link::index(end.side)]);
      mark(keep);  // to answer them
    }
    const auto closed = [](const auto& e) { return e->state == End::State::closed; };
    if (std::ranges::all_of(link->ends_, closed)) {
      std::erase(links_, link);
      for (const auto& each : link->ends_) each->link.reset();  // they hold each other
    }
  }
  if (end.user != nullptr) end.user->on_closed(reason);
}

}  // namespace nvmf::sim
