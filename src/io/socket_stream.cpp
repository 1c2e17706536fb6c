#include "io/socket_stream.h"

#include <fmt/format.h>
#include <sys/epoll.h>

#include <array>
#include <utility>

#include "nvme/check.h"

namespace nvmf::io {

using transport::ConnectOptions;
using transport::Endpoint;

namespace {

/// Fairness: what one stream may do in one turn before the others have theirs.
constexpr int kReceivesPerTurn = 8;
constexpr int kSendsPerTurn = 4;
constexpr std::size_t kBytesPerTurn = 4U << 20;
constexpr Duration kRetryAfter = std::chrono::milliseconds(10);

std::size_t total(std::span<const iovec> v) {
  std::size_t n = 0;
  for (const iovec& one : v) n += one.iov_len;
  return n;
}

}  // namespace

SocketStream::SocketStream(ReactorCore& core, transport::StreamUser& user, std::string peer)
    : core_(core),
      user_(user),
      peer_(std::move(peer)),
      deadline_(core.timers(), [this] { expire(); }),
      retry_(core.timers(), [this] { try_connect(); }) {
  core_.enlist(*this);
}

SocketStream::~SocketStream() {
  if (state_ == State::closed) return;
  core_.backend().remove(*this);
  if (fd_.valid()) abort_connection(fd_.get(), family_);
  if (queued_) core_.forget(*this);
  core_.dismiss(*this);
}

void SocketStream::mark() {
  if (queued_ || state_ == State::closed) return;
  queued_ = true;
  core_.queue(*this);
}

void SocketStream::fail_with(Error reason) {
  if (!failure_) failure_ = std::move(reason);
  mark();
}

// --- coming up ----------------------------------------------------------------------------------

Result<void> SocketStream::prepare(const Endpoint& to, const ConnectOptions& options) {
  auto address = to_address(to);
  if (!address) return std::unexpected(address.error());
  to_ = *address;
  family_ = to_.family();
  auto fd = make_socket(to_);
  if (!fd) return std::unexpected(fd.error());
  fd_ = std::move(*fd);
  return apply_options(fd_.get(), to_, options);
}

void SocketStream::start_connect(const Endpoint& to, const ConnectOptions& options) {
  if (auto ready = prepare(to, options); !ready) {
    return fail_with(Error{fmt::format("cannot connect to {}: {}", peer_, ready.error().message),
                           ready.error().code});
  }
  if (options.connect_timeout > Duration::zero()) {
    deadline_.arm(ReactorCore::clock() + options.connect_timeout);
  }
  try_connect();
}

void SocketStream::try_connect() {
  if (state_ != State::connecting || failure_) return;
  int code = 0;
  do {
    code = ::connect(fd_.get(), to_.get(), to_.length) == 0 ? 0 : errno;
  } while (code == EINTR);
  if (code == EAGAIN && family_ == AF_UNIX) return retry_.arm(ReactorCore::clock() + kRetryAfter);
  if (code != 0 && code != EINPROGRESS && code != EALREADY)
    return fail_with(connect_error(peer_, code));
  established();
}

void SocketStream::start_accepted(UniqueFd fd, int family) {
  fd_ = std::move(fd);
  family_ = family;
  set_no_delay(fd_.get(), family_);
  local_ = to_endpoint(local_address(fd_.get())).to_string();
  state_ = State::opening;
  readable_ = writable_ = true;  // found out by trying
  established();
  mark();
}

void SocketStream::established() {
  constexpr std::uint32_t kEvents = EPOLLIN | EPOLLOUT | EPOLLRDHUP;
  if (auto added = core_.backend().add(*this, fd_.get(), kEvents, Trigger::edge); !added) {
    fail_with(std::move(added.error()));
  }
}

/// The kernel has an answer to our connect().
void SocketStream::connected() {
  int code = 0;
  socklen_t length = sizeof code;
  if (::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &code, &length) != 0) code = errno;
  if (code != 0) return fail_with(connect_error(peer_, code));
  const SocketAddress here = local_address(fd_.get());
  // A port of our own range that nobody listens on can be given to ourselves as source port, and
  // the simultaneous open then succeeds: the target we talk to would be us.
  if (family_ != AF_UNIX && here == peer_address(fd_.get())) {
    return fail_with(connect_error(peer_, ECONNREFUSED));
  }
  local_ = to_endpoint(here).to_string();
  deadline_.cancel();
  state_ = State::opening;
  readable_ = writable_ = true;
  mark();
}

// --- what the user asks for ---------------------------------------------------------------------

void SocketStream::wake() {
  mark();
}

void SocketStream::reset(Error reason) {
  if (state_ == State::closed) return;
  failure_ = std::move(reason);
  mark();
}

void SocketStream::finish(std::chrono::nanoseconds linger) {
  if (state_ == State::closed || finishing_) return;
  finishing_ = true;
  if (state_ == State::connecting) {
    return fail_with(Error{
        fmt::format("the connection to {} was given up before it was open", peer_), ECANCELED});
  }
  deadline_.arm(ReactorCore::clock() + linger);
  mark();
}

void SocketStream::expire() {
  if (state_ == State::connecting) return fail_with(connect_error(peer_, ETIMEDOUT));
  fail_with(Error{fmt::format("{} did not close the connection in time", peer_), ETIMEDOUT});
}

