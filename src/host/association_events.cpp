// Association: what the controller reports by asynchronous events, and what is done about it.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "host/association.h"
#include "host/log.h"
#include "nvme/admin.h"
#include "nvme/explain.h"

namespace nvmf::host {

namespace {

// After an event nothing more is asked for this long, so that a controller that has always another
// one ready costs little.
constexpr Duration kEventPause = std::chrono::milliseconds(10);
// ANA groups that are read at most: 32 KiB of log.
constexpr std::uint32_t kAnaGroupsMax = 1024;

std::string context(const Association& a) {
  return fmt::format("{} ({} at {})", a.params().name, a.params().subnqn,
                     a.info.endpoint.to_string());
}

EventKind kind_of(const nvme::AsyncEvent& event) {
  switch (event.type) {
    case nvme::AsyncEventType::error:
      return EventKind::error;
    case nvme::AsyncEventType::smart:
      return EventKind::smart;
    case nvme::AsyncEventType::notice:
      break;
    default:
      return EventKind::other;
  }
  switch (event.info) {
    case nvme::kNoticeNamespaceChanged:
      return EventKind::namespaces_changed;
    case nvme::kNoticeFirmwareActivation:
      return EventKind::firmware_activation;
    case nvme::kNoticeAnaChange:
      return EventKind::ana_changed;
    case nvme::kNoticeDiscoveryChange:
      return EventKind::discovery_changed;
    default:
      return EventKind::other;
  }
}

/// How much of the page that the event names is to be read; 0: nothing of it.
std::size_t page_bytes(nvme::LogPage page, const nvme::IdentifyController& id) {
  switch (page) {
    case nvme::LogPage::error_information:
      return std::min<std::size_t>(id.elpe + std::size_t{1}, kEventErrorsMax) *
             nvme::kErrorEntryBytes;
    case nvme::LogPage::smart:
      return nvme::kSmartBytes;
    case nvme::LogPage::firmware_slot:
      return nvme::kFirmwareSlotBytes;
    case nvme::LogPage::ana:
      return nvme::kAnaHeaderBytes +
             std::size_t{std::min(id.nanagrpid, kAnaGroupsMax)} * nvme::kAnaGroupBytes;
    case nvme::LogPage::discovery:
      return nvme::kDiscoveryHeaderBytes;
    default:
      return 0;
  }
}

}  // namespace

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
    count(counters_->async_events);
    co_await handle_event(event->cqe.dw0());
    co_await sleep(control(), kEventPause);
  }
}

/// A controller that has always another event to report does not get the whole log for it.
void Association::log_event(LogLevel level, const std::string& sentence) {
  std::uint64_t suppressed = 0;
  if (!event_log_.admit(control().now(), suppressed)) return;
  log(level, suppressed == 0 ? sentence : fmt::format("{} ({} more before)", sentence, suppressed));
}

/// What it means, then what there is to know about it, then whoever listens.
Task<void> Association::handle_event(std::uint32_t dw0) {
  const auto event = nvme::AsyncEvent::decode(dw0);
  HostEvent told{.kind = kind_of(event), .dw0 = dw0};
  told.message = fmt::format("{} reports: {}", context(*this), event.describe());
  log_event(LogLevel::info, told.message);
  if (told.kind == EventKind::namespaces_changed) {
    co_await report_changed_namespaces(told);
  } else {
    co_await read_event_page(static_cast<nvme::LogPage>(event.log_page), told);
  }
  if (on_event) on_event(std::move(told));
}

