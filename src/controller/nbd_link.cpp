#include "controller/nbd_link.h"

#include <fmt/format.h>
#include <libnbd.h>
#include <poll.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <utility>

#include "controller/limits.h"
#include "nvme/check.h"
#include "nvme/text.h"

namespace nvmf::controller {

namespace {

constexpr std::uint16_t kNbdPort = 10809;
/// What a server may be asked for when it names no limit of its own (NBD protocol, "Block size
/// constraints"); libnbd sends no more than twice that.
constexpr std::uint64_t kPayloadMax = 32 * 1024 * 1024;

Error nbd_error(std::string_view what) {
  const char* const text = nbd_get_error();
  const int code = nbd_get_errno();
  return {
      fmt::format("{}: {}", what,
                  text == nullptr ? "no reason given" : nvme::printable(std::string_view(text))),
      code == 0 ? EIO : code};
}

std::optional<std::string> percent_decode(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    unsigned value = 0;
    if (i + 2 >= text.size()) return std::nullopt;
    const auto [rest, error] = std::from_chars(&text[i + 1], &text[i + 1] + 2, value, 16);
    if (error != std::errc{} || rest != &text[i + 1] + 2 || value == 0) return std::nullopt;
    out += static_cast<char>(value);
    i += 2;
  }
  return out;
}

bool numeric(std::string_view host) {
  return host.find(':') != std::string_view::npos ||
         host.find_first_not_of("0123456789.") == std::string_view::npos;
}

std::unexpected<Error> no_uri(std::string_view text, std::string_view why) {
  return fail(fmt::format("'{}' is no NBD URI: {}; give nbd://HOST[:PORT]/EXPORT or "
                          "nbd+unix:///EXPORT?socket=PATH",
                          nvme::printable(text), why),
              EINVAL);
}

/// "user@host:port" into `uri`.
bool read_authority(std::string_view authority, NbdUri& uri) {
  if (const auto at = authority.rfind('@'); at != std::string_view::npos) {
    authority.remove_prefix(at + 1);
  }
  std::string_view port;
  if (authority.starts_with('[')) {
    const auto end = authority.find(']');
    if (end == std::string_view::npos) return false;
    uri.host = authority.substr(1, end - 1);
    authority.remove_prefix(end + 1);
    if (!authority.empty() && authority.front() != ':') return false;
    port = authority.empty() ? authority : authority.substr(1);
  } else {
    const auto colon = authority.find(':');
    uri.host = authority.substr(0, colon);
    port = colon == std::string_view::npos ? std::string_view{} : authority.substr(colon + 1);
  }
  if (uri.host.empty()) uri.host = "localhost";
  uri.port = kNbdPort;
  if (port.empty()) return true;
  const auto [rest, error] = std::from_chars(port.data(), port.data() + port.size(), uri.port);
  return error == std::errc{} && rest == port.data() + port.size() && uri.port != 0;
}

/// A plain close would leave the kernel delivering requests that are in its buffers, after those
/// that a later connection sends. The socket is libnbd's, so that nobody in io/ can do this.
void reset_on_close(int fd) {
  const linger abort{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &abort, sizeof abort);  // a unix socket has no such thing
}

/// Which of `directions` the descriptor is ready for. libnbd must not be told of what is not so:
/// it would wait for a reply in the middle of a request.
unsigned ready_for(int fd, unsigned directions) {
  pollfd one{.fd = fd, .events = 0, .revents = 0};
  if ((directions & LIBNBD_AIO_DIRECTION_READ) != 0) one.events |= POLLIN;
  if ((directions & LIBNBD_AIO_DIRECTION_WRITE) != 0) one.events |= POLLOUT;
  if (::poll(&one, 1, 0) <= 0) return 0;
  const bool broken = (one.revents & (POLLERR | POLLHUP)) != 0;
  unsigned ready = 0;
  if ((one.revents & POLLIN) != 0 || broken) ready |= LIBNBD_AIO_DIRECTION_READ;
  if ((one.revents & POLLOUT) != 0 || broken) ready |= LIBNBD_AIO_DIRECTION_WRITE;
  return ready & directions;
}

/// What has come and was not read yet.
std::uint64_t waiting_bytes(int fd) {
  int bytes = 0;
  return ::ioctl(fd, FIONREAD, &bytes) == 0 && bytes > 0 ? static_cast<std::uint64_t>(bytes) : 0;
}

/// Errors of connections whose other end has not been heard of.
bool says_nothing_of_the_server(int error) {
  return error == ETIMEDOUT || error == EHOSTUNREACH || error == ENETUNREACH || error == ENETDOWN;
}

}  // namespace

