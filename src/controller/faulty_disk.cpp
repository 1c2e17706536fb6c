#include "controller/faulty_disk.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "controller/faults.h"
#include "nvme/check.h"

namespace nvmf::controller {

/// One operation that does not go straight through: ours, as the disk below sees it.
struct FaultyDisk::Held : DiskOp {
  Held(FaultyDisk& on, DiskOp& from)
      : DiskOp(from),
        disk(on),
        caller(&from),
        timer(on.loop_.timers(), [this] { disk.expired(*this); }) {
    complete = &FaultyDisk::on_executed;
    next = nullptr;
    owner = nullptr;
  }

  FaultyDisk& disk;
  DiskOp* caller;  // nullptr: a ghost
  State state = State::waiting;
  Duration after{};
  std::vector<std::byte> copy;  // a ghost's data
  transport::Timer timer;
};

FaultyDisk::FaultyDisk(transport::Loop& loop, Faults& faults, std::unique_ptr<Disk> inner,
                       Place place)
    : loop_(loop), faults_(faults), inner_(std::move(inner)), place_(std::move(place)) {
  faults_.add(*this);
}

FaultyDisk::~FaultyDisk() {
  faults_.remove(*this);
  NVMF_CHECK(idle());
}

void FaultyDisk::submit(DiskOp& op) {
  if (!faults_.touches_disks()) return inner_->submit(op);
  bury();
  const Faults::Plan plan = faults_.plan(place_.subnqn, place_.nsid, op);
  if (plan.plain()) return inner_->submit(op);
  held_.push_back(std::make_unique<Held>(*this, op));
  Held& held = *held_.back();
  held.after = plan.after;
  if (plan.hold) {
    held.state = State::held;
  } else if (plan.before > Duration::zero()) {
    held.timer.arm(loop_.now() + plan.before);
  } else {
    run(held);
  }
}

void FaultyDisk::run(Held& held) {
  held.timer.cancel();
  held.state = State::executing;
  inner_->submit(held);
}

void FaultyDisk::on_executed(DiskOp& op) {
  Held& held = static_cast<Held&>(op);
  held.disk.executed(held);
}

void FaultyDisk::executed(Held& held) {
  if (held.caller == nullptr) {
    held.state = State::done;
    faults_.ghost_ended();
  } else if (held.after > Duration::zero()) {
    held.state = State::answering;
    held.timer.arm(loop_.now() + held.after);
  } else {
    answer(held);
  }
}

void FaultyDisk::answer(Held& held) {
  held.state = State::done;
  DiskOp& caller = *std::exchange(held.caller, nullptr);
  caller.error = held.error;
  caller.complete(caller);
}

void FaultyDisk::expired(Held& held) {
  switch (held.state) {
    case State::ghost:
      faults_.executed_late(fmt::format("{} bytes at block {} of namespace {} of {}",
                                        held.length_bytes, held.offset_bytes / place_.block_bytes,
                                        place_.nsid, place_.subnqn));
      return run(held);
    case State::waiting:
      return run(held);
    case State::answering:
    case State::cancelled:
      return answer(held);
    case State::held:
    case State::executing:
    case State::done:
      break;
  }
}

/// Never answers inside: the caller may be in the middle of its own end.
void FaultyDisk::cancel(Held& held) {
  held.state = State::cancelled;
  held.error = ECANCELED;
  held.timer.arm(loop_.now());
  faults_.cancelled();
}

void FaultyDisk::make_ghost(Held& held, Duration after) {
  auto ghost = std::make_unique<Held>(*this, held);
  ghost->caller = nullptr;
  ghost->state = State::ghost;
  if (ghost->kind == DiskOp::Kind::write) {
    ghost->copy.assign(held.data, held.data + held.length_bytes);
    ghost->data = ghost->copy.data();
  }
  ghost->timer.arm(loop_.now() + after);
  held_.push_back(std::move(ghost));
}

FaultyDisk::Held* FaultyDisk::find(const DiskOp& op) const {
  const auto found = std::ranges::find_if(held_, [&op](const auto& h) { return h->caller == &op; });
  return found == held_.end() ? nullptr : found->get();
}

bool FaultyDisk::take_back(DiskOp& op) {
  Held* const held = find(op);
  if (held == nullptr) return inner_->take_back(op);
  if (held->state == State::executing) return inner_->take_back(*held);
  if (held->state != State::waiting && held->state != State::held) return false;
  held->timer.cancel();
  held->error = ECANCELED;
  faults_.cancelled();
  answer(*held);
  return true;
}

void FaultyDisk::abandon(DiskOp& op, Abandoned why) {
  Held* const found = find(op);
  if (found == nullptr) return inner_->abandon(op, why);
  Held& held = *found;
  switch (held.state) {
    case State::waiting:
    case State::held:
      if (const auto after = faults_.ghost(place_.subnqn, place_.nsid, op, why)) {
        make_ghost(held, *after);
      }
      return cancel(held);
    case State::executing:
      held.after = {};
      return inner_->abandon(held, why);
    case State::answering:
      return held.timer.arm(loop_.now());
    case State::cancelled:
    case State::ghost:
    case State::done:
      return;
  }
}

void FaultyDisk::release(bool execute) {
  // Only timers are armed in here: nothing is executed, answered or added.
  for (const auto& one : held_) {
    Held& held = *one;
    const bool waits = held.state == State::waiting || held.state == State::held;
    if (held.state == State::ghost) {
      held.timer.cancel();
      held.state = State::done;
    } else if (waits && execute) {
      held.state = State::waiting;
      held.after = {};
      held.timer.arm(loop_.now());
    } else if (waits) {
      cancel(held);
    } else if (held.state == State::answering) {
      held.timer.arm(loop_.now());
    }
  }
}

void FaultyDisk::power_loss() {
  release(false);
  inner_->power_loss();
}

void FaultyDisk::bury() {
  std::erase_if(held_, [](const auto& held) { return held->state == State::done; });
}

std::size_t FaultyDisk::ghosts() const {
  return static_cast<std::size_t>(
      std::ranges::count_if(held_, [](const auto& held) { return held->state == State::ghost; }));
}

bool FaultyDisk::idle() const {
  return std::ranges::none_of(held_,
                              [](const auto& held) { return held->state == State::executing; });
}

}  // namespace nvmf::controller
