// The kernel's connections that are served on one reactor.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>

#include "frontends/nbd/buffer_pool.h"
#include "frontends/nbd/session.h"
#include "transport/loop.h"
#include "transport/timer.h"

namespace nvmf::nbd {

/// Made and destroyed on any thread, when nothing is in it; all else on its loop's.
class KernelLane final : public SessionOwner {
 public:
  struct Gone {
    std::uint32_t nsid = 0;
    std::uint64_t life = 0;     // as add() was told
    bool said_goodbye = false;  // the device was disconnected
    bool dismissed = false;     // it was us, because of what the kernel sent
    Error reason;
  };

  /// `on_gone` and `on_stopped` are called on the lane's thread, and may be inside a call.
  KernelLane(transport::Loop& loop, BufferArena& arena, std::function<void(const Gone&)> on_gone,
             std::function<void()> on_stopped);
  ~KernelLane();

  [[nodiscard]] transport::Loop& loop() const { return loop_; }

  /// Serves a connection of a device's `life`. `device` is the reactor's own. After stop() it is
  /// closed at once.
  void add(std::unique_ptr<transport::Incoming> incoming, host::BlockDevice& device,
           std::uint64_t life, std::uint16_t flags, std::optional<Duration> answer_after);
  /// What is under way is answered, then the connections are closed; on_stopped() follows.
  void stop();
  /// Nothing is waited for any more.
  void cut();

  [[nodiscard]] const Counters& counters() const { return counters_; }  // from any thread

  void session_gone(Session& session, const Error& reason) override;

 private:
  struct Served {
    std::unique_ptr<Session> session;
    std::uint32_t nsid = 0;
    std::uint64_t life = 0;
    std::optional<Duration> answer_after;
  };
  void look_for_old();

  transport::Loop& loop_;
  BufferPool buffers_;
  Counters counters_;
  std::function<void(const Gone&)> on_gone_;
  std::function<void()> on_stopped_;
  std::unordered_map<Session*, Served> sessions_;
  transport::Timer old_timer_;
  bool stopping_ = false;
  bool reported_ = false;
};

}  // namespace nvmf::nbd