Result<NbdUri> NbdUri::parse(std::string_view text) {
  constexpr std::array<std::string_view, 6> kSchemes{"nbd",       "nbds",      "nbd+unix",
                                                     "nbds+unix", "nbd+vsock", "nbds+vsock"};
  NbdUri uri{.text = std::string(text), .host = {}, .export_name = {}};
  const auto colon = text.find("://");
  const std::string_view scheme = text.substr(0, colon);
  if (colon == std::string_view::npos || std::ranges::find(kSchemes, scheme) == kSchemes.end()) {
    return no_uri(text,
                  "it begins with none of nbd://, nbds://, nbd+unix://, nbds+unix://, "
                  "nbd+vsock://, nbds+vsock://");
  }
  if (text.find('\0') != std::string_view::npos) return no_uri(text, "it contains a NUL");
  uri.tls = scheme.starts_with("nbds");
  const std::string_view rest = text.substr(colon + 3);
  const auto query = rest.find('?');
  const std::string_view before = rest.substr(0, query);
  const auto slash = before.find('/');
  const std::string_view path =
      slash == std::string_view::npos ? std::string_view{} : before.substr(slash + 1);
  auto name = percent_decode(path);
  if (!name) return no_uri(text, "its export name has a wrong % escape");
  uri.export_name = std::move(*name);
  if (scheme.ends_with("+unix")) {
    if (rest.find("socket=") == std::string_view::npos) {
      return no_uri(text, "it does not say which unix socket");
    }
  } else if (!scheme.ends_with("+vsock") && !read_authority(before.substr(0, slash), uri)) {
    return no_uri(text, "its host or port cannot be read");
  }
  return uri;
}

NbdLink::NbdLink(transport::Loop& loop, const NbdUri& uri, NbdLinkUser& user)
    : loop_(loop),
      uri_(uri),
      user_(user),
      deadline_(loop.timers(),
                [this] {
                  lose({fmt::format("it did not answer within {} s", kNbdConnectTimeout.count()),
                        ETIMEDOUT},
                       false);
                }),
      soon_(loop.timers(), [this] { deliver(); }),
      alive_(std::make_shared<NbdLink*>(this)) {}

NbdLink::~NbdLink() {
  *alive_ = nullptr;
  close_handle();
}

bool NbdLink::room() const {
  return in_flight_.size() < kNbdInFlightPerLink;
}

bool NbdLink::overdue(Duration timeout) const {
  return std::ranges::any_of(in_flight_, [&](const NbdRequest* request) {
    const bool flush = request->kind == NbdRequest::Kind::flush;
    return loop_.now() - request->sent >= timeout * (flush ? kNbdFlushTimeouts : 1);
  });
}

// ---- connecting

void NbdLink::connect() {
  NVMF_CHECK(state_ == State::idle);
  deadline_.arm(loop_.now() + kNbdConnectTimeout);
  addresses_.clear();
  if (uri_.host.empty()) {
    addresses_.emplace_back();
    return connect_next();
  }
  if (numeric(uri_.host)) {
    addresses_.push_back(uri_.host);
    return connect_next();
  }
  state_ = State::resolving;
  loop_.resolve(uri_.host, [link = std::weak_ptr(alive_)](Result<std::vector<std::string>> found) {
    const auto alive = link.lock();
    if (!alive || *alive == nullptr || (*alive)->state_ != State::resolving) return;
    NbdLink& self = **alive;
    if (!found) return self.lose(std::move(found.error()), false);
    self.addresses_ = std::move(*found);
    std::ranges::reverse(self.addresses_);
    // The name itself must then be given: the one time it is as good as all addresses.
    if (self.uri_.tls && !self.addresses_.empty()) self.addresses_.resize(1);
    self.connect_next();
  });
}

void NbdLink::connect_next() {
  state_ = State::connecting;
  Error why{"its name has no address", EADDRNOTAVAIL};
  while (!addresses_.empty()) {
    if (start_connecting()) {
      settle(false);  // a unix socket may be connected by now
      return;
    }
    why = nbd_error("cannot connect");
    close_handle();
  }
  lose(std::move(why), false);
}