/// Reading the page that the event names clears it: without that it is not reported again.
Task<void> Association::read_event_page(nvme::LogPage page, HostEvent& told) {
  std::vector<std::byte> bytes(page_bytes(page, info.controller));
  if (bytes.empty()) co_return;
  nvme::GetLogPage get{.page = page, .nsid = nvme::kNsidAll};
  if (page == nvme::LogPage::ana) get.lsp = nvme::kLspAnaGroupsOnly;
  auto read =
      co_await read_log_page(*admin_, get, bytes, admin_piece_bytes(info), params_.admin_timeout);
  if (!read) co_return;
  if (read->cqe.status.ok()) co_return take_event_page(page, bytes, told);
  log_event(
      LogLevel::warning,
      fmt::format("{} refused log page {:#04x}: {}", context(*this), static_cast<unsigned>(page),
                  nvme::explain(read->cqe.status, nvme::StatusContext::admin)));
}

void Association::take_event_page(nvme::LogPage page, std::span<const std::byte> bytes,
                                  HostEvent& told) {
  switch (page) {
    case nvme::LogPage::error_information:
      return take_new_errors(bytes, told);
    case nvme::LogPage::smart:
      told.smart = nvme::SmartLog::decode(bytes);
      return;
    case nvme::LogPage::firmware_slot:
      told.firmware = nvme::FirmwareSlots::decode(bytes);
      return;
    case nvme::LogPage::discovery:
      told.generation = nvme::DiscoveryHeader::decode(bytes).genctr;
      return;
    case nvme::LogPage::ana:
      if (auto ana = nvme::AnaLog::decode(bytes)) {
        told.ana = std::move(*ana);
      } else {
        log_event(LogLevel::warning, fmt::format("{}: {}", context(*this), ana.error().message));
      }
      return;
    default:
      return;
  }
}

/// Error counts rise. Which entries are older than this association is not known at first: then the
/// latest alone is new for certain.
void Association::take_new_errors(std::span<const std::byte> bytes, HostEvent& told) {
  std::uint64_t latest = last_error_.value_or(0);
  for (; bytes.size() >= nvme::kErrorEntryBytes; bytes = bytes.subspan(nvme::kErrorEntryBytes)) {
    const auto entry = nvme::ErrorEntry::decode(bytes.first<nvme::kErrorEntryBytes>());
    if (entry.error_count <= last_error_.value_or(0)) continue;
    told.errors.push_back(entry);
    latest = std::max(latest, entry.error_count);
  }
  std::ranges::sort(told.errors, std::ranges::greater{}, &nvme::ErrorEntry::error_count);
  if (!last_error_ && told.errors.size() > 1) told.errors.resize(1);
  last_error_ = latest;
}

/// Any may have changed (overflow) if that cannot be read.
Task<Result<nvme::ChangedNamespaces>> Association::read_changed_namespaces() {
  std::vector<std::byte> page(nvme::kChangedNamespacesBytes);
  const nvme::GetLogPage get{.page = nvme::LogPage::changed_namespaces, .nsid = nvme::kNsidAll};
  auto read = co_await read_log_page(*admin_, get, page, page.size(), params_.admin_timeout);
  if (!read) co_return std::unexpected(read.error());
  if (read->cqe.status.ok()) co_return nvme::ChangedNamespaces::decode(page);
  log_event(LogLevel::warning,
            fmt::format("{} refused the list of changed namespaces: {}", context(*this),
                        nvme::explain(read->cqe.status, nvme::StatusContext::admin)));
  co_return nvme::ChangedNamespaces{.overflow = true};
}

Task<void> Association::report_changed_namespaces(HostEvent& told) {
  const auto changed = co_await read_changed_namespaces();
  if (!changed) co_return;
  told.nsids = changed->nsids;
  told.overflow = changed->overflow;
  log_event(
      LogLevel::warning,
      changed->overflow
          ? fmt::format("{}: more namespaces changed than the controller can list", context(*this))
          : fmt::format("{}: namespaces changed: {}", context(*this),
                        fmt::join(changed->nsids, ", ")));
  if (!on_namespaces_changed) co_return;
  co_await on_namespaces_changed(changed->overflow ? std::vector<std::uint32_t>{} : changed->nsids);
}

}  // namespace nvmf::host
