// transport::Loop in virtual time: one thread, no system call, the same run for the same seed.
//
// Both ends of every connection live on the same VirtualLoop: whoever listens and whoever connects
// are joined by an in-memory Link. Time moves only inside run_*(), and then straight to the next
// thing that is to happen. A Link can be told to split, delay, cut, block and forget.
//
// The loop also watches over the buffer contract of stream.h: a user that moves or withdraws a
// place which it has named, without an advance in between, is stopped by NVMF_CHECK.
#pragma once

#include <array>
#include <cerrno>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <queue>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "transport/loop.h"

namespace nvmf::sim {

class VirtualLoop;
class VirtualListener;
struct End;

/// How the bytes of a connection travel. May be changed at any time; counts for later bytes.
struct PipeOptions {
  /// The most bytes that one end sends, and that it receives, in one turn of the loop. 1 and up.
  std::size_t max_chunk = SIZE_MAX;
  /// Each chunk has a random length from 1 to max_chunk, drawn from the loop's seed.
  bool random_split = false;
  /// From sending to arrival; a connection takes two of them to be open.
  Duration latency{};
  /// Bytes sent and not yet received, per direction: beyond it the sender waits.
  std::size_t window_bytes = 256 * 1024;
  /// Names the places to receive into before there is anything to receive, as a ring with a pending
  /// recvmsg does. The bytes land in exactly these places.
  bool post_receives = false;
  /// Bytes are read from the sender's buffers this much after send_vectors() named them.
  Duration send_hold{};
  /// A mutant: reset() of the connecting side is a plain close. What it has sent is delivered, be
  /// it late, and then FIN.
  bool reset_is_close = false;
};

/// The two ends of a Link.
enum class Side : std::uint8_t { client = 0, server = 1 };

/// What the system does with the connections of a process that dies.
enum class Farewell : std::uint8_t {
  rst,  // what waits to be sent is dropped
  fin,  // what was sent is delivered, then FIN
};

/// What happens to a connection attempt.
struct ConnectFate {
  enum class Kind : std::uint8_t {
    normal,  // accepted if somebody listens, else ECONNREFUSED
    refuse,  // ECONNREFUSED although somebody listens
    ignore,  // never answered: ETIMEDOUT after the caller's connect_timeout
  };
  Kind kind = Kind::normal;
  Duration delay{};  // added before the attempt is answered
};

/// One established connection, seen from outside. Valid as long as somebody holds the pointer.
class Link {
 public:
  std::uint64_t id = 0;        // counts connections from 1, in the order of their making
  transport::Endpoint target;  // what the client asked for
  PipeOptions options;
  /// Sees, and may change, every chunk of bytes as it is sent by `Side`.
  std::function<void(Side from, std::span<std::byte>)> tamper;
  /// Told when an end is closed, whatever the reason, just before its user is.
  std::function<void(Side)> on_closed;

  /// Both ends see ECONNRESET at the next turn; what was under way is lost.
  void cut();
  /// Nothing that `from` sends arrives (bytes, FIN, RST) until it is unblocked; nobody is told.
  /// Bytes that wait are delivered then, as retransmission would.
  void block(Side from, bool blocked = true);
  /// block() in both directions: a black hole.
  void blackhole(bool on = true);
  /// While `from` is blocked: one segment of what waits is delivered after all; false if none is
  /// there.
  bool release(Side from);
  /// Nothing that `from` sends from now on arrives, ever; what is under way does.
  void lose(Side from);
  /// That end is gone without a word to the other, as by power loss: its own user is told `error`,
  /// the other one sees silence, also when it sends (half-open). What waits for unblocking is gone.
  void vanish(Side side, int error = ECONNRESET);
  /// The process at that end has died; its own user is told ECONNRESET.
  void die(Side side, Farewell farewell);
  /// Bytes that an end has sent, and that it has received, so far.
  [[nodiscard]] std::uint64_t sent(Side from) const { return flows_[index(from)].sent_bytes; }
  [[nodiscard]] std::uint64_t received(Side by) const { return flows_[1 - index(by)].taken_bytes; }
  [[nodiscard]] bool open(Side side) const;
  /// "127.0.0.1:49152", as the connecting side's Stream::local() says.
  [[nodiscard]] const std::string& client() const { return client_; }

 private:
  friend class VirtualLoop;
  friend class VirtualIncoming;
  friend struct End;
  enum class What : std::uint8_t { data, fin, rst };
  struct Segment {
    Instant at;
    What what = What::data;
    std::vector<std::byte> bytes;
    std::size_t taken = 0;
  };
  struct Flow {  // from the side of the same index to the other
    std::deque<Segment> segments;
    std::size_t waiting_bytes = 0;
    bool blocked = false;
    bool lost = false;
    std::size_t released = 0;  // segments that pass although it is blocked
    std::uint64_t sent_bytes = 0;
    std::uint64_t taken_bytes = 0;

    [[nodiscard]] bool delivers(Instant now) const {
      return !segments.empty() && segments.front().at <= now && (!blocked || released > 0);
    }
    void pop() {
      segments.pop_front();
      if (blocked) --released;
    }
  };
  static std::size_t index(Side s) { return static_cast<std::size_t>(s); }
  static Side other(Side s) { return s == Side::client ? Side::server : Side::client; }

  VirtualLoop* loop_ = nullptr;
  std::string client_;
  std::array<Flow, 2> flows_;
  std::array<std::shared_ptr<End>, 2> ends_;
  std::array<bool, 2> silent_{};  // vanished: does not even answer with RST
};

/// The loop. Destroying it resets what is still open (see shutdown()).
class VirtualLoop final : public transport::Loop {
 public:
  explicit VirtualLoop(std::uint64_t seed = 1);
  ~VirtualLoop() override;

