// A file system with a namespace in memory on two real reactors, and the test as its kernel.
#pragma once

#include <fcntl.h>

#include <chrono>
#include <future>
#include <memory>
#include <thread>

#include "fake_kernel.h"
#include "frontends/fuse/file_system.h"
#include "io/reactor_pool.h"
#include "memory_device.h"

namespace nvmf::fuse::test {

using namespace std::chrono_literals;

constexpr std::uint64_t kDiskBytes = 4 << 20;
constexpr std::uint64_t kDisk1 = kFirstDiskInode | 1;

inline Bytes pattern(std::size_t n, unsigned seed) {
  Bytes b(n);
  for (std::size_t i = 0; i < n; ++i) b[i] = static_cast<std::byte>((i * 131 + seed * 7 + 1) >> 3);
  return b;
}

class FileSystemTest : public testing::Test {
 protected:
  ~FileSystemTest() override { end(); }

  void mount(std::uint32_t minor = 38, std::size_t reactors = 2) {
    kernel_ = std::make_unique<FakeKernel>(minor);
    pool_ = std::move(*io::ReactorPool::make(reactors));
    std::vector<transport::Loop*> loops;
    for (std::size_t i = 0; i < reactors; ++i) {
      loops.push_back(&pool_->at(i));
      devices_.push_back(std::make_unique<MemoryDevice>(*loops.back(), disk_, 1));
    }
    options_.mount.mount_point = kernel_->mount_point();
    options_.mount.source = "nvmf0";
    options_.on_unmounted = [this] { unmounted_.set_value(); };
    file_system_ = std::make_unique<FileSystem>(std::move(loops), std::move(options_));
    runner_ = std::thread([this] {
      EXPECT_TRUE(pool_->run().has_value());
      pool_->join();
    });
    on_control([this] {
      file_system_->attached(live());
      const auto mounted = file_system_->mount();
      EXPECT_TRUE(mounted.has_value()) << mounted.error().message;
    });
  }
  void end() {
    if (!file_system_) return;
    if (!stopping_.valid()) begin_stop();
    let_go();
    EXPECT_EQ(stopping_.wait_for(60s), std::future_status::ready);
    pool_->stop();
    runner_.join();
    file_system_.reset();
  }

  /// Runs it on the control loop, and waits until it has.
  void on_control(std::move_only_function<void()> what) { on_loop(0, std::move(what)); }
  void on_loop(std::size_t i, std::move_only_function<void()> what) {
    std::promise<void> done;
    pool_->at(i).post([&] {
      what();
      done.set_value();
    });
    done.get_future().wait();
  }
  void on_every_loop(const std::function<void(MemoryDevice&)>& what) {
    for (std::size_t i = 0; i < devices_.size(); ++i) {
      on_loop(i, [&] { what(*devices_[i]); });
    }
  }
  void begin_stop() {
    auto done = std::make_shared<std::promise<void>>();
    stopping_ = done->get_future();
    on_control([this, done] { file_system_->stop([done] { done->set_value(); }); });
  }
  void let_go() {
    disk_.hang = false;
    on_every_loop([](MemoryDevice& device) { device.let_go(); });
  }
  bool hangs(int how_many) {
    for (int i = 0; i < 20'000 && disk_.hanging != how_many; ++i) std::this_thread::sleep_for(1ms);
    return disk_.hanging == how_many;
  }
  std::uint64_t send_seek(std::uint64_t offset, int whence) {
    fuse_lseek_in in{};
    in.offset = offset;
    in.whence = static_cast<std::uint32_t>(whence);
    return kernel_->send(FUSE_LSEEK, kDisk1, bytes_of(in));
  }
  Answer seek(std::uint64_t offset, int whence) {
    return kernel_->wait(send_seek(offset, whence)).value_or(Answer{.error = ETIMEDOUT});
  }
  /// The namespace as the host tells of it.
  frontends::Disk live(frontends::DiskState state = frontends::DiskState::live) {
    frontends::Disk disk{.info = devices_.front()->info(), .state = state};
    for (const auto& device : devices_) disk.devices.push_back(device.get());
    return disk;
  }
  /// What was handed to the control loop before has reached every reactor.
  void settle() {
    on_control([] {});
    for (std::size_t i = 0; i < devices_.size(); ++i) on_loop(i, [] {});
  }

  MemoryDisk disk_{kDiskBytes};
  FileSystemOptions options_;
  std::unique_ptr<FakeKernel> kernel_;
  std::unique_ptr<io::ReactorPool> pool_;
  std::vector<std::unique_ptr<MemoryDevice>> devices_;
  std::unique_ptr<FileSystem> file_system_;
  std::thread runner_;
  std::future<void> stopping_;
  std::promise<void> unmounted_;
};

}  // namespace nvmf::fuse::test
