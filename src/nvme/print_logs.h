// Log pages as text for people, laid out as nvme-cli 2.3 prints them. `device` is the name in their
// first lines: what the caller calls the controller, shown as it is if printable.
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

/// `nvme smart-log`. `nsid` is the one that was asked for, FFFFFFFFh for the controller.
std::string print(const SmartLog& log, std::string_view device, std::uint32_t nsid,
                  Detail detail = Detail::brief);
/// `nvme error-log`: every entry given, used or not, in the log's order.
std::string print(std::span<const ErrorEntry> log, std::string_view device);
/// `nvme fw-log`. Shows frs_raw, what was decoded.
std::string print(const FirmwareSlots& log, std::string_view device);
/// `nvme effects-log`: the page of one I/O command set. As nvme-cli's it leaves out the admin
/// opcodes BFh and FFh.
std::string print(const EffectsLog& log, Csi csi = Csi::nvm, Detail detail = Detail::brief);
/// `nvme changed-ns-list-log`.
std::string print(const ChangedNamespaces& log);
/// `nvme ana-log`.
std::string print(const AnaLog& log, std::string_view device);
/// `nvme self-test-log`: the `entries` newest results, at most all. human is its `--verbose`.
std::string print(const SelfTestLog& log, std::string_view device,
                  std::size_t entries = kSelfTestResults, Detail detail = Detail::brief);
/// `nvme supported-log-pages`. human is its `--verbose`.
std::string print(const SupportedLogPages& log, std::string_view device,
                  Detail detail = Detail::brief);

/// `nvme get-log` without `--raw-binary`: a heading, then hex_dump().
std::string print_log_bytes(std::string_view device, std::uint8_t log_id, std::uint32_t nsid,
                            std::span<const std::byte> bytes);

/// The names nvme-cli gives opcodes and log identifiers; kUnknownName for those it does not know.
inline constexpr std::string_view kUnknownName = "Unknown";
std::string_view admin_opcode_name(std::uint8_t opcode);
std::string_view io_opcode_name(std::uint8_t opcode);
std::string_view log_page_name(std::uint8_t log_id);
/// Eight characters, a dot for each that is not printable or a space.
std::string firmware_revision_text(std::uint64_t frs);

}  // namespace nvmf::nvme
