#include "io/reactor_pool.h"

#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>

#include <system_error>
#include <utility>

#include "nvme/check.h"

namespace nvmf::io {

Result<std::unique_ptr<ReactorPool>> ReactorPool::make(std::size_t count,
                                                       const ReactorOptions& options) {
  NVMF_CHECK(count > 0);
  std::vector<std::unique_ptr<Reactor>> reactors;
  for (std::size_t i = 0; i < count; ++i) {
    auto one = make_reactor(options);
    if (!one) return std::unexpected(one.error());
    reactors.push_back(std::move(*one));
  }
  return std::unique_ptr<ReactorPool>(new ReactorPool(std::move(reactors)));
}

ReactorPool::~ReactorPool() {
  join();
}

Result<void> ReactorPool::start() {
  if (!threads_.empty()) return {};
  // Signals are for the caller's thread: a process-wide one must not end here.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  // Those that a thread raises by its own mistake must find their handler (sanitizers, core dumps).
  for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS}) {
    sigdelset(&all, own);
  }
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  Result<void> result;
  for (std::size_t i = 1; i < reactors_.size(); ++i) {
    try {
      threads_.emplace_back([reactor = reactors_[i].get()] {
        reactor->run();
        reactor->end();
      });
      ::pthread_setname_np(threads_.back().native_handle(), fmt::format("reactor{}", i).c_str());
    } catch (const std::system_error& error) {
      result = fail(
          fmt::format("cannot start thread {} of {}: {}", i, reactors_.size() - 1, error.what()),
          error.code().value());
      break;
    }
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return result;
}

Result<void> ReactorPool::run() {
  NVMF_CHECK(!joined_);
  if (auto started = start(); !started) return started;
  reactors_[0]->run();
  return {};
}

void ReactorPool::stop() {
  reactors_[0]->stop();
}

void ReactorPool::join() {
  if (std::exchange(joined_, true)) return;
  for (std::size_t i = 1; i < reactors_.size(); ++i) reactors_[i]->stop();
  for (std::thread& thread : threads_) thread.join();
  // Those whose thread never ran, and the caller's.
  for (auto& reactor : reactors_) reactor->end();
}

}  // namespace nvmf::io
