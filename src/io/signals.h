// Signals as events of a loop.
#pragma once

#include <csignal>
#include <functional>
#include <initializer_list>
#include <memory>

#include "io/unique_fd.h"
#include "transport/loop.h"

namespace nvmf::io {

/// Blocks these signals in the calling thread and in every thread that it starts from then on. To
/// be called at the start of main(), before any thread exists: a signal goes to any thread that
/// does not block it, and would kill the process there.
Result<void> block_signals(std::initializer_list<int> signals);

/// Delivers signals to a callback on the loop's thread, until destroyed. They stay blocked after.
class SignalWatch {
 public:
  /// Blocks them in the calling thread as well, as block_signals() does.
  static Result<std::unique_ptr<SignalWatch>> make(transport::Loop& loop,
                                                   std::initializer_list<int> signals,
                                                   std::move_only_function<void(int)> on_signal);
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

 private:
  SignalWatch() = default;
  void on_ready();

  std::move_only_function<void(int)> on_signal_;
  UniqueFd fd_;
  std::unique_ptr<transport::FdWatch> watch_;  // before fd_ is closed
};

}  // namespace nvmf::io
