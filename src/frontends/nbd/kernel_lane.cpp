#include "frontends/nbd/kernel_lane.h"

#include <utility>

#include "frontends/nbd/kernel_setup.h"
#include "nvme/check.h"

namespace nvmf::nbd {
namespace {

/// How often requests are looked at that may be too old: often, beside kAnswerBefore.
constexpr Duration kLookForOld{std::chrono::seconds(1)};

}  // namespace

KernelLane::KernelLane(transport::Loop& loop, BufferArena& arena,
                       std::function<void(const Gone&)> on_gone, std::function<void()> on_stopped)
    : loop_(loop),
      buffers_(arena, loop),
      on_gone_(std::move(on_gone)),
      on_stopped_(std::move(on_stopped)),
      old_timer_(loop.timers(), [this] { look_for_old(); }) {}

KernelLane::~KernelLane() {
  NVMF_CHECK(sessions_.empty());
}

void KernelLane::add(std::unique_ptr<transport::Incoming> incoming, host::BlockDevice& device,
                     std::uint64_t life, std::uint16_t flags,
                     std::optional<Duration> answer_after) {
  const std::uint32_t nsid = device.info().nsid;
  if (stopping_) {
    on_gone_({.nsid = nsid, .life = life, .reason = Error{"the connection ends", ESHUTDOWN}});
    return;  // destroying `incoming` closes it
  }
  auto session =
      std::make_unique<Session>(device, flags, kReplyBegun.size(), buffers_, counters_, *this);
  Session& s = *session;
  sessions_.emplace(&s, Served{std::move(session), nsid, life, answer_after});
  s.attach(loop_.adopt(std::move(incoming), s));
  if (answer_after && !old_timer_.armed()) old_timer_.arm(loop_.now() + kLookForOld);
}

void KernelLane::look_for_old() {
  if (sessions_.empty()) return;
  for (auto& [session, served] : sessions_) {
    if (served.answer_after) session->answer_older_than(*served.answer_after);
  }
  old_timer_.arm(loop_.now() + kLookForOld);
}

void KernelLane::stop() {
  if (std::exchange(stopping_, true)) return;
  for (auto& [session, served] : sessions_) session->stop();
  if (sessions_.empty() && !std::exchange(reported_, true)) {
    old_timer_.cancel();
    buffers_.stop();
    on_stopped_();
  }
}

void KernelLane::cut() {
  stop();
  for (auto& [session, served] : sessions_) session->cut();
}

void KernelLane::session_gone(Session& session, const Error& reason) {
  const auto it = sessions_.find(&session);
  NVMF_CHECK(it != sessions_.end());
  const Gone gone{it->second.nsid, it->second.life, session.said_goodbye(), session.dismissed(),
                  reason};
  sessions_.erase(it);
  on_gone_(gone);
  if (!stopping_ || !sessions_.empty() || std::exchange(reported_, true)) return;
  old_timer_.cancel();
  buffers_.stop();
  on_stopped_();
}

}  // namespace nvmf::nbd
