// What differs between io_uring and epoll, and nothing else: readiness of file descriptors and the
// execution of file operations. Inside io/ only; everything happens on the loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "nvme/result.h"
#include "transport/loop.h"

namespace nvmf::io {

/// Whoever waits for a file descriptor.
class Pollable {
 public:
  /// `events`: EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLERR, EPOLLHUP. May remove itself and others.
  virtual void on_ready(std::uint32_t events) = 0;

 protected:
  ~Pollable() = default;

 private:
  friend class PollTable;
  static constexpr std::uint32_t kNotPolled = ~std::uint32_t{0};
  std::uint32_t poll_slot_ = kNotPolled;
};

enum class Trigger : std::uint8_t {
  edge,   // told once per change; the pollable remembers what is ready
  level,  // told each turn while it is ready
};

/// Who is polled, by keys that never name a successor by mistake: a report which was collected
/// before its receiver went away finds nobody.
class PollTable {
 public:
  struct Slot {
    Pollable* user = nullptr;
    int fd = -1;
    std::uint32_t events = 0;
    Trigger trigger = Trigger::edge;
    std::uint32_t generation = 0;
    bool armed = false;  // the ring holds a poll request for it
  };
  struct Key {
    std::uint32_t index;
    std::uint32_t generation;
  };
  Key insert(Pollable& user, int fd, std::uint32_t events, Trigger trigger);
  /// Null if it is not the one that the key was made for.
  Slot* find(Key key);
  [[nodiscard]] bool contains(const Pollable& user) const {
    return user.poll_slot_ != Pollable::kNotPolled;
  }
  [[nodiscard]] Key key(const Pollable& user) const {
    return {user.poll_slot_, slots_[user.poll_slot_].generation};
  }
  void erase(Pollable& user);

 private:
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;
};

class Backend {
 public:
  virtual ~Backend() = default;
  [[nodiscard]] virtual const char* name() const = 0;

  /// Starts to poll `fd`; fails with the kernel's reason (EPERM: it cannot be polled).
  virtual Result<void> add(Pollable& user, int fd, std::uint32_t events, Trigger trigger) = 0;
  /// No on_ready() from here on, and the kernel holds no reference to the file. Idempotent.
  virtual void remove(Pollable& user) = 0;

  /// Waits until something happens or `timeout` has passed; negative: for ever. Calls nobody.
  virtual void collect(Duration timeout) = 0;
  /// Calls on_ready() and FileOp::complete for what collect() found.
  virtual void dispatch() = 0;

  /// Starts an operation whose `owner` is a DiskFile of this loop.
  virtual void submit(transport::FileOp& op) = 0;
  [[nodiscard]] virtual std::size_t files_under_way() const = 0;
};

/// `notify` makes a collect() that is under way return; called from threads of the backend.
Result<std::unique_ptr<Backend>> make_epoll_backend(std::function<void()> notify);
Result<std::unique_ptr<Backend>> make_uring_backend();

}  // namespace nvmf::io
