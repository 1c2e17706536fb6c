// Listening sockets and the connections they accept.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>

#include "io/backend.h"
#include "io/core.h"
#include "io/unique_fd.h"
#include "transport/loop.h"

namespace nvmf::io {

/// Not bound to any loop: may travel to the one that adopts it.
class SocketIncoming final : public transport::Incoming {
 public:
  SocketIncoming(UniqueFd fd, int family, std::string peer)
      : fd_(std::move(fd)), family_(family), peer_(std::move(peer)) {}
  [[nodiscard]] std::string peer() const override { return peer_; }
  [[nodiscard]] std::optional<std::uint32_t> peer_uid() const override;
  [[nodiscard]] int family() const { return family_; }
  UniqueFd take() { return std::move(fd_); }

 private:
  UniqueFd fd_;
  int family_;
  std::string peer_;
};

class SocketListener final : public transport::Listener, public Pollable, public LoopChild {
 public:
  using OnAccept = std::move_only_function<void(std::unique_ptr<transport::Incoming>)>;
  SocketListener(ReactorCore& core, OnAccept on_accept);
  ~SocketListener() override;
  /// The other half of construction, which can fail.
  Result<void> start(const transport::Endpoint& at);

  [[nodiscard]] transport::Endpoint local() const override { return local_; }
  void on_ready(std::uint32_t events) override;
  void loop_ended() override;

 private:
  Result<void> take_over(int fd);
  Result<void> clear_path(const std::string& path) const;
  Result<void> poll();
  void rest();

  ReactorCore* core_;  // null once the loop has ended
  OnAccept on_accept_;
  UniqueFd fd_;
  transport::Endpoint local_;
  int family_ = 0;
  std::unique_ptr<transport::Timer> pause_;  // when the process is out of file descriptors
  // The unix socket's file that we made: nobody else's is removed.
  dev_t device_ = 0;
  ino_t inode_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace nvmf::io
