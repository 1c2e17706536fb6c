// Namespaces as block devices of the kernel: /dev/nbdN, served by this process over socket pairs.
//
// Each namespace has one device with several connections, spread over the reactors. Devices are
// made, resized and given up on a thread of its own, because the kernel may block there (even until
// requests are answered that our reactors serve); everything that is said to this class, and that
// it says, is on the control loop (loops[0]).
//
// Lives of a device. A process that is killed leaves its device behind with all that waits in it;
// a file system on it stays mounted. The next process that serves the same namespace finds the
// device by its backend identifier and takes it over. A process that ends in order disconnects its
// devices, whoever has them open: that is told, and they see errors from then on. A namespace that
// is detached loses its device if nobody has that open; else it stays, with errors, and goes on
// when the namespace comes back.
//
// A connection that the kernel gives up is replaced. A device that somebody else disconnects is
// gone for us.
//
// All devices together have kClientsMax connections: each has memory of its own, so where there are
// many namespaces each gets fewer connections, and those that would get none get no device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "frontends/frontend.h"
#include "frontends/nbd/kernel_lane.h"
#include "frontends/nbd/kernel_setup.h"
#include "frontends/nbd/kernel_worker.h"
#include "transport/loop.h"
#include "transport/timer.h"

namespace nvmf::nbd {

/// Connections of one device: each reactor's, and no more than serve any purpose.
inline constexpr std::size_t kConnectionsPerDeviceMax = 16;
/// How long is looked for those who have a device open; at an end, for those of all devices.
inline constexpr std::chrono::milliseconds kHoldersLimit{300};
/// A connection that could not be replaced is tried again so often, with such pauses.
inline constexpr unsigned kReplaceTries = 20;
inline constexpr Duration kReplacePause{std::chrono::milliseconds(500)};

struct KernelDevicesOptions {
  /// The first namespace's device; the others get the next numbers, in the order in which they
  /// come. Nothing: any that are free.
  std::optional<std::uint32_t> first_index;
  /// What a namespace is known by in the kernel: the same in every process that serves it, another
  /// one for another disk. No more than a page, no newline.
  std::function<std::string(std::uint32_t nsid)> backend;
  KernelTimeouts timeouts;  // for `connections` that are wanted
  /// At stop(): how long requests under way may take.
  Duration grace{};
  KernelSystem system;
  /// The reserves of kClientsMax connections, and 1 to 64 MiB more: this face's share
  /// (frontends/buffer_shares.h). Nobody else's requests can take any of it, so that the kernel
  /// gets dirty pages written however busy other faces are.
  std::size_t buffer_bytes = kBufferBytesMax;
  /// Makes a stream's beginning of our end of a pair.
  std::function<std::unique_ptr<transport::Incoming>(io::UniqueFd, std::string peer)> incoming;
  /// The last device has been disconnected by somebody else.
  std::function<void(const std::string& sentence)> on_gone;
  /// What is worth a line in the log.
  std::function<void(bool warning, const std::string& sentence)> tell;
};

/// A namespace that has a device.
struct KernelDeviceView {
  std::uint32_t nsid = 0;
  std::string path;             // "/dev/nbd0"
  std::size_t connections = 0;  // that are alive
  bool taken_over = false;
};

class KernelDevices final : public frontends::Frontend {
 public:
  KernelDevices(std::vector<transport::Loop*> loops, KernelDevicesOptions options);
  /// Before start(), or after stop() has said that it is done, when the loops do not run any more.
  ~KernelDevices() override;

  /// Makes devices for the namespaces that are attached. `on_started` is called once, with the
  /// first error; not if stop() comes before.
  void start(std::function<void(Result<void>)> on_started);
  [[nodiscard]] std::vector<KernelDeviceView> views() const;
  /// Who has a device open, a sentence for each device. Looks for kHoldersLimit at most.
  [[nodiscard]] std::vector<std::string> held() const;

  // frontends::Frontend
  void attached(const frontends::Disk& disk) override;
  void detached(std::uint32_t nsid) override;
  void changed(const frontends::Disk& disk) override;
  /// Devices that were taken over by a start that failed are left for the next process.
  void stop(std::move_only_function<void()> on_stopped) override;
  void hurry() override;

 private:
  enum class State : std::uint8_t {
    idle,     // no device
    making,   // the worker makes one
    serving,  // there is one
    leaving,  // it is being disconnected
  };

  struct Device {
    frontends::Disk disk;
    std::string backend;
    std::optional<std::uint32_t> wanted;
    State state = State::idle;
    std::uint64_t life = 0;  // how many devices it has had
    std::uint32_t index = 0;
    io::UniqueFd lock;
    KernelTimeouts timeouts;
    std::uint64_t told_size_bytes = 0;
    bool told_read_only = false;
    bool taken_over = false;
    bool detached = false;
    bool given_up = false;  // somebody else has disconnected it
    std::size_t next_lane = 0;
    std::size_t connections = 0;  // alive
    std::size_t missing = 0;      // to be replaced
    std::size_t promised = 0;     // while it is made
    bool wants_room = false;      // it could not be made for want of connections
    bool replacing = false;       // the worker is at it
    unsigned tries = 0;
    std::unique_ptr<transport::Timer> pause;
  };

  void run(std::move_only_function<void()> job);
  void post(std::move_only_function<void()> task);
  [[nodiscard]] std::size_t attached_now() const;
  void make(Device& device);
  void make_waiting();
  void made(std::uint32_t nsid, Result<KernelDevice> result);
  void one_started(Result<void> how);
  void serve(Device& device, io::UniqueFd connection);
  void update(Device& device);
  void gone(const KernelLane::Gone& gone);
  void replace(Device& device);
  void replaced(std::uint32_t nsid, Result<std::optional<io::UniqueFd>> result);
  void try_again(Device& device, const Error& why);
  void give_up(Device& device);
  void told_gone(const std::string& how) const;
  void leave(Device& device, bool even_if_held);
  struct Leaving {
    std::uint32_t nsid = 0;
    std::string name;  // of the namespace
    std::uint32_t index = 0;
    std::string backend;
    bool even_if_held = false;
    bool disconnected = false;
    std::string sentence;  // what there is to tell
  };
  void disconnect(Leaving& one);
  void left(const Leaving& one);
  void lane_stopped();
  void maybe_stopped();
  void stop_lanes(bool now);
  [[nodiscard]] std::string path(const Device& device) const;
  void tell(bool warning, const std::string& sentence) const;

  std::vector<transport::Loop*> loops_;
  KernelDevicesOptions options_;
  transport::Loop& loop_;
  BufferArena arena_;
  std::vector<std::unique_ptr<KernelLane>> lanes_;
  KernelSetup setup_;                                       // the worker's
  std::chrono::milliseconds holders_left_ = kHoldersLimit;  // the worker's
  std::map<std::uint32_t, Device> devices_;
  std::optional<std::uint32_t> next_index_;
  std::function<void(Result<void>)> on_started_;
  std::move_only_function<void()> on_stopped_;
  std::size_t starting_ = 0;
  std::size_t sessions_ = 0;  // on the lanes
  std::size_t promised_ = 0;  // to devices that are being made
  std::size_t jobs_ = 0;
  std::size_t lanes_left_ = 0;
  bool started_ = false;  // start() was called
  bool serves_ = false;   // and all devices are there
  bool stopping_ = false;
  bool lanes_stopping_ = false;
  transport::Timer grace_;
  KernelWorker worker_;  // ends first
};

}  // namespace nvmf::nbd
