#include "io/wire_trace.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "nvme/address.h"

namespace nvmf::io {

namespace {

using transport::kStreamVectors;

constexpr std::uint8_t kFin = 0x01;
constexpr std::uint8_t kSyn = 0x02;
constexpr std::uint8_t kRst = 0x04;
constexpr std::uint8_t kPsh = 0x08;
constexpr std::uint8_t kAck = 0x10;
constexpr std::size_t kTcpHeaderBytes = 20;
constexpr std::size_t kIpv4HeaderBytes = 20;
constexpr std::size_t kIpv6HeaderBytes = 40;
constexpr std::uint8_t kTtl = 64;
constexpr std::uint8_t kProtocolTcp = 6;
constexpr std::uint64_t kGapBytesMax = 1u << 20;

enum Side : std::size_t { kHost = 0, kController = 1 };

struct Address {
  std::array<std::uint8_t, 16> bytes{};
  bool v6 = false;
  std::uint16_t port = 0;
};

/// Of "192.0.2.7:4420" or "[::1]:4420". Anything else becomes an address for documentation.
Address parse_address(const std::string& text, std::uint8_t last) {
  Address a;
  a.bytes = {192, 0, 2, last};
  const auto parsed = nvme::HostPort::parse(text, 0);
  if (!parsed) return a;
  a.port = parsed->port;
  std::string host = parsed->host;
  if (const std::size_t zone = host.find('%'); zone != std::string::npos) host.resize(zone);
  if (::inet_pton(AF_INET, host.c_str(), a.bytes.data()) == 1) return a;
  a.v6 = ::inet_pton(AF_INET6, host.c_str(), a.bytes.data()) == 1;
  return a;
}

class HeaderWriter {
 public:
  void u8(unsigned v) { out_[size_++] = static_cast<std::uint8_t>(v); }
  void u16(unsigned v) {
    u8(v >> 8);
    u8(v & 0xff);
  }
  void u32(std::uint32_t v) {
    u16(v >> 16);
    u16(v & 0xffff);
  }
  void bytes(std::span<const std::uint8_t> b) {
    for (const std::uint8_t one : b) u8(one);
  }
  /// The IPv4 header's checksum, which is made over it with zero in its place.
  void checksum_ipv4() {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < kIpv4HeaderBytes; i += 2) sum += out_[i] << 8 | out_[i + 1];
    while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
    out_[10] = static_cast<std::uint8_t>(~sum >> 8);
    out_[11] = static_cast<std::uint8_t>(~sum);
  }
  [[nodiscard]] iovec vector() { return {out_.data(), size_}; }

 private:
  std::array<std::uint8_t, kIpv6HeaderBytes + kTcpHeaderBytes> out_{};
  std::size_t size_ = 0;
};

/// One connection as the trace shows it.
class Flow {
 public:
  Flow(std::shared_ptr<TraceFile> file, const std::string& local, const std::string& peer)
      : file_(std::move(file)), ends_{parse_address(local, 1), parse_address(peer, 2)} {
    control(kHost, kSyn);
    control(kController, kSyn | kAck);
    control(kHost, kAck);
  }

  void data(Side from, std::span<const iovec> vectors, std::size_t bytes) {
    std::array<iovec, kStreamVectors + 1> pieces;
    std::size_t count = 1;
    std::size_t segment = 0;
    for (iovec left : vectors) {
      left.iov_len = std::min(left.iov_len, bytes);
      bytes -= left.iov_len;
      while (left.iov_len != 0) {
        const std::size_t take = std::min(left.iov_len, kTraceSegmentBytes - segment);
        pieces[count++] = {left.iov_base, take};
        segment += take;
        left.iov_base = static_cast<std::byte*>(left.iov_base) + take;
        left.iov_len -= take;
        if (segment == kTraceSegmentBytes) {
          packet(from, kPsh | kAck, {pieces.data(), count}, segment);
          count = 1;
          segment = 0;
        }
      }
    }
    if (segment != 0) packet(from, kPsh | kAck, {pieces.data(), count}, segment);
  }

  void control(Side from, unsigned flags) {
    std::array<iovec, 1> pieces;
    packet(from, flags, pieces, 0);
  }

