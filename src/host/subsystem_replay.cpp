// RemoteSubsystem: what becomes of writes that were answered, but perhaps never left the volatile
// cache of a target that was lost.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <iterator>
#include <map>
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

/// Of each byte the newest copy, if that is not durable: an older one must not be written over it,
/// not even for a moment. What was deallocated is zeroed, whole blocks of it only.
std::vector<ReplayLog::Entry> newest_of(std::vector<ReplayLog::Entry> entries,
                                        std::uint32_t block_bytes) {
  std::ranges::sort(entries, std::ranges::greater{}, &ReplayLog::Entry::mark);
  std::vector<ReplayLog::Entry> newest;
  std::map<std::uint64_t, std::uint64_t> covered;  // begin, end; apart from each other
  for (ReplayLog::Entry e : entries) {
    std::uint64_t begin = e.offset_bytes;
    std::uint64_t end = e.offset_bytes + e.length_bytes;
    if (e.op == BlockOp::deallocate) {
      e.op = BlockOp::write_zeroes;
      begin = (begin + block_bytes - 1) / block_bytes * block_bytes;
      end = end / block_bytes * block_bytes;
    }
    if (begin >= end) continue;
    // The first that may reach into it, and all that it touches.
    auto at = covered.upper_bound(begin);
    if (at != covered.begin() && std::prev(at)->second >= begin) --at;
    std::uint64_t next = begin;
    std::uint64_t from = begin;
    std::uint64_t to = end;
    const auto piece = [&](std::uint64_t until) {
      if (next >= until || e.durable) return;
      ReplayLog::Entry p = e;
      if (p.data != nullptr) p.data += next - e.offset_bytes;
      p.offset_bytes = next;
      p.length_bytes = until - next;
      newest.push_back(p);
    };
    while (at != covered.end() && at->first <= end) {
      piece(std::min(at->first, end));
      next = std::max(next, at->second);
      from = std::min(from, at->first);
      to = std::max(to, at->second);
      at = covered.erase(at);
    }
    piece(end);
    covered[from] = to;
  }
  return newest;
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

Task<std::vector<ReplayLog::Entry>> RemoteSubsystem::replay_entries(std::size_t index) {
  const std::uint64_t flushed = states_[index].shared->unflushed.flushed_mark();
  std::vector<ReplayLog::Entry> entries;
  for (std::size_t r = 0; r < groups_.size(); ++r) {
    const NamespaceDevice& device = *states_[index].devices[r];
    co_await switch_to(*loops_[r]);
    const ReplayLog& log = *device.replay_log();
    for (std::size_t i = 0; i < log.size(); ++i) {
      if (log.at(i).mark > flushed) entries.push_back(log.at(i));
    }
    co_await switch_to(*loops_[0]);
  }
  co_return newest_of(std::move(entries), namespaces_[index]->info.block_bytes);
}

/// Many at a time; then a flush. 0 or an errno.
Task<int> RemoteSubsystem::write_again(NamespaceDevice& to, std::vector<ReplayLog::Entry> entries) {
  std::size_t next = 0;
  while (next < entries.size()) {
    std::vector<std::unique_ptr<Rewrite>> window;
    while (next < entries.size() && window.size() < kReplayDepth) {
      window.push_back(std::make_unique<Rewrite>(*loops_[0], entries[next++]));
      to.submit(*window.back());
    }
    int error = 0;
    for (const auto& w : window) {
      co_await w->done;
      if (w->error != 0) error = w->error;
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
  tell_users(index);
  if (!s.stopped.empty()) co_return;
  on_devices(index, [](NamespaceDevice& device) { device.go_on(); });
}

}  // namespace nvmf::host
