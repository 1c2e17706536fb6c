// A disk in memory whose requests can be made to wait: one device per loop, all of the same disk.
#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "host/block_device.h"
#include "transport/loop.h"

namespace nvmf::fuse::test {

struct MemoryDisk {
  explicit MemoryDisk(std::uint64_t size_bytes) : bytes(size_bytes) {}
  std::mutex mutex;
  std::vector<std::byte> bytes;
  std::atomic<bool> hang{false};  // requests wait for let_go()
  std::atomic<int> fail{0};       // the errno of everything
  std::atomic<int> hanging{0};
  std::atomic<int> flushes{0};
  std::atomic<int> fua{0};
  std::atomic<int> zeroed{0};
  std::atomic<int> no_hole{0};
  std::atomic<int> abandoned{0};
  std::uint64_t extent_bytes = 0;  // 0: nobody knows of any
  std::atomic<int> questions{0};
};

class MemoryDevice final : public host::BlockDevice {
 public:
  MemoryDevice(transport::Loop& loop, MemoryDisk& disk, std::uint32_t nsid)
      : loop_(loop), disk_(disk) {
    info_.name = "nvmf0n" + std::to_string(nsid);
    info_.nsid = nsid;
    info_.size_bytes = disk.bytes.size();
  }

  [[nodiscard]] const host::BlockInfo& info() const override { return info_; }
  /// On the loop's thread.
  host::BlockInfo& change() { return info_; }

  void submit(host::BlockRequest& r) override {
    if (disk_.hang) {
      ++disk_.hanging;
      hanging_.push_back(&r);
      return;
    }
    loop_.post([this, &r] { serve(r); });
  }
  /// Bytes that are zero are holes, in pieces of `extent_bytes`.
  bool extents(host::ExtentsRequest& r) override {
    if (disk_.extent_bytes == 0) return BlockDevice::extents(r);
    ++disk_.questions;
    if (disk_.hang) {
      asking_.push_back(&r);
      ++disk_.hanging;
      return false;
    }
    if (disk_.questions % 2 == 0) {  // sometimes at once, and sometimes not
      find(r);
      return true;
    }
    loop_.post([this, &r] {
      find(r);
      r.complete(r);
    });
    return false;
  }
  void abandon(host::BlockRequest& /*request*/) override { ++disk_.abandoned; }
  /// On the loop's thread.
  void let_go() {
    for (host::BlockRequest* r : std::exchange(hanging_, {})) {
      --disk_.hanging;
      serve(*r);
    }
    for (host::ExtentsRequest* r : std::exchange(asking_, {})) {
      --disk_.hanging;
      find(*r);
      r->complete(*r);
    }
  }

 private:
  void find(host::ExtentsRequest& r) {
    const std::scoped_lock lock(disk_.mutex);
    r.error = disk_.fail;
    r.count = 0;
    std::uint64_t at = r.offset_bytes;
    const std::uint64_t end = r.offset_bytes + r.length_bytes;
    while (at < end && r.count < r.extents.size()) {
      const std::uint64_t next = std::min(end, (at / disk_.extent_bytes + 1) * disk_.extent_bytes);
      const bool zeroes = std::all_of(disk_.bytes.begin() + static_cast<std::ptrdiff_t>(at),
                                      disk_.bytes.begin() + static_cast<std::ptrdiff_t>(next),
                                      [](std::byte b) { return b == std::byte{0}; });
      r.extents[r.count++] = {next - at, zeroes};
      at = next;
    }
  }
  void serve(host::BlockRequest& r) {
    r.error = disk_.fail;
    if (r.error == 0) apply(r);
    r.complete(r);
  }
  void apply(host::BlockRequest& r) {
    const std::scoped_lock lock(disk_.mutex);
    if (r.offset_bytes + r.length_bytes > info_.size_bytes) {
      r.error = EINVAL;
      return;
    }
    std::byte* at = disk_.bytes.data() + r.offset_bytes;
    if (r.fua) ++disk_.fua;
    switch (r.op) {
      case host::BlockOp::read:
        std::memcpy(r.data, at, r.length_bytes);
        break;
      case host::BlockOp::write:
        std::memcpy(at, r.data, r.length_bytes);
        break;
      case host::BlockOp::write_zeroes:
        std::memset(at, 0, r.length_bytes);
        ++disk_.zeroed;
        if (r.no_hole) ++disk_.no_hole;
        break;
      case host::BlockOp::flush:
        ++disk_.flushes;
        break;
      case host::BlockOp::deallocate:
        ADD_FAILURE() << "a file system never deallocates";
        break;
    }
  }

  transport::Loop& loop_;
  MemoryDisk& disk_;
  host::BlockInfo info_;
  std::vector<host::BlockRequest*> hanging_;
  std::vector<host::ExtentsRequest*> asking_;
};

}  // namespace nvmf::fuse::test