 private:
  /// pieces[0] is for the headers. What is dropped leaves a gap in the sequence numbers, as far as
  /// a reader will not take what follows for a repetition.
  void packet(Side from, unsigned flags, std::span<iovec> pieces, std::size_t bytes) {
    const Side to = from == kHost ? kController : kHost;
    HeaderWriter header;
    const Address& source = ends_[from];
    const Address& target = ends_[to];
    const auto length = static_cast<unsigned>(kTcpHeaderBytes + bytes);
    if (source.v6 || target.v6) {
      header.u32(0x60000000);
      header.u16(length);
      header.u8(kProtocolTcp);
      header.u8(kTtl);
      header.bytes(source.bytes);
      header.bytes(target.bytes);
    } else {
      header.u16(0x4500);
      header.u16(static_cast<unsigned>(kIpv4HeaderBytes) + length);
      header.u32(0x4000);  // no identification; not to be fragmented
      header.u8(kTtl);
      header.u8(kProtocolTcp);
      header.u16(0);
      header.bytes(std::span(source.bytes).first<4>());
      header.bytes(std::span(target.bytes).first<4>());
      header.checksum_ipv4();
    }
    header.u16(source.port);
    header.u16(target.port);
    header.u32(next_[from]);
    header.u32((flags & kAck) != 0 ? next_[to] : 0);
    header.u8(kTcpHeaderBytes / 4 << 4);
    header.u8(flags);
    header.u16(0xffff);  // the window
    header.u32(0);       // no checksum, as if the network card made it; nothing urgent
    pieces[0] = header.vector();
    const bool taken = file_->packet(pieces);
    gap_bytes_[from] = taken ? 0 : gap_bytes_[from] + bytes;
    if (gap_bytes_[from] > kGapBytesMax) return;
    next_[from] += static_cast<std::uint32_t>(bytes) + ((flags & (kSyn | kFin)) != 0 ? 1 : 0);
  }

  std::shared_ptr<TraceFile> file_;
  std::array<Address, 2> ends_;
  std::array<std::uint32_t, 2> next_{};
  std::array<std::uint64_t, 2> gap_bytes_{};  // dropped since the last packet that was taken
};

/// The bytes of a direction, as far as they are known of.
struct Direction {
  std::array<iovec, kStreamVectors> named;
  std::size_t count = 0;
  std::vector<std::byte> first;  // up to kHandshakeBytesMax
  std::uint64_t bytes = 0;       // seen so far, not counted after `first` is full
  bool begun = false;            // recorded from here on
};

class Tap final : public transport::Stream, private transport::StreamUser {
 public:
  Tap(WireTrace& trace, transport::StreamUser& user) : trace_(trace), user_(user) {
    for (Direction& d : directions_) d.first.reserve(kHandshakeBytesMax);
  }
  void connect(transport::Loop& loop, const transport::Endpoint& to,
               const transport::ConnectOptions& options) {
    below_ = loop.connect(to, options, *this);
  }

  // transport::Stream
  void wake() override { below_->wake(); }
  void reset(Error reason) override {
    reset_ = true;
    below_->reset(std::move(reason));
  }
  void finish(std::chrono::nanoseconds linger) override {
    finished_ = true;
    below_->finish(linger);
  }
  [[nodiscard]] std::string peer() const override { return below_->peer(); }
  [[nodiscard]] std::string local() const override { return below_->local(); }

 private:
  // transport::StreamUser, for the connection below
  void on_open(transport::Stream& stream) override {
    local_ = stream.local();
    peer_ = stream.peer();
    if (trace_.number() != seen_) look();
    user_.on_open(*this);
  }
  std::size_t recv_vectors(std::span<iovec> out) override {
    const std::size_t count = user_.recv_vectors(out);
    remember(kController, out.first(count));
    return count;
  }
  void recv_advance(std::size_t bytes) override {
    passed(kController, bytes);
    user_.recv_advance(bytes);
  }
  std::size_t send_vectors(std::span<iovec> out) override {
    const std::size_t count = user_.send_vectors(out);
    remember(kHost, out.first(count));
    return count;
  }
  void send_advance(std::size_t bytes) override {
    passed(kHost, bytes);
    user_.send_advance(bytes);
  }
  void on_eof() override {
    if (flow_ && trace_.number() == seen_) flow_->control(kController, kFin | kAck);
    user_.on_eof();
  }
  void on_closed(const Error& reason) override {
    if (flow_ && trace_.number() == seen_) {
      const bool in_order = finished_ && !reset_ && reason.code == 0;
      flow_->control(kHost, in_order ? kFin | kAck : kRst | kAck);
    }
    user_.on_closed(reason);  // destroys us
  }

  /// Something may want to see what passes: the trace, or the handshake's memory.
  [[nodiscard]] bool watched() const { return trace_.number() != 0 || !remembered_; }

  void remember(Side from, std::span<const iovec> vectors) {
    Direction& d = directions_[from];
    d.count = 0;
    if (!watched()) return;
    std::ranges::copy(vectors, d.named.begin());
    d.count = vectors.size();
  }

