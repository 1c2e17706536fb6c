#include "controller/events.h"

#include "nvme/identify.h"

namespace nvmf::controller {

using nvme::AsyncEventType;
using nvme::LogPage;

namespace {

struct KindInfo {
  AsyncEventType type;
  LogPage page;
  std::uint32_t config_bit;
};

/// In the order of EventKind.
constexpr std::array<KindInfo, kEventKinds> kKinds{{
    {AsyncEventType::notice, LogPage::changed_namespaces, nvme::kOaesNamespaceAttributes},
    {AsyncEventType::notice, LogPage::firmware_slot, nvme::kOaesFirmwareActivation},
    {AsyncEventType::notice, LogPage::ana, nvme::kOaesAnaChange},
    {AsyncEventType::notice, LogPage::discovery, nvme::kOaesDiscoveryChange},
    {AsyncEventType::smart, LogPage::smart, 0},
    {AsyncEventType::error, LogPage::error_information, 0},
}};

}  // namespace

void AsyncEvents::raise(EventKind kind, std::uint8_t info) {
  State& state = kinds_[static_cast<std::size_t>(kind)];
  if (state.told || state.waits) return;
  state.waits = true;
  state.info = info;
}

std::optional<nvme::AsyncEvent> AsyncEvents::take() {
  for (std::size_t i = 0; i < kEventKinds; ++i) {
    State& state = kinds_[i];
    if (!state.waits) continue;
    state.waits = false;
    state.told = true;
    return nvme::AsyncEvent{kKinds[i].type, state.info, static_cast<std::uint8_t>(kKinds[i].page)};
  }
  return std::nullopt;
}

void AsyncEvents::log_read(nvme::LogPage page) {
  for (std::size_t i = 0; i < kEventKinds; ++i) {
    if (kKinds[i].page == page) kinds_[i].told = false;
  }
}

std::uint32_t AsyncEvents::config_bit(EventKind kind) {
  return kKinds[static_cast<std::size_t>(kind)].config_bit;
}

}  // namespace nvmf::controller
