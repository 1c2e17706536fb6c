#include "host/lending.h"

#include <algorithm>
#include <utility>

namespace nvmf::host {

void Borrower::push(IoCommand& command) {
  command.borrower = this;
  command.next = nullptr;
  (last_ != nullptr ? last_->next : first_) = &command;
  last_ = &command;
}

IoCommand* Borrower::pop() {
  transport::HostCommand* const command = first_;
  if (command == nullptr) return nullptr;
  first_ = command->next;
  if (first_ == nullptr) last_ = nullptr;
  command->next = nullptr;
  return static_cast<IoCommand*>(command);
}

void Lending::remove(Borrower& borrower) {
  std::erase(borrowers_, &borrower);
  turn_ = 0;
  // Nobody is waited for who is not there any more.
  owed_ = std::min(owed_, count_waiting());
}

void Lending::down() {
  owed_ = 0;
  for (Borrower* borrower : std::exchange(borrowers_, {})) borrower->lender_down();
}

IoCommand* Lending::next() {
  const std::size_t n = borrowers_.size();
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t at = (turn_ + i) % n;
    IoCommand* const command = borrowers_[at]->pop();
    if (command == nullptr) continue;
    turn_ = (at + 1) % n;
    if (owed_ != 0) --owed_;
    owed_ = std::min(owed_, count_waiting());
    return command;
  }
  owed_ = 0;
  return nullptr;
}

void Lending::own_submitted() {
  if (!borrowers_.empty()) owed_ = count_waiting();
}

std::size_t Lending::count_waiting() const {
  return static_cast<std::size_t>(
      std::ranges::count_if(borrowers_, [](const Borrower* b) { return b->waiting(); }));
}

}  // namespace nvmf::host
