// A status in words for people: what it means, whether to try again, what to try instead; and the
// many ways in which people have one, from logs and from other tools. NVMe Base 2.3 §4.2.3.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nvme/result.h"
#include "nvme/status.h"

namespace nvmf::nvme {

/// One thing that a status may mean. The texts live forever.
struct StatusMeaning {
  std::string_view commands;  // "all", "admin", "fabrics", "I/O": what it means that for
  std::string_view name;      // the specification's
  std::string_view symbol;    // NVME_SC_* of Linux and libnvme without that; empty: none
  std::string_view meaning;   // a sentence without a capital and without a full stop
  std::string_view hint;      // "try ..." goes on with it; empty: nothing needs to be tried
  bool reserved = false;      // no specification names the number
};

/// Every meaning: more than one for command specific numbers from 80h on without a context, exactly
/// one with a context.
std::vector<StatusMeaning> status_meanings(Status status,
                                           std::optional<StatusContext> context = std::nullopt);

/// What to try: "try ...", or empty for a success.
std::string status_hint(Status status, StatusContext context);

/// Name, meaning and what to try, for the end of a message: "Namespace Not Ready (0x082): the
/// namespace is not ready; try it again later, ...".
std::string explain(Status status, StatusContext context);

/// CRDT1 to CRDT3 of Identify Controller, units of 100 ms; 0: none.
using RetryDelays = std::array<std::uint16_t, 3>;

/// What DNR, More and CRD say, each a sentence, the delay in milliseconds where `delays` are known.
/// Empty for a success, and never empty otherwise.
std::vector<std::string> retry_words(Status status, const RetryDelays* delays = nullptr);

/// The number that nvme-cli and ioctl() have for it: SC in bits 7:0, SCT 10:8, CRD 12:11, More 13,
/// DNR 14. It is encode() without the phase.
std::uint16_t nvme_cli_status(Status status);
/// The words of nvme-cli 2.3 for a status, as in its error log; "unrecognized", "Unknown status" or
/// "Vendor Specific Status" for those it has none for. Command specific numbers are read as those
/// of NVM commands: 180h is not CONNECT's.
std::string_view nvme_cli_status_words(Status status);
/// Exactly what nvme-cli 2.3 writes to stderr when a command failed, without the newline:
/// "NVMe status: Invalid Field in Command: A reserved ... field(0x4002)". It then exits with 1,
/// whatever the status.
std::string nvme_cli_status_line(Status status);

/// A status that somebody found somewhere.
struct FoundStatus {
  Status status;
  std::optional<StatusContext> context;  // where the text says that too, as a name does
  bool with_flags = true;  // the text tells DNR, More and CRD; a name, or type and code, does not
  friend bool operator==(const FoundStatus&, const FoundStatus&) = default;
};

/// Reads what people have: nvme-cli's number (0x4002, 16386, 4002h), its whole line "...(0x4002)",
/// SCT and SC ("2/81h", "2:81", "0x2/0x81": always hexadecimal), Linux's log ("sct 0x2 / sc 0x81
/// DNR"), a name ("Invalid Field in Command") or symbol ("NVME_SC_INVALID_FIELD"), in any case of
/// letters. EINVAL with a sentence that says what may be written.
Result<FoundStatus> parse_status(std::string_view text);
/// Dword 3 of a completion queue entry as a number: CID in 15:0, phase 16, status 31:17.
Result<FoundStatus> parse_cqe_status(std::string_view text);

/// A number as people write one: 0x and h are hexadecimal, else decimal.
std::optional<std::uint64_t> parse_number(std::string_view text);

}  // namespace nvmf::nvme
