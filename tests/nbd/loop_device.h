// A BlockDevice that lives on a loop: several of them, one per loop, are the same disk.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "host/block_device.h"
#include "transport/loop.h"

namespace nvmf::nbd::test {

/// What the devices of one disk share.
struct Disk {
  explicit Disk(std::uint64_t size_bytes) : bytes(size_bytes) {}
  std::mutex mutex;
  std::vector<std::byte> bytes;
  std::atomic<bool> hang{false};  // requests wait for let_go()
  std::atomic<int> fail{0};       // the errno of everything
  std::atomic<std::uint64_t> flushes{0};
  std::atomic<std::uint64_t> fua{0};
  std::atomic<std::uint64_t> trims{0};
};

/// Completes everything in a later turn of its loop.
class LoopDevice final : public host::BlockDevice {
 public:
  LoopDevice(transport::Loop& loop, std::shared_ptr<Disk> disk, std::uint32_t block_bytes = 512)
      : loop_(loop), disk_(std::move(disk)) {
    info_.name = "nvmf0n1";
    info_.description = "a disk on a loop";
    info_.nsid = 1;
    info_.size_bytes = disk_->bytes.size();
    info_.block_bytes = block_bytes;
    info_.write_zeroes = info_.deallocate = true;
  }

  [[nodiscard]] const host::BlockInfo& info() const override { return info_; }
  host::BlockInfo& change() { return info_; }

  void submit(host::BlockRequest& r) override {
    if (disk_->hang) {
      hanging_.push_back(&r);
      return;
    }
    loop_.post([this, &r] { serve(r); });
  }
  /// Serves what hangs. On the loop's thread.
  void let_go() {
    for (host::BlockRequest* r : std::exchange(hanging_, {})) serve(*r);
  }
  [[nodiscard]] std::size_t hanging() const { return hanging_.size(); }

 private:
  void serve(host::BlockRequest& r) {
    r.error = disk_->fail;
    if (r.error == 0) apply(r);
    r.complete(r);
  }
  void apply(host::BlockRequest& r) {
    const std::lock_guard lock(disk_->mutex);
    std::byte* at = disk_->bytes.data() + r.offset_bytes;
    if (r.fua) ++disk_->fua;
    switch (r.op) {
      case host::BlockOp::read:
        std::memcpy(r.data, at, r.length_bytes);
        break;
      case host::BlockOp::write:
        std::memcpy(at, r.data, r.length_bytes);
        break;
      case host::BlockOp::write_zeroes:
        std::memset(at, 0, r.length_bytes);
        break;
      case host::BlockOp::flush:
        ++disk_->flushes;
        break;
      case host::BlockOp::deallocate:
        ++disk_->trims;
        break;
    }
  }

  transport::Loop& loop_;
  std::shared_ptr<Disk> disk_;
  host::BlockInfo info_;
  std::vector<host::BlockRequest*> hanging_;
};

}  // namespace nvmf::nbd::test
