// A namespace on one reactor: requests in, commands out.
//
// A request is split by the namespace's CommandLimits into parts, each one command. Parts of a
// request, and requests, are unordered among each other. A flush is one Flush command of its own,
// submitted after the request came.
//
// Requests that change data are admitted by the namespace's RangeHolds first, and wait there while
// somebody holds their range. Those that are not whole blocks hold their range, rounded out, read
// the blocks at its ends, change them, and write; see bounce.h for the memory. Reads that are not
// whole blocks need such memory too, but hold nothing.
//
// Loss. A part that was lost with its queue is done again, with the whole request, when there is a
// queue again. If it changes data and was sent, its range is fenced first, and the request waits
// until the fence is lifted (settle_losses()); the fence stays also when the request ends
// otherwise. What the controller refused may be tried again, too (retry_rules.h). Whatever waits
// fails with EIO when set_failing() says so, or when it has waited for longer than the group's
// patience.
//
// Thread: the reactor's. Nothing is allocated per request, except what a hold's posts allocate.
#pragma once

#include <cstdint>
#include <memory>

#include "host/block_device.h"
#include "host/bounce.h"
#include "host/extents.h"
#include "host/health.h"
#include "host/io_queue.h"
#include "host/loss_fences.h"
#include "host/namespace.h"
#include "host/passthrough_request.h"
#include "host/policy.h"
#include "host/queue_group.h"
#include "host/range_holds.h"
#include "host/replay_log.h"
#include "host/unflushed.h"

namespace nvmf::host {

/// What the end of a part means for its request.
struct PartOutcome {
  int error = 0;                // final: an errno
  bool again = false;           // to be done again, `pause` from now at the earliest
  bool maybe_executed = false;  // it changes data, was sent, and never answered
  Duration pause{};
};

/// What the devices of a namespace have in common beside their holds.
struct NamespaceShared {
  explicit NamespaceShared(Unflushed mode) : unflushed(mode) {}
  SafetyRules rules;
  std::size_t replay_bytes = 0;      // Unflushed::replay: of each device
  ExtentsSource* extents = nullptr;  // nullptr: all of it is data
  UnflushedWrites unflushed;
};

class NamespaceDevice final : public BlockDevice, private HoldUser {
 public:
  /// `holds` is shared by the namespace's devices; `reactor` is this one's number there. To be
  /// destroyed before the group.
  NamespaceDevice(std::shared_ptr<const Namespace> ns, QueueGroup& group,
                  std::shared_ptr<RangeHolds> holds, std::size_t reactor,
                  std::shared_ptr<NamespaceShared> shared = nullptr);
  ~NamespaceDevice() override;

  [[nodiscard]] const BlockInfo& info() const override { return info_; }
  void submit(BlockRequest& request) override;
  void abandon(BlockRequest& request) override;
  bool extents(ExtentsRequest& request) override;

  // Passthrough: namespace_passthrough.cpp.
  /// A tool's command, in its turn among the requests: its fields, `offset_bytes`, `length_bytes`
  /// and `complete` are set. If it changes data it is admitted by the holds as a write of that
  /// range is, and its range stays fenced when it is lost; but it is never done again. `complete`
  /// follows once, also inside cancel(): `delivery` and `cqe` say how it ended if `error` is 0 or
  /// it was issued; otherwise nothing of it was sent.
  void submit_passthrough(PassthroughRequest& request);
  /// Asks for the whole namespace: `granted` follows when no request that changes data is left on
  /// any reactor, and none goes from then on until release_barrier(). Or `complete`, if it comes to
  /// nothing (`error`).
  void submit_barrier(BarrierRequest& request);
  /// It was granted. With `maybe_executed`: something that was lost may still change any block; the
  /// namespace stays fenced until settle_losses() says that it cannot. `complete` is called.
  void release_barrier(BarrierRequest& request, bool maybe_executed);
  /// Ends one of these, or a flush, that waits, with `error`, and calls `complete`; false if it
  /// does not wait any more: it was issued, granted, or is about to be completed.
  bool cancel(BlockRequest& request, int error);
  /// Until as many calls with `on` false: nothing is issued.
  void quiesce(bool on);
  /// Parts that are issued and not answered.
  [[nodiscard]] std::uint32_t in_flight() const { return in_flight_; }

  // For QueueGroup and IoQueue.
  /// Ends what waits for a hold or for memory. The group is shut and fails what waits for commands.
  void shut(int waiting_error);
  /// Issues one command of the first request that waits; false if there was no room for it.
  bool issue_part();
  /// Ends the first request that waits: now if none of its parts is in flight, else with them.
  void fail_front(int error);
  /// What a command's end means for its request: 0 or an errno. Logs what failed.
  PartOutcome outcome(const IoCommand& command);
  /// A part of the request has ended.
  void part_done(BlockRequest& request, const PartOutcome& outcome);
  /// The group's patience has changed.
  void check_patience();

  // Loss, for the owner of the subsystem.
  /// Requests wait although there may be queues, until resume(): it is not known to be the same
  /// disk. At first a device is not paused.
  void pause() { hold_back(true, quiesced_); }
  /// It is the same disk, as it is now.
  /// With `go` false its requests wait all the same, until go_on().
  void resume(std::shared_ptr<const Namespace> ns, bool go = true);
  void go_on() { hold_back(false, quiesced_); }
  /// Other than 0: what waits and what comes fails with it. 0: no longer.
  void set_failing(int error);
  /// The association in which the latest requests were lost has ended; from `lifts_at` on nothing
  /// of them can be executed any more (Instant::max(): never known).
  void settle_losses(Instant lifts_at);
  /// No change of data anywhere before `lifts_at`: what another process may have left under way.
  void fence_all(Instant lifts_at);
  /// Copies of unflushed writes; nullptr unless Unflushed::replay.
  [[nodiscard]] const ReplayLog* replay_log() const { return replay_log_.get(); }
  /// Appends this reactor's fences, and adds what waits here.
  void describe(NamespaceHealth& health) const;
  NamespaceDevice* next_waiting = nullptr;  // QueueGroup's list

