// Devices of one namespace on several reactors that share blocks: no update is lost, nobody waits
// for ever, and whatever waits is answered once. The mutant, in which reactors do not hear of each
// other's holds, loses updates: so the checks here can see one.

#include <gmock/gmock.h>

#include <algorithm>

#include "host/reactors_fixture.h"
#include "sim/byte_user.h"

namespace nvmf::test {
namespace {

using host::BlockOp;
using nvme::NvmOpcode;

constexpr std::uint64_t kBlock = 4096;

std::vector<std::byte> filled(std::size_t n, int with) {
  return std::vector<std::byte>(n, static_cast<std::byte>(with));
}

class HeldRanges : public ReactorsTest {
 protected:
  HeldRanges() { target.add_namespace(1, 1024, 12); }

  Request& submit(std::size_t reactor, BlockOp op, std::uint64_t offset,
                  std::vector<std::byte>& data) {
    Request& r = *requests.emplace_back(std::make_unique<Request>());
    r.op = op;
    r.offset_bytes = offset;
    r.length_bytes = data.size();
    r.data = data.data();
    device(reactor).submit(r);
    return r;
  }
  Request& write(std::size_t reactor, std::uint64_t offset, std::vector<std::byte>& data) {
    return submit(reactor, BlockOp::write, offset, data);
  }
  /// Whether the disk has `data` there.
  bool has(std::uint64_t offset, const std::vector<std::byte>& data) {
    return std::equal(data.begin(), data.end(),
                      disk().begin() + static_cast<std::ptrdiff_t>(offset));
  }
  void all_answered_once(int error) {
    for (const auto& r : requests) {
      EXPECT_EQ(r->completions, 1);
      EXPECT_EQ(r->error, error);
    }
  }

  /// The read of a read-modify-write on reactor 0 has been executed and its answer is on the way
  /// when reactor 1 writes the whole block.
  bool aligned_write_survives(Holds how) {
    connect(2, how);
    set_latency(0, milliseconds(10));
    std::vector<std::byte> piece = filled(100, 1);
    std::vector<std::byte> whole = filled(kBlock, 2);
    Request& modify = write(0, 1000, piece);
    loop.run_for(milliseconds(15));
    EXPECT_EQ(target.io_commands(NvmOpcode::read).size(), 1u);
    EXPECT_FALSE(modify.done());
    Request& other = write(1, 0, whole);
    loop.run_for(seconds(1));
    EXPECT_TRUE(modify.done() && other.done());
    // It was submitted and answered; at most the 100 bytes may be another's.
    std::copy_n(disk().begin() + 1000, 100, whole.begin() + 1000);
    return has(0, whole);
  }

  /// Two pieces of one block, written on two reactors at the same time.
  bool both_pieces_survive(Holds how) {
    connect(2, how);
    set_latency(0, milliseconds(10));
    set_latency(1, milliseconds(7));
    std::vector<std::byte> a = filled(100, 1);
    std::vector<std::byte> b = filled(100, 2);
    write(0, 0, a);
    write(1, 100, b);
    loop.run_for(seconds(1));
    all_answered_once(0);
    return has(0, a) && has(100, b);
  }

  /// Pieces of odd sizes, dealt out to four reactors, several in flight on each: none shares a byte
  /// with another, all share blocks. True if the disk is as it must be then.
  bool dealt_out_pieces_survive(Holds how, std::uint64_t seed);

