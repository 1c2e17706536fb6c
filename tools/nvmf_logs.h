// The verbs of nvmf that show log pages, each with the words it was given. They return the status
// to exit with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "nvme/log_pages.h"
#include "nvme/print.h"
#include "nvmf_verbs.h"
#include "tool_port.h"
#include "tool_target.h"

namespace nvmf::tools {

struct LogWords {
  std::string target;
  std::optional<std::uint32_t> nsid;
  std::optional<std::uint32_t> entries;  // at most so many are shown
  std::optional<std::uint8_t> csi;
  bool groups_only = false;  // ana-log without namespaces
  OutputFormat format = OutputFormat::normal;
  nvme::Detail detail = nvme::Detail::brief;
  TemporaryOptions temporary;
};

int smart_log(const LogWords& words);
int error_log(const LogWords& words);
int fw_log(const LogWords& words);
int effects_log(const LogWords& words);
int changed_ns_list_log(const LogWords& words);
int ana_log(const LogWords& words);
int self_test_log(const LogWords& words);
int supported_log_pages(const LogWords& words);

/// Any log page, as bytes.
struct GetLogWords {
  std::string target;
  std::optional<std::uint32_t> nsid;
  std::uint8_t log_id = 0xff;  // nvme-cli's default
  std::uint32_t length_bytes = 0;
  std::uint32_t event = 0;    // dword 0 of an event's completion: says which log
  std::uint64_t offset = 0;   // bytes, or an index
  bool index_offset = false;  // OT
  std::uint8_t lsp = 0;
  std::uint16_t lsi = 0;
  bool retain_event = false;
  std::uint8_t uuid_index = 0;
  std::uint8_t csi = 0;
  std::optional<std::uint32_t> piece_bytes;  // at most so much in one command
  OutputFormat format = OutputFormat::normal;
  TemporaryOptions temporary;
};
int get_log(const GetLogWords& words);

/// A log page of any length into `out`, a multiple of 4 bytes. What does not go into one command
/// is read in pieces of at most `piece_bytes`; all but the last retain the event, as in nvme-cli.
/// Errors are judge()'s; EINVAL if pieces are needed and the offset is an index.
Result<void> read_log(CommandPort& port, nvme::GetLogPage log, std::span<std::byte> out,
                      std::optional<std::uint32_t> piece_bytes = {});

}  // namespace nvmf::tools
