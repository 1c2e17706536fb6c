// Tasks, timers, names, watched descriptors, signals, and the choice of a backend.
#include <fcntl.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "io/reactor_fixture.h"
#include "io/signals.h"
#include "io/unique_fd.h"

namespace nvmf::io {
namespace {

using namespace std::chrono_literals;
using transport::Timer;

class LoopTest : public ReactorTest {};

TEST_P(LoopTest, TasksFromManyThreadsRunInTheOrderOfEachThread) {
  constexpr int kThreads = 4;
  constexpr int kTasks = 5000;
  std::vector<int> next(kThreads, 0);
  int ran = 0;
  int out_of_order = 0;
  std::vector<std::jthread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kTasks; ++i) {
        reactor_->post([&, t, i] {
          if (next[static_cast<std::size_t>(t)]++ != i) ++out_of_order;
          ++ran;
        });
        if (i % 100 == 0) std::this_thread::yield();
      }
    });
  }
  EXPECT_TRUE(until([&] { return ran == kThreads * kTasks; }));
  EXPECT_EQ(out_of_order, 0);
}

TEST_P(LoopTest, APostWakesALoopThatWaitsForEver) {
  std::jthread thread([&] {
    std::this_thread::sleep_for(30ms);
    reactor_->post([&] { reactor_->stop(); });
  });
  reactor_->run();  // hangs if the wake-up is lost
}

TEST_P(LoopTest, StopBeforeRunReturnsAtOnceAndRunWorksAgain) {
  reactor_->stop();
  reactor_->run();
  bool ran = false;
  reactor_->post([&] { ran = true; });
  EXPECT_FALSE(ran);
  EXPECT_TRUE(until([&] { return ran; }));
}

