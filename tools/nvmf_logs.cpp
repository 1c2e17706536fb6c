// The verbs of nvmf that show log pages.
#include "nvmf_logs.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "nvme/admin.h"
#include "nvme/fabrics.h"
#include "nvme/identify.h"
#include "nvme/json_logs.h"
#include "nvme/print_logs.h"
#include "nvmf_output.h"

namespace nvmf::tools {

namespace {

using nvme::LogPage;
using Bytes = std::vector<std::byte>;

/// Every controller transfers that much: MDTS counts pages of at least 4 KiB.
constexpr std::size_t kAlwaysTransferred = 4096;
/// Longer logs than this are firmware's own dumps, which the vendor's tools read.
constexpr std::uint32_t kLogBytesMax = 256u << 20;
/// An ANA log is as long as the controller's numbers of groups and namespaces say, which need not
/// be serious: this holds a million namespaces.
constexpr std::uint64_t kAnaLogBytesMax = 8u << 20;
/// What --aen reads, as in nvme-cli.
constexpr std::uint32_t kEventLogBytes = 4096;
/// Command sets that the vector of Identify's 1Ch can name.
constexpr unsigned kCommandSetsMax = 64;

Result<Bytes> read_whole(CommandPort& port, const nvme::GetLogPage& log, std::size_t bytes) {
  Bytes data(bytes);
  if (auto ok = read_log(port, log, data); !ok) return std::unexpected(ok.error());
  return data;
}

Result<nvme::IdentifyController> identify_controller(CommandPort& port) {
  Bytes data(nvme::kIdentifyBytes);
  const auto sqe = nvme::identify(nvme::Cns::controller);
  const auto reply = read_admin(port, sqe, data);
  if (auto ok = judge(port, sqe, true, reply); !ok) return std::unexpected(ok.error());
  return nvme::IdentifyController::decode(data);
}

/// Reads a log of known length and shows it: as it is, or by one of the two functions of a decoded
/// value and the name that nvme-cli shows for the device.
template <class Decode, class Json, class Text>
int show_log(const LogWords& words, const nvme::GetLogPage& log, std::size_t bytes, Decode decode,
             Json json, Text text) {
  auto port = CommandPort::open(words.target, words.temporary, PortUse::admin);
  if (!port) return refuse(port.error());
  const auto data = read_whole(**port, log, bytes);
  if (!data) return refuse(data.error());
  if (words.format == OutputFormat::binary) return write_raw(*data);
  const auto value = decode(*data);
  return show(words.format == OutputFormat::json ? json(value) : text(value));
}

/// Command sets whose effects are to be shown: those that the controller supports. One that cannot
/// say has the NVM command set.
Result<std::vector<nvme::Csi>> supported_command_sets(CommandPort& port) {
  const auto get_cap = nvme::property_get(nvme::Property::cap);
  const auto reply = port.execute({.sqe = get_cap});
  if (auto ok = judge(port, get_cap, true, reply); !ok) return std::unexpected(ok.error());
  const auto cap = nvme::ControllerCapabilities::decode(reply->result);
  std::uint64_t sets = 0;
  if ((cap.css & nvme::kCapCssIo) != 0) {
    Bytes data(nvme::kIdentifyBytes);
    const auto sqe =
        nvme::IdentifyCommand{.cns = nvme::Cns::command_sets, .cntid = 0xffff}.to_sqe();
    const auto answer = read_admin(port, sqe, data);
    if (!answer) return std::unexpected(judge(port, sqe, true, answer).error());
    if (answer->status.ok()) {
      for (const std::uint64_t combination : nvme::decode_command_sets(data)) sets |= combination;
    }
  }
  if ((cap.css & nvme::kCapCssNvm) != 0 || sets == 0) sets |= 1;
  std::vector<nvme::Csi> all;
  for (unsigned i = 0; i < kCommandSetsMax; ++i) {
    if ((sets >> i & 1) != 0) all.push_back(static_cast<nvme::Csi>(i));
  }
  return all;
}

/// What the log may be long. NVMe Base 2.1 §5.1.12.1.13.
std::uint64_t ana_log_bytes(const nvme::IdentifyController& id) {
  constexpr std::uint64_t kEntry = 4;
  const std::uint64_t namespaces = id.mnan != 0 ? id.mnan : id.nn;
  return std::min(nvme::kAnaHeaderBytes + id.nanagrpid * std::uint64_t{nvme::kAnaGroupBytes} +
                      namespaces * kEntry,
                  kAnaLogBytesMax);
}

}  // namespace

Result<void> read_log(CommandPort& port, nvme::GetLogPage log, std::span<std::byte> out,
                      std::optional<std::uint32_t> piece_bytes) {
  std::uint64_t most = out.size();
  if (out.size() > kAlwaysTransferred) {
    const auto allowed = port.transfer_bytes_max();
    if (!allowed) {
      return fail(fmt::format("{}: {}", port.target(), allowed.error().message),
                  allowed.error().code);
    }
    most = std::max<std::uint64_t>(*allowed / 4 * 4, kAlwaysTransferred);
  }
  if (piece_bytes) most = std::min<std::uint64_t>(most, *piece_bytes);
  if (log.index_offset && most < out.size()) {
    return fail(fmt::format("{}: {} bytes do not go into one command, and an offset that is an "
                            "index says nothing of where the next would begin: give --log-len {} "
                            "or less",
                            port.target(), out.size(), most),
                EINVAL);
  }
  const bool retain = log.retain_event;
  while (!out.empty()) {
    const auto piece = out.first(std::min<std::uint64_t>(most, out.size()));
    log.length_bytes = piece.size();
    log.retain_event = retain || piece.size() < out.size();
    const auto sqe = log.to_sqe();
    if (auto ok = judge(port, sqe, true, read_admin(port, sqe, piece)); !ok) return ok;
    log.offset_bytes += piece.size();
    out = out.subspan(piece.size());
  }
  return {};
}

int smart_log(const LogWords& words) {
  const std::uint32_t nsid = words.nsid.value_or(nvme::kNsidAll);
  return show_log(
      words, {.page = LogPage::smart, .nsid = nsid}, nvme::kSmartBytes, nvme::SmartLog::decode,
      [&](const nvme::SmartLog& log) { return nvme::to_json(log, words.detail); },
      [&](const nvme::SmartLog& log) {
        return nvme::print(log, words.target, nsid, words.detail);
      });
}

int error_log(const LogWords& words) {
  constexpr std::uint32_t kEntriesDefault = 64;
  const std::uint32_t wanted = words.entries.value_or(kEntriesDefault);
  if (wanted == 0) return refuse({"--log-entries 0 shows nothing: give 1 or more", EINVAL});
  auto port = CommandPort::open(words.target, words.temporary, PortUse::admin);
  if (!port) return refuse(port.error());
  const auto id = identify_controller(**port);
  if (!id) return refuse(id.error());
  const std::size_t entries = std::min<std::size_t>(wanted, std::size_t{id->elpe} + 1);
  const auto data = read_whole(**port, {.page = LogPage::error_information, .nsid = nvme::kNsidAll},
                               entries * nvme::kErrorEntryBytes);
  if (!data) return refuse(data.error());
  if (words.format == OutputFormat::binary) return write_raw(*data);
  std::vector<nvme::ErrorEntry> log;
  for (std::size_t i = 0; i < entries; ++i) {
    log.push_back(nvme::ErrorEntry::decode(
        std::span(*data).subspan(i * nvme::kErrorEntryBytes, nvme::kErrorEntryBytes)));
  }
  return show(words.format == OutputFormat::json ? nvme::to_json(log)
                                                 : nvme::print(log, words.target));
}

int fw_log(const LogWords& words) {
  return show_log(
      words, {.page = LogPage::firmware_slot, .nsid = nvme::kNsidAll}, nvme::kFirmwareSlotBytes,
      nvme::FirmwareSlots::decode,
      [&](const nvme::FirmwareSlots& log) { return nvme::to_json(log, words.target); },
      [&](const nvme::FirmwareSlots& log) { return nvme::print(log, words.target); });
}

int effects_log(const LogWords& words) {
  auto port = CommandPort::open(words.target, words.temporary, PortUse::admin);
  if (!port) return refuse(port.error());
  std::vector<nvme::Csi> sets;
  if (words.csi) {
    sets = {static_cast<nvme::Csi>(*words.csi)};
  } else {
    auto supported = supported_command_sets(**port);
    if (!supported) return refuse(supported.error());
    sets = std::move(*supported);
  }
  std::vector<nvme::EffectsPage> pages;
  Bytes raw;
  std::string text;
  for (const nvme::Csi csi : sets) {
    const auto data = read_whole(
        **port,
        {.page = LogPage::effects, .nsid = nvme::kNsidAll, .csi = static_cast<std::uint8_t>(csi)},
        nvme::kEffectsBytes);
    if (!data) return refuse(data.error());
    raw.insert(raw.end(), data->begin(), data->end());
    pages.push_back({.csi = csi, .log = nvme::EffectsLog::decode(*data)});
    text += nvme::print(pages.back().log, csi, words.detail);
  }
  if (words.format == OutputFormat::binary) return write_raw(raw);
  return show(words.format == OutputFormat::json ? nvme::to_json(pages) : text);
}

/// The event that the log belongs to is the connection's: it reads the log itself.
int changed_ns_list_log(const LogWords& words) {
  using Log = nvme::ChangedNamespaces;
  return show_log(
      words, {.page = LogPage::changed_namespaces, .nsid = nvme::kNsidAll, .retain_event = true},
      nvme::kChangedNamespacesBytes, Log::decode,
      [&](const Log& log) { return nvme::to_json(log, words.target); },
      [](const Log& log) { return nvme::print(log); });
}

/// The event is the connection's here, too.
int ana_log(const LogWords& words) {
  auto port = CommandPort::open(words.target, words.temporary, PortUse::admin);
  if (!port) return refuse(port.error());
  const auto id = identify_controller(**port);
  if (!id) return refuse(id.error());
  const auto data =
      read_whole(**port,
                 {.page = LogPage::ana,
                  .retain_event = true,
                  .lsp = words.groups_only ? nvme::kLspAnaGroupsOnly : std::uint8_t{0}},
                 ana_log_bytes(*id));
  if (!data) return refuse(data.error());
  if (words.format == OutputFormat::binary) return write_raw(*data);
  const auto log = nvme::AnaLog::decode(*data);
  if (!log) return refuse({fmt::format("{}: {}", words.target, log.error().message), EBADMSG});
  return show(words.format == OutputFormat::json ? nvme::to_json(*log, words.target)
                                                 : nvme::print(*log, words.target));
}

int self_test_log(const LogWords& words) {
  const std::size_t entries =
      std::min<std::size_t>(words.entries.value_or(nvme::kSelfTestResults), nvme::kSelfTestResults);
  return show_log(
      words, {.page = LogPage::self_test, .nsid = nvme::kNsidAll}, nvme::kSelfTestBytes,
      nvme::SelfTestLog::decode,
      [&](const nvme::SelfTestLog& log) { return nvme::to_json(log, entries); },
      [&](const nvme::SelfTestLog& log) {
        return nvme::print(log, words.target, entries, words.detail);
      });
}

int supported_log_pages(const LogWords& words) {
  using Log = nvme::SupportedLogPages;
  return show_log(
      words, {.page = LogPage::supported_pages, .nsid = nvme::kNsidAll},
      nvme::kSupportedLogPagesBytes, Log::decode, [](const Log& log) { return nvme::to_json(log); },
      [&](const Log& log) { return nvme::print(log, words.target, words.detail); });
}

int get_log(const GetLogWords& words) {
  nvme::GetLogPage log = {.page = static_cast<LogPage>(words.log_id),
                          .nsid = words.nsid.value_or(nvme::kNsidAll),
                          .offset_bytes = words.offset,
                          .retain_event = words.retain_event,
                          .lsp = words.lsp,
                          .lsi = words.lsi,
                          .csi = words.csi,
                          .index_offset = words.index_offset,
                          .uuid_index = words.uuid_index};
  std::uint32_t length = words.length_bytes;
  if (words.event != 0) {
    log.page = static_cast<LogPage>(nvme::AsyncEvent::decode(words.event).log_page);
    length = kEventLogBytes;
  }
  if (length == 0) return refuse({"say how many bytes to read: --log-len 512", EINVAL});
  if (length > kLogBytesMax) {
    return refuse({fmt::format("--log-len {} is more than {}, the most that is read of a log",
                               length, kLogBytesMax),
                   EINVAL});
  }
  if (!words.index_offset && words.offset % 4 != 0) {
    return refuse(
        {fmt::format("--lpo {} is no multiple of 4, as an offset in a log must be", words.offset),
         EINVAL});
  }
  auto port = CommandPort::open(words.target, words.temporary, PortUse::admin);
  if (!port) return refuse(port.error());
  // A log is read in dwords.
  Bytes data((std::size_t{length} + 3) / 4 * 4);
  if (auto ok = read_log(**port, log, data, words.piece_bytes); !ok) return refuse(ok.error());
  data.resize(length);
  if (words.format == OutputFormat::binary) return write_raw(data);
  return show(
      nvme::print_log_bytes(words.target, static_cast<std::uint8_t>(log.page), log.nsid, data));
}

}  // namespace nvmf::tools
