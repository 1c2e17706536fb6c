// A filter around any disk that delays operations, holds them back, and executes writes whose
// connection is gone: what delay and late of faults.h do to a disk. Without such a fault it hands
// every operation on as it is.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "controller/disk.h"
#include "transport/loop.h"

namespace nvmf::controller {

class Faults;

class FaultyDisk final : public Disk {
 public:
  struct Place {
    std::string subnqn;
    std::uint32_t nsid = 0;
    std::uint32_t block_bytes = 512;
  };

  FaultyDisk(transport::Loop& loop, Faults& faults, std::unique_ptr<Disk> inner, Place place);
  ~FaultyDisk() override;

  [[nodiscard]] std::uint64_t size_bytes() const override { return inner_->size_bytes(); }
  [[nodiscard]] bool read_only() const override { return inner_->read_only(); }
  [[nodiscard]] bool volatile_cache() const override { return inner_->volatile_cache(); }
  [[nodiscard]] std::uint32_t block_bytes_min() const override { return inner_->block_bytes_min(); }
  void submit(DiskOp& op) override;
  void extents(DiskExtents& query) override { inner_->extents(query); }
  void abandon(DiskOp& op, Abandoned why) override;
  void abandon_extents(DiskExtents& query) override { inner_->abandon_extents(query); }
  bool take_back(DiskOp& op) override;
  void power_loss() override;
  Result<void> resize(std::uint64_t size_bytes) override { return inner_->resize(size_bytes); }

  void formatted(std::uint32_t block_bytes) override { place_.block_bytes = block_bytes; }

  [[nodiscard]] const Place& place() const { return place_; }
  /// Ghosts that wait for their time.
  [[nodiscard]] std::size_t ghosts() const;
  /// No ghost is being executed on the disk below.
  [[nodiscard]] bool idle() const override;
  /// Ghosts that wait are forgotten; with `execute`, whatever else waits is executed and answered,
  /// otherwise it ends as ECANCELED, never inside this call.
  void release(bool execute);

 private:
  enum class State : std::uint8_t {
    waiting,    // ahead of its execution, by a timer
    held,       // ahead of its execution, as long as its connection lives
    executing,  // on the disk below
    answering,  // executed; its answer waits
    cancelled,  // will be completed, unexecuted
    ghost,      // without a caller, waiting for its time
    done,
  };
  struct Held;

  [[nodiscard]] Held* find(const DiskOp& op) const;
  void run(Held& held);
  static void on_executed(DiskOp& op);
  void executed(Held& held);
  void answer(Held& held);
  void expired(Held& held);
  void cancel(Held& held);
  void make_ghost(Held& held, Duration after);
  void bury();

  transport::Loop& loop_;
  Faults& faults_;
  std::unique_ptr<Disk> inner_;
  Place place_;
  std::vector<std::unique_ptr<Held>> held_;
};

}  // namespace nvmf::controller