bool NbdLink::start_connecting() {
  handshake_bytes_ = 0;
  const std::string address = std::move(addresses_.back());
  addresses_.pop_back();
  handle_ = nbd_create();
  if (handle_ == nullptr || nbd_add_meta_context(handle_, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0) {
    return false;
  }
  if (address.empty() || uri_.tls) {
    // The URI comes from whoever starts or controls this process: it may name files.
    nbd_set_uri_allow_local_file(handle_, true);
    return nbd_aio_connect_uri(handle_, uri_.text.c_str()) == 0;
  }
  return nbd_set_tls(handle_, LIBNBD_TLS_DISABLE) == 0 &&
         nbd_set_export_name(handle_, uri_.export_name.c_str()) == 0 &&
         nbd_aio_connect_tcp(handle_, address.c_str(), std::to_string(uri_.port).c_str()) == 0;
}

void NbdLink::become_ready() {
  const auto yes = [](int answer) { return answer == 1; };
  const std::int64_t size = nbd_get_size(handle_);
  if (size < 0) return lose(nbd_error("its size cannot be had"), false);
  const std::int64_t least = nbd_get_block_size(handle_, LIBNBD_SIZE_MINIMUM);
  const std::int64_t most = nbd_get_block_size(handle_, LIBNBD_SIZE_MAXIMUM);
  export_ = {
      .size_bytes = static_cast<std::uint64_t>(size),
      .read_only = yes(nbd_is_read_only(handle_)),
      .flush = yes(nbd_can_flush(handle_)),
      .fua = yes(nbd_can_fua(handle_)),
      .trim = yes(nbd_can_trim(handle_)),
      .zero = yes(nbd_can_zero(handle_)),
      .fast_zero = yes(nbd_can_fast_zero(handle_)),
      .multi_conn = yes(nbd_can_multi_conn(handle_)),
      .allocation = yes(nbd_can_meta_context(handle_, LIBNBD_CONTEXT_BASE_ALLOCATION)),
      .block_bytes_min = least <= 0 ? 1 : static_cast<std::uint64_t>(least),
      .payload_bytes_max = most <= 0 ? kPayloadMax : std::min<std::uint64_t>(most, kPayloadMax),
  };
  deadline_.cancel();
  addresses_.clear();
  state_ = State::ready;
  user_.nbd_ready(*this);
}

// ---- what happens

void NbdLink::on_event() {
  const int fd = nbd_aio_get_fd(handle_);
  const unsigned ready = fd < 0 ? 0 : ready_for(fd, nbd_aio_get_direction(handle_));
  if (state_ == State::connecting && (ready & LIBNBD_AIO_DIRECTION_READ) != 0) {
    handshake_bytes_ += waiting_bytes(fd);
    if (handshake_bytes_ > kNbdHandshakeBytesMax) {
      return lose({fmt::format("it sent more than {} bytes, and has not described its export yet",
                               kNbdHandshakeBytesMax),
                   EPROTO},
                  false);
    }
  }
  // One of both: the other may not be wanted after the first.
  int done = 0;
  if ((ready & LIBNBD_AIO_DIRECTION_READ) != 0) {
    done = nbd_aio_notify_read(handle_);
  } else if ((ready & LIBNBD_AIO_DIRECTION_WRITE) != 0) {
    done = nbd_aio_notify_write(handle_);
  }
  settle(done == -1);
}

/// After each call of libnbd's that may have changed its state; `failed`: that call said so.
void NbdLink::settle(bool failed) {
  if (failed || nbd_aio_is_dead(handle_) == 1) {
    Error why = nbd_error("the connection failed");
    if (state_ == State::connecting && !addresses_.empty()) {
      close_handle();
      return connect_next();
    }
    const bool by_server = !says_nothing_of_the_server(why.code);
    return lose(std::move(why), by_server);
  }
  if (nbd_aio_is_closed(handle_) == 1) {
    return lose({"the server closed the connection", ECONNRESET}, true);
  }
  watch();
  if (state_ == State::lost) return;
  if (!ended_.empty()) soon_.arm(loop_.now());
  if (state_ == State::connecting && nbd_aio_is_ready(handle_) == 1) soon_.arm(loop_.now());
}

void NbdLink::watch() {
  const int fd = nbd_aio_get_fd(handle_);
  const unsigned wanted = nbd_aio_get_direction(handle_);
  // While it connects, libnbd may try the next address with a new socket of the same number.
  const bool same_socket = state_ == State::ready && fd == watched_fd_;
  if (watch_ != nullptr && wanted == watched_ && same_socket) return;
  watch_.reset();
  watched_ = wanted;
  watched_fd_ = fd;
  auto made = loop_.watch(fd, (wanted & LIBNBD_AIO_DIRECTION_READ) != 0,
                          (wanted & LIBNBD_AIO_DIRECTION_WRITE) != 0, [this] { on_event(); });
  if (!made) return lose(std::move(made.error()), false);
  watch_ = std::move(*made);
}

void NbdLink::send(NbdRequest& request) {
  NVMF_CHECK(state_ == State::ready && room());
  request.error = 0;
  request.lost = false;
  request.sent = loop_.now();
  request.link = this;
  request.place = in_flight_.size();
  in_flight_.push_back(&request);
  issuing_ = &request;
  const std::int64_t cookie = issue(request);
  const bool over = std::exchange(issuing_, nullptr) == nullptr;
  if (cookie < 0) {
    // Not sent, not to be called back: it comes back with all others.
    return lose(nbd_error("a request could not be sent"), true);
  }
  // See on_completion(). With a dead connection, the command goes with the handle.
  if (over && nbd_aio_is_dead(handle_) != 1) {
    nbd_aio_command_completed(handle_, static_cast<std::uint64_t>(cookie));
  }
  settle(false);
}

std::int64_t NbdLink::issue(NbdRequest& request) {
  const nbd_completion_callback done{
      .callback = &NbdLink::on_completion, .user_data = &request, .free = nullptr};
  std::uint32_t flags = request.fua ? LIBNBD_CMD_FLAG_FUA : 0;
  switch (request.kind) {
    case NbdRequest::Kind::read:
      return nbd_aio_pread(handle_, request.data, request.length_bytes, request.offset_bytes, done,
                           0);
    case NbdRequest::Kind::write:
      return nbd_aio_pwrite(handle_, request.data, request.length_bytes, request.offset_bytes, done,
                            flags);
    case NbdRequest::Kind::extents: {
      request.runs.clear();
      const nbd_extent_callback runs{
          .callback = &NbdLink::on_extents, .user_data = &request, .free = nullptr};
      return nbd_aio_block_status(handle_, request.length_bytes, request.offset_bytes, runs, done,
                                  0);
    }
    case NbdRequest::Kind::flush:
      return nbd_aio_flush(handle_, done, 0);
    case NbdRequest::Kind::zero:
      if (request.no_hole) flags |= LIBNBD_CMD_FLAG_NO_HOLE;
      if (request.fast_only) flags |= LIBNBD_CMD_FLAG_FAST_ZERO;
      return nbd_aio_zero(handle_, request.length_bytes, request.offset_bytes, done, flags);
  }
  return -1;
}

/// Inside libnbd. 1: it may forget the command; 0: not yet, for the function that issues it still
/// reads its cookie at the end (libnbd 1.14 does so even if the command was freed meanwhile).
int NbdLink::on_completion(void* user_data, int* error) {
  auto& request = *static_cast<NbdRequest*>(user_data);
  NbdLink& self = *request.link;
  // What no server can say: libnbd gives up what a lost connection left unanswered.
  request.lost = *error == ENOTCONN;
  request.error = *error;
  if (!request.lost) self.ended_.push_back(&request);
  if (self.issuing_ != &request) return 1;
  self.issuing_ = nullptr;
  return 0;
}

/// Inside libnbd, with pairs of a length and flags.
int NbdLink::on_extents(void* user_data, const char* context, std::uint64_t /*offset*/,
                        std::uint32_t* entries, std::size_t count, int* /*error*/) {
  auto& request = *static_cast<NbdRequest*>(user_data);
  if (std::strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0) return 0;
  constexpr std::uint32_t kHole = LIBNBD_STATE_HOLE | LIBNBD_STATE_ZERO;
  for (std::size_t i = 0; i + 1 < count && request.runs.size() < kNbdRunsMax; i += 2) {
    request.runs.push_back({entries[i], (entries[i + 1] & kHole) == kHole});
  }
  return 0;
}

/// Tells the user what is due; the last thing that a call from outside does.
void NbdLink::deliver() {
  const std::weak_ptr<NbdLink*> link = alive_;
  while (!ended_.empty()) {
    NbdRequest& request = *ended_.back();
    ended_.pop_back();
    in_flight_[request.place] = in_flight_.back();
    in_flight_[request.place]->place = request.place;
    in_flight_.pop_back();
    request.link = nullptr;
    user_.nbd_completed(request);
    if (link.expired()) return;
  }
  if (state_ == State::connecting) {
    if (nbd_aio_is_ready(handle_) == 1) become_ready();
    return;
  }
  if (state_ != State::lost) return;
  state_ = State::idle;
  std::vector<NbdRequest*> unanswered = std::exchange(in_flight_, {});
  for (NbdRequest* request : unanswered) request->link = nullptr;
  const Error why = std::exchange(why_, {});
  user_.nbd_lost(*this, std::move(unanswered), why, by_server_);
}

void NbdLink::drop(Error why) {
  if (state_ == State::idle || state_ == State::lost) return;
  lose(std::move(why), false);
}

/// Answers that came before are still told first.
void NbdLink::lose(Error why, bool by_server) {
  if (state_ == State::lost) return;
  state_ = State::lost;
  why_ = std::move(why);
  by_server_ = by_server;
  deadline_.cancel();
  close_handle();
  soon_.arm(loop_.now());
}

void NbdLink::close_handle() {
  watch_.reset();
  watched_ = 0;
  if (handle_ == nullptr) return;
  if (const int fd = nbd_aio_get_fd(handle_); fd >= 0) reset_on_close(fd);
  nbd_close(std::exchange(handle_, nullptr));
}

}  // namespace nvmf::controller
