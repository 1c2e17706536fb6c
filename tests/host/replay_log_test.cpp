// The ring of copies: whatever is appended and dropped, entries keep their data and order.
#include "host/replay_log.h"

#include <gtest/gtest.h>

#include <deque>
#include <random>
#include <vector>

namespace nvmf::test {
namespace {

TEST(ReplayLog, KeepsEveryCopyUntilItIsDropped) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    std::mt19937_64 random(seed);
    host::ReplayLog log(8192);
    struct Known {
      std::uint64_t mark;
      std::vector<std::byte> bytes;
    };
    std::deque<Known> known;
    std::uint64_t mark = 0;
    std::size_t appended = 0;
    for (int step = 0; step < 2000; ++step) {
      if (random() % 4 == 0 && !known.empty()) {
        const std::uint64_t to = known[random() % known.size()].mark;
        log.drop(to);
        while (!known.empty() && known.front().mark <= to) known.pop_front();
      } else {
        host::BlockRequest r;
        const bool zeroes = random() % 8 == 0;
        r.op = zeroes ? host::BlockOp::write_zeroes : host::BlockOp::write;
        std::vector<std::byte> bytes(zeroes ? 0 : 1 + random() % 3000,
                                     static_cast<std::byte>(random()));
        r.data = bytes.data();
        r.length_bytes = zeroes ? 512 : bytes.size();
        r.offset_bytes = ++mark;
        if (!log.has_room(bytes.size())) continue;
        log.append(mark, r);
        known.push_back({mark, bytes});
        ++appended;
      }
      ASSERT_EQ(log.size(), known.size());
      for (std::size_t i = 0; i < known.size(); ++i) {
        const auto& e = log.at(i);
        ASSERT_EQ(e.mark, known[i].mark);
        ASSERT_EQ(e.offset_bytes, known[i].mark);
        if (known[i].bytes.empty()) continue;
        ASSERT_TRUE(std::equal(known[i].bytes.begin(), known[i].bytes.end(), e.data));
      }
    }
    EXPECT_GT(appended, 500u);
  }
}

TEST(ReplayLog, WhatIsLargerThanItNeverFits) {
  const host::ReplayLog log(1024);
  EXPECT_TRUE(log.has_room(1024));
  EXPECT_FALSE(log.has_room(1025));
}

}  // namespace
}  // namespace nvmf::test
