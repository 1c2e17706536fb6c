// Log pages as JSON, with the keys and values of nvme-cli 2.3's `-o json`. As there, 32-bit fields
// that it handles as int come out negative from 2^31 on, and 128-bit counters are strings. Every
// function returns a whole indented document.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "nvme/identify.h"
#include "nvme/log_pages.h"
#include "nvme/print.h"

namespace nvmf::nvme {

/// `nvme smart-log -o json`; human takes the critical warning apart.
std::string to_json(const SmartLog& log, Detail detail = Detail::brief);
/// `nvme error-log -o json`.
std::string to_json(std::span<const ErrorEntry> log);
/// `nvme fw-log -o json`. Shows frs_raw, what was decoded.
std::string to_json(const FirmwareSlots& log, std::string_view device);
/// `nvme effects-log -o json`: an array of pages, one for each I/O command set asked for.
struct EffectsPage {
  Csi csi = Csi::nvm;
  EffectsLog log;
};
std::string to_json(std::span<const EffectsPage> pages);
std::string to_json(const EffectsLog& log, Csi csi = Csi::nvm);
/// `nvme changed-ns-list-log -o json`. For a list that overflowed nvme-cli prints nothing at all;
/// here that is said by "overflow": true beside an empty list.
std::string to_json(const ChangedNamespaces& log, std::string_view device);
/// `nvme ana-log -o json`.
std::string to_json(const AnaLog& log, std::string_view device);
/// `nvme self-test-log -o json`.
std::string to_json(const SelfTestLog& log, std::size_t entries = kSelfTestResults);
/// `nvme supported-log-pages -o json`. nvme-cli 2.3 aborts where a page is supported; this is what
/// it meant: an object of "lid_0x… " keys in an array.
std::string to_json(const SupportedLogPages& log);

}  // namespace nvmf::nvme
