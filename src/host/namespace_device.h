// A namespace on one reactor: requests in, commands out.
//
// A request is split by the namespace's CommandLimits into parts, each one command. Parts of a
// request, and requests, are unordered among each other. A flush is one Flush command of its own,
// submitted after the request came.
//
// Thread: the reactor's. Nothing is allocated per request.
#pragma once

#include <cstdint>
#include <memory>

#include "host/block_device.h"
#include "host/io_queue.h"
#include "host/namespace.h"
#include "host/queue_group.h"

namespace nvmf::host {

class NamespaceDevice final : public BlockDevice {
 public:
  NamespaceDevice(std::shared_ptr<const Namespace> ns, QueueGroup& group);
  ~NamespaceDevice() override;

  [[nodiscard]] const BlockInfo& info() const override { return ns_->info; }
  void submit(BlockRequest& request) override;

  // For QueueGroup and IoQueue.
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
  void finish(BlockRequest& request);

  /// Fill in `command` for what comes next in the request; return the bytes it covers.
  std::uint64_t build(IoCommand& command, BlockRequest& request) const;
  std::uint64_t build_transfer(IoCommand& command, BlockRequest& request) const;
  std::uint64_t build_zeroes(IoCommand& command, BlockRequest& request) const;
  std::uint64_t build_deallocate(IoCommand& command, BlockRequest& request) const;

  [[nodiscard]] std::uint64_t blocks_left(const BlockRequest& request) const;
  [[nodiscard]] std::uint64_t next_lba(const BlockRequest& request) const;

  std::shared_ptr<const Namespace> ns_;
  QueueGroup& group_;
  BlockRequest* first_ = nullptr;  // not yet issued in full, in the order of submission
  BlockRequest* last_ = nullptr;
};

}  // namespace nvmf::host
