// On an I/O queue's reactor: commands of other reactors that it is to carry, and whose turn it is.
//
// When the queue has no room, its own reactor's devices and each borrower take turns, a command at
// a time: nobody can keep the others out. Thread: the queue's reactor's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "host/command_queue.h"

namespace nvmf::host {

/// Another reactor, as the lending one sees it. Its commands that wait for room, in their order.
class Borrower {
 public:
  Borrower() = default;
  Borrower(const Borrower&) = delete;
  Borrower& operator=(const Borrower&) = delete;

  /// A command that was carried: its outcome is in it.
  virtual void carried(IoCommand& command) = 0;
  /// The queue went down; everything that it carried has been told.
  virtual void lender_down() = 0;

  void push(IoCommand& command);
  IoCommand* pop();  // nullptr: none waits
  [[nodiscard]] bool waiting() const { return first_ != nullptr; }

 protected:
  ~Borrower() = default;

 private:
  transport::HostCommand* first_ = nullptr;
  transport::HostCommand* last_ = nullptr;
};

class Lending {
 public:
  void add(Borrower& borrower) { borrowers_.push_back(&borrower); }
  void remove(Borrower& borrower);
  /// Takes each out, then tells it.
  void down();

  /// The next command that waits, from the borrower whose turn it is; nullptr if none waits.
  IoCommand* next();
  /// The reactor's own devices have submitted one: now it is the turn of each borrower that waits.
  void own_submitted();
  /// It is their turn, not the reactor's own.
  [[nodiscard]] bool borrowers_turn() const { return owed_ != 0; }

 private:
  [[nodiscard]] std::size_t count_waiting() const;

  std::vector<Borrower*> borrowers_;
  std::size_t turn_ = 0;  // index of the borrower that is looked at first
  std::size_t owed_ = 0;  // of theirs before the next of ours; at most those that wait
};

}  // namespace nvmf::host
