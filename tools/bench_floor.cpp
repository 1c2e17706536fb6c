#include "bench_floor.h"

#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "bench_socket.h"
#include "controller/limits.h"
#include "transport/tcp/pdu.h"

namespace nvmf::tools {
namespace {

using Clock = std::chrono::steady_clock;

/// The first bytes of every message; the rest up to the PDU header's size is padding.
struct Header {
  std::uint32_t slot = 0;
  std::uint32_t payload_bytes = 0;  // that follow, whatever they are
  bool wants_data = false;          // a command that reads
  bool grant = false;               // stands for an R2T
  bool announces = false;           // a write whose data waits for the grant
};
constexpr std::size_t kHeaderBytes = tcp::kCapsuleRespBytes;
static_assert(sizeof(Header) <= kHeaderBytes && tcp::kR2tBytes == kHeaderBytes &&
              tcp::kDataHeaderBytes == kHeaderBytes);

/// Takes messages out of a stream of bytes: a header, then bytes that are only counted.
class Parser {
 public:
  explicit Parser(std::size_t buffer_bytes)
      : size_(buffer_bytes), buffer_(std::make_unique_for_overwrite<std::byte[]>(buffer_bytes)) {}

  /// Calls on_message for each that is complete. False when the connection has ended.
  template <class OnMessage>
  bool receive(int fd, OnMessage on_message) {
    const std::size_t got = receive_some(fd, buffer_.get() + kept_, size_ - kept_);
    if (got == 0) return false;
    const std::byte* at = buffer_.get();
    std::size_t left = kept_ + got;
    for (;;) {
      if (in_payload_) {
        const std::size_t n = std::min<std::size_t>(left, skip_);
        at += n;
        left -= n;
        skip_ -= static_cast<std::uint32_t>(n);
        if (skip_ != 0) break;
        in_payload_ = false;
        on_message(header_);
      }
      if (left < kHeaderBytes) break;
      std::memcpy(&header_, at, sizeof header_);
      at += kHeaderBytes;
      left -= kHeaderBytes;
      skip_ = header_.payload_bytes;
      in_payload_ = true;
    }
    if (left != 0) std::memmove(buffer_.get(), at, left);
    kept_ = left;
    return true;
  }

 private:
  std::size_t size_;
  std::unique_ptr<std::byte[]> buffer_;
  std::size_t kept_ = 0;  // the beginning of a header
  Header header_;
  std::uint32_t skip_ = 0;
  bool in_payload_ = false;
};

/// Messages to be sent together.
class Batch {
 public:
  Batch(std::uint32_t payload_bytes, std::uint32_t messages)
      : payload_(payload_bytes + tcp::kCapsuleRespBytes) {
    headers_.reserve(messages);
    vectors_.reserve(std::size_t{messages} * 2);
  }
  void add(const Header& header, std::size_t header_bytes, std::size_t sent_payload_bytes) {
    auto& place = headers_.emplace_back();
    std::memcpy(place.data(), &header, sizeof header);
    vectors_.push_back({place.data(), header_bytes});
    if (sent_payload_bytes != 0) vectors_.push_back({payload_.data(), sent_payload_bytes});
  }
  bool send(int fd) {
    const bool sent = vectors_.empty() || send_all(fd, vectors_);
    headers_.clear();
    vectors_.clear();
    return sent;
  }

 private:
  std::vector<std::array<std::byte, tcp::kCapsuleCmdBytes>> headers_;
  std::vector<iovec> vectors_;
  std::vector<std::byte> payload_;
};

bool in_capsule(const Workload& w) {
  return w.block_bytes <= controller::kInCapsuleBytesDefault;
}

/// The other process, until the connection ends.
void respond(int fd, const Workload& w, std::size_t buffer_bytes) {
  Parser parser(buffer_bytes);
  Batch batch(w.block_bytes, w.depth * 2);
  while (parser.receive(fd, [&](const Header& in) {
    if (in.wants_data) {
      const std::uint32_t bytes = w.block_bytes + tcp::kCapsuleRespBytes;
      batch.add({.slot = in.slot, .payload_bytes = bytes}, kHeaderBytes, bytes);
    } else {
      batch.add({.slot = in.slot, .grant = in.announces}, kHeaderBytes, 0);
    }
  })) {
    if (!batch.send(fd)) return;
  }
}

class Requester {
 public:
  Requester(int fd, const Workload& workload, std::size_t buffer_bytes)
      : fd_(fd),
        w_(workload),
        reads_(workload.pattern == Pattern::read || workload.pattern == Pattern::randread),
        parser_(buffer_bytes),
        batch_(workload.block_bytes, workload.depth * 2),
        started_(workload.depth) {}