 private:
  /// 0, or why the request cannot be done as it is.
  [[nodiscard]] int check(const BlockRequest& request) const;
  void begin(BlockRequest& request) const;
  /// Why no request is taken: an errno.
  [[nodiscard]] int closed_error() const;
  /// The end of a passthrough command.
  PartOutcome passed(const IoCommand& command);
  void prepare_deallocate(BlockRequest& request);
  /// What a deallocate leaves out at its start, as issued_bytes counts.
  [[nodiscard]] std::uint64_t first_whole_bytes(const BlockRequest& request) const;
  void enqueue(BlockRequest& request);
  void dequeue_front();
  [[nodiscard]] bool all_issued(const BlockRequest& request) const;
  /// All parts have ended: the next stage, or the end.
  void finish(BlockRequest& request);
  void end(BlockRequest& request);
  /// What a request that ended well means for unflushed writes; maybe EIO instead.
  void settle_flush(BlockRequest& request);
  /// It ended well so far, and has to be flushed because no copy of it can be kept.
  [[nodiscard]] bool flush_instead_of_copy(const BlockRequest& request);

  // Loss: namespace_loss.cpp.
  PartOutcome lost(const IoCommand& command);
  /// Why nothing goes on: an errno; 0 if it does.
  [[nodiscard]] int stop_error() const;
  /// All parts have ended and some have to be done again: puts it where it waits for that.
  void park(BlockRequest& request);
  void unpark(BlockRequest& request);
  /// From the start of its stage.
  void restart(BlockRequest& request);
  void fence_lost(BlockRequest& request);
  /// The first request changes data where something that was lost may still be executed: it waits.
  bool postponed();
  [[nodiscard]] bool waits_for_loss(const BlockRequest& request) const;
  [[nodiscard]] Duration patience_for(const BlockRequest& request, Duration patience) const;
  void lift_due();
  void lifted(std::uint8_t number, std::uint32_t times);
  void arm_lift();
  void retry_due();
  /// It begins to wait for something else than a queue.
  void begin_wait(BlockRequest& request);
  void arm_patience();
  /// Takes one that waits, and for which `pick` holds, out of where it waits; nullptr if none.
  template <class Pick>
  BlockRequest* take_waiting(Pick pick);
  /// This one, if it waits.
  bool take_out(BlockRequest& request);
  template <class Each>
  void for_each_waiting(Each each) const;
  void fail_waiting(int error);
  void expire();
  [[nodiscard]] bool held_back() const { return paused_ || quiesced_ != 0; }
  void hold_back(bool paused, std::uint32_t quiesced);

  // Requests that are not whole blocks.
  [[nodiscard]] bool unaligned(const BlockRequest& request) const;
  [[nodiscard]] BlockCover cover(const BlockRequest& request) const;
  [[nodiscard]] BounceSlots& slots_for(const BlockRequest& request);
  void submit_unaligned(BlockRequest& request);
  void begin_unaligned(BlockRequest& request);
  void release_slot(BlockRequest& request);
  /// The ends of its range have been read: puts its own bytes there.
  void merge(BlockRequest& request);
  void on_granted(std::size_t slot) override;
  void on_admitted(BlockRequest& request) override;

  /// Where the next bytes of a request come from or go to, and how many blocks there are in a row.
  struct Piece {
    std::byte* data = nullptr;
    std::uint64_t blocks = 0;
    bool bounced = false;
  };
  [[nodiscard]] Piece next_piece(const BlockRequest& request) const;

  /// Fill in `command` for what comes next in the request; return the bytes it covers.
  std::uint64_t build(IoCommand& command, BlockRequest& request) const;
  std::uint64_t build_read_ends(IoCommand& command, BlockRequest& request) const;
  std::uint64_t build_transfer(IoCommand& command, BlockRequest& request, bool write) const;
  std::uint64_t build_zeroes(IoCommand& command, BlockRequest& request) const;
  std::uint64_t build_deallocate(IoCommand& command, BlockRequest& request) const;

  [[nodiscard]] std::uint64_t blocks_left(const BlockRequest& request) const;
  [[nodiscard]] std::uint64_t next_lba(const BlockRequest& request) const;

  std::shared_ptr<const Namespace> ns_;
  BlockInfo info_;  // ours: frontends hold references to it
  std::shared_ptr<NamespaceShared> shared_;
  QueueGroup& group_;
  std::shared_ptr<RangeHolds> all_holds_;
  ReactorHolds& holds_;
  BounceSlots reads_;              // unaligned reads
  BounceSlots writes_;             // and what changes data; a slot of it is one of holds_
  BlockRequest* first_ = nullptr;  // not yet issued in full, in the order of submission
  BlockRequest* last_ = nullptr;
  BlockRequest* parked_ = nullptr;  // to be done again later; linked by `next`
  LossFences losses_;
  std::unique_ptr<ReplayLog> replay_log_;
  int failing_ = 0;
  bool paused_ = false;
  std::uint32_t quiesced_ = 0;
  std::uint32_t in_flight_ = 0;
  transport::Timer lift_timer_;
  transport::Timer retry_timer_;
  nvme::Status refusal_;  // the latest
  transport::Timer patience_timer_;
};

}  // namespace nvmf::host
