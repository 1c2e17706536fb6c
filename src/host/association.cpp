#include "host/association.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <utility>

#include "host/log.h"
#include "nvme/admin.h"
#include "nvme/check.h"

namespace nvmf::host {

namespace {

// After an event nothing more is asked for this long, so that a controller that has always another
// one ready costs little.
constexpr Duration kEventPause = std::chrono::milliseconds(10);
constexpr Duration kShutdownWait = std::chrono::seconds(1);
constexpr Duration kShutdownPoll = std::chrono::milliseconds(10);
constexpr std::uint64_t kAdminPieceBytesMax = 64 * 1024;

std::string context(const Association& a) {
  return fmt::format("{} ({} at {})", a.params().name, a.params().subnqn,
                     a.info.endpoint.to_string());
}

}  // namespace

Association::Association(ConnectParams params, std::vector<transport::Loop*> loops)
    : params_(std::move(params)),
      loops_(std::move(loops)),
      ended_(*loops_.at(0)),
      tasks_(*loops_[0]),
      keep_alive_timer_(loops_[0]->timers(), [this] { check_keep_alive(); }) {
  renew_admin();
}

Association::~Association() {
  for (const QueueSlot& slot : queues_) NVMF_CHECK(slot.queue == nullptr);
}

void Association::renew_admin() {
  // An admin queue that fails to open is bring_up()'s affair; later its end is everyone's.
  admin_ = std::make_unique<AdminQueue>(control(), [this](const Error& reason) {
    if (info.cntlid != 0) end(reason);
  });
}

Association::QueueSlot& Association::add_queue() {
  NVMF_CHECK(queues_.size() < queues_.capacity());
  const std::size_t index = queues_.size();
  QueueSlot& slot = queues_.emplace_back();
  slot.reactor = index % loops_.size();
  slot.counters = std::make_unique<QueueCounters>();
  // on_down comes on the reactor, before close_queue() goes on there; so does what it posts here.
  slot.queue = std::make_unique<IoQueue>(
      *loops_[slot.reactor], static_cast<std::uint16_t>(index + 1), *slot.counters,
      params_.command_timeout, [this, &loop = control()](const Error& reason) {
        loop.post([this, reason] { end(reason); });
      });
  return slot;
}

void Association::end(Error reason) {
  if (end_reason_) return;
  end_reason_ = std::move(reason);
  keep_alive_timer_.cancel();
  admin_->end(*end_reason_);
  for (QueueSlot& slot : queues_) {
    loops_[slot.reactor]->post([queue = slot.queue.get(), why = *end_reason_] { queue->end(why); });
  }
  ended_.fire();
}

Task<void> Association::close_queue(QueueSlot& slot) {
  co_await switch_to(*loops_[slot.reactor]);
  co_await slot.queue->close(Error{"the association was closed", ECANCELED});
  slot.queue.reset();
  co_await switch_to(control());
}

Task<void> Association::finish_queue(QueueSlot& slot) {
  co_await switch_to(*loops_[slot.reactor]);
  slot.queue->finish();
  co_await slot.queue->wait_ended();
  co_await switch_to(control());
}

Task<void> Association::close(Error reason) {
  end(std::move(reason));
  std::vector<Task<void>> closing;
  closing.reserve(queues_.size());
  for (QueueSlot& slot : queues_) closing.push_back(close_queue(slot));
  co_await when_all(std::move(closing));
  co_await admin_->close(*end_reason_);
  co_await tasks_.wait_empty();
}

Task<void> Association::shut_down() {
  const Gate::Pass inside(tasks_);
  keep_alive_timer_.cancel();
  if (ending() || !admin_->live()) co_return;
  // CC has the values that bring-up gave it, and nobody else changes it. Base 2.1 §3.6.1.
  const Instant until = control().now() + kShutdownWait;
  nvme::ControllerConfiguration cc = info.cc;
  cc.shn = nvme::kShnNormal;
  auto set =
      co_await admin_->execute(nvme::property_set(nvme::Property::cc, cc.encode()), kShutdownWait);
  while (set && set->cqe.status.ok() && control().now() < until) {
    auto csts =
        co_await admin_->execute(nvme::property_get(nvme::Property::csts), until - control().now());
    if (!csts || !csts->cqe.status.ok()) break;
    const auto status = nvme::ControllerStatus::decode(csts->cqe.dw0());
    if (status.shst == nvme::kShstComplete || status.cfs) break;
    co_await sleep(control(), kShutdownPoll);
  }
  if (ending()) co_return;
  // From here on the ends of queues are what we want, and no reason for anybody.
  end_reason_ = Error{"the connection was shut down", 0};
  admin_->finish();
  std::vector<Task<void>> finishing;
  finishing.reserve(queues_.size());
  for (QueueSlot& slot : queues_) finishing.push_back(finish_queue(slot));
  co_await when_all(std::move(finishing));
  co_await admin_->wait_ended();
  ended_.fire();
}

void Association::start_keep_alive() {
  const std::uint32_t asked = params_.keep_alive_ms;
  if (asked == 0) return;
  const std::uint32_t ms = info.katt_ms != 0 ? std::min(asked, info.katt_ms) : asked;
  keep_alive_timeout_ = std::chrono::milliseconds(ms);
  // Where traffic counts, a check that finds some sends nothing: twice as many keep the distance.
  keep_alive_interval_ = keep_alive_timeout_ / (info.traffic_based_keep_alive ? 4 : 2);
  submitted_at_check_ = commands_submitted();
  keep_alive_timer_.arm(control().now() + keep_alive_interval_);
}

std::uint64_t Association::commands_submitted() const {
  std::uint64_t sum = admin_->submitted();
  for (const QueueSlot& slot : queues_) {
    sum += slot.counters->commands.load(std::memory_order_relaxed);
  }
  return sum;
}

/// Only commands that the controller fetches keep it waiting (Base 2.1 §3.9.4.1), neither data nor
/// what we receive; so only submitted commands may take a Keep Alive's place.
void Association::check_keep_alive() {
  const Instant now = control().now();
  if (admin_->keep_alive_outstanding()) {
    if (now - keep_alive_sent_at_ >= keep_alive_timeout_) {
      return end(
          Error{fmt::format("{} did not answer a Keep Alive within {} ms", admin_->describe(),
                            keep_alive_timeout_ / std::chrono::milliseconds(1)),
                ETIMEDOUT});
    }
  } else {
    const std::uint64_t submitted = commands_submitted();
    const bool traffic = submitted != std::exchange(submitted_at_check_, submitted);
    if (!traffic || !info.traffic_based_keep_alive) {
      keep_alive_sent_at_ = now;
      admin_->submit_keep_alive([this](nvme::Status status) {
        if (status.ok()) return;
        end(Error{fmt::format("{} refused a Keep Alive: {}", admin_->describe(),
                              nvme::describe(status, nvme::StatusContext::admin)),
                  EIO});
      });
    }
  }
  keep_alive_timer_.arm(now + keep_alive_interval_);
}

void Association::start_events() {
  // AERL is 0's based. Base 2.1 §5.1.13.2.1.
  const unsigned slots = std::min(info.controller.aerl + 1u, kAsyncEventSlotsMax);
  for (unsigned i = 0; i < slots; ++i) spawn(serve_events());
}

/// One slot's life: ask, wait, look, ask again, also when the looking fails.
Task<void> Association::serve_events() {
  const Gate::Pass inside(tasks_);
  while (!ending()) {
    auto event = co_await admin_->execute_event_request();
    if (!event) co_return;
    if (!event->cqe.status.ok()) {
      log(LogLevel::info,
          fmt::format("{} takes no more event requests: {}", context(*this),
                      nvme::describe(event->cqe.status, nvme::StatusContext::admin)));
      co_return;
    }
    ++async_events_;
    co_await handle_event(event->cqe.dw0());
    co_await sleep(control(), kEventPause);
  }
}

Task<void> Association::handle_event(std::uint32_t dw0) {
  const auto event = nvme::AsyncEvent::decode(dw0);
  log(LogLevel::info, fmt::format("{} reports: {}", context(*this), event.describe()));
  if (event.type == nvme::AsyncEventType::notice && event.info == nvme::kNoticeNamespaceChanged) {
    co_return co_await report_changed_namespaces();
  }
  // Reading the page that the event names clears it: without that it is not reported again.
  std::size_t bytes = 0;
  switch (static_cast<nvme::LogPage>(event.log_page)) {
    case nvme::LogPage::error_information:
      bytes = nvme::kErrorEntryBytes;
      break;
    case nvme::LogPage::smart:
      bytes = nvme::kSmartBytes;
      break;
    case nvme::LogPage::firmware_slot:
      bytes = nvme::kFirmwareSlotBytes;
      break;
    case nvme::LogPage::ana:
      bytes = nvme::kAnaHeaderBytes;
      break;
    case nvme::LogPage::discovery:
      bytes = nvme::kDiscoveryHeaderBytes;
      break;
    default:
      co_return;
  }
  std::vector<std::byte> page(bytes);
  const nvme::GetLogPage get{.page = static_cast<nvme::LogPage>(event.log_page),
                             .nsid = nvme::kNsidAll};
  auto read =
      co_await read_log_page(*admin_, get, page, admin_piece_bytes(info), params_.admin_timeout);
  if (read && !read->cqe.status.ok()) {
    log(LogLevel::warning,
        fmt::format("{} refused log page {:#04x}: {}", context(*this), event.log_page,
                    nvme::describe(read->cqe.status, nvme::StatusContext::admin)));
  }
}

Task<void> Association::report_changed_namespaces() {
  std::vector<std::byte> page(nvme::kChangedNamespacesBytes);
  const nvme::GetLogPage get{.page = nvme::LogPage::changed_namespaces, .nsid = nvme::kNsidAll};
  auto read = co_await read_log_page(*admin_, get, page, page.size(), params_.admin_timeout);
  if (!read) co_return;
  if (!read->cqe.status.ok()) {
    log(LogLevel::warning,
        fmt::format("{} refused the list of changed namespaces: {}", context(*this),
                    nvme::describe(read->cqe.status, nvme::StatusContext::admin)));
    co_return;
  }
  const auto changed = nvme::ChangedNamespaces::decode(page);
  log(LogLevel::warning,
      changed.overflow
          ? fmt::format("{}: more namespaces changed than the controller can list; reconnect to "
                        "see them",
                        context(*this))
          : fmt::format("{}: namespaces changed: {}; reconnect to see how", context(*this),
                        fmt::join(changed.nsids, ", ")));
}

std::uint64_t admin_piece_bytes(const AssociationInfo& info) {
  const auto most = info.controller.max_transfer_bytes(info.cap.mpsmin);
  return std::min(most.value_or(kAdminPieceBytesMax), kAdminPieceBytesMax);
}

}  // namespace nvmf::host
