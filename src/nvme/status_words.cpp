#include "nvme/status_words.h"

#include <algorithm>

namespace nvmf::nvme {
namespace {

constexpr StatusWords kVendorGeneric = {
    kCodeVendor, "Vendor Specific Generic Status", "",
    "the number belongs to the maker of the target, who alone knows what it means",
    "the manual of the target, or its log"};
constexpr StatusWords kVendorCommand = {
    kCodeVendor, "Vendor Specific Command Status", "",
    "the number belongs to the maker of the target, who alone knows what it means for this command",
    "the manual of the target, or its log"};
constexpr StatusWords kVendorMedia = {
    kCodeVendor, "Vendor Specific Media Error", "",
    "the medium or the data has an error that only the maker of the target knows",
    "the manual of the target, and `nvmf smart-log` for the state of the medium"};
constexpr StatusWords kVendorPath = {
    kCodeVendor, "Vendor Specific Path Error", "",
    "the way to the namespace has an error that only the maker of the target knows",
    "another path, and the manual of the target"};
constexpr StatusWords kVendor = {
    0, "Vendor Specific Status", "",
    "the whole type of status belongs to the maker of the target, who alone knows what it means",
    "the manual of the target, or its log"};
constexpr StatusWords kDirective = {
    kCodeDirective, "Directive Specific Status", "",
    "the number means something for the directive (such as streams) that the command is for",
    "the command without a directive (--dir-type=0)"};
constexpr StatusWords kTransport = {
    kCodeTransport, "Transport Specific Status", "",
    "the number is for the transport to define, and NVMe/TCP defines none",
    "the manual of the target, or its log"};

constexpr const char* kNoSuchNumber =
    "no specification up to NVMe Base 2.3 gives this number a meaning";
constexpr const char* kAskTheMaker = "the manual of the target, which may be newer, or its log";
constexpr StatusWords kUnknownGeneric = {0, "Unknown Generic Status", "", kNoSuchNumber,
                                         kAskTheMaker};
constexpr StatusWords kUnknownCommand = {0, "Unknown Command Specific Status", "", kNoSuchNumber,
                                         kAskTheMaker};
constexpr StatusWords kUnknownMedia = {0, "Unknown Media Error", "", kNoSuchNumber, kAskTheMaker};
constexpr StatusWords kUnknownPath = {0, "Unknown Path Error", "", kNoSuchNumber, kAskTheMaker};
constexpr StatusWords kReservedType = {0, "Status of a Reserved Type", "", kNoSuchNumber,
                                       kAskTheMaker};

const StatusWords& find_or(std::span<const StatusWords> table, std::uint8_t code,
                           const StatusWords& otherwise) {
  const StatusWords* found = find_words(table, code);
  return found != nullptr ? *found : otherwise;
}

const StatusWords& with_vendors(std::span<const StatusWords> table, std::uint8_t code,
                                const StatusWords& vendor, const StatusWords& unknown) {
  return code >= kCodeVendor ? vendor : find_or(table, code, unknown);
}

const StatusWords& command_specific(std::uint8_t code, StatusContext context) {
  if (code >= kCodeVendor) return kVendorCommand;
  if (code >= kCodeDirective && code < kCodeCommandSet) return kDirective;
  if (code < kCodeCommandSet) return find_or(command_status_words(), code, kUnknownCommand);
  // Discover Restart answers Get Log Page, an admin command; I/O has a number of its own there.
  const bool fabrics = context == StatusContext::fabrics || code == kAuthenticationRequired ||
                       (code == kDiscoverRestart && context == StatusContext::admin);
  if (!fabrics) return find_or(io_status_words(), code, kUnknownCommand);
  if (code >= kCodeTransport) return kTransport;
  return find_or(fabrics_status_words(), code, kUnknownCommand);
}

}  // namespace

const StatusWords* find_words(std::span<const StatusWords> table, std::uint8_t code) {
  const auto found = std::ranges::find(table, code, &StatusWords::code);
  return found == table.end() ? nullptr : &*found;
}

const StatusWords& status_words(Status status, StatusContext context) {
  switch (status.sct) {
    case 0:
      return with_vendors(generic_status_words(), status.sc, kVendorGeneric, kUnknownGeneric);
    case 1:
      return command_specific(status.sc, context);
    case 2:
      return with_vendors(media_status_words(), status.sc, kVendorMedia, kUnknownMedia);
    case 3:
      return with_vendors(path_status_words(), status.sc, kVendorPath, kUnknownPath);
    case 7:
      return kVendor;
    default:
      return kReservedType;
  }
}

bool is_reserved(const StatusWords& words) {
  return words.meaning == kNoSuchNumber;
}

}  // namespace nvmf::nvme
