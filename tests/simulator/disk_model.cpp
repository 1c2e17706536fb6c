#include "simulator/disk_model.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "nvme/check.h"

namespace nvmf::simulator {

using controller::DiskOp;

class DiskModel::Handle final : public controller::Disk {
 public:
  explicit Handle(DiskModel& model) : model_(model) {}
  ~Handle() override { std::erase(model_.handles_, this); }
  [[nodiscard]] std::uint64_t size_bytes() const override {
    return model_.shape_.blocks * std::uint64_t{model_.shape_.block_bytes};
  }
  [[nodiscard]] bool read_only() const override { return false; }
  [[nodiscard]] bool volatile_cache() const override { return model_.shape_.volatile_cache; }
  void submit(DiskOp& op) override { model_.submit(*this, op); }
  void abandon(DiskOp& op, Abandoned why) override { model_.abandon(op, why); }

  bool dead = false;

 private:
  DiskModel& model_;
};

DiskModel::DiskModel(sim::VirtualLoop& loop, Trace& trace, Random random, std::size_t number,
                     DiskShape shape)
    : loop_(loop),
      trace_(trace),
      random_(random),
      number_(number),
      shape_(shape),
      hang_percent_(shape.hang_percent),
      blocks_(shape.blocks),
      timer_(loop.timers(), [this] { run(); }) {
  for (Block& block : blocks_) block.stable.resize(shape.block_bytes);
}

DiskModel::~DiskModel() {
  NVMF_CHECK(handles_.empty());
}

std::unique_ptr<controller::Disk> DiskModel::open() {
  auto made = std::make_unique<Handle>(*this);
  handles_.push_back(made.get());
  return made;
}

std::span<const std::byte> DiskModel::block(std::size_t lba) const {
  const Block& b = blocks_.at(lba);
  return b.cached.empty() ? b.stable : b.cached.back();
}

void DiskModel::preset(std::size_t lba, std::span<const std::byte> bytes) {
  blocks_.at(lba).stable.assign(bytes.begin(), bytes.end());
}

void DiskModel::submit(Handle& handle, DiskOp& op) {
  if (handle.dead) {
    op.error = EIO;
    return op.complete(op);
  }
  auto p = std::make_unique<Pending>();
  p->op = &op;
  p->handle = &handle;
  p->kind = op.kind;
  p->fua = op.fua;
  p->offset = op.offset_bytes;
  p->length = op.length_bytes;
  if (op.kind == DiskOp::Kind::write) p->data.assign(op.data, op.data + op.length_bytes);
  p->execute_at = loop_.now() + ordinary();
  p->answer_at = p->execute_at + ordinary();
  if (op.kind != DiskOp::Kind::read && random_.percent(hang_percent_)) {
    // Either it hangs whole, or done and not answered.
    if (random_.percent(70)) p->execute_at = Instant::max();
    p->answer_at = Instant::max();
    trace_.say("disk {}: a {} at {} hangs", number_,
               op.kind == DiskOp::Kind::flush ? "flush" : "write", p->offset);
  }
  pending_.push_back(std::move(p));
  rearm();
}

void DiskModel::abandon(DiskOp& op, controller::Disk::Abandoned why) {
  const auto found = std::ranges::find(pending_, &op, [](const auto& p) { return p->op; });
  if (found == pending_.end()) return;
  Pending& p = **found;
  if (p.ghost) return;
  if (p.executed) {
    p.answer_at = loop_.now();
  } else if (why == controller::Disk::Abandoned::lost) {
    make_ghost(p);
  } else {
    // Its host is told that nothing is under way only when this is over.
    p.dropped = random_.percent(30);
    p.execute_at =
        loop_.now() + (p.dropped ? Duration{} : random_.between(Duration{}, shape_.linger));
    p.answer_at = p.execute_at;
  }
  rearm();
}

/// Its association has just ended: it is executed within `linger`, with love for the last moment.
void DiskModel::make_ghost(Pending& p) {
  const bool changes = p.kind != DiskOp::Kind::read && p.kind != DiskOp::Kind::flush;
  p.dropped = !changes || random_.percent(20);
  const Duration late = random_.percent(60)
                            ? random_.between(shape_.linger - shape_.linger / 10, shape_.linger)
                            : random_.between(Duration{}, shape_.linger);
  p.ghost = true;
  p.execute_at = loop_.now() + (p.dropped ? Duration{} : late);
  p.answer_at = p.execute_at;
  if (p.dropped) return;
  trace_.say("disk {}: the write at {} becomes a ghost of {} ms", number_, p.offset,
             static_cast<double>(late.count()) / 1e6);
}

void DiskModel::crash() {
  for (Handle* handle : handles_) handle->dead = true;
  for (const auto& p : pending_) {
    if (p->op == nullptr || p->executed) continue;
    if (!p->ghost) make_ghost(*p);
    p->answer_at = Instant::max();  // until let_go()
  }
  rearm();
}

void DiskModel::let_go() {
  std::vector<DiskOp*> waiting;
  for (const auto& p : pending_) {
    if (p->op == nullptr || !p->handle->dead) continue;
    waiting.push_back(std::exchange(p->op, nullptr));
    p->answer_at = p->execute_at;
    if (p->executed) p->dropped = true;
  }
  for (DiskOp* op : waiting) {
    op->error = EIO;
    op->complete(*op);
  }
  rearm();
}

void DiskModel::power_loss() {
  trace_.event('P', number_);
  for (const auto& p : pending_) {
    if (!p->executed) p->dropped = true;
  }
  for (Block& b : blocks_) {
    if (b.cached.empty()) continue;
    const std::uint64_t survivor = random_.below(b.cached.size() + 1);
    if (survivor != 0) b.stable = b.cached[survivor - 1];
    b.cached.clear();
  }
}

void DiskModel::heal() {
  hang_percent_ = 0;
  for (const auto& p : pending_) {
    if (p->op == nullptr || p->ghost) continue;
    if (!p->executed) p->execute_at = std::min(p->execute_at, loop_.now() + ordinary());
    p->answer_at = std::min(p->answer_at, p->execute_at + ordinary());
  }
  rearm();
}

void DiskModel::change(Pending& p) {
  ++changes_;
  trace_.event(p.ghost ? 'G' : 'W', number_ << 32 | p.offset, p.length);
  if (p.ghost) {
    ++ghosts_;
    trace_.say("disk {}: a ghost is executed at {}, {} bytes", number_, p.offset, p.length);
  }
  const std::size_t size = shape_.block_bytes;
  if (p.data.empty()) p.data.resize(p.length);  // zeroes
  for (std::uint64_t at = 0; at < p.length; at += size) {
    Block& b = blocks_.at((p.offset + at) / size);
    std::vector<std::byte> bytes(p.data.begin() + static_cast<std::ptrdiff_t>(at),
                                 p.data.begin() + static_cast<std::ptrdiff_t>(at + size));
    if (shape_.volatile_cache && !p.fua) {
      b.cached.push_back(std::move(bytes));
    } else {
      b.stable = std::move(bytes);
      b.cached.clear();
    }
  }
}

void DiskModel::execute(Pending& p) {
  p.executed = true;
  if (p.dropped) {
    p.error = ECANCELED;
    return;
  }
  switch (p.kind) {
    case DiskOp::Kind::read:
      if (p.op == nullptr) return;
      for (std::uint64_t at = 0; at < p.length; at += shape_.block_bytes) {
        const auto from = block((p.offset + at) / shape_.block_bytes);
        std::memcpy(p.op->data + at, from.data(), from.size());
      }
      return;
    case DiskOp::Kind::flush:
      for (Block& b : blocks_) {
        if (b.cached.empty()) continue;
        b.stable = std::move(b.cached.back());
        b.cached.clear();
      }
      return;
    default:
      return change(p);
  }
}

void DiskModel::run() {
  const Instant now = loop_.now();
  // In the order of their times; a completion may submit more.
  for (;;) {
    Pending* next = nullptr;
    Instant first = Instant::max();
    for (const auto& p : pending_) {
      const Instant due = p->executed ? p->answer_at : p->execute_at;
      if (due > now || due >= first) continue;
      next = p.get();
      first = due;
    }
    if (next == nullptr) break;
    if (!next->executed) {
      execute(*next);
      if (next->op != nullptr) continue;
    }
    DiskOp* const op = next->op;
    const int error = next->error;
    std::erase_if(pending_, [next](const auto& p) { return p.get() == next; });
    if (op == nullptr) continue;
    op->error = error;
    op->complete(*op);
  }
  rearm();
}

void DiskModel::rearm() {
  // What nobody waits for and nothing is to come of.
  std::erase_if(pending_, [](const auto& p) { return p->op == nullptr && p->dropped; });
  Instant first = Instant::max();
  for (const auto& p : pending_)
    first = std::min(first, p->executed ? p->answer_at : p->execute_at);
  if (first == Instant::max()) return timer_.cancel();
  timer_.arm(first);
}

}  // namespace nvmf::simulator