  void passed(Side from, std::size_t bytes) {
    Direction& d = directions_[from];
    if (!watched() && seen_ == 0) return;
    if (trace_.number() != seen_) look();
    const std::span<const iovec> vectors(d.named.data(), std::exchange(d.count, 0));
    // Without: it was switched on in the middle of this call.
    if (flow_ && !vectors.empty()) record(from, vectors, bytes);
    if (!remembered_) keep(d, vectors, bytes);
  }

  /// The trace was switched on, off, or another one is on.
  void look() {
    flow_.reset();
    const std::shared_ptr<TraceFile> file = trace_.file(seen_);
    if (file == nullptr || local_.empty()) return;
    flow_.emplace(file, local_, peer_);
    // Answers to commands that are not in the trace would puzzle a reader: all or the handshake.
    const bool all = std::ranges::all_of(directions_, [](const Direction& d) {
      return d.bytes == d.first.size() && d.first.size() < kHandshakeBytesMax;
    });
    for (const Side from : {kHost, kController}) {
      Direction& d = directions_[from];
      d.begun = all;
      const std::size_t bytes = all ? d.first.size() : trace_.framing().handshake_bytes(d.first);
      const iovec vector{d.first.data(), bytes};
      flow_->data(from, {&vector, 1}, bytes);
    }
  }

  void record(Side from, std::span<const iovec> vectors, std::size_t bytes) {
    Direction& d = directions_[from];
    // Sooner or later a message begins where a piece does.
    while (!d.begun && !vectors.empty() && bytes != 0) {
      const std::size_t length = std::min(vectors[0].iov_len, bytes);
      d.begun =
          trace_.framing().begins({static_cast<const std::byte*>(vectors[0].iov_base), length});
      if (d.begun) break;
      bytes -= length;
      vectors = vectors.subspan(1);
    }
    if (d.begun) flow_->data(from, vectors, bytes);
  }

  void keep(Direction& d, std::span<const iovec> vectors, std::size_t bytes) {
    d.bytes += bytes;
    for (const iovec& one : vectors) {
      const std::size_t take = std::min({one.iov_len, bytes, kHandshakeBytesMax - d.first.size()});
      const auto* from = static_cast<const std::byte*>(one.iov_base);
      d.first.insert(d.first.end(), from, from + take);
      bytes -= std::min(bytes, one.iov_len);
    }
    remembered_ = std::ranges::all_of(
        directions_, [](const Direction& each) { return each.first.size() == kHandshakeBytesMax; });
  }

  WireTrace& trace_;
  transport::StreamUser& user_;
  std::unique_ptr<transport::Stream> below_;
  std::string local_;
  std::string peer_;
  std::array<Direction, 2> directions_;
  bool remembered_ = false;
  bool reset_ = false;
  bool finished_ = false;
  std::uint64_t seen_ = 0;  // the trace's number when we looked
  std::optional<Flow> flow_;
};

}  // namespace

WireTrace::~WireTrace() {
  stop();
  if (ended_) ended_->wait_written(1);
}

Result<void> WireTrace::start(const std::string& path) {
  if (counts()) return fail("a trace is being written already: end it first", EBUSY);
  auto fd = open_trace_file(path);
  if (!fd) return std::unexpected(fd.error());
  auto file = TraceFile::make(std::move(*fd));
  if (!file) return std::unexpected(file.error());
  start(std::move(*file));
  return {};
}

void WireTrace::start(std::shared_ptr<TraceFile> file) {
  const std::scoped_lock lock(mutex_);
  file_ = std::move(file);
  number_.store(++last_number_, std::memory_order_relaxed);
}

std::optional<TraceCounts> WireTrace::stop() {
  const std::scoped_lock lock(mutex_);
  number_.store(0, std::memory_order_relaxed);
  if (file_ == nullptr) return std::nullopt;
  ended_ = std::exchange(file_, nullptr);
  ended_->finish();
  return ended_->counts();
}

std::optional<TraceCounts> WireTrace::counts() const {
  const std::scoped_lock lock(mutex_);
  if (file_ == nullptr) return std::nullopt;
  return file_->counts();
}

std::shared_ptr<TraceFile> WireTrace::file(std::uint64_t& number) const {
  const std::scoped_lock lock(mutex_);
  number = number_.load(std::memory_order_relaxed);
  return file_;
}

std::unique_ptr<transport::Stream> WireTrace::connect(transport::Loop& loop,
                                                      const transport::Endpoint& to,
                                                      const transport::ConnectOptions& options,
                                                      transport::StreamUser& user) {
  auto tap = std::make_unique<Tap>(*this, user);
  tap->connect(loop, to, options);
  return tap;
}

}  // namespace nvmf::io
