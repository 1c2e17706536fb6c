#include "tool_program.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>

namespace nvmf::tools {
namespace {

using std::chrono::seconds;

TEST(EndAtTheLatestDeathTest, SaysWhyAndExitsWithOne) {
  EXPECT_EXIT(
      {
        end_at_the_latest("nvmf-test", seconds(1));
        for (;;) ::pause();
      },
      testing::ExitedWithCode(kExitFailure),
      "^nvmf-test: this process did not end within 1 s .* next connection\n$");
}

TEST(EndAtTheLatestDeathTest, ReachesAThreadThatBlocksEverySignal) {
  EXPECT_EXIT(
      {
        sigset_t all;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
        end_at_the_latest("nvmf-test", seconds(1));
        for (;;) ::pause();
      },
      testing::ExitedWithCode(kExitFailure), "is ended by force");
}

}  // namespace
}  // namespace nvmf::tools
