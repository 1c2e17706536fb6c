// What each status means and what to try: tables of Base 2.3 §4.2.3, Figures 102 to 107 (Base 2.1
// and 2.2 number them alike), Zoned Namespace 1.2 §3.1.2 and NVM 1.2 §3.1.2, one row per status.
//
// For nvme/status.h and nvme/explain.h, which are what others use.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "nvme/status.h"

namespace nvmf::nvme {

struct StatusWords {
  std::uint8_t code;         // SC
  std::string_view name;     // the specification's
  std::string_view symbol;   // NVME_SC_* of Linux and libnvme without that; empty: they have none
  std::string_view meaning;  // a sentence without a capital and without a full stop
  std::string_view hint;     // goes on after "try "; empty: nothing needs to be tried
};

/// SCT 0h, Figure 102.
std::span<const StatusWords> generic_status_words();
/// SCT 1h below 80h, Figure 103.
std::span<const StatusWords> command_status_words();
/// SCT 1h from 80h, I/O commands, Figure 104.
std::span<const StatusWords> io_status_words();
/// SCT 1h from 80h, fabrics commands, Figure 105.
std::span<const StatusWords> fabrics_status_words();
/// SCT 2h, Figure 106.
std::span<const StatusWords> media_status_words();
/// SCT 3h, Figure 107.
std::span<const StatusWords> path_status_words();

/// The row of a code, or null.
const StatusWords* find_words(std::span<const StatusWords> table, std::uint8_t code);

/// What a status means for a command of that kind: a row of the tables, or one that says of the
/// whole range that it is reserved or a vendor's. Lives forever.
const StatusWords& status_words(Status status, StatusContext context);
/// Whether it is a number that no specification gives a meaning. Those for vendors have one.
bool is_reserved(const StatusWords& words);

// From 80h on the same number means one thing for fabrics commands and another for all others. Two
// of the fabrics' codes are for those others: Get Log Page's Discover Restart, and Authentication
// Required, which any command may get.
inline constexpr std::uint8_t kCodeCommandSet = 0x80;
inline constexpr std::uint8_t kCodeDirective = 0x70;
inline constexpr std::uint8_t kCodeTransport = 0xb0;
inline constexpr std::uint8_t kCodeVendor = 0xc0;
inline constexpr std::uint8_t kDiscoverRestart = 0x90;
inline constexpr std::uint8_t kAuthenticationRequired = 0x91;

}  // namespace nvmf::nvme