  std::vector<std::unique_ptr<Request>> requests;
};

TEST_F(HeldRanges, AlignedWriteInTheMiddleOfAReadModifyWriteIsNotLost) {
  EXPECT_TRUE(aligned_write_survives(Holds::shared));
}
TEST_F(HeldRanges, WithoutTheHoldTheAlignedWriteIsLost) {
  EXPECT_FALSE(aligned_write_survives(Holds::per_device));
}
TEST_F(HeldRanges, TwoReadModifyWritesOfOneBlockBothCount) {
  EXPECT_TRUE(both_pieces_survive(Holds::shared));
}
TEST_F(HeldRanges, WithoutTheHoldOneOfTwoReadModifyWritesIsLost) {
  EXPECT_FALSE(both_pieces_survive(Holds::per_device));
}

TEST_F(HeldRanges, ReadModifyWritesOfOneReactorAreAloneToo) {
  connect(1);
  set_latency(0, milliseconds(1));
  std::vector<std::vector<std::byte>> pieces;
  for (int i = 0; i < 40; ++i) pieces.push_back(filled(100, i + 1));
  for (std::size_t i = 0; i < pieces.size(); ++i) write(0, i * 100, pieces[i]);
  loop.run_for(seconds(1));
  all_answered_once(0);
  for (std::size_t i = 0; i < pieces.size(); ++i) EXPECT_TRUE(has(i * 100, pieces[i])) << i;
}

bool HeldRanges::dealt_out_pieces_survive(Holds how, std::uint64_t seed) {
  constexpr std::size_t kReactors = 4;
  constexpr std::size_t kDepth = 6;
  constexpr std::uint64_t kBytes = 64 * kBlock;
  connect(kReactors, how, std::chrono::microseconds(200));
  for (std::size_t i = 0; i < kReactors; ++i) {
    set_latency(i, std::chrono::microseconds(20 + 150 * i));
  }
  std::mt19937_64 random(seed);
  const std::vector<std::byte> wanted = sim::pattern(kBytes, seed);
  struct Piece {
    std::uint64_t offset, length;
  };
  std::vector<std::vector<Piece>> of_reactor(kReactors);
  for (std::uint64_t at = 0; at < kBytes;) {
    // Mostly less than a block; now and then whole ones, and several with an end.
    std::uint64_t length = 1 + random() % 900;
    if (random() % 8 == 0) length += kBlock * (random() % 3);
    if (at % kBlock == 0 && random() % 2 == 0) length = kBlock;
    length = std::min(length, kBytes - at);
    of_reactor[random() % kReactors].push_back({at, length});
    at += length;
  }
  std::vector<std::byte> source = wanted;
  struct Worker {
    std::vector<Piece> pieces;
    std::size_t next = 0;
    std::vector<std::unique_ptr<Request>> slots;
  };
  std::vector<Worker> workers(kReactors);
  const auto give = [&](std::size_t reactor, Request& r) {
    Worker& w = workers[reactor];
    if (w.next == w.pieces.size()) return false;
    const Piece p = w.pieces[w.next++];
    r.op = BlockOp::write;
    r.completions = 0;
    r.offset_bytes = p.offset;
    r.length_bytes = p.length;
    r.data = source.data() + p.offset;
    device(reactor).submit(r);
    return true;
  };
  for (std::size_t i = 0; i < kReactors; ++i) {
    workers[i].pieces = of_reactor[i];
    std::ranges::shuffle(workers[i].pieces, random);
    for (std::size_t k = 0; k < kDepth; ++k) {
      give(i, *workers[i].slots.emplace_back(std::make_unique<Request>()));
    }
  }
  const auto all_done = [&] {
    bool done = true;
    for (std::size_t i = 0; i < kReactors; ++i) {
      for (const auto& r : workers[i].slots) {
        if (r->completions == 0) {
          done = false;
        } else {
          EXPECT_EQ(r->error, 0);
          done = !give(i, *r) && done;
        }
      }
    }
    return done;
  };
  EXPECT_TRUE(loop.run_until(all_done, seconds(60))) << "somebody waits for ever";
  loop.run_for(milliseconds(10));
  EXPECT_EQ(holds_in_force(), 0u);
  return std::equal(wanted.begin(), wanted.end(), disk().begin());
}

class HeldRangesSeeds : public HeldRanges, public testing::WithParamInterface<std::uint64_t> {};
TEST_P(HeldRangesSeeds, DealtOutPiecesAllSurvive) {
  EXPECT_TRUE(dealt_out_pieces_survive(Holds::shared, GetParam()));
}
TEST_P(HeldRangesSeeds, WithoutTheHoldSomeAreLost) {
  EXPECT_FALSE(dealt_out_pieces_survive(Holds::per_device, GetParam()));
}
INSTANTIATE_TEST_SUITE_P(Seeds, HeldRangesSeeds, testing::Range<std::uint64_t>(1, 7));

TEST_F(HeldRanges, OverlappingRangesAskedForAtOnceOnAllReactors) {
  connect(4, Holds::shared, milliseconds(3));
  std::vector<std::vector<std::byte>> data;
  for (int i = 0; i < 48; ++i) data.push_back(filled(3 * kBlock - 7, i + 1));
  // A circle of ranges, each overlapping the next ones.
  for (std::size_t i = 0; i < data.size(); ++i) write(i % 4, i * 5 % 48 * kBlock + 11, data[i]);
  loop.run_for(seconds(5));
  all_answered_once(0);
  EXPECT_EQ(holds_in_force(), 0u);
}

TEST_F(HeldRanges, WholeBlocksPostNothing) {
  connect(3);
  std::vector<std::byte> blocks = filled(5 * kBlock, 1);
  for (std::size_t i = 0; i < 30; ++i) {
    const BlockOp ops[] = {BlockOp::write, BlockOp::write_zeroes, BlockOp::deallocate};
    submit(i % 3, ops[i % 3], i * kBlock, blocks);
  }
  loop.run_for(seconds(1));
  all_answered_once(0);
  EXPECT_EQ(posts(), 0u);
}

TEST_F(HeldRanges, ReadsNeverWaitNorWhatIsBeside) {
  connect(2);
  set_latency(0, milliseconds(10));
  std::vector<std::byte> piece = filled(100, 1);
  std::vector<std::byte> block(kBlock);
  std::vector<std::byte> some(10);
  write(0, 1000, piece);
  loop.run_for(milliseconds(1));
  EXPECT_NE(holds_in_force(), 0u);
  Request& aligned = submit(1, BlockOp::read, 0, block);
  Request& unaligned = submit(1, BlockOp::read, 1, some);
  Request& beside = write(1, kBlock, block);
  loop.run_for(milliseconds(1));
  EXPECT_TRUE(aligned.done() && unaligned.done() && beside.done());
  loop.run_for(milliseconds(100));
  EXPECT_EQ(holds_in_force(), 0u);
}

TEST_F(HeldRanges, TrimAndZeroesWaitAsWritesDo) {
  connect(2);
  set_latency(0, milliseconds(10));
  std::vector<std::byte> piece = filled(100, 1);
  std::vector<std::byte> blocks(2 * kBlock);
  write(0, 1000, piece);
  loop.run_for(milliseconds(1));
  Request& trim = submit(1, BlockOp::deallocate, 0, blocks);
  Request& zeroes = submit(1, BlockOp::write_zeroes, 0, blocks);
  loop.run_for(milliseconds(20));
  EXPECT_FALSE(trim.done() || zeroes.done());
  loop.run_for(milliseconds(100));
  EXPECT_TRUE(trim.done() && zeroes.done());
  EXPECT_TRUE(has(0, blocks));
}

// ---- clients that went away ----

TEST_F(HeldRanges, LaterWritesWaitForAnAbandonedOne) {
  for (const bool abandoned : {false, true}) {
    connect(2);
    set_latency(0, milliseconds(10));
    std::vector<std::byte> old = filled(2 * kBlock, 1);
    std::vector<std::byte> fresh = filled(kBlock, 2);
    std::vector<std::byte> piece = filled(50, 3);
    Request& gone = write(0, 0, old);
    if (abandoned) device(0).abandon(gone);
    loop.run_for(milliseconds(1));
    Request& later = write(1, 0, fresh);
    Request& near = write(0, kBlock, fresh);  // on the same reactor
    Request& beside = write(1, 2 * kBlock, fresh);
    loop.run_for(milliseconds(5));
    EXPECT_TRUE(beside.done());
    // Without, the old one would land on the new one: that is what it is for.
    EXPECT_EQ(later.done(), !abandoned);
    loop.run_for(seconds(1));
    EXPECT_TRUE(gone.done() && later.done() && near.done());
    EXPECT_EQ(gone.error, 0);
    EXPECT_EQ(has(0, fresh), abandoned);
    EXPECT_TRUE(has(2 * kBlock, fresh));
    Request& modify = write(1, 10, piece);
    loop.run_for(seconds(1));
    EXPECT_TRUE(modify.done());
    EXPECT_EQ(holds_in_force(), 0u);
    disconnect();
  }
}

TEST_F(HeldRanges, AbandonedReadModifyWriteComesBeforeLaterWrites) {
  connect(2);
  set_latency(0, milliseconds(10));
  std::vector<std::byte> old = filled(100, 1);
  std::vector<std::byte> fresh = filled(kBlock, 2);
  Request& gone = write(0, 50, old);
  device(0).abandon(gone);
  loop.run_for(milliseconds(1));
  Request& later = write(1, 0, fresh);
  loop.run_for(seconds(1));
  EXPECT_TRUE(gone.done() && later.done());
  EXPECT_TRUE(has(0, fresh));
}

TEST_F(HeldRanges, AbandonedBeforeAnythingWasSentIsCancelled) {
  connect(2);
  set_latency(0, milliseconds(10));
  std::vector<std::byte> piece = filled(100, 1);
  std::vector<std::byte> old = filled(kBlock, 2);
  std::vector<std::byte> read(kBlock);
  write(0, 50, piece);
  loop.run_for(milliseconds(1));
  Request& waits = write(1, 0, old);
  std::vector<Request*> full;
  for (int i = 0; i < 40; ++i) full.push_back(&write(1, 50, piece));
  Request& reads = submit(0, BlockOp::read, 0, read);
  device(1).abandon(waits);
  device(1).abandon(*full.back());  // waits for memory
  device(0).abandon(reads);
  EXPECT_EQ(waits.completions + full.back()->completions, 0) << "completed inside abandon()";
  loop.run_for(milliseconds(1));
  EXPECT_TRUE(waits.done() && full.back()->done());
  EXPECT_EQ(waits.error, ECANCELED);
  EXPECT_EQ(full.back()->error, ECANCELED);
  loop.run_for(seconds(2));
  full.pop_back();
  for (const Request* r : full) EXPECT_TRUE(r->done() && r->error == 0);
  EXPECT_TRUE(reads.done() && reads.error == 0);
  EXPECT_FALSE(has(0, old));
  EXPECT_EQ(holds_in_force(), 0u);
}

TEST_F(HeldRanges, ManyAbandonedAtOnce) {
  params.queue_size = 128;
  connect(2);
  set_latency(0, milliseconds(10));
  std::vector<std::byte> old = filled(kBlock, 1);
  std::vector<std::byte> fresh = filled(kBlock, 2);
  std::vector<Request*> gone;
  for (std::uint64_t i = 0; i < 100; ++i) gone.push_back(&write(0, i * 3 * kBlock, old));
  for (Request* r : gone) device(0).abandon(*r);
  loop.run_for(milliseconds(1));
  for (std::uint64_t i = 0; i < 100; ++i) write(1, i * 3 * kBlock, fresh);
  loop.run_for(seconds(5));
  all_answered_once(0);
  for (std::uint64_t i = 0; i < 100; ++i) EXPECT_TRUE(has(i * 3 * kBlock, fresh)) << i;
  EXPECT_EQ(holds_in_force(), 0u);
}

// ---- the ends ----

/// Something of everything that can wait or be under way, at a moment `after` its submission.
class HeldRangesEnds : public HeldRanges, public testing::WithParamInterface<int> {
 protected:
  void submit_everything() {
    set_latency(0, milliseconds(10));
    set_latency(1, milliseconds(6));
    write(1, 20 * kBlock, whole_);  // in the way of the next
    loop.run_for(milliseconds(1));
    write(0, 20 * kBlock + 1, piece_);
    for (std::size_t reactor = 0; reactor < 2; ++reactor) {
      for (std::uint64_t i = 0; i < 40; ++i) {
        write(reactor, i % 5 * kBlock + 100 * reactor + 1, piece_);
        submit(reactor, BlockOp::read, i * kBlock + 3, back_);
      }
      submit(reactor, BlockOp::write_zeroes, 4 * kBlock + 7, whole_);
    }
    loop.run_for(milliseconds(1));
    for (std::size_t reactor = 0; reactor < 2; ++reactor) {
      for (std::uint64_t i = 0; i < 5; ++i) write(reactor, i * kBlock, whole_);
    }
    device(0).abandon(*requests.at(1));
    device(1).abandon(*requests.back());
    loop.run_for(milliseconds(GetParam()));
  }
  std::vector<std::byte> piece_ = filled(100, 1);
  std::vector<std::byte> whole_ = filled(kBlock, 2);
  std::vector<std::byte> back_ = filled(2000, 0);
};
INSTANTIATE_TEST_SUITE_P(AfterMilliseconds, HeldRangesEnds,
                         testing::Values(0, 3, 9, 12, 18, 21, 25, 29, 33, 39, 47, 61, 150, 900));

TEST_P(HeldRangesEnds, ShutAnswersEverythingOnce) {
  connect(2);
  submit_everything();
  std::vector<int> before;
  for (const auto& r : requests) before.push_back(r->completions);
  groups_[0]->shut(EIO, ESHUTDOWN);
  loop.run_for(milliseconds(GetParam() % 4));
  groups_[1]->shut(EIO, ESHUTDOWN);
  loop.run_for(seconds(1));
  for (std::size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(requests[i]->completions, 1) << i;
    if (before[i] == 0) {
      EXPECT_THAT(requests[i]->error, testing::AnyOf(0, EIO, ECANCELED)) << i;
    }
  }
  std::vector<std::byte> late = filled(10, 1);
  const Request& refused = write(0, 1, late);
  loop.run_for(milliseconds(1));
  EXPECT_EQ(refused.error, ESHUTDOWN);
}

TEST_P(HeldRangesEnds, LossAnswersEverythingOnce) {
  connect(2);
  submit_everything();
  for (const auto& link : loop.links()) link->cut();
  loop.run_for(milliseconds(GetParam() % 3));
  disconnect();
  for (const auto& r : requests) {
    EXPECT_EQ(r->completions, 1);
    EXPECT_THAT(r->error, testing::AnyOf(0, EIO, ECANCELED));
  }
}

// The write of a read-modify-write was sent and never answered: it may be executed at any time,
// with the other bytes of its block as they were. Nobody may change these over what is left of the
// association.
TEST_F(HeldRanges, NobodyGetsTheRangeOfAReadModifyWriteThatMayStillBeExecuted) {
  connect(2);
  set_latency(0, milliseconds(10));
  std::vector<std::byte> piece = filled(100, 1);
  std::vector<std::byte> whole = filled(kBlock, 2);
  Request& lost = write(0, 1000, piece);
  loop.run_for(milliseconds(22));  // its read was answered, its write is on the way
  Request& modify = write(1, 2000, piece);
  Request& plain = write(1, 0, whole);
  loop.run_for(milliseconds(1));
  loop.links().at(1)->cut();
  loop.run_for(seconds(1));
  EXPECT_FALSE(lost.done()) << "it is to be done again";
  device(0).set_failing(EIO);
  ASSERT_TRUE(lost.done());
  EXPECT_EQ(lost.error, EIO);
  EXPECT_FALSE(modify.done());
  EXPECT_FALSE(plain.done());
  Request& later = write(1, 3000, piece);
  loop.run_for(seconds(1));
  EXPECT_FALSE(later.done());
  // From then on nobody executes it any more.
  device(0).settle_losses(loop.now() + seconds(3));
  loop.run_for(milliseconds(2900));
  for (const Request* r : {&modify, &plain, &later}) EXPECT_FALSE(r->done());
  loop.run_for(milliseconds(200));
  for (const Request* r : {&modify, &plain, &later}) EXPECT_TRUE(r->done() && r->error == 0);
  disconnect();
}

TEST_F(HeldRanges, NobodyGetsTheRangeOfAWriteThatMayStillBeExecuted) {
  connect(2);
  set_latency(0, milliseconds(10));
  std::vector<std::byte> piece = filled(100, 1);
  std::vector<std::byte> whole = filled(kBlock, 2);
  Request& lost = write(0, 0, whole);
  loop.run_for(milliseconds(2));
  Request& modify = write(1, 2000, piece);
  loop.run_for(milliseconds(1));
  loop.links().at(1)->cut();
  loop.run_for(seconds(1));
  EXPECT_FALSE(lost.done()) << "it is to be done again";
  device(0).set_failing(EIO);
  ASSERT_TRUE(lost.done());
  EXPECT_EQ(lost.error, EIO);
  EXPECT_FALSE(modify.done());
  Request& again = write(1, 0, whole);
  loop.run_for(seconds(1));
  EXPECT_FALSE(again.done());
  disconnect();
  EXPECT_EQ(modify.error, EIO);
  EXPECT_EQ(again.error, EIO);
}

TEST_F(HeldRanges, ShutSaysTheErrnoOfWhatWaits) {
  connect(2);
  set_latency(0, milliseconds(10));
  std::vector<std::byte> piece = filled(100, 1);
  std::vector<std::byte> whole = filled(kBlock, 2);
  std::vector<std::byte> back(10);
  Request& writing = write(0, 0 * kBlock + 1, piece);
  loop.run_for(milliseconds(25));  // read, and sent again
  Request& reading = write(0, 1 * kBlock + 1, piece);
  loop.run_for(milliseconds(5));
  Request& waits_for_hold = write(0, 1 * kBlock + 1, piece);
  Request& admitted_later = write(1, 1 * kBlock, whole);
  std::vector<Request*> waits_for_memory;
  for (int i = 0; i < 40; ++i) {
    Request& r = write(0, 2 * kBlock + 1, piece);
    if (i >= 32) waits_for_memory.push_back(&r);
  }
  std::vector<Request*> reads;
  for (int i = 0; i < 20; ++i) reads.push_back(&submit(0, BlockOp::read, 1, back));
  for (const auto& group : groups_) group->shut(ENXIO, ESHUTDOWN);
  EXPECT_TRUE(waits_for_hold.done() && admitted_later.done());
  EXPECT_EQ(waits_for_hold.error, ENXIO);
  EXPECT_EQ(admitted_later.error, ENXIO);
  for (const Request* r : waits_for_memory) EXPECT_TRUE(r->done() && r->error == ENXIO);
  EXPECT_TRUE(reads.back()->done() && reads.back()->error == ENXIO);
  EXPECT_FALSE(writing.done() || reading.done() || reads.front()->done());
  loop.run_for(seconds(1));
  EXPECT_TRUE(writing.done() && reading.done());
  EXPECT_EQ(writing.error, 0);
  EXPECT_EQ(reading.error, ENXIO);
  EXPECT_EQ(reads.front()->error, 0);
  EXPECT_TRUE(has(1, piece));
  EXPECT_FALSE(has(kBlock + 1, piece));
}

/// The whole subsystem, told to stop while everything waits for everything.
TEST_F(HeldRanges, StopOfTheSubsystem) {
  for (const int after : {0, 5, 15, 25, 40, 200}) {
    outcome = {};
    subsystem.reset();
    requests.clear();
    ASSERT_TRUE(go_live(2));
    for (const auto& link : loop.links()) link->options.latency = milliseconds(10);
    std::vector<std::byte> piece = filled(100, 1);
    std::vector<std::byte> whole = filled(kBlock, 2);
    for (std::uint64_t i = 0; i < 100; ++i) {
      Request& r = *requests.emplace_back(std::make_unique<Request>());
      r.op = BlockOp::write;
      r.offset_bytes = i % 7 * kBlock + (i % 3 == 0 ? 0 : i);
      r.length_bytes = i % 3 == 0 ? kBlock : 100;
      r.data = i % 3 == 0 ? whole.data() : piece.data();
      subsystem->device(i % 2, 1)->submit(r);
    }
    loop.run_for(milliseconds(after));
    subsystem->stop();
    ASSERT_TRUE(loop.run_until([&] { return outcome.ended.has_value(); }, seconds(5)));
    for (const auto& r : requests) {
      EXPECT_EQ(r->completions, 1);
      EXPECT_THAT(r->error, testing::AnyOf(0, ESHUTDOWN));
    }
  }
}

}  // namespace
}  // namespace nvmf::test
