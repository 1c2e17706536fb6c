// RemoteSubsystem: what becomes of writes that were answered, but perhaps never left the volatile
// cache of a target that was lost.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "host/log.h"
#include "host/subsystem.h"

namespace nvmf::host {

namespace {

constexpr std::size_t kReplayDepth = 32;
constexpr int kReplayTries = 5;
constexpr Duration kReplayPause = std::chrono::milliseconds(200);

/// One write that is made again.
struct Rewrite : BlockRequest {
  Rewrite(transport::Loop& loop, const ReplayLog::Entry& e) : done(loop) {
    op = e.op;
    no_hole = e.no_hole;
    offset_bytes = e.offset_bytes;
    length_bytes = e.length_bytes;
    data = e.data;
    complete = [](BlockRequest& r) { static_cast<Rewrite&>(r).done.fire(); };
  }
  Signal done;
};

bool overlap(const ReplayLog::Entry& a, const BlockRequest& b) {
  return a.offset_bytes < b.offset_bytes + b.length_bytes &&
         b.offset_bytes < a.offset_bytes + a.length_bytes;
}

}  // namespace

/// The association has been closed, and everything that it answered has been dealt with.
void RemoteSubsystem::count_unflushed() {
  for (std::size_t i = 0; i < states_.size(); ++i) {
    NamespaceState& s = states_[i];
    UnflushedWrites& unflushed = s.shared->unflushed;
    const bool replay = unflushed.mode() == Unflushed::replay;
    const std::uint64_t count = replay ? unflushed.count() : unflushed.lost();
    if (count == 0) continue;
    if (replay) s.must_replay = true;
    log(LogLevel::warning,
        fmt::format("{}: {} writes were answered and not yet flushed when the connection was "
                    "lost; {}",
                    namespaces_[i]->info.name, count,
                    replay ? "they will be written again"
                           : "if the target lost its power, they "
                             "are lost"));
  }
}

void RemoteSubsystem::begin_replay(std::size_t index) {
  NamespaceState& s = states_[index];
  if (!s.must_replay || s.replaying || !s.stopped.empty() || state_ != State::live) return;
  s.replaying = true;
  spawn(replay(index));
}

/// In the order in which they were answered.
Task<std::vector<ReplayLog::Entry>> RemoteSubsystem::replay_entries(std::size_t index) {
  const std::uint64_t flushed = states_[index].shared->unflushed.flushed_mark();
  std::vector<ReplayLog::Entry> entries;
  for (std::size_t r = 0; r < devices_.size(); ++r) {
    co_await switch_to(*loops_[r]);
    const ReplayLog& log = *devices_[r][index]->replay_log();
    for (std::size_t i = 0; i < log.size(); ++i) {
      if (log.at(i).mark > flushed) entries.push_back(log.at(i));
    }
    co_await switch_to(*loops_[0]);
  }
  std::ranges::sort(entries, {}, &ReplayLog::Entry::mark);
  co_return entries;
}

/// Many at a time, as long as none overlaps another; then a flush. 0 or an errno.
Task<int> RemoteSubsystem::write_again(NamespaceDevice& to, std::vector<ReplayLog::Entry> entries) {
  std::size_t next = 0;
  while (next < entries.size()) {
    std::vector<std::unique_ptr<Rewrite>> window;
    while (
        next < entries.size() && window.size() < kReplayDepth &&
        std::ranges::none_of(window, [&](const auto& w) { return overlap(entries[next], *w); })) {
      window.push_back(std::make_unique<Rewrite>(*loops_[0], entries[next++]));
      to.submit(*window.back());
    }
    int error = 0;
    for (const auto& w : window) {
      co_await w->done;
      // A hint that this controller does not take is as good as taken.
      if (w->error != 0 && !(w->op == BlockOp::deallocate && w->error == ENOTSUP)) error = w->error;
    }
    if (error != 0) co_return error;
  }
  Rewrite flush(*loops_[0], {.op = BlockOp::flush});
  to.submit(flush);
  co_await flush.done;
  co_return flush.error;
}

Task<void> RemoteSubsystem::replay(std::size_t index) {
  const Gate::Pass inside(replays_);
  NamespaceState& s = states_[index];
  UnflushedWrites& unflushed = s.shared->unflushed;
  const std::string name = namespaces_[index]->info.name;
  for (int tries = 0;;) {
    const std::uint64_t losses = losses_;
    // No client writes meanwhile: all that was written is in the copies, or flushed.
    const std::uint64_t mark = unflushed.mark();
    auto entries = co_await replay_entries(index);
    const std::size_t count = entries.size();
    const int error = co_await write_again(*s.replayer, std::move(entries));
    if (error == ESHUTDOWN || groups_[0]->shut_error() != 0) co_return;
    // What was written before another loss may have gone with that.
    if (losses != losses_) continue;
    if (error == 0) {
      unflushed.flushed(mark);
      log(LogLevel::info, fmt::format("{}: {} writes were written again and flushed", name, count));
      break;
    }
    if (++tries == kReplayTries) {
      unflushed.flushed(mark);
      unflushed.replay_failed();
      log(LogLevel::error, fmt::format("{}: {} writes could not be written again and may be lost; "
                                       "the next flush will fail",
                                       name, count));
      break;
    }
    co_await sleep(*loops_[0], kReplayPause);
  }
  s.must_replay = false;
  s.replaying = false;
  if (!s.stopped.empty()) co_return;
  on_reactors([index](QueueGroup&, auto& devices) { devices[index]->go_on(); });
}

}  // namespace nvmf::host
