// The FUSE face of a connection: a directory with one file per namespace, for every program that
// can read and write a file.
//
// How it is driven. libfuse knows the kernel's messages; its loops and threads are not used. There
// is one file descriptor for the mount, and each of the first kReactorsMax reactors (fewer where
// memory is short) watches it and takes what it finds: a request is read, handed to that reactor's
// BlockDevice and answered on one thread, whoever else reads meanwhile. (Descriptors of one's own
// for each reactor, by FUSE_DEV_IOC_CLONE, cannot be answered through libfuse's public interface.)
//
// What the kernel keeps. Nothing: data goes by direct I/O, so that what one host writes another
// reads, and names and attributes are asked for each time, so that a namespace that comes, goes or
// changes its size is seen at once without telling the kernel. Only that an attribute changed is
// told, which cannot block; anything more could wait for a lock of a request that waits for us.
//
// Threads. Everything here belongs to the control loop (loops[0]).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "frontends/frontend.h"
#include "frontends/fuse/handlers.h"
#include "frontends/fuse/limits.h"
#include "frontends/fuse/session.h"
#include "frontends/fuse/slots.h"
#include "frontends/fuse/text_files.h"
#include "frontends/fuse/tree.h"
#include "nvme/result.h"
#include "transport/loop.h"

namespace nvmf::fuse {

class Worker;

struct FileSystemOptions {
  MountOptions mount;
  /// In .nvmf/, which there is not if there are none.
  std::vector<TextFile> texts;
  /// At stop(): how long requests under way may take before they are answered with EIO.
  Duration grace{std::chrono::seconds(2)};
  /// For the data of requests under way, all reactors together: at least kReactorBufferBytesMin.
  std::size_t buffer_bytes = kBufferBytesMax;
  /// Gets memory that has not been used for a while; without it, what was used once stays ours.
  DiscardPages discard = nullptr;
  /// Somebody has unmounted it. Not after stop().
  std::function<void()> on_unmounted;
};

class FileSystem final : public frontends::Frontend {
 public:
  /// Loops outlive it. Namespaces may be attached before it is mounted.
  FileSystem(std::vector<transport::Loop*> loops, FileSystemOptions options);
  /// Only when it was never mounted, or after on_stopped.
  ~FileSystem() override;

  /// Once. Takes some milliseconds where fusermount3 has to help. Whoever looks into the directory
  /// from then on finds the namespaces that were attached before.
  Result<void> mount();

  // frontends::Frontend
  void attached(const frontends::Disk& disk) override;
  void detached(std::uint32_t nsid) override;
  void changed(const frontends::Disk& disk) override;
  /// Unmounts, also while files are open.
  void stop(std::move_only_function<void()> on_stopped) override;
  void hurry() override;

 private:
  void set(const frontends::Disk& disk, bool attached);
  void publish_soon();
  void publish();
  void unmounted();
  void worker_quiet();
  void worker_idle();

  std::vector<transport::Loop*> loops_;
  FileSystemOptions options_;
  TextFiles texts_;
  Served served_;
  std::map<std::uint32_t, std::shared_ptr<const DiskFile>> disks_;
  std::map<std::uint32_t, std::uint64_t> sizes_;  // as last told
  std::vector<std::unique_ptr<Worker>> workers_;
  std::unique_ptr<Session> session_;
  bool publishing_ = false;  // publish() is posted
  bool unmounted_ = false;
  bool stopping_ = false;
  std::size_t loud_ = 0;  // workers that may still use the session
  std::size_t busy_ = 0;  // workers that may still use devices
  std::move_only_function<void()> on_stopped_;
};

}  // namespace nvmf::fuse
