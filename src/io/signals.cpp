#include "io/signals.h"

#include <fmt/format.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace nvmf::io {

namespace {

sigset_t set_of(std::initializer_list<int> signals) {
  sigset_t set;
  sigemptyset(&set);
  for (const int one : signals) sigaddset(&set, one);
  return set;
}

}  // namespace

Result<void> block_signals(std::initializer_list<int> signals) {
  const sigset_t set = set_of(signals);
  const int code = ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  if (code != 0) return fail(fmt::format("cannot block signals: {}", std::strerror(code)), code);
  return {};
}

Result<std::unique_ptr<SignalWatch>> SignalWatch::make(
    transport::Loop& loop, std::initializer_list<int> signals,
    std::move_only_function<void(int)> on_signal) {
  if (auto blocked = block_signals(signals); !blocked) return std::unexpected(blocked.error());
  const sigset_t set = set_of(signals);
  std::unique_ptr<SignalWatch> made(new SignalWatch);
  made->on_signal_ = std::move(on_signal);
  made->fd_ = UniqueFd(::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
  if (!made->fd_.valid()) {
    const int code = errno;
    return fail(fmt::format("cannot receive signals: {}", std::strerror(code)), code);
  }
  auto watch = loop.watch(made->fd_.get(), true, false, [raw = made.get()] { raw->on_ready(); });
  if (!watch) return std::unexpected(watch.error());
  made->watch_ = std::move(*watch);
  return made;
}

void SignalWatch::on_ready() {
  // One per call: the callback may destroy this, and the watch reports the next one again.
  signalfd_siginfo info{};
  if (::read(fd_.get(), &info, sizeof info) != sizeof info) return;
  on_signal_(static_cast<int>(info.ssi_signo));
}

}  // namespace nvmf::io
