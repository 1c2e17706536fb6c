// How often memory was allocated: for tests which show that a path allocates nothing.
//
// Whoever calls one of these functions links alloc_count.cpp (it is in nvmf_sim), which stands
// between the program and malloc(): every allocation of the whole program counts, by operator new,
// malloc(), realloc() or a library. Under the address and thread sanitizers their hooks count.
//
//   const std::size_t before = sim::allocations();
//   ...
//   EXPECT_EQ(sim::allocations() - before, 0u);
#pragma once

#include <cstddef>

namespace nvmf::sim {

/// Allocations by the calling thread.
[[nodiscard]] std::size_t allocations();
/// Allocations by all threads.
[[nodiscard]] std::size_t all_allocations();

}  // namespace nvmf::sim
