#include "host/overdue.h"

#include <algorithm>
#include <utility>

#include "host/queue_link.h"

namespace nvmf::host {

OwnTimeouts::OwnTimeouts(transport::Loop& loop, Events events)
    : loop_(loop), events_(std::move(events)), timer_(loop.timers(), [this] { check(); }) {}

Instant OwnTimeouts::due(const IoCommand& c) {
  return c.submitted_at + c.timeout + (c.overdue ? kAbortGrace : Duration::zero());
}

void OwnTimeouts::add(IoCommand& command) {
  command.overdue = false;
  command.newer = nullptr;
  command.older = newest_;
  if (newest_ != nullptr) newest_->newer = &command;
  newest_ = &command;
  if (!timer_.armed() || timer_.deadline() > due(command)) timer_.arm(due(command));
}

void OwnTimeouts::remove(IoCommand& command) {
  (command.newer != nullptr ? command.newer->older : newest_) = command.older;
  if (command.older != nullptr) command.older->newer = command.newer;
}

void OwnTimeouts::check() {
  const Instant now = loop_.now();
  for (IoCommand* c = newest_; c != nullptr; c = c->older) {
    if (due(*c) > now) continue;
    if (c->overdue) return events_.on_given_up(*c);
    c->overdue = true;
    // Of a command that is not out yet, the controller knows nothing.
    if (c->delivery == transport::Delivery::unanswered) events_.on_overdue(*c);
  }
  arm();
}

void OwnTimeouts::arm() {
  Instant first = Instant::max();
  for (const IoCommand* c = newest_; c != nullptr; c = c->older) first = std::min(first, due(*c));
  if (first != Instant::max()) timer_.arm(first);
}

}  // namespace nvmf::host
