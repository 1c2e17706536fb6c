// The Get Log Page command. Base 2.1 §5.1.12.
//
// A page is made anew for each command and cut to the piece that was asked for. A piece that
// reaches over the page's end is filled up with zeroes; an offset beyond the end is an error.
#include <array>
#include <chrono>
#include <cstring>
#include <span>
#include <vector>

#include "controller/admin_commands.h"
#include "controller/controller.h"
#include "controller/discovery.h"
#include "controller/features.h"
#include "controller/limits.h"
#include "controller/session.h"
#include "nvme/log_pages.h"

namespace nvmf::controller {

using nvme::LogPage;
using nvme::StatusCode;

namespace {

using Bytes = std::vector<std::byte>;

constexpr auto kFeaturesPage = static_cast<LogPage>(0x12);
/// SMART counts data in thousands of 512 bytes, rounded up. Base 2.1 §5.1.12.1.3.
constexpr std::uint64_t kDataUnitBytes = 512'000;

template <std::size_t N, class T>
Bytes encoded(const T& value) {
  Bytes bytes(N);
  value.encode(std::span<std::byte, N>(bytes));
  return bytes;
}

Bytes supported_pages(const Controller& controller) {
  nvme::SupportedLogPages pages;
  const auto add = [&pages](LogPage page) {
    pages.lids[static_cast<std::uint8_t>(page)] = nvme::kLogPageSupported;
  };
  add(LogPage::supported_pages);
  add(LogPage::error_information);
  add(kFeaturesPage);
  if (controller.subsystem().discovery()) {
    add(LogPage::discovery);
  } else {
    for (const LogPage page :
         {LogPage::smart, LogPage::firmware_slot, LogPage::changed_namespaces, LogPage::effects}) {
      add(page);
    }
    if (!controller.subsystem().ana_groups().empty()) add(LogPage::ana);
  }
  return encoded<nvme::kSupportedLogPagesBytes>(pages);
}

Bytes error_information(const Controller& controller) {
  Bytes bytes(kErrorEntriesMax * nvme::kErrorEntryBytes);
  std::size_t at = 0;
  for (const nvme::ErrorEntry& entry : controller.errors()) {
    entry.encode(
        std::span<std::byte, nvme::kErrorEntryBytes>(bytes.data() + at, nvme::kErrorEntryBytes));
    at += nvme::kErrorEntryBytes;
  }
  return bytes;
}

std::uint64_t data_units(std::uint64_t bytes) {
  return (bytes + kDataUnitBytes - 1) / kDataUnitBytes;
}

Bytes smart(const Controller& controller) {
  const Subsystem& subsystem = controller.subsystem();
  const Counters& counters = subsystem.counters;
  nvme::SmartLog log;
  log.critical_warning = controller.critical_warnings();
  log.composite_temperature = subsystem.health.temperature_kelvins;
  log.avail_spare = subsystem.health.spare_percent;
  log.percent_used = subsystem.health.used_percent;
  log.data_units_read.low = data_units(counters.read_bytes);
  log.data_units_written.low = data_units(counters.written_bytes);
  log.host_read_commands.low = counters.read_commands;
  log.host_write_commands.low = counters.write_commands;
  log.power_cycles.low = 1;
  log.power_on_hours.low = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::hours>(controller.now() - subsystem.started())
          .count());
  log.unsafe_shutdowns.low = counters.unsafe_shutdowns;
  log.media_errors.low = counters.media_errors;
  log.num_err_log_entries.low = counters.error_entries;
  return encoded<nvme::kSmartBytes>(log);
}

Bytes firmware_slots() {
  nvme::FirmwareSlots slots;
  slots.afi = 1;
  slots.frs[0] = NVMF_VERSION;
  return encoded<nvme::kFirmwareSlotBytes>(slots);
}

/// The page's bytes; an empty page does not exist here.
Bytes page_bytes(const Controller& controller, Session& session, const nvme::GetLogPage& get) {
  const bool discovery = controller.subsystem().discovery();
  switch (get.page) {
    case LogPage::supported_pages:
      return supported_pages(controller);
    case LogPage::error_information:
      return error_information(controller);
    case kFeaturesPage: {
      Bytes bytes(kSupportedFeaturesBytes);
      encode_supported_features(controller, std::span<std::byte, kSupportedFeaturesBytes>(bytes));
      return bytes;
    }
    case LogPage::discovery:
      if (!discovery) return {};
      return controller.discovery()->log_page(controller.identity().hostnqn,
                                              session.qpair().local(), session.port_id());
    default:
      break;
  }
  if (discovery) return {};
  switch (get.page) {
    case LogPage::smart:
      return smart(controller);
    case LogPage::firmware_slot:
      return firmware_slots();
    case LogPage::changed_namespaces:
      return encoded<nvme::kChangedNamespacesBytes>(controller.changed_namespaces());
    case LogPage::ana:
      if (controller.subsystem().ana_groups().empty()) return {};
      return controller.subsystem()
          .ana_log(controller.identity().port_id, (get.lsp & nvme::kLspAnaGroupsOnly) != 0)
          .encode();
    case LogPage::effects:
      return encoded<nvme::kEffectsBytes>(supported_commands(controller));
    default:
      return {};
  }
}

}  // namespace

AdminReply execute_get_log_page(Controller& controller, Session& session, const nvme::Sqe& sqe,
                                std::uint32_t data_bytes) {
  const auto get = nvme::GetLogPage::from_sqe(sqe);
  if (get.length_bytes > kTransferBytesMax) return AdminReply::refuse(StatusCode::invalid_field);
  if (get.offset_bytes % 4 != 0 || get.index_offset || get.csi != 0) {
    return AdminReply::refuse(StatusCode::invalid_field);
  }
  // All pages are the controller's: LPA bit 0 is clear.
  if (get.page == LogPage::smart && get.nsid != 0 && get.nsid != nvme::kNsidAll) {
    return AdminReply::refuse(StatusCode::invalid_field);
  }
  Bytes page = page_bytes(controller, session, get);
  if (page.empty()) {
    // A page that does not exist: Base 2.1 §5.1.12 has a status of its own for it, but hosts and
    // other targets know Invalid Field.
    return AdminReply::refuse(StatusCode::invalid_field);
  }
  if (get.offset_bytes > page.size()) return AdminReply::refuse(StatusCode::invalid_field);
  if (data_bytes != get.length_bytes) {
    return AdminReply::refuse(StatusCode::data_sgl_length_invalid);
  }
  if (!get.retain_event) controller.log_page_read(get.page);
  page.erase(page.begin(), page.begin() + static_cast<std::ptrdiff_t>(get.offset_bytes));
  // At the very end there is nothing left but zeroes, of which the caller needs one to send more.
  if (page.empty()) page.resize(4);
  return AdminReply::with(std::move(page));
}

}  // namespace nvmf::controller