  bool run(Figures& figures) {
    const Clock::time_point start = Clock::now();
    const Clock::time_point end = start + std::chrono::duration_cast<Clock::duration>(w_.time);
    now_ = start;
    for (std::uint32_t slot = 0; slot < w_.depth; ++slot) issue(slot);
    if (!batch_.send(fd_)) return false;
    while (under_way_ > 0) {
      const bool good = parser_.receive(fd_, [&](const Header& in) {
        if (in.grant) {
          batch_.add({.slot = in.slot, .payload_bytes = w_.block_bytes}, kHeaderBytes,
                     w_.block_bytes);
          return;
        }
        now_ = Clock::now();
        figures.latency.record(now_ - started_[in.slot]);
        ++figures.commands;
        --under_way_;
        if (now_ < end) issue(in.slot);
      });
      if (!good || !batch_.send(fd_)) return false;
    }
    figures.bytes = figures.commands * w_.block_bytes;
    figures.seconds = std::chrono::duration<double>(Clock::now() - start).count();
    return true;
  }

 private:
  /// A command capsule has 72 bytes, everything else 24. So that one parser does for all, the other
  /// 48 count as payload.
  void issue(std::uint32_t slot) {
    constexpr std::uint32_t kRest = tcp::kCapsuleCmdBytes - kHeaderBytes;
    const bool with_data = !reads_ && in_capsule(w_);
    const std::uint32_t payload = kRest + (with_data ? w_.block_bytes : 0);
    const Header header{.slot = slot,
                        .payload_bytes = payload,
                        .wants_data = reads_,
                        .announces = !reads_ && !with_data};
    batch_.add(header, tcp::kCapsuleCmdBytes, payload - kRest);
    started_[slot] = now_;
    ++under_way_;
  }

  int fd_;
  const Workload& w_;
  bool reads_;
  Parser parser_;
  Batch batch_;
  std::vector<Clock::time_point> started_;
  Clock::time_point now_;
  std::uint32_t under_way_ = 0;
};

}  // namespace

Result<Figures> run_floor(const Workload& workload, std::size_t buffer_bytes) {
  if (workload.pattern == Pattern::randrw) {
    return fail("The floor has no mixed pattern: measure read and write by themselves", EINVAL);
  }
  std::uint16_t port = 0;
  auto listener = listen_loopback(port);
  if (!listener) return std::unexpected(listener.error());
  const pid_t child = ::fork();
  if (child < 0) return fail(fmt::format("cannot fork: {}", std::strerror(errno)), errno);
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    auto connection = accept_loopback(listener->get());
    if (connection) respond(connection->get(), workload, buffer_bytes);
    ::_exit(connection ? 0 : 1);
  }
  Figures figures;
  figures.kind = "floor";
  figures.detail = fmt::format("{} KiB buffers", buffer_bytes / 1024);
  figures.workload = workload;
  bool good = false;
  const double cpu_before = process_cpu_seconds();
  if (auto connection = connect_loopback(port)) {
    good = Requester(connection->get(), workload, buffer_bytes).run(figures);
  }
  figures.cpu_seconds = process_cpu_seconds() - cpu_before;
  if (!good) ::kill(child, SIGKILL);  // it may wait for a connection still
  int status = 0;
  figures.peer_cpu_seconds = wait_for_child(child, &status);
  if (!good || status != 0) return fail("the floor's two processes lost each other", EIO);
  return figures;
}

}  // namespace nvmf::tools
