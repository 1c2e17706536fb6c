// Several reactors, each on a thread of its own; the first one on the caller's.
#pragma once

#include <cstddef>
#include <memory>
#include <thread>
#include <vector>

#include "io/reactor.h"

namespace nvmf::io {

/// Everything here is for the thread that made it, except stop() and the reactors' own post().
class ReactorPool {
 public:
  /// `count` reactors, at least 1. No thread runs yet: what is to be on the reactors from the start
  /// is posted to them.
  static Result<std::unique_ptr<ReactorPool>> make(std::size_t count,
                                                   const ReactorOptions& options = {});
  /// Does join().
  ~ReactorPool();
  ReactorPool(const ReactorPool&) = delete;
  ReactorPool& operator=(const ReactorPool&) = delete;

  [[nodiscard]] std::size_t size() const { return reactors_.size(); }
  [[nodiscard]] Reactor& at(std::size_t i) { return *reactors_[i]; }

  /// Starts the threads of reactors 1 and up. Fails if the system gives no more threads; those that
  /// did start then run until join().
  Result<void> start();
  /// start() if that has not been done, then runs reactor 0 here until stop(). Reactors 1 and up go
  /// on until join(), so that what is on them can still be taken down in order.
  Result<void> run();
  /// Makes run() return. From any thread; also from a signal's callback on a loop.
  void stop();
  /// Ends every reactor, each on its own thread (see Reactor::end()), the caller's last, and waits
  /// for the threads. Users of streams must be alive. Idempotent.
  void join();

 private:
  explicit ReactorPool(std::vector<std::unique_ptr<Reactor>> reactors)
      : reactors_(std::move(reactors)) {}

  std::vector<std::unique_ptr<Reactor>> reactors_;
  std::vector<std::thread> threads_;
  bool joined_ = false;
};

}  // namespace nvmf::io
