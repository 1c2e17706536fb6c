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
// Thread: the reactor's. Nothing is allocated per request, except what a hold's posts allocate.
#pragma once

#include <cstdint>
#include <memory>

#include "host/block_device.h"
#include "host/bounce.h"
#include "host/io_queue.h"
#include "host/namespace.h"
#include "host/queue_group.h"
#include "host/range_holds.h"

namespace nvmf::host {

class NamespaceDevice final : public BlockDevice, private HoldUser {
 public:
  /// `holds` is shared by the namespace's devices; `reactor` is this one's number there. To be
  /// destroyed before the group.
  NamespaceDevice(std::shared_ptr<const Namespace> ns, QueueGroup& group,
                  std::shared_ptr<RangeHolds> holds, std::size_t reactor);
  ~NamespaceDevice() override;

  [[nodiscard]] const BlockInfo& info() const override { return ns_->info; }
  void submit(BlockRequest& request) override;
  void abandon(BlockRequest& request) override;

  // For QueueGroup and IoQueue.
  /// Ends what waits for a hold or for memory. The group is shut and fails what waits for commands.
  void shut(int waiting_error);
  /// Issues one command of the first request that waits; false if there was no room for it.
  bool issue_part();
  /// Ends the first request that waits: now if none of its parts is in flight, else with them.
  void fail_front(int error);
  /// What a command's end means for its request: 0 or an errno. Logs what failed.
  int outcome(const IoCommand& command);
  /// A part of the request has ended with `error`.
  void part_done(BlockRequest& request, int error);
  NamespaceDevice* next_waiting = nullptr;  // QueueGroup's list

 private:
  /// 0, or why the request cannot be done as it is.
  [[nodiscard]] int check(const BlockRequest& request) const;
  void prepare_deallocate(BlockRequest& request);
  void enqueue(BlockRequest& request);
  void dequeue_front();
  [[nodiscard]] bool all_issued(const BlockRequest& request) const;
  /// All parts have ended: the next stage, or the end.
  void finish(BlockRequest& request);
  void end(BlockRequest& request);

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
  QueueGroup& group_;
  std::shared_ptr<RangeHolds> all_holds_;
  ReactorHolds& holds_;
  BounceSlots reads_;              // unaligned reads
  BounceSlots writes_;             // and what changes data; a slot of it is one of holds_
  BlockRequest* first_ = nullptr;  // not yet issued in full, in the order of submission
  BlockRequest* last_ = nullptr;
};

}  // namespace nvmf::host