TEST_P(LoopTest, TaskPostedByATaskWaitsForTheNextTurn) {
  std::vector<int> order;
  reactor_->post([&] {
    reactor_->post([&] { order.push_back(3); });
    order.push_back(1);
  });
  reactor_->post([&] { order.push_back(2); });
  EXPECT_TRUE(until([&] { return order.size() == 3; }));
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

TEST_P(LoopTest, TasksLeftAtTheEndAreDestroyedUnrun) {
  auto token = std::make_shared<int>(0);
  bool ran = false;
  reactor_->post([&ran, token] { ran = true; });
  reactor_.reset();
  EXPECT_FALSE(ran);
  EXPECT_EQ(token.use_count(), 1);
}

TEST_P(LoopTest, TimersExpireInOrderAndNotEarly) {
  std::vector<int> order;
  const Instant start = reactor_->now();
  Instant late_at{};
  Timer late(reactor_->timers(), [&] {
    order.push_back(2);
    late_at = reactor_->now();
  });
  Timer early(reactor_->timers(), [&] { order.push_back(1); });
  Timer never(reactor_->timers(), [&] { order.push_back(3); });
  late.arm(start + 20ms);
  early.arm(start + 500us);
  never.arm(start + 10ms);
  never.cancel();
  EXPECT_TRUE(until([&] { return order.size() == 2; }));
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
  EXPECT_GE(late_at - start, 20ms);
}

TEST_P(LoopTest, AnIdleLoopUsesNoProcessorTime) {
  rusage before{};
  rusage after{};
  Timer timer(reactor_->timers(), [&] { reactor_->stop(); });
  timer.arm(reactor_->now() + 300ms);
  ::getrusage(RUSAGE_THREAD, &before);
  reactor_->run();
  ::getrusage(RUSAGE_THREAD, &after);
  const auto used = (after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec -
                     before.ru_stime.tv_sec) *
                        1'000'000 +
                    after.ru_utime.tv_usec - before.ru_utime.tv_usec + after.ru_stime.tv_usec -
                    before.ru_stime.tv_usec;
  EXPECT_LT(used, 100'000);
}

TEST_P(LoopTest, ResolvesNumbersAndNames) {
  std::vector<std::string> numeric;
  std::vector<std::string> name;
  std::optional<Error> unknown;
  reactor_->resolve("192.0.2.7", [&](auto r) { numeric = r.value(); });
  reactor_->resolve("localhost", [&](auto r) { name = r.value(); });
  reactor_->resolve("bad name with spaces", [&](auto r) { unknown = r.error(); });
  EXPECT_TRUE(numeric.empty());
  // A name server that does not answer has its own, long patience.
  EXPECT_TRUE(until([&] { return !numeric.empty() && !name.empty() && unknown; }, 90s));
  EXPECT_EQ(numeric, std::vector<std::string>{"192.0.2.7"});
  EXPECT_TRUE(std::ranges::find(name, "127.0.0.1") != name.end() ||
              std::ranges::find(name, "::1") != name.end());
  EXPECT_NE(unknown->message.find("bad name with spaces"), std::string::npos);
}

TEST_P(LoopTest, AnswerOfTheResolverIsDroppedIfTheLoopHasEnded) {
  auto token = std::make_shared<int>(0);
  for (int i = 0; i < 10; ++i) reactor_->resolve("localhost", [token](auto) { FAIL(); });
  reactor_.reset();
  EXPECT_EQ(token.use_count(), 1);
  std::this_thread::sleep_for(20ms);
}

TEST_P(LoopTest, WatchReportsAStateAndStopsWhenDestroyed) {
  int pipe_fds[2];
  ASSERT_EQ(::pipe2(pipe_fds, O_NONBLOCK | O_CLOEXEC), 0);
  const UniqueFd in(pipe_fds[0]);
  const UniqueFd out(pipe_fds[1]);
  int calls = 0;
  auto watch = reactor_->watch(in.get(), true, false, [&] { ++calls; });
  ASSERT_TRUE(watch.has_value());
  run_for(*reactor_, 10ms);
  EXPECT_EQ(calls, 0);
  ASSERT_EQ(::write(out.get(), "ab", 2), 2);
  EXPECT_TRUE(until([&] { return calls >= 3; }));  // each turn, not once
  char two[2];
  ASSERT_EQ(::read(in.get(), two, 2), 2);
  run_for(*reactor_, 5ms);
  const int so_far = calls;
  run_for(*reactor_, 10ms);
  EXPECT_EQ(calls, so_far);
  ASSERT_EQ(::write(out.get(), "c", 1), 1);
  watch->reset();
  run_for(*reactor_, 10ms);
  EXPECT_EQ(calls, so_far);
  EXPECT_FALSE(reactor_->watch(-1, true, false, [] {}).has_value());
}

TEST_P(LoopTest, WatchMayDestroyItselfInItsCallback) {
  int pipe_fds[2];
  ASSERT_EQ(::pipe2(pipe_fds, O_NONBLOCK | O_CLOEXEC), 0);
  const UniqueFd in(pipe_fds[0]);
  const UniqueFd out(pipe_fds[1]);
  std::unique_ptr<transport::FdWatch> watch;
  int calls = 0;
  auto made = reactor_->watch(out.get(), false, true, [&] {
    int* counter = &calls;
    watch.reset();
    ++*counter;
  });
  watch = std::move(*made);
  EXPECT_TRUE(until([&] { return calls == 1; }));
  run_for(*reactor_, 5ms);
  EXPECT_EQ(calls, 1);
}

TEST_P(LoopTest, SignalsArriveOnTheLoop) {
  std::vector<int> got;
  auto watch =
      SignalWatch::make(*reactor_, {SIGUSR1, SIGUSR2}, [&](int signal) { got.push_back(signal); });
  ASSERT_TRUE(watch.has_value());
  ::raise(SIGUSR1);
  EXPECT_TRUE(got.empty());
  EXPECT_TRUE(until([&] { return got.size() == 1; }));
  ::raise(SIGUSR2);
  EXPECT_TRUE(until([&] { return got.size() == 2; }));
  EXPECT_EQ(got, (std::vector<int>{SIGUSR1, SIGUSR2}));
}

NVMF_BOTH_BACKENDS(LoopTest);

/// Runs `body` in a child; true if it returned true.
bool in_child(const std::function<bool()>& body) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(body() ? 0 : 1);
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool forbid_io_uring(int code) {
  scmp_filter_ctx filter = ::seccomp_init(SCMP_ACT_ALLOW);
  const bool done = ::seccomp_rule_add(filter, SCMP_ACT_ERRNO(static_cast<unsigned>(code)),
                                       SCMP_SYS(io_uring_setup), 0) == 0 &&
                    ::seccomp_load(filter) == 0;
  ::seccomp_release(filter);
  return done;
}

TEST(BackendChoice, EpollWithoutComplaintWhereIoUringIsForbidden) {
  for (const int code : {EPERM, ENOSYS, ENOMEM}) {
    EXPECT_TRUE(in_child([code] {
      ::unsetenv("NVMF_IO");
      if (!forbid_io_uring(code)) return false;
      auto reactor = make_reactor();
      if (!reactor || std::string((*reactor)->backend_name()) != "epoll") return false;
      bool ran = false;  // and it works
      (*reactor)->post([&] {
        ran = true;
        (*reactor)->stop();
      });
      (*reactor)->run();
      return ran;
    }));
  }
}

TEST(BackendChoice, ForcedAndImpossibleIsAnErrorThatSaysSo) {
  EXPECT_TRUE(in_child([] {
    ::setenv("NVMF_IO", "io_uring", 1);
    if (!forbid_io_uring(EPERM)) return false;
    auto reactor = make_reactor();
    return !reactor && reactor.error().code == EPERM &&
           reactor.error().message.find("NVMF_IO=epoll") != std::string::npos;
  }));
}

TEST(BackendChoice, EnvironmentForces) {
  EXPECT_TRUE(in_child([] {
    ::setenv("NVMF_IO", "epoll", 1);
    auto reactor = make_reactor();
    if (!reactor || std::string((*reactor)->backend_name()) != "epoll") return false;
    ::setenv("NVMF_IO", "kqueue", 1);
    return !make_reactor().has_value();
  }));
}

}  // namespace
}  // namespace nvmf::io
