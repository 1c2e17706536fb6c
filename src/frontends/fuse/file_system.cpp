#include "frontends/fuse/file_system.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "frontends/fuse/limits.h"
#include "frontends/fuse/worker.h"
#include "nvme/check.h"

namespace nvmf::fuse {

FileSystem::FileSystem(std::vector<transport::Loop*> loops, FileSystemOptions options)
    : loops_(std::move(loops)),
      options_(std::move(options)),
      texts_(*loops_.front(), std::move(options_.texts)) {
  served_.owner = {.uid = ::getuid(),
                   .gid = ::getgid(),
                   .read_only = options_.mount.read_only,
                   .mounted_ns = wall_clock_ns()};
  served_.texts = &texts_;
  NVMF_CHECK(options_.buffer_bytes >= kReactorBufferBytesMin);
  const std::size_t served_by =
      std::min(kReactorsMax, options_.buffer_bytes / kReactorBufferBytesMin);
  if (loops_.size() > served_by) loops_.resize(served_by);
}

FileSystem::~FileSystem() {
  NVMF_CHECK(loud_ == 0 && busy_ == 0);
}

Result<void> FileSystem::mount() {
  NVMF_CHECK(!session_ && !stopping_);
  auto session = Session::open(options_.mount, served_);
  if (!session) return std::unexpected(session.error());
  session_ = std::move(*session);
  transport::Loop& control = *loops_.front();
  const SlotCounts slots = slot_counts(loops_.size(), options_.buffer_bytes);
  for (std::size_t i = 0; i < loops_.size(); ++i) {
    workers_.push_back(std::make_unique<Worker>(
        *loops_[i], i, slots,
        Worker::Events{.unmounted = [&control, this] { control.post([this] { unmounted(); }); },
                       .quiet = [&control, this] { control.post([this] { worker_quiet(); }); },
                       .idle = [&control, this] { control.post([this] { worker_idle(); }); }},
        options_.discard));
  }
  loud_ = busy_ = workers_.size();
  publish();  // before they begin
  for (const auto& worker : workers_) {
    worker->loop().post([&w = *worker, &s = *session_] { w.begin(s); });
  }
  return {};
}

// Namespaces.

void FileSystem::attached(const frontends::Disk& disk) {
  set(disk, true);
}

void FileSystem::changed(const frontends::Disk& disk) {
  const auto known = disks_.find(disk.info.nsid);
  set(disk, known == disks_.end() || known->second->attached);
}

void FileSystem::set(const frontends::Disk& disk, bool attached) {
  NVMF_CHECK(disk.devices.size() >= loops_.size());
  const std::uint32_t nsid = disk.info.nsid;
  const auto known = disks_.find(nsid);
  auto file = std::make_shared<DiskFile>();
  file->nsid = nsid;
  file->name = disk.info.name;
  file->devices = disk.devices;
  file->state = disk.state;
  file->attached = attached;
  if (known != disks_.end()) {
    file->times = known->second->times;
  } else {
    file->times = std::make_shared<FileTimes>();
    file->times->changed_ns = served_.owner.mounted_ns;
  }
  const Inode inode = file->inode();
  disks_.insert_or_assign(nsid, std::move(file));
  publish_soon();
  const auto [size, is_new] = sizes_.try_emplace(nsid, disk.info.size_bytes);
  if (!is_new && std::exchange(size->second, disk.info.size_bytes) != disk.info.size_bytes &&
      session_ && !stopping_ && !unmounted_) {
    session_->attributes_changed(inode);
  }
}

void FileSystem::detached(std::uint32_t nsid) {
  const auto known = disks_.find(nsid);
  if (known == disks_.end()) return;
  auto file = std::make_shared<DiskFile>(*known->second);
  file->attached = false;
  known->second = std::move(file);
  publish_soon();
}

/// However many change in one turn: each reactor is told once.
void FileSystem::publish_soon() {
  if (workers_.empty() || stopping_ || std::exchange(publishing_, true)) return;
  loops_.front()->post([this] {
    publishing_ = false;
    publish();
  });
}

void FileSystem::publish() {
  if (stopping_) return;
  const auto tree = std::make_shared<const Tree>(disks_);
  for (const auto& worker : workers_) {
    worker->loop().post([&w = *worker, tree] { w.set_tree(tree); });
  }
}

// The end.

void FileSystem::unmounted() {
  if (std::exchange(unmounted_, true) || stopping_) return;
  if (options_.on_unmounted) options_.on_unmounted();
}

void FileSystem::hurry() {
  for (const auto& worker : workers_) {
    worker->loop().post([&w = *worker] { w.hurry(); });
  }
}

void FileSystem::stop(std::move_only_function<void()> on_stopped) {
  NVMF_CHECK(!stopping_);
  stopping_ = true;
  on_stopped_ = std::move(on_stopped);
  if (workers_.empty()) {
    loops_.front()->post([this] { std::exchange(on_stopped_, nullptr)(); });
    return;
  }
  for (const auto& worker : workers_) {
    worker->loop().post([&w = *worker, grace = options_.grace] { w.stop(grace); });
  }
}

void FileSystem::worker_quiet() {
  if (--loud_ == 0) session_->close();
}

void FileSystem::worker_idle() {
  if (--busy_ > 0) return;
  // Each was quiet before it was idle.
  if (auto done = std::exchange(on_stopped_, nullptr)) done();  // may destroy this
}

}  // namespace nvmf::fuse
