#include "io/core.h"

#include <fmt/format.h>
#include <netdb.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <set>
#include <string_view>
#include <utility>

#include "io/error_words.h"
#include "io/file.h"
#include "io/listener.h"
#include "io/socket_address.h"
#include "io/socket_stream.h"
#include "nvme/check.h"

namespace nvmf::io {

using transport::ConnectOptions;
using transport::Endpoint;
using transport::StreamUser;

namespace {

/// Names being looked up at once; each costs a thread while it lasts.
constexpr std::size_t kResolvesMax = 32;
/// Rounds in which users may start new work while the loop ends.
constexpr int kEndRounds = 1000;

class Watch final : public transport::FdWatch, public Pollable, public LoopChild {
 public:
  Watch(ReactorCore& core, std::move_only_function<void()> on_ready)
      : core_(&core), on_ready_(std::move(on_ready)) {
    core.enlist(*this);
  }
  ~Watch() override {
    if (core_ != nullptr) Watch::loop_ended();
  }
  void on_ready(std::uint32_t) override { on_ready_(); }
  void loop_ended() override {
    core_->backend().remove(*this);
    core_->dismiss(*this);
    core_ = nullptr;
  }

 private:
  ReactorCore* core_;
  std::move_only_function<void()> on_ready_;
};

Result<std::vector<std::string>> look_up(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int code = ::getaddrinfo(host.c_str(), nullptr, &hints, &found);
  if (code != 0) {
    const char* hint = code == EAI_AGAIN
                           ? "no name server answers, try again or give a numeric address"
                           : "check how it is written, or give a numeric address";
    return fail(fmt::format("cannot find the address of {}: {}; {}", host,
                            code == EAI_SYSTEM ? std::strerror(errno) : ::gai_strerror(code), hint),
                code == EAI_AGAIN ? EAGAIN : ENOENT);
  }
  std::vector<std::string> hosts;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    SocketAddress address;
    std::memcpy(&address.storage, one->ai_addr, one->ai_addrlen);
    address.length = one->ai_addrlen;
    std::string text = to_endpoint(address).host;
    if (!text.empty() && std::ranges::find(hosts, text) == hosts.end()) {
      hosts.push_back(std::move(text));
    }
  }
  ::freeaddrinfo(found);
  return hosts;
}

Result<BackendKind> wanted_backend(BackendKind asked) {
  const char* text = std::getenv("NVMF_IO");
  if (asked != BackendKind::automatic || text == nullptr || *text == '\0') return asked;
  const std::string_view name = text;
  if (name == "epoll") return BackendKind::epoll;
  if (name == "io_uring") return BackendKind::io_uring;
  return fail(fmt::format("NVMF_IO is '{}', but only epoll and io_uring are known", name), EINVAL);
}

}  // namespace

Result<std::unique_ptr<Reactor>> make_reactor(const ReactorOptions& options) {
  auto core = std::make_unique<ReactorCore>();
  if (auto started = core->start(options); !started) return std::unexpected(started.error());
  return core;
}

Result<void> ReactorCore::start(const ReactorOptions& options) {
  const auto kind = wanted_backend(options.backend);
  if (!kind) return std::unexpected(kind.error());
  wake_fd_ = UniqueFd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!wake_fd_.valid()) {
    const int code = errno;
    return fail(
        fmt::format("cannot make an event loop: {}{}", std::strerror(code), try_words(code)), code);
  }
  if (*kind != BackendKind::epoll) {
    auto ring = make_uring_backend();
    if (ring) {
      backend_ = std::move(*ring);
    } else if (*kind == BackendKind::io_uring) {
      return std::unexpected(ring.error());
    }
  }
  if (!backend_) {
    auto epoll = make_epoll_backend([this] { notify(); });
    if (!epoll) return std::unexpected(epoll.error());
    backend_ = std::move(*epoll);
  }
  backend_handle_ = std::make_shared<Backend*>(backend_.get());
  handle_->core = this;
  spin_ = options.spin;
  now_ = clock();
  return backend_->add(wakeup_, wake_fd_.get(), EPOLLIN, Trigger::edge);
}

ReactorCore::~ReactorCore() {
  if (backend_) end();
}

Instant ReactorCore::clock() {
  timespec ts{};
  ::clock_gettime(CLOCK_MONOTONIC, &ts);
  return Instant(std::chrono::seconds(ts.tv_sec) + std::chrono::nanoseconds(ts.tv_nsec));
}

// --- turns --------------------------------------------------------------------------------------

void ReactorCore::run() {
  const auto self = std::this_thread::get_id();
  NVMF_CHECK(!ended_);
  NVMF_CHECK(thread_.load() == std::thread::id{} || thread_.load() == self);
  thread_.store(self);
  while (!stop_.exchange(false, std::memory_order_acquire)) turn();
}

void ReactorCore::stop() {
  stop_.store(true, std::memory_order_release);
  notify();
}

void ReactorCore::notify() {
  // Nobody reads the counter: edge triggering wakes at each write.
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_fd_.get(), &one, sizeof one);
}

Duration ReactorCore::patience() {
  if (spin_ || !dirty_.empty() || has_tasks_.load(std::memory_order_acquire))
    return Duration::zero();
  const auto next = timers_.next();
  if (!next) return Duration(-1);
  return std::max(*next - clock(), Duration::zero());
}

void ReactorCore::turn() {
  backend_->collect(patience());
  now_ = clock();
  backend_->dispatch();
  run_tasks();
  timers_.run(now_);
  serve_dirty();
}