// --- what the kernel says -----------------------------------------------------------------------

void SocketStream::on_ready(std::uint32_t events) {
  if (failure_) return;
  if (state_ == State::connecting) {
    if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0) connected();
    return;
  }
  if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) hung_up_ = true;
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) readable_ = true;
  if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0 && !writable_) {
    writable_ = true;
    mark();
  }
  if (state_ != State::open) return;
  if (readable_) receive();
  // Who takes nothing still has to hear that the connection is gone.
  if ((events & EPOLLERR) != 0 && readable_ && !failure_) {
    int code = 0;
    socklen_t length = sizeof code;
    ::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &code, &length);
    if (code != 0) fail_with(stream_error(peer_, code));
  }
}

void SocketStream::received_error(int code) {
  readable_ = false;
  if (code == EAGAIN) return;
  fail_with(stream_error(peer_, send_error_ != 0 ? send_error_ : code));
}

void SocketStream::receive() {
  std::array<iovec, transport::kStreamVectors> v;
  std::array<std::byte, 16 * 1024> nowhere;
  std::size_t budget = kBytesPerTurn;
  for (int round = 0; readable_ && !eof_ && !failure_; ++round) {
    if (round == kReceivesPerTurn || budget == 0) return mark();
    std::size_t count = user_.recv_vectors(v);
    NVMF_CHECK(count <= v.size());
    const bool discard = count == 0;
    if (discard) {
      if (!fin_sent_) return;  // wake() when there is a place again
      v[0] = {nowhere.data(), nowhere.size()};
      count = 1;
    }
    const std::size_t room = total({v.data(), count});
    msghdr message{};
    message.msg_iov = v.data();
    message.msg_iovlen = count;
    const ssize_t got = ::recvmsg(fd_.get(), &message, MSG_DONTWAIT);
    if (got < 0) {
      if (errno != EINTR) received_error(errno);
      continue;
    }
    if (got == 0) {
      eof_ = true;
      readable_ = false;
      if (finishing_ || send_error_ != 0) mark();
      user_.on_eof();
      return;
    }
    const auto bytes = static_cast<std::size_t>(got);
    budget -= std::min(budget, bytes);
    if (bytes < room && !hung_up_) readable_ = false;
    if (!discard) user_.recv_advance(bytes);
  }
}

void SocketStream::send() {
  std::array<iovec, transport::kStreamVectors> v;
  for (int round = 0; writable_ && !fin_sent_ && !failure_; ++round) {
    if (round == kSendsPerTurn) return mark();
    const std::size_t count = user_.send_vectors(v);
    NVMF_CHECK(count <= v.size());
    if (count == 0) {
      if (!finishing_) return;
      ::shutdown(fd_.get(), SHUT_WR);
      fin_sent_ = true;
      if (readable_) mark();  // what was held back for want of a place is now thrown away
      return;
    }
    const std::size_t length = total({v.data(), count});
    msghdr message{};
    message.msg_iov = v.data();
    message.msg_iovlen = count;
    const ssize_t sent = ::sendmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      writable_ = false;
      if (errno == EAGAIN) return;
      // Not the peer's doing, a timeout of our own for example. Reading on would end as if the peer
      // had closed: the error has been told, and the socket is shut.
      if (errno != EPIPE && errno != ECONNRESET) return fail_with(stream_error(peer_, errno));
      // The peer may have said why before it closed: read that first.
      send_error_ = errno;
      readable_ = true;
      receive();
      if (!readable_ || eof_ || !queued_) fail_with(stream_error(peer_, send_error_));
      return;
    }
    const auto bytes = static_cast<std::size_t>(sent);
    // The kernel promises EPOLLOUT after a short send as after EAGAIN.
    if (bytes < length) writable_ = false;
    user_.send_advance(bytes);
  }
}

// --- the end of a turn --------------------------------------------------------------------------

void SocketStream::serve() {
  queued_ = false;
  if (!failure_ && state_ == State::opening) {
    state_ = State::open;
    user_.on_open(*this);
  }
  if (!failure_ && state_ == State::open) {
    if (readable_) receive();
    if (!failure_ && send_error_ != 0) {
      // Reading came to its end, or the user takes no more.
      if (!readable_ || eof_ || !queued_) fail_with(stream_error(peer_, send_error_));
    } else if (!failure_) {
      send();
    }
    if (!failure_ && finishing_ && fin_sent_ && eof_) {
      return close(Error{fmt::format("the connection to {} was closed in order", peer_), 0}, false);
    }
  }
  if (failure_) close(*std::exchange(failure_, std::nullopt), true);
}

void SocketStream::close(const Error& reason, bool abort) {
  deadline_.cancel();
  retry_.cancel();
  if (abort && fd_.valid()) abort_connection(fd_.get(), family_);
  core_.backend().remove(*this);
  fd_.reset();
  if (queued_) core_.forget(*this);
  core_.dismiss(*this);
  state_ = State::closed;
  user_.on_closed(reason);  // may destroy this
}

void SocketStream::loop_ended() {
  close(Error{fmt::format("the loop that served the connection to {} has ended", peer_), ECANCELED},
        true);
}

}  // namespace nvmf::io
