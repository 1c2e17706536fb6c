// RemoteSubsystem: which namespaces there are, and whether each is the disk that it was.
//
// A namespace has a place (its index) and devices from when it is first seen until the end, whether
// the controller still has it or not: requests under way, fences and local users refer to them.
// Places are given out at the end only, so an index and a NamespaceState& hold across a co_await.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "host/log.h"
#include "host/namespace_scan.h"
#include "host/same_namespace.h"
#include "host/subsystem.h"

namespace nvmf::host {

namespace {

// A namespace of which the controller cannot tell just now, after it said that it has changed.
constexpr int kIdentifyTries = 10;
constexpr Duration kIdentifyPause = std::chrono::milliseconds(500);

std::unexpected<Error> about_to_end() {
  return fail("the connection is about to end", ENOTCONN);
}

}  // namespace

// ---- the same disk ----

/// `found` is what the controller has now under the NSID; nullptr: nothing that could be served.
void RemoteSubsystem::judge(std::size_t index, const std::shared_ptr<const Namespace>& found) {
  NamespaceState& s = states_[index];
  const Namespace& known = *namespaces_[index];
  if (found == nullptr) {
    s.found.reset();
    return stop_namespace(index,
                          fmt::format("the controller has no namespace {} any more; it goes on "
                                      "when that is back",
                                      known.info.nsid),
                          false);
  }
  if (!params_.rules.check_identity) return resume_namespace(index, found);
  const auto same = same_namespace(known, *found, params_.weak_identity);
  if (same) return resume_namespace(index, found);
  // Memory for parts of blocks has been made for this size of them.
  const bool acceptable = found->block_shift == known.block_shift;
  s.found = acceptable ? found : nullptr;
  stop_namespace(index,
                 fmt::format("{}; {}", same.error().message,
                             acceptable ? fmt::format("if it is the right disk all the same, say "
                                                      "`nvmf accept {}`",
                                                      known.info.name)
                                        : "to use it as it is now, disconnect and connect again"),
                 false);
}

void RemoteSubsystem::stop_namespace(std::size_t index, std::string why, bool fail_now) {
  NamespaceState& s = states_[index];
  const bool was_stopped = !s.stopped.empty();
  const bool news = s.stopped != why;
  s.stopped = std::move(why);
  const auto most = patience();
  if (!was_stopped && most) {
    const Instant since = state_ == State::lost ? reconnect_.lost_at() : loops_[0]->now();
    s.fails_at = since + *most;
  }
  if (fail_now) s.fails_at = loops_[0]->now();
  on_devices(index, [](NamespaceDevice& device) { device.pause(); });
  if (s.replayer) s.replayer->pause();
  cancel_passthrough(s.devices[0].get(), ESTALE);
  if (state_ == State::live || state_ == State::lost) fail_stopped();
  arm_timers();
  tell_users(index);
  if (!news) return;
  HostEvent event{.kind = EventKind::namespace_stopped};
  event.message = fmt::format("{} is stopped: {}", namespaces_[index]->info.name, s.stopped);
  event.nsids = {namespaces_[index]->info.nsid};
  log_namespace(LogLevel::error, event.message);
  emit(std::move(event));
}

/// `found` by value: it may be the very NamespaceState::found that is let go here.
// NOLINTNEXTLINE(performance-unnecessary-value-param)
void RemoteSubsystem::resume_namespace(std::size_t index, std::shared_ptr<const Namespace> found) {
  NamespaceState& s = states_[index];
  const bool was_stopped = !s.stopped.empty();
  const std::uint64_t size_before = namespaces_[index]->info.size_bytes;
  s.stopped.clear();
  s.found.reset();
  s.fails_at = Instant::max();
  s.failing = false;
  s.attached = true;
  // Once there was one, there is: what a controller says while it has no namespace, or no more
  // than its own default, means little.
  if (association_ != nullptr && association_->info.volatile_write_cache) {
    s.shared->unflushed.set_cache(true);
  }
  namespaces_[index] = found;
  if (s.replayer) s.replayer->resume(found);
  // What has to be written again comes first; replay() lets the clients go on.
  const bool wait = s.must_replay;
  // While the connection is lost, resume_all() says when requests do not fail any more.
  const bool is_live = state_ == State::live;
  on_devices(index, [found, wait, is_live](NamespaceDevice& device) {
    if (is_live) device.set_failing(0);
    device.resume(found, !wait);
  });
  begin_replay(index);
  const BlockInfo& now = found->info;
  tell_users(index);
  if (was_stopped) {
    HostEvent event{.kind = EventKind::namespace_resumed, .message = now.name + " goes on"};
    event.nsids = {now.nsid};
    log_namespace(LogLevel::info, event.message);
    emit(std::move(event));
  }
  if (now.size_bytes == size_before) return;
  HostEvent event{.kind = EventKind::namespace_resized};
  event.message =
      fmt::format("{} has {} bytes now, {} before", now.name, now.size_bytes, size_before);
  event.nsids = {now.nsid};
  event.size_bytes_before = size_before;
  event.size_bytes = now.size_bytes;
  emit(std::move(event));
}

Result<void> RemoteSubsystem::accept(std::uint32_t nsid) {
  const std::size_t index = index_of(nsid);
  if (index == kNoIndex) {
    return fail(fmt::format("{} has no namespace {}", params_.name, nsid), ENOENT);
  }
  NamespaceState& s = states_[index];
  if (s.found == nullptr) {
    return fail(fmt::format("{} is not waiting to be accepted{}", namespaces_[index]->info.name,
                            s.stopped.empty() ? "" : ": " + s.stopped),
                ENOENT);
  }
  if (state_ != State::live) {
    // The next association is compared with what was accepted.
    namespaces_[index] = std::exchange(s.found, nullptr);
    s.stopped = "accepted; it goes on when the connection is back";
    return {};
  }
  resume_namespace(index, s.found);
  return {};
}

// ---- which there are ----

Task<Result<std::shared_ptr<const Namespace>>> RemoteSubsystem::identify_surely(
    std::uint32_t nsid) {
  std::string why;
  auto found = co_await identify_namespace(*association_, nsid, params_.admin_timeout, why);
  for (int tries = 0; tries < kIdentifyTries && !found && found.error().code == EAGAIN; ++tries) {
    co_await sleep(*loops_[0], kIdentifyPause);
    if (association_->ending() || stop_asked_) break;
    why.clear();
    found = co_await identify_namespace(*association_, nsid, params_.admin_timeout, why);
  }
  if (!why.empty()) {
    log_namespace(LogLevel::warning, fmt::format("{}: {}", params_.subnqn, why));
  }
  co_return found;
}

/// One that is served. False: the association is about to end.
Task<bool> RemoteSubsystem::check_known(std::size_t index) {
  const std::uint32_t nsid = namespaces_[index]->info.nsid;
  const auto found = co_await identify_surely(nsid);
  // The next association looks at everything. This one may still be on its way to being used: the
  // controller tells of a change once.
  if (association_->ending() || stop_asked_) co_return false;
  if (!found) {
    // The next association has to look at it before it is used.
    if (found.error().code == EAGAIN) association_->lose(found.error());
    co_return false;
  }
  if (*found != nullptr) {
    judge(index, *found);
    co_return true;
  }
  states_[index].found.reset();
  states_[index].attached = false;
  // It is the controller's own word: there is nothing to wait for.
  stop_namespace(index, fmt::format("the controller has removed namespace {}", nsid), true);
  co_return true;
}

/// Any may have changed. Returns all that there are. Of those that have gone there may be many:
/// only what is listed again is asked about.
Task<Result<std::vector<std::uint32_t>>> RemoteSubsystem::check_all_namespaces() {
  for (std::size_t i = 0; i < states_.size(); ++i) {
    if (states_[i].attached && !co_await check_known(i)) co_return about_to_end();
  }
  auto active = co_await look_for_new({});
  for (std::size_t i = 0; active && i < states_.size(); ++i) {
    if (states_[i].attached) continue;
    if (!std::ranges::binary_search(*active, namespaces_[i]->info.nsid)) continue;
    if (!co_await check_known(i)) co_return about_to_end();
  }
  co_return active;
}

/// The controller says that these have changed; empty: any may have.
Task<void> RemoteSubsystem::check_namespaces(std::vector<std::uint32_t> nsids) {
  const bool any = nsids.empty();
  bool others = false;
  for (const std::uint32_t nsid : nsids) {
    const std::size_t index = index_of(nsid);
    if (index == kNoIndex) {
      others = true;
    } else if (!co_await check_known(index)) {
      co_return;
    }
  }
  if (!any && !others) co_return;
  const auto active =
      any ? co_await check_all_namespaces() : co_await look_for_new(std::move(nsids));
  if (active || association_->ending() || stop_asked_) co_return;
  log_namespace(LogLevel::warning, fmt::format("{}: {}", params_.name, active.error().message));
}

/// What the controller has and this connection does not know: it is served if it can be, and told
/// of otherwise. Of those that were told of already, only `nsids` are looked at again (empty: all).
/// Returns all that there are.
Task<Result<std::vector<std::uint32_t>>> RemoteSubsystem::look_for_new(
    std::vector<std::uint32_t> nsids) {
  // One after the other: two of them would serve the same namespace twice.
  if (co_await newcomers_.take() != SlotShare::Took::yes) {
    co_return fail("the namespaces are being looked at already; try again later", EBUSY);
  }
  Result<std::vector<std::uint32_t>> active = about_to_end();
  if (!association_->ending() && !stop_asked_) {
    active = co_await list_namespaces(*association_, params_.admin_timeout);
  }
  if (active) {
    std::ranges::sort(nsids);
    for (const std::uint32_t nsid : *active) {
      if (association_->ending() || stop_asked_) break;
      const bool told = std::ranges::binary_search(not_served_, nsid);
      const bool named = nsids.empty() || std::ranges::binary_search(nsids, nsid);
      if (index_of(nsid) == kNoIndex && (named || !told)) co_await look_at_new(nsid);
    }
    // Otherwise some have not been looked at: the next association tells of all.
    if (!association_->ending() && !stop_asked_) tell_not_served(*active);
  }
  newcomers_.give_back();
  co_return active;
}

Task<void> RemoteSubsystem::look_at_new(std::uint32_t nsid) {
  const auto* wanted = std::get_if<1>(&params_.namespace_selector);
  if (groups_.empty() || states_.size() >= kNamespacesKeptMax) co_return;
  if (wanted != nullptr && *wanted != nsid) co_return;
  auto found = co_await identify_surely(nsid);
  if (!found || *found == nullptr || !matches(**found, params_.namespace_selector)) co_return;
  co_await serve(std::move(*found));
}

/// What the new association found beside the namespaces that are known.
Task<void> RemoteSubsystem::serve_found() {
  if (groups_.empty()) co_return;
  if (co_await newcomers_.take() != SlotShare::Took::yes) co_return;
  std::vector<std::uint32_t> there = not_served_;
  for (const auto& ns : association_->namespaces) {
    if (index_of(ns->info.nsid) != kNoIndex) continue;
    if (states_.size() < kNamespacesKeptMax) co_await serve(ns);
    there.push_back(ns->info.nsid);
  }
  std::ranges::sort(there);
  const auto twice = std::ranges::unique(there);
  there.erase(twice.begin(), twice.end());
  tell_not_served(there);
  newcomers_.give_back();
}

/// Makes its devices, each on its reactor, where the group and its timers are used meanwhile; then
/// it is there.
Task<void> RemoteSubsystem::serve(std::shared_ptr<const Namespace> ns) {
  NamespaceState s = new_state(*ns);
  const auto holds = holds_of_all();
  for (std::size_t r = 0; r < groups_.size(); ++r) {
    QueueGroup& group = *groups_[r];
    co_await switch_to(group.loop());
    s.devices.push_back(std::make_unique<NamespaceDevice>(ns, group, holds, r, s.shared));
    co_await switch_to(*loops_[0]);
  }
  add_replayer(s, ns);
  // What was written through another NSID, or past all devices, before a loss.
  if (safe_at_ > loops_[0]->now()) s.devices[0]->fence_all(safe_at_);
  const std::size_t index = states_.size();
  if (state_ == State::lost && failing_) {
    for (std::size_t r = 0; r < groups_.size(); ++r) {
      loops_[r]->post([device = s.devices[r].get()] { device->set_failing(EIO); });
    }
  }
  by_nsid_[ns->info.nsid] = index;
  namespaces_.push_back(std::move(ns));
  states_.push_back(std::move(s));
  tell_users(index);
}

std::vector<std::uint32_t> RemoteSubsystem::not_served_of(
    const std::vector<std::uint32_t>& active) const {
  std::vector<std::uint32_t> not_served;
  for (const std::uint32_t nsid : active) {
    if (index_of(nsid) == kNoIndex) not_served.push_back(nsid);
  }
  return not_served;
}

/// Each is told once, as long as it is there.
void RemoteSubsystem::tell_not_served(const std::vector<std::uint32_t>& active) {
  std::vector<std::uint32_t> not_served = not_served_of(active);
  HostEvent event{.kind = EventKind::namespaces_not_served};
  std::ranges::set_difference(not_served, not_served_, std::back_inserter(event.nsids));
  not_served_ = std::move(not_served);
  // Who asked for one of them did not ask for the others.
  if (event.nsids.empty() || params_.namespace_selector.index() != 0) return;
  event.message = fmt::format("{} has {} namespaces that this connection does not serve: {}",
                              params_.subnqn, event.nsids.size(),
                              states_.size() < kNamespacesKeptMax
                                  ? "they are of a kind that cannot be served"
                                  : fmt::format("it has had {} by now and takes no more; connect "
                                                "again to use them",
                                                states_.size()));
  log_namespace(LogLevel::warning, event.message);
  emit(std::move(event));
}

/// A controller whose namespaces come and go all the time does not get the whole log for it.
void RemoteSubsystem::log_namespace(LogLevel level, const std::string& sentence) {
  std::uint64_t suppressed = 0;
  if (!namespace_log_.admit(loops_[0]->now(), suppressed)) return;
  log(level, suppressed == 0 ? sentence : fmt::format("{} ({} more before)", sentence, suppressed));
}

// ---- what local users are told ----

IoState RemoteSubsystem::io_state_at(std::size_t index) const {
  const NamespaceState& s = states_[index];
  if (s.failing || (state_ != State::live && failing_)) return IoState::failing;
  const bool goes_on = state_ == State::live && s.stopped.empty() && !s.must_replay;
  return goes_on ? IoState::live : IoState::waiting;
}

IoState RemoteSubsystem::io_state(std::uint32_t nsid) const {
  const std::size_t index = index_of(nsid);
  return index == kNoIndex ? IoState::failing : io_state_at(index);
}

const Namespace* RemoteSubsystem::find(std::uint32_t nsid) const {
  const std::size_t index = index_of(nsid);
  return index == kNoIndex ? nullptr : namespaces_[index].get();
}

bool RemoteSubsystem::attached(std::uint32_t nsid) const {
  const std::size_t index = index_of(nsid);
  return index != kNoIndex && states_[index].attached;
}

NamespaceTold RemoteSubsystem::to_be_told(std::size_t index) const {
  const BlockInfo& info = namespaces_[index]->info;
  return {.attached = states_[index].attached,
          .state = io_state_at(index),
          .size_bytes = info.size_bytes,
          .read_only = info.read_only};
}

/// Tells of what is not as it was told last.
void RemoteSubsystem::tell_users(std::size_t index) {
  if (!told_live_ || stop_asked_ || (state_ != State::live && state_ != State::lost)) return;
  const NamespaceTold now = to_be_told(index);
  const NamespaceTold before = std::exchange(states_[index].told, now);
  const BlockInfo& info = namespaces_[index]->info;
  const std::uint32_t nsid = info.nsid;
  if (now.attached == before.attached) {
    if (!now.attached || now == before) return;
    if (now.read_only != before.read_only) {
      HostEvent event{.kind = now.read_only ? EventKind::namespace_protected
                                            : EventKind::namespace_writable};
      event.nsids = {nsid};
      event.message = fmt::format("{} {}", info.name,
                                  now.read_only ? "is write-protected now" : "may be written now");
      log_namespace(LogLevel::warning, event.message);
      emit(std::move(event));
    }
    events_.on_namespace_changed(nsid);
    return;
  }
  HostEvent event{.kind = now.attached ? EventKind::namespace_added : EventKind::namespace_removed};
  event.nsids = {nsid};
  if (now.attached) {
    event.message = fmt::format("{} is there: {} bytes{}", info.name, info.size_bytes,
                                info.read_only ? ", read-only" : "");
    events_.on_namespace_attached(nsid);
  } else {
    event.message = fmt::format("the controller has removed {}", info.name);
    events_.on_namespace_detached(nsid);
  }
  log_namespace(now.attached ? LogLevel::info : LogLevel::warning, event.message);
  emit(std::move(event));
}

void RemoteSubsystem::tell_all_users() {
  for (std::size_t i = 0; i < states_.size(); ++i) tell_users(i);
}

}  // namespace nvmf::host