  // transport::Loop. listen() on "0.0.0.0" or "[::]" is reached by every address of that port;
  // port 0 becomes a free one. watch() fails with ENOTSUP.
  [[nodiscard]] Instant now() const override { return now_; }
  [[nodiscard]] transport::TimerQueue& timers() override { return timers_; }
  void post(std::move_only_function<void()> task) override;
  std::unique_ptr<transport::Stream> connect(const transport::Endpoint& to,
                                             const transport::ConnectOptions& options,
                                             transport::StreamUser& user) override;
  Result<std::unique_ptr<transport::Listener>> listen(
      const transport::Endpoint& at,
      std::move_only_function<void(std::unique_ptr<transport::Incoming>)> on_accept) override;
  std::unique_ptr<transport::Stream> adopt(std::unique_ptr<transport::Incoming> incoming,
                                           transport::StreamUser& user) override;
  void resolve(const std::string& host,
               std::move_only_function<void(Result<std::vector<std::string>>)> done) override;
  Result<std::unique_ptr<transport::File>> open_file(const std::string& path,
                                                     bool writable) override;
  Result<std::unique_ptr<transport::FdWatch>> watch(
      int fd, bool readable, bool writable, std::move_only_function<void()> on_ready) override;

  /// Runs until nothing is left to do but to wait for a timer in the future. Time moves as far as
  /// bytes under way need (timers that fall due meanwhile run), so with latency 0 not at all.
  void run_until_idle();
  /// Runs everything that happens in the next `d`, and ends exactly there.
  void run_for(Duration d);
  /// Runs until `done` holds, which is asked after each turn; false if it does not within `most`.
  bool run_until(const std::function<bool()>& done, Duration most);
  /// Resets every open stream (on_closed with ECANCELED) and destroys posted tasks.
  void shutdown();

  /// For connections made from now on.
  PipeOptions pipe;
  /// Incoming::peer_uid() of those who come from now on.
  std::optional<std::uint32_t> client_uid;
  /// Asked for each connection attempt; empty: normal.
  std::function<ConnectFate(const transport::Endpoint& to)> on_connect;
  /// Told of each connection as soon as it is established; may set options and hooks.
  std::function<void(const std::shared_ptr<Link>&)> on_link;
  /// Connections of which at least one end is open, in the order of their making.
  [[nodiscard]] std::vector<std::shared_ptr<Link>> links() const;

  /// A file that open_file() finds; writing to it past its end makes it longer.
  void register_file(const std::string& path, std::vector<std::byte> bytes);
  [[nodiscard]] std::vector<std::byte>& file_bytes(const std::string& path);
  Duration file_latency{};
  /// Asked as each file operation completes: 0 does it, an errno fails it without effect.
  std::function<int(const std::string& path, const transport::FileOp&)> file_fault;
  /// What resolve() answers, besides numeric addresses and "localhost".
  std::map<std::string, std::vector<std::string>> hosts;

  /// Turns made so far: equal for equal runs.
  [[nodiscard]] std::uint64_t turns() const { return turns_; }
  /// The source of all chance in the simulation.
  std::mt19937_64& random() { return random_; }

 private:
  friend class Link;
  friend class VirtualListener;
  friend class VirtualStream;
  friend class VirtualIncoming;
  friend class VirtualFile;
  friend struct End;
  struct Event {
    Instant at;
    std::uint64_t order;
    std::move_only_function<void()> run;
  };
  struct Later {
    bool operator()(const Event& a, const Event& b) const {
      return a.at != b.at ? a.at > b.at : a.order > b.order;
    }
  };

  void at(Instant when, std::move_only_function<void()> run);
  void mark(const std::shared_ptr<End>& end);
  bool turn();  // false if there was nothing to do at this instant
  bool run_tasks();
  bool run_events();
  bool run_streams();
  [[nodiscard]] bool busy();
  void answer(const std::shared_ptr<End>& client, const transport::Endpoint& to);
  VirtualListener* listener_for(const transport::Endpoint& to);
  void establish(const std::shared_ptr<End>& client, const transport::Endpoint& to,
                 VirtualListener& listener);
  std::size_t chunk(const PipeOptions& options);
  void send_segment(Link& link, Side from, Link::What what, std::vector<std::byte> bytes);
  void service(const std::shared_ptr<End>& end);
  bool receive(End& end);
  bool take_segment(End& end, Link::Flow& flow, std::size_t most);
  void send(End& end);
  void arrived_at_closed(Link& link, Side side);
  void close(End& end, Error reason);

  std::mt19937_64 random_;
  Instant now_{std::chrono::seconds(1)};
  transport::TimerQueue timers_;
  std::mutex tasks_mutex_;
  std::deque<std::move_only_function<void()>> tasks_;
  std::vector<Event> events_;  // a heap ordered by Later
  std::uint64_t next_order_ = 0;
  std::deque<std::shared_ptr<End>> dirty_;
  std::vector<std::shared_ptr<End>> attempts_;  // connecting
  std::vector<std::shared_ptr<Link>> links_;
  std::map<std::string, VirtualListener*> listeners_;
  std::map<std::string, std::shared_ptr<std::vector<std::byte>>> files_;
  std::uint64_t next_link_ = 1;
  std::uint16_t next_port_ = 49152;
  std::uint64_t turns_ = 0;
};

}  // namespace nvmf::sim