void ReactorCore::post(std::move_only_function<void()> task) {
  bool first = false;
  {
    const std::scoped_lock lock(tasks_mutex_);
    first = tasks_.empty();
    tasks_.push_back(std::move(task));
    has_tasks_.store(true, std::memory_order_release);
  }
  if (first && thread_.load(std::memory_order_relaxed) != std::this_thread::get_id()) notify();
}

void ReactorCore::run_tasks() {
  if (!has_tasks_.load(std::memory_order_acquire)) return;
  {
    const std::scoped_lock lock(tasks_mutex_);
    running_tasks_.swap(tasks_);
    has_tasks_.store(false, std::memory_order_release);
  }
  for (auto& task : running_tasks_) {
    task();
    task = nullptr;  // what it holds goes now, not when the batch is over
  }
  running_tasks_.clear();
}

void ReactorCore::serve_dirty() {
  serving_.swap(dirty_);
  for (std::size_t i = 0; i < serving_.size(); ++i) {
    if (SocketStream* stream = std::exchange(serving_[i], nullptr)) stream->serve();
  }
  serving_.clear();
}

void ReactorCore::forget(const SocketStream& stream) {
  std::erase(dirty_, &stream);
  std::ranges::replace(serving_, const_cast<SocketStream*>(&stream), nullptr);
}

void ReactorCore::end() {
  if (std::exchange(ended_, true)) return;
  const auto owner = thread_.load();
  NVMF_CHECK(owner == std::thread::id{} || owner == std::this_thread::get_id());
  {
    const std::scoped_lock lock(handle_->mutex);
    handle_->core = nullptr;
  }
  // Users that hear of the end may start something new, which ends as well.
  for (int round = 0; !children_.empty() || backend_->files_under_way() > 0; ++round) {
    NVMF_CHECK(round < kEndRounds);
    while (!children_.empty()) (*children_.begin())->loop_ended();
    while (backend_->files_under_way() > 0) {
      backend_->collect(Duration(-1));
      backend_->dispatch();
    }
  }
  backend_->remove(wakeup_);
  *backend_handle_ = nullptr;
  resolving_.clear();
  for (;;) {  // a task's destructor may post
    std::vector<std::move_only_function<void()>> tasks;
    {
      const std::scoped_lock lock(tasks_mutex_);
      tasks.swap(tasks_);
    }
    if (tasks.empty()) break;
  }
  backend_.reset();
}

// --- what users ask for -------------------------------------------------------------------------

std::unique_ptr<transport::Stream> ReactorCore::connect(const Endpoint& to,
                                                        const ConnectOptions& options,
                                                        StreamUser& user) {
  auto stream = std::make_unique<SocketStream>(*this, user, to.to_string());
  stream->start_connect(to, options);
  return stream;
}

Result<std::unique_ptr<transport::Listener>> ReactorCore::listen(
    const Endpoint& at,
    std::move_only_function<void(std::unique_ptr<transport::Incoming>)> on_accept) {
  auto listener = std::make_unique<SocketListener>(*this, std::move(on_accept));
  if (auto started = listener->start(at); !started) return std::unexpected(started.error());
  return listener;
}

std::unique_ptr<transport::Stream> ReactorCore::adopt(std::unique_ptr<transport::Incoming> incoming,
                                                      StreamUser& user) {
  auto* mine = dynamic_cast<SocketIncoming*>(incoming.get());
  NVMF_CHECK(mine != nullptr);
  auto stream = std::make_unique<SocketStream>(*this, user, mine->peer());
  const int family = mine->family();
  stream->start_accepted(mine->take(), family);
  return stream;
}

void ReactorCore::resolve(const std::string& host, Resolved done) {
  const std::uint64_t id = next_resolve_++;
  resolving_.emplace(id, std::move(done));
  if (is_numeric_host(host)) {
    return post([this, id, host] { resolved(id, std::vector<std::string>{host}); });
  }
  if (resolving_.size() > kResolvesMax) {
    return post([this, id, host] {
      resolved(
          id, fail(fmt::format("too many names are being looked up to look for {}", host), EAGAIN));
    });
  }
  // getaddrinfo() blocks for as long as it likes and cannot be stopped: the thread is on its own
  // and finds the loop through a handle, if there is one still.
  try {
    std::thread([handle = handle_, id, host] {
      auto answer = look_up(host);
      const std::scoped_lock lock(handle->mutex);
      if (handle->core == nullptr) return;
      handle->core->post([core = handle->core, id, answer = std::move(answer)]() mutable {
        core->resolved(id, std::move(answer));
      });
    }).detach();
  } catch (const std::system_error& error) {
    post([this, id, host, code = error.code().value()] {
      resolved(id, fail(fmt::format("cannot look up {}: no thread could be started", host), code));
    });
  }
}

void ReactorCore::resolved(std::uint64_t id, Result<std::vector<std::string>> answer) {
  auto waiting = resolving_.extract(id);
  if (waiting) waiting.mapped()(std::move(answer));
}

Result<std::unique_ptr<transport::File>> ReactorCore::open_file(const std::string& path,
                                                                bool writable) {
  return open_disk_file(backend_handle_, path, writable);
}

Result<std::unique_ptr<transport::FdWatch>> ReactorCore::watch(
    int fd, bool readable, bool writable, std::move_only_function<void()> on_ready) {
  auto watch = std::make_unique<Watch>(*this, std::move(on_ready));
  const std::uint32_t events = (readable ? EPOLLIN : 0U) | (writable ? EPOLLOUT : 0U);
  if (auto added = backend_->add(*watch, fd, events, Trigger::level); !added) {
    return std::unexpected(added.error());
  }
  return watch;
}

}  // namespace nvmf::io
