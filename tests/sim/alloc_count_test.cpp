#include "sim/alloc_count.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace nvmf::sim {
namespace {

void keep(void* p) {
  // Seen by nobody, and yet not to be optimized away.
  asm volatile("" : : "r"(p) : "memory");
}

TEST(AllocCount, NothingIsNothing) {
  const std::size_t before = allocations();
  int x = 3;
  keep(&x);
  EXPECT_EQ(allocations() - before, 0u);
}

TEST(AllocCount, SeesEveryWayToAllocate) {
  std::size_t before = allocations();
  auto one = std::make_unique<int>(1);
  keep(one.get());
  EXPECT_EQ(allocations() - before, 1u);

  before = allocations();
  void* p = std::malloc(10);
  keep(p);
  EXPECT_EQ(allocations() - before, 1u);
  p = std::realloc(p, 100'000);
  keep(p);
  EXPECT_GE(allocations() - before, 2u);
  std::free(p);

  before = allocations();
  p = std::calloc(3, 5);
  keep(p);
  EXPECT_EQ(allocations() - before, 1u);
  std::free(p);

  struct alignas(128) Aligned {
    char c[128];
  };
  before = allocations();
  auto aligned = std::make_unique<Aligned>();
  keep(aligned.get());
  EXPECT_EQ(allocations() - before, 1u);

  before = allocations();
  // Inside a library: libstdc++ makes the string.
  const std::string s = std::to_string(1) + std::string(100, 'x');
  EXPECT_GE(s.size(), 100u);
  EXPECT_GE(allocations() - before, 1u);
}

TEST(AllocCount, ThreadsAreToldApart) {
  const std::size_t all = all_allocations();
  std::size_t other = 0;
  std::thread thread([&] {
    const std::size_t before = allocations();
    std::vector<std::unique_ptr<int>> many;
    many.reserve(10);
    for (int i = 0; i < 10; ++i) many.push_back(std::make_unique<int>(i));
    other = allocations() - before;
  });
  const std::size_t before = allocations();
  thread.join();
  EXPECT_EQ(allocations() - before, 0u);
  EXPECT_EQ(other, 11u);
  EXPECT_GE(all_allocations() - all, 11u);
}

}  // namespace
}  // namespace nvmf::sim
